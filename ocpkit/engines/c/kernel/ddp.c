/* The whole DDP iteration (ocpkit/solvers/ddp/ddp.py, which says what and why) on memory that the caller owns.
   Before this text stand `kinds` (a table of the kinds of stages) and the terminal cost: FINAL (its size),
   terminal_fixed, terminal_settle, terminal_cost, terminal_derive. */
enum { RUNNING, CONVERGED, STALLED, INFEASIBLE, DIVERGED, INVALID_INPUT, GAVE_UP, SADDLE };
enum { NO_REASON, NOT_FINITE, NOT_POSITIVE_DEFINITE };
/* columns of a row of history: those of every kind, then those of a DDPIteration */
enum { COST, EXPECTED, ACTUAL, GRADIENT_NORM, STEP_SIZE, SECONDS, REGULARIZATION, GAP, COLUMNS };
static const double ROUNDING = 16 * 2.220446049250313e-16, BLOWN_UP = 1e100, SPREAD = 1e-60, PROMISE_FACTOR = 1e3,
                    BOTTOMLESS = 1e60;
static const double SLIGHT = 1e-9;
enum { IDLE_LIMIT = 10, METRIC = 5 };

typedef struct {
  /* options of DDP, as in Python */
  double gradient_tolerance, cost_tolerance, gap_tolerance, min_regularization, max_regularization;
  double regularization_factor, tikhonov, armijo;
  long second_order, feedback, on_state, quadratic, line_search, step_sizes, scaling;
  /* problem: T stages, the kind of each; parameters `stride` apart (0: shared); sums of sizes */
  long horizon, stride, states, controls, gains, hessians;
  const long *kind_of_stage;
  const double *p;
  /* of the model: those of each kind of stage, then those of the end; null where there are none */
  const double *numbers;
  /* memory: states (and as many gaps), controls, policy, value, one row of history per iteration, the rest */
  double *x, *u, *x_new, *u_new, *gap, *k, *K, *Vx, *Vxx, *scratch, *history, *shared, *shared_new;
  /* bounds of the controls and their multipliers (on entry, where searches begin); null where no control has bounds */
  const double *lower, *upper;
  double *y;
  /* D of the sweep that a resumed solve has ended with, for each kind of stage */
  const double *known_metric;
  /* what the iteration knows */
  double cost, cost_new, magnitude, magnitude_new, highest, first, unit, open, max_gap, regularization, growth;
  double gap_weight, gradient_norm, expected_change, decrement, rounding;
  long has_gaps, has_policy, started, idle, status, reason, reason_stage, rows, handed_on;
} ddp;

static double seconds_now(void) {
#ifdef NO_CLOCK
  return 0;
#else
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
#endif
}

static const kind *stage_kind(const ddp *s, long t) { return kinds[s->kind_of_stage[t]]; }

/* The bounds from the control of number i on. */
static box bounds_from(const ddp *s, long i) {
  box bounds = {0, 0, 0};
  if (s->lower) bounds.lower = s->lower + i, bounds.upper = s->upper + i, bounds.y = s->y + i;
  return bounds;
}

/* The scratch memory: the derivatives of each kind with its table c, the table of the end, V_xx of this stage and of the
   next, what one stage works with, twice (for the trajectory and for the candidate) what each stage hands on to its
   derivatives, and D of the damping, which kinds with as many controls share. */
static long models_size(void) {
  long size = 0;
  for (int i = 0; i < KINDS; i++) size += kinds[i]->model_size;
  return ROUND_UP(size + FINAL_TABLE);
}

static long work_size(void) {
  long largest = 0;
  for (int i = 0; i < KINDS; i++)
    if (kinds[i]->scratch_size > largest) largest = kinds[i]->scratch_size;
  return ROUND_UP(largest);
}

static long hessian_size(void) {
  long largest = 0;
  for (int i = 0; i < KINDS; i++)
    if (kinds[i]->n * kinds[i]->n > largest) largest = kinds[i]->n * kinds[i]->n;
  return ROUND_UP(largest);
}

static long shared_size(const ddp *s) {
  long size = 0;
  for (long t = 0; t < s->horizon; t++) size += stage_kind(s, t)->shared;
  return size;
}

static long metrics_size(void) {
  long size = 0;
  for (int i = 0; i < KINDS; i++) size += METRIC * kinds[i]->m;
  return ROUND_UP(size);
}

ENTRY long ocpkit_scratch_size(const ddp *s) {
  return models_size() + 2 * hessian_size() + work_size() + 2 * ROUND_UP(shared_size(s)) + metrics_size();
}

static double *metric_of(const ddp *s, long which) {
  double *metric = s->scratch + models_size() + 2 * hessian_size() + work_size() + 2 * ROUND_UP(s->handed_on);
  for (long i = 0; kinds[i]->m != kinds[which]->m; i++) metric += METRIC * kinds[i]->m;
  return metric;
}

/* Forget what was seen of Q_uu (`all`: D as well), and keep the D that a sweep begins with. */
static void begin_metrics(ddp *s, int all) {
  for (int i = 0; i < KINDS; i++) {
    double *const metric = metric_of(s, i);
    const int m = kinds[i]->m;
    for (int a = 0; a < m; a++) {
      if (all) metric[a] = s->scaling ? 0 : 1;
      metric[m + a] = 1, metric[2 * m + a] = metric[3 * m + a] = 0, metric[4 * m + a] = metric[a];
    }
  }
}

/* D from a sweep that has seen all stages: the geometric mean. */
static void settle_metrics(ddp *s) {
  if (!s->scaling) return;
  for (int i = 0; i < KINDS; i++) {
    double *const metric = metric_of(s, i);
    const int m = kinds[i]->m;
    for (int a = 0; a < m; a++) {
      const double count = metric[3 * m + a];
      metric[a] = count > 0 ? exp2((log2(metric[m + a]) + metric[2 * m + a]) / count) : 0;
    }
  }
}

static double *model_of(const ddp *s, long which) {
  double *model = s->scratch;
  for (long i = 0; i < which; i++) model += kinds[i]->model_size;
  return model;
}

/* The table c of a stage, or of the end. */
static const double *numbers_at(const ddp *s, long t) {
  return t < s->horizon ? model_of(s, s->kind_of_stage[t]) + stage_kind(s, t)->table : model_of(s, KINDS);
}

static void measure_gaps(ddp *s) {
  s->max_gap = 0;
  if (!s->has_gaps) return;
  for (long i = 0; i < s->states; i++) raise_to(&s->max_gap, fabs(s->gap[i]));
}

/* What J's tolerances are shares of (ocpkit/solvers/verdicts/optimality.py); takes note of this trajectory. */
static void measure_cost(ddp *s) {
  s->unit = s->magnitude;
  if (s->has_gaps) return;
  if (s->cost > s->highest) s->highest = s->cost;
  if (s->first == 0) s->first = fabs(s->cost);
  s->unit += SPREAD * (s->highest - s->cost);
}

static int states_at(const ddp *s, long t) { return t < s->horizon ? stage_kind(s, t)->n : FINAL; }

/* The largest gap among the stages with n states, relative to the largest value that its state takes there. */
static double relative_gap_of(const ddp *s, int n) {
  double *const largest = s->x_new; /* free before the first step */
  double found = 0;
  for (int i = 0; i < n; i++) largest[i] = 0;
  for (long t = 0, place = 0; t <= s->horizon; place += states_at(s, t), t++)
    for (int i = 0; i < n && states_at(s, t) == n; i++) raise_to(&largest[i], fabs(s->x[place + i]));
  for (long t = 0, place = 0; t <= s->horizon; place += states_at(s, t), t++)
    for (int i = 0; i < n && states_at(s, t) == n; i++) {
      const double size = fabs(s->gap[place + i]);
      if (size != 0) raise_to(&found, largest[i] > 0 ? size / largest[i] : INFINITY);
    }
  return found;
}

/* The largest of them all (ocpkit/solution/trajectory.py). */
static double relative_gap(const ddp *s) {
  double found = relative_gap_of(s, FINAL);
  for (int i = 0; i < KINDS; i++)
    if (kinds[i]->n != FINAL) raise_to(&found, relative_gap_of(s, kinds[i]->n));
  return found;
}

/* Roll the controls out, or measure the gaps of the states as they are. */
static void evaluate_guess(ddp *s) {
  double *x = s->x, *gap = s->gap, *shared = s->shared, cost = 0, magnitude = 0;
  const double *u = s->u, *p = s->p;
  for (long t = 0; t < s->horizon; t++, p += s->stride) {
    const kind *const stage = stage_kind(s, t);
    double *const following = x + stage->n, *const f = s->has_gaps ? gap + stage->n : following;
    const double running = stage->step(x, u, p, numbers_at(s, t), f, shared);
    cost += running, magnitude += fabs(running);
    if (s->has_gaps)
      for (int i = 0; i < stage->next; i++) f[i] -= following[i];
    x = following, u += stage->m, gap += stage->n, shared += stage->shared;
  }
  const double last = terminal_cost(x, p, numbers_at(s, s->horizon));
  const double largest = s->has_gaps ? relative_gap(s) : 0;
  s->has_gaps = largest > 64 * 2.220446049250313e-16 || isnan(largest);
  s->cost = cost + last, s->magnitude = magnitude + fabs(last), s->open = largest <= 1e-9 ? 0 : 1;
  measure_gaps(s);
  measure_cost(s);
}

/* Alg. 1, lines 7-12: the trajectory for the step size alpha into x_new, u_new; false where it is not finite. */
static int forward_pass(ddp *s, double alpha) {
  const double *x = s->x, *u = s->u, *k = s->k, *K = s->K, *p = s->p, *gap = s->gap;
  double *x_new = s->x_new, *u_new = s->u_new, *shared = s->shared_new, cost = 0, magnitude = 0;
  const int keep_gaps = s->has_gaps && alpha < 1;
  for (int i = 0; i < stage_kind(s, 0)->n; i++) x_new[i] = x[i];
  for (long t = 0; t < s->horizon; t++, p += s->stride) {
    const kind *const stage = stage_kind(s, t);
    double *const following = x_new + stage->n;
    const double running =
        stage->forward(x, u, p, numbers_at(s, t), k, K, alpha, bounds_from(s, u - s->u), x_new, u_new, following,
                       shared);
    cost += running, magnitude += fabs(running);
    gap += stage->n;
    if (keep_gaps)
      for (int i = 0; i < stage->next; i++) following[i] -= (1 - alpha) * gap[i];
    if (!all_finite(following, stage->next)) return 0;
    x += stage->n, u += stage->m, k += stage->m, K += stage->m * stage->n;
    x_new = following, u_new += stage->m, shared += stage->shared;
  }
  const double last = terminal_cost(x_new, p, numbers_at(s, s->horizon));
  s->cost_new = cost + last, s->magnitude_new = magnitude + fabs(last);
  return isfinite(s->cost_new) != 0;
}

/* Whether the model promises a larger decrease of J than all that J is made of. */
static int implausible(const ddp *s) { return -s->expected_change > s->magnitude; }

/* Alg. 1, lines 2-6, for one damping; -1, or the stage at which Q_uu has no Cholesky factor. */
static long backward_sweep(ddp *s, int second_order) {
  const double on_state = s->on_state ? s->regularization : 0, relative = s->scaling ? on_state : 0;
  double *const hessians[] = {s->scratch + models_size(), s->scratch + models_size() + hessian_size()};
  const sweep damping = {s->on_state ? 0 : s->regularization, s->tikhonov + on_state - relative, relative,
                         s->magnitude, second_order, s->feedback != 0, hessians[1] + hessian_size()};
  const double *x = s->x + s->states, *u = s->u + s->controls, *p = s->p + s->horizon * s->stride;
  const double *gap = s->gap + s->states, *shared = s->shared + s->handed_on;
  double *k = s->k + s->controls, *K = s->K + s->gains, *Vx = s->Vx + s->states, *Vxx = s->Vxx + s->hessians;
  summary found = {0, 0, 0, 0};
  begin_metrics(s, 0);
  x -= FINAL, gap -= FINAL, Vx -= FINAL, Vxx -= FINAL * FINAL;
  double *kept = Vxx;
  terminal_derive(x, p, numbers_at(s, s->horizon), Vx, Vxx, second_order);
  for (long t = s->horizon - 1; t >= 0; t--) {
    const kind *const stage = stage_kind(s, t);
    const int n = stage->n, m = stage->m;
    x -= n, u -= m, p -= s->stride, k -= m, K -= m * n, shared -= stage->shared;
    double *const own_Vx = Vx - n, *const own_Vxx = hessians[t % 2];
    if (!stage->backward(&damping, x, u, p, shared, s->has_gaps ? gap : 0, Vx, Vxx, k, K, own_Vx, own_Vxx,
                         model_of(s, s->kind_of_stage[t]), bounds_from(s, u - s->u), metric_of(s, s->kind_of_stage[t]), &found))
      return t;
    gap -= n, Vx = own_Vx, Vxx = own_Vxx, kept -= n * n;
    put_away(Vxx, kept, n * n);
  }
  s->gradient_norm = found.slope, s->expected_change = found.change;
  s->decrement = found.decrement, s->rounding = isfinite(found.rounding) ? ROUNDING * ROUNDING * found.rounding : 0;
  if (!implausible(s)) settle_metrics(s);
  return -1;
}

/* Another sweep along the trajectory of the last one, with the D that this began with: it leaves the same behind. */
static long sweep_again(ddp *s, int second_order) {
  for (int i = 0; i < KINDS; i++) {
    double *const metric = metric_of(s, i);
    const int m = kinds[i]->m;
    for (int a = 0; a < m; a++) metric[a] = metric[4 * m + a];
  }
  return backward_sweep(s, second_order);
}

/* First stage (T: the terminal cost) whose derivatives are not finite, or -1. */
static long first_not_finite(ddp *s) {
  const double *x = s->x, *u = s->u, *p = s->p, *shared = s->shared;
  for (long t = 0; t < s->horizon; t++, p += s->stride) {
    const kind *const stage = stage_kind(s, t);
    if (!stage->finite(x, u, p, shared, model_of(s, s->kind_of_stage[t]))) return t;
    x += stage->n, u += stage->m, shared += stage->shared;
  }
  const int finite = all_finite(s->Vx + s->states - FINAL, FINAL) &&
                     all_finite(s->Vxx + s->hessians - FINAL * FINAL, (long)FINAL * FINAL);
  return finite ? -1 : s->horizon;
}

/* Whether the derivatives of a stage and the value behind it are finite, so that a sweep fails there by curvature. */
static int finite_at(ddp *s, long failed) {
  const double *x = s->x, *u = s->u, *p = s->p, *shared = s->shared, *Vx = s->Vx, *Vxx = s->Vxx;
  for (long t = 0; t < failed; t++, p += s->stride) {
    const kind *const stage = stage_kind(s, t);
    x += stage->n, u += stage->m, shared += stage->shared, Vx += stage->n, Vxx += stage->n * stage->n;
  }
  const kind *const stage = stage_kind(s, failed);
  const long n = stage->n, next = states_at(s, failed + 1);
  return stage->finite(x, u, p, shared, model_of(s, s->kind_of_stage[failed])) && all_finite(Vx + n, next) &&
         all_finite(Vxx + n * n, next * next);
}

/* The schedule of ocpkit/solvers/ddp/damping.py. */
static int increase_regularization(ddp *s) {
  const double factor = s->regularization_factor;
  s->growth = s->quadratic ? fmax(factor, s->growth * factor) : factor;
  s->regularization = fmax(s->min_regularization, s->regularization * s->growth);
  return s->regularization <= s->max_regularization;
}

static void decrease_regularization(ddp *s) {
  const double factor = s->regularization_factor;
  s->growth = s->quadratic ? fmin(1 / factor, s->growth / factor) : 1 / factor;
  const double lowered = s->regularization * s->growth;
  s->regularization = lowered >= s->min_regularization ? lowered : 0;
}

static int closed(const ddp *s) { return s->open <= s->gap_tolerance; }

static int end_of_progress(const ddp *s) {
  if (fabs(s->cost) > BLOWN_UP) return DIVERGED;
  return closed(s) ? STALLED : GAVE_UP;
}

/* The policy at the current trajectory, damped as much as it needs; false where there is none. */
static int backward_pass(ddp *s) {
  const int second_order = s->second_order && closed(s);
  int mended = 0; /* whether Q_uu has been indefinite with less damping */
  for (int looked = 0;;) {
    const long failed = backward_sweep(s, second_order);
    if (failed < 0 && mended && implausible(s)) {
      mended = 0, increase_regularization(s);
      continue;
    }
    if (failed < 0) return s->has_policy = 1, 1;
    const int look = !looked && !finite_at(s, failed);
    const long bad = look ? first_not_finite(s) : -1;
    looked |= look;
    if (bad >= 0) {
      s->reason = NOT_FINITE, s->reason_stage = bad;
      s->status = s->has_policy ? DIVERGED : INVALID_INPUT;
    } else if (!increase_regularization(s)) {
      s->reason = NOT_POSITIVE_DEFINITE, s->reason_stage = failed;
      s->status = end_of_progress(s);
    } else {
      mended = 1;
      continue;
    }
    s->gradient_norm = NAN;
    return s->has_policy = 0, 0;
  }
}

/* Whether the whole undamped step promises more than its controls alone, which a stiff Q_uu hides from them. */
static int promises_more(ddp *s) {
  const double regularization = s->regularization;
  if (!s->scaling || regularization == 0 || !s->feedback) return 0;
  const int second_order = s->second_order && closed(s);
  s->regularization = 0;
  const int certain = sweep_again(s, second_order) < 0;
  const double alone = s->gradient_tolerance * s->gradient_tolerance * s->unit;
  const int more = certain && -s->expected_change > PROMISE_FACTOR * alone + s->rounding;
  s->regularization = regularization;
  sweep_again(s, second_order);
  return more;
}

static void check_convergence(ddp *s) {
  if (!isfinite(s->cost) || !closed(s) || !(s->magnitude <= BLOWN_UP) || isnan(s->gradient_norm)) return;
  const int undamped = s->regularization == 0 && s->feedback;
  const double promised = -s->expected_change;
  int flat, settled;
  if (s->scaling) {
    const double alone = s->gradient_tolerance * s->gradient_tolerance * s->unit;
    /* V_xx of a policy that hardly feeds back can be anything */
    const double rounding = undamped ? s->rounding : fmin(s->rounding, SLIGHT * s->magnitude);
    flat = s->decrement <= alone + rounding && (!s->feedback || promised <= PROMISE_FACTOR * alone + rounding);
    if (s->on_state && s->regularization > 0) flat = 0; /* Q_uu itself is damped */
    settled = undamped && promised <= s->cost_tolerance * s->unit + rounding;
  } else {
    flat = s->gradient_norm <= s->gradient_tolerance;
    settled = undamped && promised <= s->cost_tolerance * (1 + fabs(s->cost));
  }
  /* where gaps are open, what closing them costs can hide what the controls save */
  if ((flat && !promises_more(s)) || (settled && !s->has_gaps)) s->status = CONVERGED;
}

/* Fill the tables c, and write the derivatives that do not change. */
static void prepare_models(ddp *s) {
  static const double none;
  const double *numbers = s->numbers ? s->numbers : &none;
  for (int i = 0; i < KINDS; numbers += kinds[i]->numbers, i++) kinds[i]->prepare(numbers, model_of(s, i));
  double *const c = model_of(s, KINDS), *const Vx = s->Vx + s->states - FINAL;
  double *const Vxx = s->Vxx + s->hessians - FINAL * FINAL;
  memcpy(Vxx, terminal_fixed, sizeof terminal_fixed);
  if (FINAL_NUMBERS) memcpy(c, numbers, FINAL_NUMBERS * sizeof *c);
  terminal_settle(c, Vx, Vxx);
}

/* Divide the scratch memory, prepare the models, and evaluate the guess. */
static void prepare(ddp *s) {
  prepare_models(s);
  s->handed_on = shared_size(s);
  s->shared = s->scratch + models_size() + 2 * hessian_size() + work_size(), s->shared_new = s->shared + ROUND_UP(s->handed_on);
  s->gradient_norm = NAN, s->rounding = 0, s->highest = -INFINITY, s->first = 0;
  begin_metrics(s, 1);
  evaluate_guess(s);
}

static void start(ddp *s, double *row) {
  prepare(s);
  if (!isfinite(s->cost) || !all_finite(s->x, s->states) || !isfinite(s->max_gap))
    s->status = INVALID_INPUT;
  else if (backward_pass(s))
    check_convergence(s);
  row[EXPECTED] = row[ACTUAL] = row[STEP_SIZE] = 0;
  row[REGULARIZATION] = s->regularization;
}

/* No step was good enough: damp more, or admit that this is the end. */
static void reject(ddp *s) {
  if (!increase_regularization(s))
    s->status = s->line_search ? end_of_progress(s) : DIVERGED;
  else if (backward_pass(s))
    check_convergence(s);
}

/* Move to the candidate; give up after many steps that changed nothing but rounding. */
static void accept(ddp *s, double alpha, double actual, double noise) {
  const double slope = s->gradient_norm;
  double *const x = s->x, *const u = s->u, *const shared = s->shared;
  s->x = s->x_new, s->u = s->u_new, s->shared = s->shared_new, s->cost = s->cost_new, s->magnitude = s->magnitude_new;
  s->x_new = x, s->u_new = u, s->shared_new = shared;
  s->has_gaps = s->has_gaps && alpha < 1, s->open = s->has_gaps ? (1 - alpha) * s->open : 0;
  if (s->has_gaps)
    for (long i = 0; i < s->states; i++) s->gap[i] *= 1 - alpha;
  measure_gaps(s);
  measure_cost(s);
  if (alpha >= 0.5) decrease_regularization(s);
  if (backward_pass(s)) check_convergence(s);
  s->idle = actual > noise || s->gradient_norm < 0.9 * slope ? 0 : s->idle + 1;
  if (s->status == RUNNING && s->first > 0 && s->cost < -BOTTOMLESS * s->first) s->status = DIVERGED;
  if (s->status == RUNNING && s->line_search && s->idle >= IDLE_LIMIT) s->status = end_of_progress(s);
}

/* One iteration: the line search over the step sizes 1, 1/2, 1/4, ... (ocpkit/solvers/ddp/line_search.py), and what is
   decided after it (decisions.py). */
static void iterate(ddp *s, double *row) {
  const double noise = s->scaling ? ROUNDING * s->magnitude + s->rounding : ROUNDING * (1 + fabs(s->cost));
  row[REGULARIZATION] = s->regularization;
  if (s->open > 0) s->gap_weight = fmax(s->gap_weight, 2 * s->expected_change / s->open);
  const double promised = s->gap_weight * s->open - s->expected_change;
  const double merit = s->cost + s->gap_weight * s->open;
  /* a step that damping may better is not halved (ocpkit/solvers/ddp/line_search.py) */
  const long step_sizes = implausible(s) ? 1 : s->step_sizes;
  double alpha = 1;
  for (long i = 0; i < step_sizes; i++, alpha /= 2) {
    if (!forward_pass(s, alpha)) continue;
    const double expected = alpha * promised;
    const double actual = merit - s->cost_new - s->gap_weight * (1 - alpha) * s->open;
    if (s->line_search && !(actual >= s->armijo * expected - noise)) continue;
    row[EXPECTED] = expected, row[ACTUAL] = actual, row[STEP_SIZE] = alpha;
    accept(s, alpha, actual, noise);
    return;
  }
  row[EXPECTED] = promised, row[ACTUAL] = row[STEP_SIZE] = 0;
  reject(s);
}

/* Up to `rows` iterations (the guess counts as one), one row of history each; ends early when the solve is over,
   at the time limit (`elapsed` seconds of it are gone), or after `slice` seconds. `rows` of the struct counts them. */
ENTRY void ocpkit_advance(ddp *s, long rows, double elapsed, double limit, double slice) {
  const double begin = seconds_now();
  for (s->rows = 0; s->rows < rows;) {
    double *const row = s->history + s->rows++ * COLUMNS;
    if (s->started)
      iterate(s, row);
    else
      start(s, row);
    s->started = 1;
    const double spent = seconds_now() - begin;
    row[COST] = s->cost, row[GRADIENT_NORM] = s->gradient_norm, row[GAP] = s->max_gap;
    row[SECONDS] = elapsed + spent;
    if (s->status != RUNNING || elapsed + spent >= limit || spent >= slice) break;
  }
}

/* Whether the undamped exact recursion is positive definite at the current iterate, and promises nothing more. */
ENTRY long ocpkit_certify(ddp *s) {
  const double regularization = s->regularization, tikhonov = s->tikhonov;
  const long feedback = s->feedback, exact = s->second_order && feedback && tikhonov == 0;
  if (exact && regularization == 0) return 1;
  s->regularization = s->tikhonov = 0, s->feedback = 1;
  const int certain = sweep_again(s, 1) < 0 && -s->expected_change <= SLIGHT * s->unit + s->rounding;
  s->tikhonov = tikhonov, s->feedback = feedback;
  if (exact && certain) return 1;
  s->regularization = regularization;
  sweep_again(s, s->second_order != 0);
  return certain;
}

/* Take up a solve that another engine has begun: x and `open` (where there are gaps), u and the schedules are set. */
ENTRY void ocpkit_resume(ddp *s) {
  const double highest = s->highest, first = s->first, open = s->open;
  prepare(s);
  const double *known = s->known_metric;
  for (int i = 0; known && i < KINDS; known += kinds[i]->m, i++)
    memcpy(metric_of(s, i), known, (size_t)kinds[i]->m * sizeof *known);
  s->highest = fmax(s->highest, highest), s->open = s->has_gaps ? open : 0;
  if (first > 0) s->first = first;
  measure_cost(s);
  if (backward_pass(s)) check_convergence(s);
  s->started = 1;
}
