/* The outer iteration of the augmented Lagrangian (ocpkit/solvers/constrained/augmented_lagrangian.py, which says what and why) around the
   inner one of ddp.c. The parameters of stages 0 … T are rows (p, y, rho, mu) of `stride` numbers; y begins at `own`,
   the rho of each row `widest` later. mu belongs to the barrier of ocpkit/solvers/constrained/interior_point.py; it is zero without one. */
static const double SMALLEST_COST = 1e-6, LEAST_DECREASE = 1e-10, NEGLIGIBLE = 1e-300, SETTLED = 0.01;
static const double SEARCH_FACTOR = 100, FINEST = 1e-4, ALIKE = 1 + 1e-9;

/* columns of an OuterIteration, after those of every kind */
enum { PENALTY = SECONDS + 1, BARRIER, INNER_ITERATIONS, VIOLATION, OUTER_COLUMNS };

/* Keep the largest distance of all rows, in their units, and the first row that is as far but for rounding; return how
   far a multiplier of this stage moves at most, in the inverse units. */
static double compare(augmented *a, long t, int rows, const double *y, const double *updated) {
  const double *const units = a->units + t * a->widest, *const here = a->here + t * a->widest;
  double moved = 0;
  for (int i = 0; i < rows; i++) {
    const double distance = a->distance[i] / units[i];
    if (!(distance <= a->violation)) a->violation = distance;
    if (!(a->distance[i] / here[i] <= a->violation_here)) a->violation_here = a->distance[i] / here[i];
    if (!(distance <= ALIKE * a->named))
      a->named = distance, a->amount = a->distance[i], a->worst_stage = t, a->worst_row = i;
    moved = fmax(moved, fabs(updated[i] - y[i]) * units[i] * (units[i] / here[i])), a->squares += distance * distance;
  }
  return moved;
}

/* New multipliers along the trajectory, the violation, and J; returns r = |y+ - y| / rho in units of the rows here. */
static double measure(augmented *a) {
  const ddp *const s = a->inner;
  const double *x = s->x, *u = s->u, *p = a->p;
  double *updated = a->updated + a->parameter_size, cost = 0, moved = 0;
  a->violation = a->violation_here = a->named = a->amount = a->squares = 0;
  for (long t = 0; t < s->horizon; t++, p += s->stride, updated += s->stride) {
    const kind *const stage = stage_kind(s, t);
    cost += stage->price(x, u, p, numbers_at(s, t), updated, a->distance);
    moved = fmax(moved, compare(a, t, stage->rows, p + a->parameter_size, updated));
    x += stage->n, u += stage->m;
  }
  a->cost = cost + terminal_price(x, p, numbers_at(s, s->horizon), updated, a->distance);
  return fmax(moved, compare(a, s->horizon, FINAL_ROWS, p + a->parameter_size, updated)) / (a->penalty * a->cost_unit);
}

/* Take the new multipliers, and let the next inner solve start from here. */
static void keep(augmented *a) {
  const ddp *const s = a->inner;
  for (long t = 0; t <= s->horizon; t++) {
    const int rows = t < s->horizon ? stage_kind(s, t)->rows : FINAL_ROWS;
    const long place = t * s->stride + a->parameter_size;
    memcpy(a->p + place, a->updated + place, (size_t)rows * sizeof *a->p);
  }
  memcpy(a->u, s->u, (size_t)s->controls * sizeof *a->u);
  a->has_gaps = 0, a->kept = 1, a->damping = a->first_damping, a->gradient_norm = s->gradient_norm;
}

/* Forget an inner solve that failed. */
static void roll_back(augmented *a) {
  ddp *const s = a->inner;
  memcpy(s->u, a->u, (size_t)s->controls * sizeof *a->u);
  s->has_gaps = s->has_policy = 0;
  evaluate_guess(s);
  measure(a);
}

/* Let the next inner solve minimize the violation alone, for a second time under a penalty that is much larger. */
static void search(augmented *a) {
  const ddp *const s = a->inner;
  a->penalty = a->searching ? SEARCH_FACTOR * a->penalty : a->max_penalty;
  a->searching++, a->least_squares = a->squares;
  for (long t = 0; t <= s->horizon; t++)
    for (long i = 0; i < a->widest; i++) a->p[t * s->stride + a->parameter_size + i] = 0;
}

static void tighten(augmented *a, double residual, int moved) {
  const double finest = FINEST * a->gradient_tolerance;
  const int tried = moved || a->tolerance <= finest;
  const double last = moved ? a->gradient_tolerance : finest, next = a->tolerance / 10;
  const double wanted = residual <= a->constraint_tolerance ? a->gradient_tolerance : next;
  a->tolerance = fmin(a->tolerance, wanted < 2 * last ? last : wanted); /* no rounding may ask for one more solve */
  if (tried && residual > fmax(a->constraint_tolerance, a->required_decrease * a->residual)) {
    a->penalty *= a->penalty_factor;
    if (a->penalty > a->max_penalty) search(a);
  }
  a->residual = residual;
  a->barrier = fmax(a->last_barrier, a->barrier * a->barrier_factor);
}

/* Begin again, damped, with a larger penalty where an inner solve came to no end that helps; end at the largest. */
static void fail(augmented *a) {
  a->penalty *= a->penalty_factor, a->damping = fmax(1, 10 * a->damping);
  if (!a->kept && a->inner->status == INVALID_INPUT)
    a->status = INVALID_INPUT;
  else if (a->searching)
    a->status = GAVE_UP;
  else if (a->penalty > a->max_penalty)
    a->status = DIVERGED;
  roll_back(a);
}

static void begin_inner(augmented *a) {
  ddp *const s = a->inner;
  if (a->scaled && a->has_units)
    a->barrier_unit = fmin(a->cost_unit, fmax(SMALLEST_COST * a->cost_unit, fabs(a->cost)));
  for (long t = 0; t <= s->horizon; t++) {
    double *const row = a->p + t * s->stride + a->parameter_size + a->widest;
    const double *const units = a->units + t * a->widest;
    for (long i = 0; i < a->widest; i++) row[i] = a->penalty * (a->cost_unit / (units[i] * units[i]));
    row[a->widest] = a->barrier * a->barrier_unit;
  }
  memcpy(s->u, a->u, (size_t)s->controls * sizeof *a->u);
  if (a->has_gaps) memcpy(s->x, a->x, (size_t)s->states * sizeof *a->x);
  s->gradient_tolerance = a->tolerance, s->regularization = a->damping, s->growth = 1;
  s->cost_tolerance = a->searching ? LEAST_DECREASE : NEGLIGIBLE;
  s->has_gaps = a->has_gaps, s->history = a->line;
  s->gap_weight = 0, s->idle = s->status = s->reason = s->started = s->has_policy = 0;
}

/* Move the controls inside the bounds that the rows price; return the violation there, in units there. What the iteration
   itself knows stays. */
static double show_inside(augmented *a) {
  ddp *const s = a->inner;
  const double cost = a->cost, violation = a->violation;
  int outside = 0;
  if (a->barrier > 0 && a->lower)
    for (long i = 0; i < s->controls; i++) {
      const double nearest = fmin(fmax(s->u[i], a->lower[i]), a->upper[i]);
      outside |= s->u[i] != nearest, s->u[i] = nearest;
    }
  if (outside) s->has_gaps = 0, evaluate_guess(s), measure(a);
  const double inside = a->violation_here;
  a->inside_cost = a->cost, a->cost = cost, a->violation = violation;
  return inside;
}

/* Whether the inner solve diverged, or broke off beyond the rows, farther than before and than a row's unit. */
static int ran_off(const augmented *a, double before) {
  const long end = a->inner->status;
  const int beyond = a->violation > fmax(1, before), broke_off = end == STALLED || end == GAVE_UP;
  return !a->searching && (end == DIVERGED || (beyond && broke_off));
}

/* What follows from the inner solve that has ended. */
static void conclude(augmented *a) {
  ddp *const s = a->inner;
  const int moved = a->count > 1;
  a->inner_iterations += a->count - 1, a->count = 0;
  const int last = a->tolerance <= a->gradient_tolerance && a->barrier <= a->last_barrier;
  const int far = measure_here(a, !a->kept || (last && s->status == CONVERGED)) && !a->kept;
  const double before = a->violation, residual = measure(a);
  const int finite = isfinite(s->cost) && isfinite(a->cost) && isfinite(a->violation);
  if (!s->has_policy || !finite || ran_off(a, before)) {
    fail(a);
    return;
  }
  keep(a);
  if (!a->has_units || far) measure_units(a, a->cost);
  if (a->searching == 1 && a->violation > a->constraint_tolerance)
    search(a);
  else if (a->searching) {
    const int noticed = s->cost - a->cost >= SETTLED * fabs(a->cost); /* else J says where the search ends */
    const int found = a->violation > a->constraint_tolerance && noticed && s->status == CONVERGED;
    a->status = found && a->squares >= (1 - SETTLED) * a->least_squares ? INFEASIBLE : GAVE_UP;
  } else if (last && s->status == CONVERGED && fmax(residual, show_inside(a)) <= a->constraint_tolerance)
    a->status = CONVERGED;
  else
    tighten(a, residual, moved);
}

/* Measure the units, where they are not known, on the states of the guess if there are any; roll the controls out. */
static void start_augmented(augmented *a) {
  ddp *const s = a->inner;
  const int on_states = a->has_gaps && !a->has_units;
  measure_here(a, 0);
  if (on_states) memcpy(s->x, a->x, (size_t)s->states * sizeof *a->x);
  s->has_gaps = on_states;
  prepare(s);
  if (!a->has_units) measure(a), measure_units(a, a->cost);
  if (on_states) s->has_gaps = 0, evaluate_guess(s);
  measure(a);
  if (!a->has_gaps && !(isfinite(a->cost) && isfinite(a->violation))) a->status = INVALID_INPUT;
  a->started = 1;
}

/* Up to `rows` outer iterations, the guess being the first, like ocpkit_advance; after `slice` seconds it also returns
   amid an inner solve, which the next call takes up. */
void ocpkit_augmented_advance(augmented *a, long rows, double elapsed, double limit, double slice) {
  ddp *const s = a->inner;
  const double begin = seconds_now();
  for (a->rows = 0; a->rows < rows && a->status == RUNNING;) {
    const double before = a->started ? a->cost : NAN;
    const long inner_before = a->inner_iterations;
    double spent = 0;
    if (!a->started)
      start_augmented(a);
    else {
      if (!a->count) begin_inner(a);
      do {
        ocpkit_advance(s, 1, 0, INFINITY, INFINITY);
        a->count++, spent = seconds_now() - begin;
        if (s->status != RUNNING || a->count >= a->most || elapsed + spent >= limit) break;
      } while (spent < slice);
      if (s->status == RUNNING && a->count < a->most && elapsed + spent < limit) return;
      conclude(a);
    }
    spent = seconds_now() - begin;
    double *const row = a->history + a->rows++ * OUTER_COLUMNS;
    row[COST] = a->cost, row[EXPECTED] = 0, row[ACTUAL] = isnan(before) ? 0 : before - a->cost;
    row[GRADIENT_NORM] = a->gradient_norm, row[STEP_SIZE] = !isnan(before), row[SECONDS] = elapsed + spent;
    row[PENALTY] = a->penalty, row[BARRIER] = a->barrier, row[VIOLATION] = a->violation;
    row[INNER_ITERATIONS] = (double)(a->inner_iterations - inner_before);
    if (elapsed + spent >= limit || spent >= slice) break;
  }
}

/* What is shown: the trajectory inside the bounds, J and the violation, also where an inner solve was interrupted. */
void ocpkit_augmented_settle(augmented *a) {
  const double cost = a->cost, violation = a->violation;
  if (a->count) measure(a);
  show_inside(a);
  a->cost = cost, a->violation = violation;
}
