/* A solver for one problem, in the caller's memory. Before this text stand the problem's numbers (HORIZON, STRIDE, STATES,
   CONTROLS, GAINS, HESSIANS, HANDED_ON, kind_of_stage, own_x0, own_parameters, own_controls, own_lower, own_upper) and
   `options`. LIMITS is the number of controls if any has bounds, else 0; HANDED_ON is the most that a stage hands on. */
void SOLVER(guess)(SOLVER(workspace) *w, const double *controls) {
  memcpy(w->u, controls ? controls : own_controls, sizeof w->u);
  w->guessed = 1;
}

/* A solve from the controls in the workspace, put inside the bounds. */
static ddp begin(SOLVER(workspace) *w, const double *parameters) {
  ddp s = options;
  s.horizon = HORIZON, s.stride = STRIDE, s.kind_of_stage = kind_of_stage;
  s.states = STATES, s.controls = CONTROLS, s.gains = GAINS, s.hessians = HESSIANS;
  s.p = parameters ? parameters : own_parameters;
  s.x = w->x, s.u = w->u, s.x_new = w->x_new, s.u_new = w->u_new, s.gap = w->gap;
  s.k = w->k, s.K = w->K, s.Vx = w->Vx, s.Vxx = w->Vxx, s.scratch = w->scratch;
  if (!w->guessed) SOLVER(guess)(w, 0);
  for (int i = 0; i < LIMITS; i++) w->u[i] = fmin(fmax(w->u[i], own_lower[i]), own_upper[i]);
  if (LIMITS) s.lower = own_lower, s.upper = own_upper, s.y = w->y;
  return s;
}

/* Iterate; the best iterate is left in x and u of the workspace. Returns the number of iterations and the gap that the
   guess had. */
static long run(ddp *s, SOLVER(workspace) *w, long max_iterations, double *first_gap) {
  double row[COLUMNS];
  long iterations = -1;
  s->history = row;
  do {
    ocpkit_advance(s, 1, 0, INFINITY, INFINITY);
    if (iterations < 0) *first_gap = s->max_gap;
  } while (++iterations < max_iterations && s->status == RUNNING);
  if (s->status == CONVERGED && !ocpkit_certify(s)) s->status = SADDLE;
  if (s->u != w->u) memcpy(w->u, s->u, sizeof w->u), memcpy(w->x, s->x, sizeof w->x);
  return iterations;
}

SOLVER(result)
SOLVER(solve)(SOLVER(workspace) *w, const double *x0, const double *parameters, long max_iterations) {
  double first_gap;
  ddp s = begin(w, parameters);
  memcpy(w->x, x0 ? x0 : own_x0, sizeof own_x0);
  const long iterations = run(&s, w, max_iterations, &first_gap);
  const SOLVER(result) result = {s.status, iterations, s.cost, s.gradient_norm, w->x, w->u,
                                 s.has_policy ? w->k : 0, s.has_policy ? w->K : 0};
  return result;
}

void SOLVER(model)(long t, const double *x, const double *u, const double *parameters, double *following) {
  double handed_on[HANDED_ON + 1];
  kinds[kind_of_stage[t]]->step(x, u, (parameters ? parameters : own_parameters) + t * STRIDE, 0, following, handed_on);
}
