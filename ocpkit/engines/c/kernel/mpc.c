/* The receding horizon of ocpkit/control/mpc.py, which says what and why, for states of size STATE and controls of size CONTROL.
   FEASIBILITY_TOLERANCE is the largest gap of a plan that may replace a better one. */
enum { OPTIMAL, IMPROVING, HELD, LOST };

/* The plan as it goes on from now, as a guess; beyond its end the last control is held and the states follow the model. */
static void shift(SOLVER(mpc) *c, const double *parameters) {
  SOLVER(workspace) *const w = &c->solver;
  for (long t = 0; t <= HORIZON; t++) {
    const long from = t + c->offset < HORIZON ? t + c->offset : HORIZON;
    memcpy(w->x + t * STATE, c->states + from * STATE, STATE * sizeof *w->x);
  }
  for (long t = 0; t < HORIZON; t++) {
    const long from = t + c->offset < HORIZON ? t + c->offset : HORIZON - 1;
    memcpy(w->u + t * CONTROL, c->controls + from * CONTROL, CONTROL * sizeof *w->u);
  }
  for (long t = c->offset < HORIZON ? HORIZON - c->offset : 0; t < HORIZON; t++) {
    double following[STATE];
    SOLVER(model)(t, w->x + t * STATE, w->u + t * CONTROL, parameters, following);
    if (!all_finite(following, STATE)) break;
    memcpy(w->x + (t + 1) * STATE, following, sizeof following);
  }
  /* what held at a stage begins the search one stage earlier */
  memmove(w->y, w->y + CONTROL, (CONTROLS - CONTROL) * sizeof *w->y);
}

/* Solve from x; a usable result becomes the plan. */
static SOLVER(command) renew(SOLVER(mpc) *c, const double *x, const double *parameters, long iterations) {
  SOLVER(workspace) *const w = &c->solver;
  double allowed = 0;
  if (c->planned) shift(c, parameters);
  ddp s = begin(w, parameters);
  s.has_gaps = c->planned;
  memset(w->gap, 0, STATE * sizeof *w->gap);
  memcpy(w->x, x, STATE * sizeof *w->x);
  const long taken = run(&s, w, c->planned ? iterations : SOLVER(MAX_ITERATIONS), &allowed);
  const int stopped_early = s.status == RUNNING || s.status == STALLED || s.status == SADDLE;
  const int close = s.max_gap <= fmax(FEASIBILITY_TOLERANCE, allowed);
  const int usable = isfinite(s.cost) && (s.status == CONVERGED || (stopped_early && close));
  if (usable) {
    memcpy(c->states, w->x, sizeof w->x), memcpy(c->controls, w->u, sizeof w->u);
    memcpy(c->feedback_gains, w->K, sizeof w->K);
    c->planned = 1, c->has_gains = s.has_policy, c->offset = 0;
  } else if (!c->planned)
    w->guessed = 0;
  const long health = !usable ? HELD : s.status == CONVERGED ? OPTIMAL : IMPROVING;
  const SOLVER(command) command = {health, s.status, taken, 0, s.cost, s.max_gap};
  return command;
}

/* The plan's control now, with its feedback on x if there is one, inside the bounds; false where it has none. */
static int control_now(const SOLVER(mpc) *c, const double *x, double *u) {
  const long t = c->offset;
  if (!c->planned || t >= HORIZON) return 0;
  for (int a = 0; a < CONTROL; a++) {
    const double *const K = c->feedback_gains + (t * CONTROL + a) * STATE;
    double sum = 0;
    if (x && c->has_gains)
      for (int i = 0; i < STATE; i++) sum += K[i] * (x[i] - c->states[t * STATE + i]);
    u[a] = c->controls[t * CONTROL + a] + sum;
  }
  if (!all_finite(u, CONTROL)) return 0;
  if (LIMITS)
    for (int a = 0; a < CONTROL; a++) u[a] = fmin(fmax(u[a], own_lower[t * CONTROL + a]), own_upper[t * CONTROL + a]);
  return 1;
}

SOLVER(command)
SOLVER(mpc_step)(SOLVER(mpc) *c, const double *x, const double *parameters, long iterations, double *u) {
  const int measured = all_finite(x, STATE);
#if ANGLES
  double near[STATE]; /* the state measured, its angles within half a turn of the plan's */
#endif
  SOLVER(command) command = {HELD, INVALID_INPUT, 0, 0, NAN, NAN};
  if (c->planned) c->offset++;
#if ANGLES
  if (measured && c->planned) {
    const double *const expected = c->states + (c->offset < HORIZON ? c->offset : HORIZON) * STATE;
    for (int i = 0; i < STATE; i++) near[i] = x[i];
    for (int i = 0; i < ANGLES; i++) near[angles[i]] -= turns(x[angles[i]] - expected[angles[i]]);
    x = near;
  }
#endif
  if (measured) command = renew(c, x, parameters, iterations);
  command.offset = c->offset;
  if (!control_now(c, measured ? x : 0, u)) {
    command.health = LOST;
    for (int a = 0; a < CONTROL; a++) u[a] = NAN;
  }
  return command;
}
