/* Bounds of one backward sweep, and the table through which the loop calls the kinds of stages. */
typedef struct {
  double mu, epsilon; /* added to the diagonals of Q_uu and of V_xx' */
  int second_order, feedback;
  double *scratch;
} sweep;

typedef struct {
  int n, m, next, shared;
  int model_size, scratch_size;
  void (*prepare)(double *model);
  double (*step)(const double *x, const double *u, const double *p, double *following, double *shared);
  int (*backward)(const sweep *, const double *x, const double *u, const double *p, const double *shared,
                  const double *gap, const double *next_Vx, const double *next_Vxx, double *k, double *K, double *Vx,
                  double *Vxx, double *model, box bounds, double *slope, double *change);
  double (*forward)(const double *x, const double *u, const double *p, const double *k, const double *K,
                    double alpha, box bounds, const double *x_new, double *u_new, double *following, double *shared);
  int (*finite)(const double *x, const double *u, const double *p, const double *shared, double *model);
  /* of a cost that prices constraints: how many, and their new multipliers, their distances, the cost without price */
  int rows;
  double (*price)(const double *x, const double *u, const double *p, double *y, double *distance);
} kind;

static int all_finite(const double *values, long count) {
  int finite = 1;
  for (long i = 0; i < count; i++) finite &= isfinite(values[i]) != 0;
  return finite;
}
