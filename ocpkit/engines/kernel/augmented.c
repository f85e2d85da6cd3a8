/* The outer iteration of the augmented Lagrangian (ocpkit/solvers/constrained.py, which says what and why) around the
   inner one of ddp.c. The parameters of stages 0 … T are rows (p, y, ..., mu, rho) of `stride` numbers; y begins at `own`.
   mu belongs to the barrier of ocpkit/solvers/interior.py; it is zero without one. */
typedef struct {
  /* options, as in Python; of the inner solver, the most iterations (the guess counts as one) and the first damping */
  double constraint_tolerance, gradient_tolerance, penalty_factor, max_penalty, enough, first_damping;
  double barrier_factor, last_barrier;
  long most, own;
  /* memory: the rows of parameters, as many for new multipliers, the distances of one stage, where inner solves start,
     and the history of one inner iteration */
  double *p, *updated, *distance, *x, *u, *line, *history;
  ddp *inner;
  /* what the iteration knows */
  double penalty, barrier, tolerance, residual, violation, cost, gradient_norm;
  long has_gaps, count, inner_iterations, worst_stage, worst_row, started, status, rows;
} augmented;

/* Keep the largest distance of all rows and where it is; return how far a multiplier of this stage moves at most. */
static double compare(augmented *a, long t, int rows, const double *y, const double *updated) {
  double moved = 0;
  for (int i = 0; i < rows; i++) {
    if (!(a->distance[i] <= a->violation)) a->violation = a->distance[i], a->worst_stage = t, a->worst_row = i;
    moved = fmax(moved, fabs(updated[i] - y[i]));
  }
  return moved;
}

/* New multipliers along the trajectory, the violation, and J; returns r = |y+ - y| / rho. */
static double measure(augmented *a) {
  const ddp *const s = a->inner;
  const double *x = s->x, *u = s->u, *p = a->p;
  double *updated = a->updated + a->own, cost = 0, moved = 0;
  a->violation = 0;
  for (long t = 0; t < s->horizon; t++, p += s->stride, updated += s->stride) {
    const kind *const stage = stage_kind(s, t);
    cost += stage->price(x, u, p, updated, a->distance);
    moved = fmax(moved, compare(a, t, stage->rows, p + a->own, updated));
    x += stage->n, u += stage->m;
  }
  a->cost = cost + terminal_price(x, p, updated, a->distance);
  return fmax(moved, compare(a, s->horizon, FINAL_ROWS, p + a->own, updated)) / a->penalty;
}

/* Take the new multipliers, and let the next inner solve start from here. */
static void keep(augmented *a) {
  const ddp *const s = a->inner;
  for (long t = 0; t <= s->horizon; t++) {
    const int rows = t < s->horizon ? stage_kind(s, t)->rows : FINAL_ROWS;
    const long place = t * s->stride + a->own;
    memcpy(a->p + place, a->updated + place, (size_t)rows * sizeof *a->p);
  }
  memcpy(a->u, s->u, (size_t)s->controls * sizeof *a->u);
  a->has_gaps = 0, a->gradient_norm = s->gradient_norm;
}

/* Forget an inner solve that failed. */
static void roll_back(augmented *a) {
  ddp *const s = a->inner;
  memcpy(s->u, a->u, (size_t)s->controls * sizeof *a->u);
  s->has_gaps = s->has_policy = 0;
  evaluate_guess(s);
  measure(a);
}

static void raise_penalty(augmented *a, int otherwise) {
  a->penalty *= a->penalty_factor;
  if (a->penalty > a->max_penalty) a->status = otherwise;
}

static void tighten(augmented *a, double residual, int moved) {
  const int tried = moved || a->tolerance <= a->gradient_tolerance;
  a->tolerance = fmax(a->gradient_tolerance, a->tolerance / 10);
  if (tried && residual > fmax(a->constraint_tolerance, a->enough * a->residual)) raise_penalty(a, INFEASIBLE);
  a->residual = residual;
  a->barrier = fmax(a->last_barrier, a->barrier * a->barrier_factor);
}

static void begin_inner(augmented *a) {
  ddp *const s = a->inner;
  for (double *end = a->p + s->stride; end <= a->p + (s->horizon + 1) * s->stride; end += s->stride)
    end[-2] = a->barrier, end[-1] = a->penalty;
  memcpy(s->u, a->u, (size_t)s->controls * sizeof *a->u);
  if (a->has_gaps) memcpy(s->x, a->x, (size_t)s->states * sizeof *a->x);
  s->gradient_tolerance = a->tolerance, s->regularization = a->first_damping, s->growth = 1;
  s->has_gaps = a->has_gaps, s->history = a->line;
  s->gap_weight = 0, s->idle = s->status = s->reason = s->started = s->has_policy = 0;
}

/* What follows from the inner solve that has ended. */
static void conclude(augmented *a) {
  ddp *const s = a->inner;
  const int moved = a->count > 1;
  a->inner_iterations += a->count - 1, a->count = 0;
  const double residual = measure(a);
  if (!s->has_policy || !isfinite(s->cost) || !isfinite(a->cost) || !isfinite(a->violation)) {
    roll_back(a);
    raise_penalty(a, isfinite(a->cost) ? DIVERGED : INVALID_INPUT);
    return;
  }
  keep(a);
  if (closed(s) && a->barrier <= a->last_barrier && s->gradient_norm <= a->gradient_tolerance && residual <= a->constraint_tolerance)
    a->status = CONVERGED;
  else
    tighten(a, residual, moved);
}

/* Roll the controls of the guess out; a guess of states is left to the first inner solve. */
static void start_augmented(augmented *a) {
  ddp *const s = a->inner;
  s->has_gaps = 0;
  prepare(s);
  measure(a);
  a->started = 1;
}

/* Up to `rows` outer iterations, the guess being the first, like ocpkit_advance; after `slice` seconds it also returns
   amid an inner solve, which the next call takes up. */
void ocpkit_augmented_advance(augmented *a, long rows, double elapsed, double limit, double slice) {
  ddp *const s = a->inner;
  const double begin = seconds_now();
  for (a->rows = 0; a->rows < rows && a->status == RUNNING;) {
    const double before = a->started ? a->cost : NAN;
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
    double *const row = a->history + a->rows++ * COLUMNS;
    row[COST] = a->cost, row[EXPECTED] = 0, row[ACTUAL] = isnan(before) ? 0 : before - a->cost;
    row[GRADIENT_NORM] = a->gradient_norm, row[REGULARIZATION] = a->penalty, row[STEP_SIZE] = !isnan(before);
    row[GAP] = a->violation, row[SECONDS] = elapsed + spent;
    if (elapsed + spent >= limit || spent >= slice) break;
  }
}

/* J and the violation where an inner solve was interrupted. */
void ocpkit_augmented_settle(augmented *a) {
  if (a->count) measure(a);
}
