/* What does not change in the derivatives F and H of a stage, with the table c behind them: the numbers of the model, and
   what follows from these alone. And z = (u, x) for products. */
enum { STAGE(table) = (NEXT + Z) * WIDTH };

static void STAGE(prepare)(const double *numbers, double *model) {
  memcpy(model, STAGE(fixed), sizeof STAGE(fixed));
  if (NUMBERS) memcpy(model + STAGE(table), numbers, NUMBERS * sizeof *numbers);
  STAGE(settle)(model + STAGE(table), model, model + NEXT * WIDTH);
}

INLINE void STAGE(gather)(const double *x, const double *u, double *z) {
  for (int a = 0; a < M; a++) z[a] = u[a];
  for (int i = 0; i < N; i++) z[M + i] = x[i];
}
