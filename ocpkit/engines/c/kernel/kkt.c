/* The KKT system of a Newton step on multiple shooting, for stages of any sizes: see ocpkit/solvers/primal_dual/kkt.py,
   which this follows block by block. Matrices are row by row, those of successive stages one after another. */
#include <math.h>
#include <string.h>

typedef struct {
  long horizon;
  const long *n, *m, *k; /* states of stages 0 ... T, controls of 0 ... T-1, rows of 0 ... T */
  const double *F, *G, *H, *diagonal, *compliance;
  const double *elastic; /* of the gaps, or NULL */
  double *V, *S;         /* V_xx at stages 0 ... T; what stands for it behind each stage's dynamics */
  double *M;             /* where these are elastic, the factor with which it is found */
  double *K, *L;         /* gains, and Cholesky factors of Q_uu */
  double *scratch;       /* 4 (largest n + m)^2 */
} kkt;

/* Lower factor of a symmetric matrix, of which the lower half is read, in place; 0 if it is not positive definite. */
static int cholesky(double *a, long size, long stride) {
  for (long j = 0; j < size; j++) {
    double *row = a + j * stride, pivot = row[j];
    for (long l = 0; l < j; l++) pivot -= row[l] * row[l];
    if (!(pivot > 0) || !isfinite(pivot)) return 0;
    row[j] = sqrt(pivot);
    for (long i = j + 1; i < size; i++) {
      double *below = a + i * stride, sum = below[j];
      for (long l = 0; l < j; l++) sum -= below[l] * row[l];
      below[j] = sum / row[j];
    }
  }
  return 1;
}

/* X <- L^-1 X for rows of a right-hand side with so many columns. */
static void forward(const double *L, long size, long stride, double *X, long columns) {
  for (long i = 0; i < size; i++) {
    double *row = X + i * columns;
    for (long l = 0; l < i; l++) {
      const double factor = L[i * stride + l], *above = X + l * columns;
      for (long j = 0; j < columns; j++) row[j] -= factor * above[j];
    }
    const double inverse = 1 / L[i * stride + i];
    for (long j = 0; j < columns; j++) row[j] *= inverse;
  }
}

/* X <- L^-T X. */
static void backward(const double *L, long size, long stride, double *X, long columns) {
  for (long i = size; i-- > 0;) {
    double *row = X + i * columns;
    for (long l = i + 1; l < size; l++) {
      const double factor = L[l * stride + i], *below = X + l * columns;
      for (long j = 0; j < columns; j++) row[j] -= factor * below[j];
    }
    const double inverse = 1 / L[i * stride + i];
    for (long j = 0; j < columns; j++) row[j] *= inverse;
  }
}

/* Lower half of A <- A + sign X' X, X being (rows, size). */
static void add_square(double *A, const double *X, long rows, long size, double sign) {
  for (long l = 0; l < rows; l++)
    for (long i = 0; i < size; i++) {
      const double factor = sign * X[l * size + i];
      for (long j = 0; j <= i; j++) A[i * size + j] += factor * X[l * size + j];
    }
}

static void mirror(double *A, long size) {
  for (long i = 0; i < size; i++)
    for (long j = 0; j < i; j++) A[j * size + i] = A[i * size + j];
}

/* Lower half of Q <- H + diagonal + G' G / D. */
static void hessian(double *Q, const double *H, const double *diagonal, const double *G, const double *D, long rows,
                    long size) {
  memcpy(Q, H, sizeof(double) * size * size);
  for (long i = 0; i < size; i++) Q[i * size + i] += diagonal[i];
  for (long l = 0; l < rows; l++)
    for (long i = 0; i < size; i++) {
      const double factor = G[l * size + i] / D[l];
      if (factor != 0)
        for (long j = 0; j <= i; j++) Q[i * size + j] += factor * G[l * size + j];
    }
}

/* X <- R^-1 M^-1 R X with R = sqrt(C), or R M^-1 R^-1 X if `back`; M by its factor. */
static void through(const double *M, const double *C, long n, double *X, long columns, int back) {
  for (long i = 0; i < n; i++)
    for (long j = 0; j < columns; j++) X[i * columns + j] *= back ? 1 / sqrt(C[i]) : sqrt(C[i]);
  forward(M, n, n, X, columns);
  backward(M, n, n, X, columns);
  for (long i = 0; i < n; i++)
    for (long j = 0; j < columns; j++) X[i * columns + j] *= back ? sqrt(C[i]) : 1 / sqrt(C[i]);
}

/* S <- (V^-1 + C)^-1 = R^-1 M^-1 R V with M = I + R V R; in M its factor. */
static int soften(double *S, const double *V, const double *C, long n, double *M) {
  for (long i = 0; i < n; i++)
    for (long j = 0; j < n; j++) M[i * n + j] = sqrt(C[i]) * V[i * n + j] * sqrt(C[j]) + (i == j);
  if (!cholesky(M, n, n)) return 0;
  memcpy(S, V, sizeof(double) * n * n);
  through(M, C, n, S, n, 0);
  for (long i = 0; i < n; i++)
    for (long j = 0; j < i; j++) S[i * n + j] = S[j * n + i] = (S[i * n + j] + S[j * n + i]) / 2;
  return 1;
}

typedef struct {
  const double *F, *G, *H, *diagonal, *compliance, *elastic;
  double *V, *S, *M, *K, *L;
} place;

static void step_back(place *at, const kkt *s, long t) {
  const long n = s->n[t], m = s->m[t], z = n + m, next = s->n[t + 1], k = s->k[t];
  at->F -= next * z, at->G -= k * z, at->H -= z * z, at->diagonal -= z, at->compliance -= k;
  if (at->elastic) at->elastic -= next;
  at->V -= n * n, at->S -= next * next, at->M -= next * next, at->K -= m * n, at->L -= m * m;
}

/* The end of all arrays but that of the last stage's own. */
static place end_of(const kkt *s) {
  place at = {s->F, s->G, s->H, s->diagonal, s->compliance, s->elastic, s->V, s->S, s->M, s->K, s->L};
  for (long t = 0; t < s->horizon; t++) {
    const long n = s->n[t], m = s->m[t], z = n + m, next = s->n[t + 1], k = s->k[t];
    at.F += next * z, at.G += k * z, at.H += z * z, at.diagonal += z, at.compliance += k;
    if (at.elastic) at.elastic += next;
    at.V += n * n, at.S += next * next, at.M += next * next, at.K += m * n, at.L += m * m;
  }
  return at;
}

/* Factorize; -1, or the stage at which the inertia is that of no minimum. */
long ocpkit_kkt_factor(const kkt *s) {
  place at = end_of(s);
  const long last = s->n[s->horizon];
  hessian(at.V, at.H, at.diagonal, at.G, at.compliance, s->k[s->horizon], last);
  mirror(at.V, last);
  for (long t = s->horizon; t-- > 0;) {
    const double *V = at.V;
    step_back(&at, s, t);
    const long n = s->n[t], m = s->m[t], z = n + m, next = s->n[t + 1];
    double *Q = s->scratch, *P = Q + z * z, *Y = P + next * z;
    if (at.elastic) {
      if (!soften(at.S, V, at.elastic, next, at.M)) return t;
    } else {
      memcpy(at.S, V, sizeof(double) * next * next);
    }
    hessian(Q, at.H, at.diagonal, at.G, at.compliance, s->k[t], z);
    memset(P, 0, sizeof(double) * next * z);
    for (long i = 0; i < next; i++)
      for (long l = 0; l < next; l++) {
        const double factor = at.S[i * next + l];
        for (long j = 0; j < z; j++) P[i * z + j] += factor * at.F[l * z + j];
      }
    for (long l = 0; l < next; l++)
      for (long i = 0; i < z; i++) {
        const double factor = at.F[l * z + i];
        if (factor != 0)
          for (long j = 0; j <= i; j++) Q[i * z + j] += factor * P[l * z + j];
      }
    for (long a = 0; a < m; a++) {
      memcpy(at.L + a * m, Q + (n + a) * z + n, sizeof(double) * m);
      memcpy(Y + a * n, Q + (n + a) * z, sizeof(double) * n);
    }
    if (!cholesky(at.L, m, m)) return t;
    forward(at.L, m, m, Y, n);
    for (long i = 0; i < n; i++) memcpy(at.V + i * n, Q + i * z, sizeof(double) * n);
    add_square(at.V, Y, m, n, -1);
    mirror(at.V, n);
    for (long i = 0; i < m * n; i++) at.K[i] = -Y[i];
    backward(at.L, m, m, at.K, n);
  }
  return -1;
}

/* y <- y + A x, or A' x; A being (rows, columns). */
static void add_product(double *y, const double *A, const double *x, long rows, long columns) {
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < columns; j++) y[i] += A[i * columns + j] * x[j];
}

static void add_transposed(double *y, const double *A, const double *x, long rows, long columns) {
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < columns; j++) y[j] += A[i * columns + j] * x[i];
}

/* Solve for a right-hand side: q like w, b of the gaps, h of the rows. d gets the step, costates and y the multipliers.
   Until the way forward, u's place in d holds the feedforward, costates V_x behind the dynamics, y h / D. */
void ocpkit_kkt_solve(const kkt *s, const double *q, const double *b, const double *h, double *d, double *costates,
                      double *y) {
  const long T = s->horizon;
  place at = end_of(s);
  const double *qt = q, *bt = b;
  double *dt = d, *ct = costates, *yt = y;
  for (long t = 0; t < T; t++) qt += s->n[t] + s->m[t], bt += s->n[t + 1], dt += s->n[t] + s->m[t], yt += s->k[t];
  ct += bt - b;
  double *v = s->scratch, *Q;
  const long last = s->n[T];
  long rows = s->k[T];
  for (long i = 0; i < yt - y + rows; i++) y[i] = h[i] / s->compliance[i];
  memcpy(v, qt, sizeof(double) * last);
  add_transposed(v, at.G, yt, rows, last);
  for (long t = T; t-- > 0;) {
    const long n = s->n[t], m = s->m[t], z = n + m, next = s->n[t + 1];
    step_back(&at, s, t);
    qt -= z, bt -= next, dt -= z, ct -= next, yt -= s->k[t];
    if (at.elastic) through(at.M, at.elastic, next, v, 1, 0);
    memcpy(ct, v, sizeof(double) * next);
    add_product(v, at.S, bt, next, next);
    Q = v + next;
    memcpy(Q, qt, sizeof(double) * z);
    add_transposed(Q, at.F, v, next, z);
    add_transposed(Q, at.G, yt, s->k[t], z);
    for (long a = 0; a < m; a++) dt[n + a] = -Q[n + a];
    forward(at.L, m, m, dt + n, 1);
    backward(at.L, m, m, dt + n, 1);
    memmove(v, Q, sizeof(double) * n);
    add_transposed(v, at.K, Q + n, m, n);
  }
  memset(d, 0, sizeof(double) * s->n[0]);
  for (long t = 0; t < T; t++) {
    const long n = s->n[t], m = s->m[t], z = n + m, next = s->n[t + 1], k = s->k[t];
    add_product(dt + n, at.K, dt, m, n);
    double *following = dt + z;
    for (long i = 0; i < k; i++) {
      double sum = 0;
      for (long j = 0; j < z; j++) sum += at.G[i * z + j] * dt[j];
      yt[i] += sum / at.compliance[i];
    }
    memcpy(following, bt, sizeof(double) * next);
    add_product(following, at.F, dt, next, z);
    double *slope = s->scratch;
    memcpy(slope, ct, sizeof(double) * next);
    add_product(ct, at.S, following, next, next);
    if (at.elastic) {
      through(at.M, at.elastic, next, following, 1, 1);
      for (long i = 0; i < next; i++) following[i] -= at.elastic[i] * slope[i];
    }
    at.F += next * z, at.G += k * z, at.S += next * next, at.M += next * next, at.K += m * n, at.compliance += k;
    if (at.elastic) at.elastic += next;
    dt += z, bt += next, ct += next, yt += k;
  }
  for (long i = 0; i < rows; i++) {
    double sum = 0;
    for (long j = 0; j < last; j++) sum += at.G[i * last + j] * dt[j];
    yt[i] += sum / at.compliance[i];
  }
}
