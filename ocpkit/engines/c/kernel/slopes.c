/* Of one kind of stage, for the natural units of units.c: the Bellman step of J with a combination of the rows beside it,
   and what the linearized dynamics make of a step. `p` takes the price of the rows out of J. */
static void STAGE(assemble)(const sweep *s, const double *F, const double *H, const double *Vx, const double *Vxx,
                            double *restrict W, double *restrict Q);
static int STAGE(eliminate)(double *restrict Q, const double *damping, double *restrict negative);
static void STAGE(reduce)(double *restrict Q, const double *negative, int feedback, double *restrict Vx,
                          double *restrict Vxx);

/* Sizes up to this are what a price that is switched off leaves (see units.c). */
static double STAGE(cut)(double value) { return fabs(value) < 1e-100 ? 0 : fabs(value); }

static void STAGE(linearize)(const double *x, const double *u, const double *p, const double *v, double *F, double *H) {
  const double *const c = F + STAGE(table);
  double following[NEXT], handed_on[SHARED + 1];
  STAGE(step)(x, u, p, c, following, handed_on);
  STAGE(derive)(x, u, p, c, v, handed_on, F, H, 0);
}

/* `rows` (Z): the gradient of the combination at this stage, `a` that from the next state on. Where Q_uu is positive
   definite, u is eliminated and a' Q_uu^-1 a returned, else u stays, and -1 is returned. */
static double STAGE(combine)(const sweep *s, const double *x, const double *u, const double *p, const double *rows,
                             const double *next_Vx, const double *next_Vxx, const double *next_a, double *model,
                             double *Vx, double *Vxx, double *a, double *slope, double *curvature, double *reach) {
  double *const F = model, *const H = F + NEXT * WIDTH;
  double *const W = s->scratch + ROUND_UP(NEXT), *const Q = W + NEXT * WIDTH, *const negative = Q + Z * WIDTH;
  const sweep undamped = {0, 0, 0, 0, 0, 0, 0};
  const double damping[M + 1] = {0};
  double y[M + 1], cheap = 0;
  int regular = 1;
  STAGE(linearize)(x, u, p, next_Vx, F, H);
  STAGE(assemble)(&undamped, F, H, next_Vx, next_Vxx, W, Q);
  for (int z = 0; z < Z; z++) {
    double sum = rows[z];
    for (int i = 0; i < NEXT; i++) sum += F[i * WIDTH + z] * next_a[i];
    *(z < M ? reach + z : a + z - M) = sum;
  }
  for (int i = 0; i < M; i++) {
    slope[i] = STAGE(cut)(Q[i * WIDTH + Z]), curvature[i] = STAGE(cut)(Q[i * WIDTH + i]);
    regular &= curvature[i] > 0;
  }
  regular = regular && STAGE(eliminate)(Q, damping, negative);
  STAGE(reduce)(Q, negative, regular, Vx, Vxx);
  if (!regular) return -1;
  for (int i = 0; i < M; i++) {
    y[i] = reach[i];
    for (int b = 0; b < i; b++) y[i] -= Q[b * WIDTH + i] * y[b];
    y[i] *= Q[i * WIDTH + i], cheap += y[i] * y[i];
    for (int j = 0; j < N; j++) a[j] -= Q[i * WIDTH + M + j] * y[i];
  }
  return cheap;
}

static void STAGE(move)(const double *x, const double *u, const double *p, const double *step, double *model,
                        double *following) {
  double *const F = model, *const H = F + NEXT * WIDTH;
  for (int i = 0; i < NEXT; i++) following[i] = 0;
  STAGE(linearize)(x, u, p, following, F, H);
  for (int i = 0; i < NEXT; i++)
    for (int z = 0; z < Z; z++) following[i] += F[i * WIDTH + z] * step[z];
}
