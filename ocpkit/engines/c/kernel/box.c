/* minimize k'Hk / 2 + g'k over lower <= k <= upper: ocpkit/recursion/box.py, which says how and why, number by number.
   H is dense and symmetric. y: multipliers, on entry those of a similar problem, whose active entries the search starts
   from. `active` says which entries are at a bound in the end; false where H is not positive definite among the others. */
typedef struct {
  const double *lower, *upper; /* of the controls themselves; null where no stage has bounds */
  double *y;
} box;

enum { BOX_STEPS = 8, BOX_STEPS_PER_ENTRY = 4 };

/* At a bound that the slope, by more than -tolerance, pushes against; without room always. */
INLINE int outward(double k, double slope, double lower, double upper, double tolerance) {
  return (k <= lower && slope > -tolerance) || (k >= upper && slope < tolerance) || lower == upper;
}

INLINE void box_slope(int m, const double *H, const double *g, const double *k, double *slope) {
  for (int i = 0; i < m; i++) {
    slope[i] = g[i];
    for (int j = 0; j < m; j++) slope[i] += H[i * m + j] * k[j];
  }
}

/* step = -H_ff^-1 slope_f, zero elsewhere, by Cholesky's algorithm on the rows that are free. */
INLINE int box_newton(int m, const double *H, const double *slope, const int *active, double *L, double *step) {
  for (int i = 0; i < m; i++) {
    step[i] = 0;
    if (active[i]) continue;
    for (int j = 0; j <= i; j++) {
      if (active[j]) continue;
      double sum = H[i * m + j];
      for (int k = 0; k < j; k++)
        if (!active[k]) sum -= L[i * m + k] * L[j * m + k];
      if (j < i)
        L[i * m + j] = sum / L[j * m + j];
      else if (!(sum > 0) || isinf(sum))
        return 0;
      else
        L[i * m + i] = sqrt(sum);
    }
    double sum = -slope[i];
    for (int k = 0; k < i; k++)
      if (!active[k]) sum -= L[i * m + k] * step[k];
    step[i] = sum / L[i * m + i];
  }
  for (int i = m - 1; i >= 0; i--) {
    if (active[i]) continue;
    for (int k = i + 1; k < m; k++)
      if (!active[k]) step[i] -= L[k * m + i] * step[k];
    step[i] /= L[i * m + i];
  }
  return 1;
}

/* `work` holds m (m + 2) numbers. */
INLINE int box_minimize(int m, const double *H, const double *g, const double *lower, const double *upper, double *y,
                        double *k, int *active, double *work) {
  double *const L = work, *const slope = L + m * m, *const step = slope + m;
  const double rounding = 16 * 2.220446049250313e-16;
  double start = 0;
  for (int i = 0; i < m; i++) k[i] = y[i] > 0 ? upper[i] : y[i] < 0 ? lower[i] : 0;
  box_slope(m, H, g, k, slope);
  for (int i = 0; i < m; i++) start += k[i] * (g[i] + slope[i]);
  if (!(start <= 0))
    for (int i = 0; i < m; i++) k[i] = 0, slope[i] = g[i];
  for (int i = 0; i < m; i++) active[i] = outward(k[i], slope[i], lower[i], upper[i], 0);
  for (int count = 0; count < BOX_STEPS + BOX_STEPS_PER_ENTRY * m; count++) {
    if (!box_newton(m, H, slope, active, L, step)) return 0;
    double length = 1;
    for (int i = 0; i < m; i++)
      if (step[i] != 0) length = fmin(length, ((step[i] > 0 ? upper[i] : lower[i]) - k[i]) / step[i]);
    for (int i = 0; i < m; i++) {
      const double bound = step[i] > 0 ? upper[i] : lower[i];
      const int met = step[i] != 0 && (bound - k[i]) / step[i] <= length;
      k[i] = met ? bound : k[i] + length * step[i];
      active[i] |= met && length < 1;
    }
    box_slope(m, H, g, k, slope);
    if (length < 1) continue;
    int wrong = 0;
    for (int i = 0; i < m; i++) {
      double size = fabs(g[i]);
      for (int j = 0; j < m; j++) size += fabs(H[i * m + j] * k[j]);
      if (active[i] && !outward(k[i], slope[i], lower[i], upper[i], rounding * size)) active[i] = 0, wrong = 1;
    }
    if (wrong) continue;
    double sum = 0;
    for (int i = 0; i < m; i++) y[i] = active[i] ? -slope[i] : 0, sum += slope[i];
    return isfinite(sum) != 0;
  }
  return 0;
}
