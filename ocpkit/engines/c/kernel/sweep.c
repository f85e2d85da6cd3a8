/* Bounds of one backward sweep, and the table through which the loop calls the kinds of stages. */
typedef struct {
  double mu, epsilon, on_state; /* Q_uu + mu D, and V_xx' + epsilon I + on_state diag |V_xx'| */
  double magnitude;             /* of J */
  int second_order, feedback;
  double *scratch;
} sweep;

/* What all stages of a sweep together say: max |Q_u + y|, the expected change, and the two numbers of
   ocpkit/solvers/verdicts/optimality.py (the second without its factor). */
typedef struct {
  double slope, change, decrement, rounding;
} summary;

/* A larger number takes the place of the largest, NaN for good. */
static void raise_to(double *largest, double value) {
  if (value > *largest || isnan(value)) *largest = value;
}

/* D of the damping (ocpkit/recursion/curvature.py), m numbers each: D itself, zero where it is not known; for the next D the
   product of |Q_uu|'s diagonal over the stages as fraction and exponent, and how many they were; and the last D. */
static double unit_of_damping(double known, double hessian_diagonal, double slope, double magnitude) {
  if (known > 0) return known;
  if (hessian_diagonal > 0) return hessian_diagonal;
  const double steep = slope * slope / (magnitude > 0 ? magnitude : 1);
  return steep > 0 ? steep : 1;
}

static void observe(double *metric, int m, int a, double hessian_diagonal) {
  if (!(hessian_diagonal > 0)) return;
  double product = metric[m + a] * hessian_diagonal;
  if (!(product > 1e-150 && product < 1e150)) {
    int exponent;
    product = frexp(product, &exponent);
    metric[2 * m + a] += exponent;
  }
  metric[m + a] = product, metric[3 * m + a] += 1;
}

typedef struct {
  int n, m, next, shared;
  int model_size, scratch_size, numbers, table; /* c is the last in the memory of a model, from `table` on */
  void (*prepare)(const double *numbers, double *model);
  double (*step)(const double *x, const double *u, const double *p, const double *c, double *following, double *shared);
  int (*backward)(const sweep *, const double *x, const double *u, const double *p, const double *shared,
                  const double *gap, const double *next_Vx, const double *next_Vxx, double *k, double *K, double *Vx,
                  double *Vxx, double *model, box bounds, double *metric, summary *found);
  double (*forward)(const double *x, const double *u, const double *p, const double *c, const double *k,
                    const double *K, double alpha, box bounds, const double *x_new, double *u_new, double *following,
                    double *shared);
  int (*finite)(const double *x, const double *u, const double *p, const double *shared, double *model);
  /* of a cost that prices constraints: how many, and their new multipliers, their distances, the cost without price; g,
     g_u and g_x of each; and see slopes.c */
  int rows;
  double (*price)(const double *x, const double *u, const double *p, const double *c, double *y, double *distance);
  void (*slopes)(const double *x, const double *u, const double *p, const double *c, double *g);
  double (*combine)(const sweep *, const double *x, const double *u, const double *p, const double *rows,
                    const double *next_Vx, const double *next_Vxx, const double *next_a, double *model, double *Vx,
                    double *Vxx, double *a, double *slope, double *curvature, double *reach);
  void (*move)(const double *x, const double *u, const double *p, const double *step, double *model, double *following);
} kind;

#if ANGLES
/* Whole turns in a difference of angles, none in [-pi, pi) (ocpkit/problem/angles.py). */
static double turns(double moved) {
  const double turn = 6.283185307179586;
  return turn * floor(moved / turn + 0.5);
}
#endif

static int all_finite(const double *values, long count) {
  int finite = 1;
  for (long i = 0; i < count; i++) finite &= isfinite(values[i]) != 0;
  return finite;
}
