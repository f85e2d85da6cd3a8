/* What does not change in the derivatives F and H of a stage, and z = (u, x) for products with them. */
static void STAGE(prepare)(double *model) { memcpy(model, STAGE(fixed), sizeof STAGE(fixed)); }

INLINE void STAGE(gather)(const double *x, const double *u, double *z) {
  for (int a = 0; a < M; a++) z[a] = u[a];
  for (int i = 0; i < N; i++) z[M + i] = x[i];
}
