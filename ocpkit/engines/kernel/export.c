/* A solver for one problem, in static memory. Before this text stand the solver's numbers (HORIZON to SCRATCH),
   the problem's (kind_of_stage, own_x0, own_parameters, own_controls, own_lower, own_upper) and `options`. LIMITS is the
   number of controls if any has bounds, else 0. */
static double x[STATES], u[CONTROLS], x_new[STATES], u_new[CONTROLS], gap[STATES];
static double k[CONTROLS], K[GAINS], Vx[STATES], Vxx[HESSIANS], scratch[SCRATCH];
static double y[LIMITS + 1];
static int guessed;

void SOLVER(guess)(const double *controls) {
  memcpy(u, controls ? controls : own_controls, sizeof u);
  guessed = 1;
}

SOLVER(result) SOLVER(solve)(const double *x0, const double *parameters, long max_iterations) {
  double row[COLUMNS];
  ddp s = options;
  s.horizon = HORIZON, s.stride = STRIDE, s.kind_of_stage = kind_of_stage;
  s.states = STATES, s.controls = CONTROLS, s.gains = GAINS, s.hessians = HESSIANS;
  s.p = parameters ? parameters : own_parameters;
  s.x = x, s.u = u, s.x_new = x_new, s.u_new = u_new, s.gap = gap;
  s.k = k, s.K = K, s.Vx = Vx, s.Vxx = Vxx, s.scratch = scratch, s.history = row;
  if (!guessed) SOLVER(guess)(0);
  for (int i = 0; i < LIMITS; i++) u[i] = fmin(fmax(u[i], own_lower[i]), own_upper[i]);
  if (LIMITS) s.lower = own_lower, s.upper = own_upper, s.y = y;
  memcpy(x, x0 ? x0 : own_x0, sizeof own_x0);
  long iterations = -1;
  do
    ocpkit_advance(&s, 1, 0, INFINITY, INFINITY);
  while (++iterations < max_iterations && s.status == RUNNING);
  /* the best iterate may lie in the candidate's memory, and the guess for the next solve is kept in u */
  if (s.u != u) memcpy(u, s.u, sizeof u), memcpy(x, s.x, sizeof x);
  const SOLVER(result) result = {s.status, iterations, s.cost, s.gradient_norm, x, u, s.has_policy ? k : 0,
                                 s.has_policy ? K : 0};
  return result;
}
