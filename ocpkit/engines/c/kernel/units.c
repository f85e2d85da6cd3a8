/* The natural units of rows and of J (ocpkit/solvers/constrained/units.py, which says what and why), measured on s->x and s->u. */
static const double LARGEST_COST = 10;
static const double OFF = 1e-150, NARROWEST = 1e-3, SMALLEST = 1e-3, FAR = 1e-3;

typedef struct {
  /* options, as in Python; of the inner solver, the most iterations (the guess counts as one) and the first damping */
  double constraint_tolerance, gradient_tolerance, penalty_factor, max_penalty, required_decrease, first_damping;
  double barrier_factor, last_barrier;
  long most, parameter_size, widest, largest_n, largest_m, scaled;
  /* memory: the rows of parameters, as many for new multipliers, the distances of one stage, where inner solves start,
     and the history of one inner iteration */
  double *p, *updated, *distance, *x, *u, *line, *history;
  ddp *inner;
  /* of all rows (T + 1, widest): units, those where an inner solve ends, what they follow from, and factors; of each
     group of stages, sizes of its rows;
     bounds of the controls that the rows price; scratch */
  double *units, *here, *factors, *group_sizes, *work;
  const double *span, *lower_size, *upper_size, *weights, *lower, *upper;
  const long *groups;
  /* what the iteration knows */
  double penalty, damping, barrier, barrier_unit, cost_unit, tolerance, residual, violation, violation_here, named, amount;
  double squares, least_squares, cost, inside_cost, gradient_norm;
  long has_units, kept, searching, has_gaps, count, inner_iterations, worst_stage, worst_row, started, status, rows, group_count;
} augmented;

/* The scratch memory, by the largest sizes of a state and a control. */
typedef struct {
  double *off, *rows, *mix, *size, *Vx[2], *a[2], *slope, *curvature, *reach, *slopes, *curvatures, *reaches, cheap;
} sums;

static sums scratch_of(const augmented *a) {
  const long n = a->largest_n, m = a->largest_m;
  sums w = {a->work, 0, 0, 0, {0, 0}, {0, 0}, 0, 0, 0, 0, 0, 0, 0};
  double *next = a->work + a->inner->stride;
  w.rows = next, next += a->widest * (1 + n + m), w.mix = next, next += n + m, w.size = next, next += n + m;
  for (int i = 0; i < 2; i++) w.Vx[i] = next, next += n, w.a[i] = next, next += n;
  double **const of_controls[] = {&w.slope, &w.curvature, &w.reach, &w.slopes, &w.curvatures, &w.reaches};
  for (int i = 0; i < 6; i++) *of_controls[i] = next, next += m;
  return w;
}

/* The parameters of a stage, or of the end, without the price of the rows. */
static const double *take_off(const augmented *a, const sums *w, long t) {
  const long y = a->parameter_size + a->widest;
  for (long i = 0; i < a->inner->stride; i++) w->off[i] = i < a->parameter_size ? a->p[t * a->inner->stride + i] : i < y ? 0 : OFF;
  return w->off;
}

static int row_count(const augmented *a, long t) {
  return t < a->inner->horizon ? stage_kind(a->inner, t)->rows : FINAL_ROWS;
}

/* |g| + |g_x| X of all rows, or |g_x| |x_0|, into `updated`. */
static void measure_sizes(augmented *a, sums *w, int start_alone) {
  const ddp *const s = a->inner;
  const double *x = s->x, *u = s->u;
  for (long i = 0; i < a->largest_n; i++) w->size[i] = 0;
  for (long t = 0; t <= (start_alone ? 0 : s->horizon); t++) {
    const int n = t < s->horizon ? stage_kind(s, t)->n : FINAL;
    for (int i = 0; i < n; i++) w->size[i] = fmax(w->size[i], fabs(x[i]));
    x += n;
  }
  x = s->x;
  for (long t = 0; t <= s->horizon; t++) {
    const int last = t == s->horizon, n = last ? FINAL : stage_kind(s, t)->n, m = last ? 0 : stage_kind(s, t)->m;
    const double *const p = take_off(a, w, t), *const c = numbers_at(s, t), *row = w->rows;
    last ? terminal_slopes(x, p, c, w->rows) : stage_kind(s, t)->slopes(x, u, p, c, w->rows);
    for (int i = 0; i < row_count(a, t); i++, row += 1 + m + n) {
      double size = start_alone ? 0 : fabs(row[0]);
      for (int j = 0; j < n; j++) size += fabs(row[1 + m + j]) * w->size[j];
      a->updated[t * a->widest + i] = size;
    }
    x += n, u += m;
  }
}

/* The unit of a row that comes to this size, however near two bounds are. */
static double wide_unit(const augmented *a, long place, double size) {
  return fmin(fmax(a->lower_size[place], size), fmax(a->upper_size[place], size));
}

/* Units of the rows that have none yet, from the sizes in `updated`; whether all have one now. A row between two bounds
   that is zero at first does not tell whether these are near to each other. */
static int take_units(augmented *a, double *units, int first) {
  int all = 1;
  for (long i = 0; i < a->group_count * a->widest; i++) a->group_sizes[i] = 0;
  for (long t = 0; t <= a->inner->horizon; t++)
    for (int i = 0; i < row_count(a, t); i++) {
      double *const size = a->group_sizes + a->groups[t] * a->widest + i, own = a->updated[t * a->widest + i];
      if (!(own <= *size)) *size = own;
    }
  for (long t = 0; t <= a->inner->horizon; t++)
    for (int i = 0; i < row_count(a, t); i++) {
      const long place = t * a->widest + i;
      if (units[place] > 0) continue;
      const double size = a->group_sizes[a->groups[t] * a->widest + i];
      const double narrow = fmax(a->span[place], NARROWEST * size);
      const double unit = isnan(size) ? size : fmin(wide_unit(a, place, size), narrow);
      units[place] = first && size == 0 && isfinite(a->span[place]) ? 0 : isinf(unit) ? 1 : unit;
      all &= units[place] > 0 || isnan(unit);
    }
  return all;
}

static void mix_rows(const augmented *a, const sums *w, long t, int columns) {
  for (int z = 0; z < columns; z++) w->mix[z] = 0;
  for (int i = 0; i < row_count(a, t); i++)
    for (int z = 0; z < columns; z++) w->mix[z] += a->factors[t * a->widest + i] * w->rows[i * (1 + columns) + 1 + z];
}

/* The sums over all stages for the combination with `factors`. */
static void sum_up(augmented *a, sums *w) {
  ddp *const s = a->inner;
  double *const hessians[] = {s->scratch + models_size(), s->scratch + models_size() + hessian_size()};
  const sweep plain = {0, 0, 0, 1, 0, 1, hessians[1] + hessian_size()};
  double *const end_Vx = s->Vx + s->states - FINAL, *const end_Vxx = s->Vxx + s->hessians - FINAL * FINAL;
  double kept[FINAL + FINAL * FINAL];
  const double *x = s->x + s->states - FINAL, *u = s->u + s->controls, *p = take_off(a, w, s->horizon);
  memcpy(kept, end_Vx, FINAL * sizeof *kept), memcpy(kept + FINAL, end_Vxx, sizeof kept - FINAL * sizeof *kept);
  terminal_derive(x, p, numbers_at(s, s->horizon), end_Vx, end_Vxx, 0);
  const double *Vx = end_Vx, *Vxx = end_Vxx, *combined = w->a[s->horizon % 2];
  terminal_slopes(x, p, numbers_at(s, s->horizon), w->rows);
  mix_rows(a, w, s->horizon, FINAL);
  memcpy(w->a[s->horizon % 2], w->mix, FINAL * sizeof *w->mix);
  for (long i = 0; i < a->largest_m; i++) w->slopes[i] = w->curvatures[i] = w->reaches[i] = 0;
  w->cheap = 0;
  for (long t = s->horizon - 1; t >= 0; t--) {
    const kind *const stage = stage_kind(s, t);
    x -= stage->n, u -= stage->m, p = take_off(a, w, t);
    stage->slopes(x, u, p, numbers_at(s, t), w->rows);
    mix_rows(a, w, t, stage->m + stage->n);
    const double cheap = stage->combine(&plain, x, u, p, w->mix, Vx, Vxx, combined, model_of(s, s->kind_of_stage[t]),
                                        w->Vx[t % 2], hessians[t % 2], w->a[t % 2], w->slope, w->curvature, w->reach);
    if (cheap >= 0) w->cheap += cheap;
    Vx = w->Vx[t % 2], Vxx = hessians[t % 2], combined = w->a[t % 2];
    for (int i = 0; i < stage->m; i++) {
      const double curvature = w->curvature[i], slope = w->slope[i], reach = w->reach[i];
      w->slopes[i] += slope * slope, w->curvatures[i] += curvature * curvature, w->reaches[i] += reach * reach;
      if (cheap < 0 && reach != 0) w->cheap += reach * reach / curvature;
    }
  }
  memcpy(end_Vx, kept, FINAL * sizeof *kept), memcpy(end_Vxx, kept + FINAL, sizeof kept - FINAL * sizeof *kept);
}

/* Natural sizes of the controls, into `size`. */
static void size_controls(const augmented *a, sums *w) {
  const ddp *const s = a->inner;
  const long most = a->largest_m;
  double *const span = w->slope;
  for (long i = 0; i < most; i++) w->size[i] = 0, span[i] = INFINITY;
  const double *u = s->u;
  for (long t = 0, place = 0; t < s->horizon; t++)
    for (int i = 0; i < stage_kind(s, t)->m; i++, place++, u++) {
      const double low = a->lower ? a->lower[place] : -INFINITY, high = a->upper ? a->upper[place] : INFINITY;
      w->size[i] = fmax(w->size[i], fmax(fabs(*u), fmax(isinf(low) ? 0 : fabs(low), isinf(high) ? 0 : fabs(high))));
      span[i] = fmin(span[i], (high - low) / 2);
    }
  for (long i = 0; i < most; i++) {
    const double others[] = {sqrt(w->slopes[i] / w->curvatures[i]), 1 / sqrt(w->reaches[i])};
    for (int j = 0; j < 2; j++)
      if (!(w->size[i] > 0) && isfinite(others[j])) w->size[i] = others[j];
    if (span[i] > 0) w->size[i] = fmin(w->size[i], span[i]);
  }
}

/* |dg| of all rows, into `updated`, for controls that move by their natural size at every stage. */
static void measure_reached(augmented *a, sums *w) {
  const ddp *const s = a->inner;
  const double *x = s->x, *u = s->u;
  double *dx = w->a[0], *following = w->a[1];
  for (long i = 0; i < a->largest_n; i++) dx[i] = 0;
  for (long t = 0; t <= s->horizon; t++) {
    const int last = t == s->horizon, n = last ? FINAL : stage_kind(s, t)->n, m = last ? 0 : stage_kind(s, t)->m;
    const double *const p = take_off(a, w, t), *const c = numbers_at(s, t), *row = w->rows;
    for (int i = 0; i < m; i++) w->mix[i] = w->size[i];
    for (int i = 0; i < n; i++) w->mix[m + i] = dx[i];
    last ? terminal_slopes(x, p, c, w->rows) : stage_kind(s, t)->slopes(x, u, p, c, w->rows);
    for (int i = 0; i < row_count(a, t); i++, row += 1 + m + n) {
      double moved = 0;
      for (int z = 0; z < m + n; z++) moved += row[1 + z] * w->mix[z];
      a->updated[t * a->widest + i] = fabs(moved);
    }
    if (last) break;
    stage_kind(s, t)->move(x, u, p, w->mix, model_of(s, s->kind_of_stage[t]), following);
    double *const swap = dx;
    dx = following, following = swap, x += n, u += m;
  }
}

static void factors_of_weights(augmented *a) {
  for (long i = 0; i < (a->inner->horizon + 1) * a->widest; i++)
    a->factors[i] = a->units[i] > 0 ? a->weights[i] / a->units[i] : 0;
}

/* Factors for units that do not mind how near two bounds are: a narrow row tells nothing of how far others move. */
static void wide_factors(augmented *a) {
  for (long t = 0; t <= a->inner->horizon; t++)
    for (long i = 0; i < a->widest; i++) {
      const long place = t * a->widest + i;
      const double size = i < row_count(a, t) ? a->group_sizes[a->groups[t] * a->widest + i] : 0;
      a->factors[place] = a->units[place] > 0 ? a->weights[place] / wide_unit(a, place, size) : 0;
    }
}

static double unit_of_cost(const augmented *a, const sums *w, double cost) {
  double count = 0, by_slope = 0;
  for (long i = 0; i < (a->inner->horizon + 1) * a->widest; i++) count += a->weights[i] * a->weights[i];
  for (long i = 0; i < a->largest_m; i++)
    if (w->reaches[i] > 0) by_slope = fmax(by_slope, sqrt(w->slopes[i] * count / w->reaches[i]));
  const double by_curvature = w->cheap > 0 ? count / w->cheap : 0;
  const double unit = by_curvature > 0 ? by_curvature : by_slope + fabs(cost);
  return unit == 0 ? 1 : unit;
}

static void forget_units(augmented *a) {
  for (long i = 0; i < (a->inner->horizon + 1) * a->widest; i++) a->units[i] = 1;
  a->cost_unit = 1;
}

/* Units from the trajectory of that J; the user's where the model is not finite on it. */
static void measure_units(augmented *a, double cost) {
  const long count = (a->inner->horizon + 1) * a->widest;
  sums w = scratch_of(a);
  for (long t = 0; t <= a->inner->horizon; t++)
    for (long i = 0; i < a->widest; i++) a->units[t * a->widest + i] = i < row_count(a, t) ? 0 : 1;
  measure_sizes(a, &w, 0);
  if (!take_units(a, a->units, 1)) {
    wide_factors(a);
    sum_up(a, &w);
    size_controls(a, &w);
    measure_reached(a, &w);
    take_units(a, a->units, 0);
    for (long i = 0; i < count; i++)
      if (a->units[i] == 0) a->units[i] = 1;
  }
  factors_of_weights(a);
  sum_up(a, &w);
  a->cost_unit = unit_of_cost(a, &w, cost);
  if (cost != 0) a->cost_unit = fmin(a->cost_unit, LARGEST_COST * fabs(cost));
  a->has_units = isfinite(a->cost_unit) && all_finite(a->units, count);
  if (!a->has_units) forget_units(a);
}

/* The units in which the rows must hold on this trajectory; whether that of the guess was far away. */
static int measure_here(augmented *a, int asked) {
  const long count = (a->inner->horizon + 1) * a->widest;
  memcpy(a->here, a->units, (size_t)count * sizeof *a->here);
  if (!asked || !a->scaled || !a->has_units) return 0;
  sums w = scratch_of(a);
  double *const certain = a->factors;
  int far = 0;
  for (long i = 0; i < count; i++) a->here[i] = certain[i] = 0;
  measure_sizes(a, &w, 1);
  take_units(a, certain, 0);
  measure_sizes(a, &w, 0);
  take_units(a, a->here, 0);
  for (long t = 0; t <= a->inner->horizon; t++)
    for (long i = 0; i < a->widest; i++) {
      const double known = a->units[t * a->widest + i], least = certain[t * a->widest + i] > 0 ? 0 : SMALLEST * known;
      double *const here = a->here + t * a->widest + i;
      *here = i < row_count(a, t) && *here < known ? fmax(*here, least) : known;
      far |= *here < FAR * known;
    }
  return far;
}
