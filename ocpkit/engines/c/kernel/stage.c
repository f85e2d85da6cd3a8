/* The Bellman step of one kind of stage (ocpkit/recursion/bellman.py, Eq. 3-5) and its forward step. Before this text stand
   N, M, NEXT (sizes of x, u and the next state), Z = M + N, WIDTH (Z + 1 in whole vectors), SHARED (the number of
   values that a step hands on to its derivatives), BOUNDED (whether controls have bounds), PRICED (the end of the table
   of a kind: what there is of constraints that the cost prices, see sweep.c), NUMBERS and TABLE (how many numbers a model
   begins with, and how many c has with what follows from them), STAGE(name), and the model: STAGE(prepare), STAGE(step),
   STAGE(derive).

   Variables are ordered z = (u, x), with one more column for gradients, so that eliminating u from

       Q = | Q_uu Q_ux Q_u |
           |      Q_xx Q_x |        (upper triangle, rows of WIDTH numbers)

   by M steps of Cholesky's algorithm leaves V_xx and V_x where Q_xx and Q_x were, and U and Y = U^-T (Q_ux Q_u) above. */
/* Eq. 3: Q = H + F' V' F, where H holds the derivatives of the cost (and V_x'·f_zz), and F = (f_u f_x 0). */
static void STAGE(assemble)(const sweep *s, const double *F, const double *H, const double *Vx, const double *Vxx,
                            double *restrict W, double *restrict Q) {
  multiply(0, NEXT, NEXT, Vxx, NEXT, 1, F, 0, W, WIDTH, 0);
  if (s->epsilon != 0 || s->on_state != 0)
    for (int i = 0; i < NEXT; i++) {
      const double added = s->epsilon + s->on_state * fabs(Vxx[i * NEXT + i]);
      for (int j = 0; j < WIDTH; j++) W[i * WIDTH + j] += added * F[i * WIDTH + j];
    }
  for (int i = 0; i < NEXT; i++) W[i * WIDTH + Z] = Vx[i];
  multiply(0, Z, NEXT, F, 1, WIDTH, W, H, Q, WIDTH, 1);
}

/* Eq. 4, elimination: false where Q_uu + mu D has no Cholesky factor. `negative` holds -Y for the update of V. */
static int STAGE(eliminate)(double *restrict Q, const double *damping, double *restrict negative) {
  double last = 1;
  for (int a = 0; a < M; a++) {
    double *const pivot = Q + a * WIDTH;
    const double square = pivot[a] + damping[a];
    if (!(square > 0)) return 0;
    last = sqrt(square);
    const double inverse = 1 / last;
    for (int j = a + 1; j < WIDTH; j++) pivot[j] *= inverse;
    pivot[a] = inverse;
    for (int b = a + 1; b < M; b++) {
      const double factor = pivot[b];
      for (int j = b / PACK * PACK; j < WIDTH; j++) Q[b * WIDTH + j] -= factor * pivot[j];
    }
    for (int j = M / PACK * PACK; j < WIDTH; j++) negative[a * WIDTH + j] = -pivot[j];
  }
  return isfinite(last) != 0;
}

/* Eq. 5: V_xx = Q_xx - Y'Y and V_x = Q_x - Y'y, copied out of Q; without feedback Q_xx and Q_x themselves. */
static void STAGE(reduce)(double *restrict Q, const double *negative, int feedback, double *restrict Vx,
                          double *restrict Vxx) {
  if (feedback) multiply(M, Z, M, negative, 1, WIDTH, Q, Q, Q, WIDTH, 1);
  for (int i = 0; i < N; i++) {
    const double *const row = Q + (M + i) * WIDTH + M;
    Vx[i] = row[N];
    for (int j = i; j < N; j++) Vxx[i * N + j] = row[j];
    for (int j = 0; j < i; j++) Vxx[i * N + j] = Vxx[j * N + i];
  }
}

/* Eq. 4, back-substitution: (K k) = U^-1 (-Y); the diagonal of U is kept as its inverse. */
static void STAGE(gains)(const double *Q, double *restrict negative, double *restrict k, double *restrict K) {
  for (int a = M - 1; a >= 0; a--) {
    double *const row = negative + a * WIDTH;
    for (int b = a + 1; b < M; b++) {
      const double factor = Q[a * WIDTH + b];
      for (int j = M / PACK * PACK; j < WIDTH; j++) row[j] -= factor * negative[b * WIDTH + j];
    }
    const double inverse = Q[a * WIDTH + a];
    for (int j = M / PACK * PACK; j < WIDTH; j++) row[j] *= inverse;
    k[a] = row[Z];
    for (int j = 0; j < N; j++) K[a * N + j] = row[M + j];
  }
}

#if BOUNDED
/* Eq. 4 within the bounds: k, and Q so that eliminating u from it moves only what is free. What is active is a constant,
   whose columns go to those of the gradients, and its rows become those of an identity, without Q_ux and Q_u. */
static int STAGE(hold)(double *restrict Q, const double *damping, const double *u, box bounds, double *restrict k,
                       double *restrict slope, double *change) {
  double H[M * M], g[M], lower[M], upper[M], work[M * (M + 2)];
  int active[M], any = 0;
  for (int a = 0; a < M; a++) {
    for (int b = a; b < M; b++) H[a * M + b] = Q[a * WIDTH + b], H[b * M + a] = Q[a * WIDTH + b];
    H[a * M + a] += damping[a];
    g[a] = Q[a * WIDTH + Z], lower[a] = bounds.lower[a] - u[a], upper[a] = bounds.upper[a] - u[a];
  }
  if (!box_minimize(M, H, g, lower, upper, bounds.y, k, active, work)) return 0;
  for (int a = 0; a < M; a++) {
    slope[a] = g[a] + bounds.y[a];
    *change += (g[a] - bounds.y[a]) * k[a] / 2;
    any |= active[a];
  }
  if (!any) return 1;
  for (int a = 0; a < M; a++) {
    if (!active[a]) continue;
    for (int j = 0; j < a; j++) Q[j * WIDTH + Z] += Q[j * WIDTH + a] * k[a], Q[j * WIDTH + a] = 0;
    for (int j = a + 1; j < Z; j++) Q[j * WIDTH + Z] += Q[a * WIDTH + j] * k[a];
    for (int j = a; j < WIDTH; j++) Q[a * WIDTH + j] = j == a;
  }
  return 1;
}
#endif

static int STAGE(backward)(const sweep *s, const double *x, const double *u, const double *p, const double *shared,
                           const double *gap, const double *next_Vx, const double *next_Vxx, double *k, double *K, double *Vx,
                           double *Vxx, double *model, box bounds, double *metric, summary *found) {
  double *const F = model, *const H = F + NEXT * WIDTH;
  const double *const c = model + STAGE(table);
  double *const v = s->scratch, *const W = v + ROUND_UP(NEXT), *const Q = W + NEXT * WIDTH;
  double *const negative = Q + Z * WIDTH;
  double damping[M + 1], hessian_diagonal[M + 1], slope[M + 1];
  (void)bounds;
  for (int i = 0; i < NEXT; i++) v[i] = next_Vx[i];
  if (gap)
    for (int i = 0; i < NEXT; i++) {
      double moved = (s->epsilon + s->on_state * fabs(next_Vxx[i * NEXT + i])) * gap[i];
      for (int j = 0; j < NEXT; j++) moved += next_Vxx[i * NEXT + j] * gap[j];
      v[i] += moved;
      found->change += gap[i] * (next_Vx[i] + moved / 2);
    }
  STAGE(derive)(x, u, p, c, v, shared, F, H, s->second_order);
  STAGE(assemble)(s, F, H, v, next_Vxx, W, Q);
  for (int a = 0; a < M; a++) {
    hessian_diagonal[a] = fabs(Q[a * WIDTH + a]), slope[a] = Q[a * WIDTH + Z];
    damping[a] = s->mu > 0 ? s->mu * unit_of_damping(metric[a], hessian_diagonal[a], slope[a], s->magnitude) : 0;
    observe(metric, M, a, hessian_diagonal[a]);
  }
  if (!s->feedback) STAGE(reduce)(Q, negative, 0, Vx, Vxx);
#if BOUNDED
  double minimizer[M];
  if (!STAGE(hold)(Q, damping, u, bounds, minimizer, slope, &found->change)) return 0;
  if (!STAGE(eliminate)(Q, damping, negative)) return 0;
#else
  if (!STAGE(eliminate)(Q, damping, negative)) return 0;
  for (int a = 0; a < M; a++) found->change -= Q[a * WIDTH + Z] * Q[a * WIDTH + Z] / 2;
#endif
  for (int a = 0; a < M; a++) {
    const double square = slope[a] * slope[a];
    raise_to(&found->slope, fabs(slope[a]));
    if (square > found->decrement * hessian_diagonal[a]) found->decrement = hessian_diagonal[a] > 0 ? square / hessian_diagonal[a] : INFINITY;
    found->rounding += hessian_diagonal[a] * u[a] * u[a];
  }
  if (s->feedback) STAGE(reduce)(Q, negative, 1, Vx, Vxx);
  STAGE(gains)(Q, negative, k, K);
#if BOUNDED
  for (int a = 0; a < M; a++) k[a] = minimizer[a];
#endif
  if (!s->feedback)
    for (int i = 0; i < M * N; i++) K[i] = 0;
  for (int i = 0; i < N; i++) found->rounding += fabs(Vxx[i * N + i]) * x[i] * x[i];
  return 1;
}

/* u + alpha k + K (x_new - x) inside the bounds, the next state from there, and the cost of the stage. */
static double STAGE(forward)(const double *x, const double *u, const double *p, const double *c, const double *k,
                             const double *K, double alpha, box bounds, const double *x_new, double *u_new, double *following,
                             double *shared) {
  (void)bounds;
  double moved[N];
  for (int i = 0; i < N; i++) moved[i] = x_new[i] - x[i];
#if ANGLES
  for (int i = 0; i < ANGLES; i++) moved[angles[i]] -= turns(moved[angles[i]]);
#endif
  for (int a = 0; a < M; a++) {
    double sum = u[a] + alpha * k[a];
    for (int j = 0; j < N; j++) sum += K[a * N + j] * moved[j];
#if BOUNDED
    sum = sum < bounds.lower[a] ? bounds.lower[a] : sum > bounds.upper[a] ? bounds.upper[a] : sum;
#endif
    u_new[a] = sum;
  }
  return STAGE(step)(x_new, u_new, p, c, following, shared);
}

/* Whether all first-order and Gauss-Newton derivatives are finite numbers. */
static int STAGE(finite)(const double *x, const double *u, const double *p, const double *shared, double *model) {
  double *const F = model, *const H = F + NEXT * WIDTH;
  STAGE(derive)(x, u, p, model + STAGE(table), x, shared, F, H, 0);
  return all_finite(F, NEXT * WIDTH) && all_finite(H, Z * WIDTH);
}

enum {
  STAGE(model_size) = STAGE(table) + ROUND_UP(TABLE),
  STAGE(work_size) = ROUND_UP(NEXT) + (NEXT + Z + M) * WIDTH,
  STAGE(shared_size) = SHARED
};

static const kind STAGE(kind) = {
    N, M, NEXT, STAGE(shared_size), STAGE(model_size), STAGE(work_size), NUMBERS, STAGE(table),
    STAGE(prepare), STAGE(step), STAGE(backward), STAGE(forward), STAGE(finite), PRICED,
};
