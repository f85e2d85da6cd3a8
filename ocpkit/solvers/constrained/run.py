"""One constrained solve with its outer iterations in Python; the algorithm is that of `augmented_lagrangian`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import in_any_case
from ocpkit.boundary.series import blocks_of, gather
from ocpkit.problem.problem import Problem
from ocpkit.solution.details import Reason
from ocpkit.solution.history import History, Iteration, OuterIteration
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.solution import Solution, Status, WarmStart
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.constrained.augmented import NEGLIGIBLE, Augmented, Measured, by_blocks
from ocpkit.solvers.constrained.barrier import Barrier
from ocpkit.solvers.constrained.options import ConstrainedOptions
from ocpkit.solvers.constrained.penalty import SEARCH_FACTOR
from ocpkit.solvers.constrained.units import FAR, Units, first_units, measure_units, rows_here
from ocpkit.solvers.driver import Clock, Run
from ocpkit.solvers.guess import Guess

SHORTEST = 1e-3  # seconds; a limit must be positive
SMALLEST_COST = 1e-6  # share of the unit of J below which |J| is no measure of what μ may add to it
LEAST_DECREASE = 1e-10  # share of the price of the rows below which a decrease does not lower the violation
FINEST = 1e-4  # share of the gradient tolerance down to which inner solves go that a new y leaves where they are
SETTLED = 0.01  # share by which that may fall with ρ and still count as the least; of J that its price must be


class AugmentedLagrangianRun(Run):
    """One constrained solve in progress; its steps are outer iterations.

    Attributes
    ----------
    searching
        How many inner solves have been to minimize the violation alone, after ρ has reached its largest.
    """

    def __init__(
        self, options: ConstrainedOptions, augmented: Augmented, guess: Guess, barrier: Barrier | None
    ) -> None:
        self.options, self.augmented, self.problem = options, augmented, augmented.problem
        self.guess = replace(guess, controls=tuple(self.problem.clip(guess.controls)))
        given = augmented.first_multipliers(guess.multipliers)
        self.of_rows: Sequence[Array] = given or augmented.zeros()
        self.first = options.first(guess.warm_start if given else None, barrier)
        self.penalty, self.barrier, self.tolerance = self.first.penalty, self.first.barrier, self.first.tolerance
        self.schedule, self.last_barrier = barrier, 0.0 if barrier is None else barrier.last
        self.barrier_unit, self.searching, self.least_squares = 1.0, 0, 0.0
        self.minimizer = options.minimizer(penalized=augmented.widest > 0)
        self.damping = self.minimizer.schedule.initial
        self.units = first_units(augmented, guess, scaling=options.scaling)
        self.inner: Solution | None = None
        self.residual, self.inner_iterations, self.time_left = float("inf"), 0, float("inf")

    def refuse(self, reason: Reason) -> None:
        """End with the guess, which no control can mend."""
        self.status, self.details = Status.INFEASIBLE, replace(self.details, reason=reason)

    @property
    def warm_start(self) -> WarmStart:
        """Warm start of the next solve."""
        return self.first.after(self.status, penalty=self.penalty, barrier=self.barrier, tolerance=self.tolerance)

    @property
    def multipliers(self) -> Sequence[Array]:
        """Of the constraints, then of the control bounds."""
        problem = self.augmented.template
        of_controls = np.zeros(sum(problem.control_sizes))
        if self.inner is not None and self.inner.multipliers is not None:
            bounded = np.isfinite(problem.control_bounds).any(axis=0)
            of_controls[bounded] = np.concatenate(self.inner.multipliers)
        return self.augmented.multipliers(self._parameters(), of_controls)

    @property
    def scaling(self) -> Scaling | None:
        """Units of the priced rows and of J."""
        return self._known_units.scaling(self.augmented) if self.options.scaling else None

    @property
    def _known_units(self) -> Units:
        """The units, or the user's where the model has not been finite yet."""
        return self.units or Units.of_user(self.augmented)

    def _parameters(self) -> Array:
        units = self._known_units
        return self.augmented.extended(self.of_rows, self.penalty * units.prices, self.barrier * self.barrier_unit)

    def certified(self) -> bool:
        inner, solver = self.inner, self.options.inner
        exact = solver.second_order and solver.feedback and solver.curvature is None and solver.tikhonov == 0
        return exact and inner is not None and inner.last_iteration.regularization == 0

    def objective(self, problem: Problem) -> Problem:
        return self.augmented.lagrangian(self._parameters())

    def leave(self, controls: Sequence[Array]) -> None:
        assert self.inner is not None
        self.inner = replace(self.inner, controls=controls, states=self.problem.simulate(controls))
        self.status = None

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        self.time_left = time_limit - clock()
        super().advance(history, most, clock, time_limit)

    def start(self) -> Iteration:
        controls, guess = self.guess.controls, self.guess.states
        states, cost = self.problem.rollout(controls)
        self.units = self.units or measure_units(self.augmented, states if guess is None else guess, controls, cost)
        measured = self._take(states, controls)
        if guess is None and not np.isfinite([measured.cost, measured.violation]).all():
            self.status = Status.INVALID_INPUT
        return OuterIteration(
            index=0, cost=measured.cost, penalty=self.penalty, barrier=self.barrier, violation=measured.violation
        )

    def step(self) -> Iteration:
        before = self.cost, self.inner_iterations
        inner = self._minimize()
        with in_any_case():
            return self._record(*before, self._take_in(inner))

    def _take_in(self, inner: Solution) -> float:
        """Prepare the next outer iteration, or end, by what an inner solve has come to; return its violation."""
        options = self.options
        measured = self._measure(inner.states, inner.controls)
        finite = np.isfinite([inner.cost, measured.cost, measured.violation]).all()
        if inner.value_gradients is None or not finite or self._ran_off(inner, measured):
            self._fail(inner)
            return self.violation
        first, known = self.inner is None, self._known_units.rows
        here = self._rows_here(inner) if first or self._stationary(inner) else known
        residual, self.damping = self._residual(measured, here), self.minimizer.schedule.initial
        self.inner = self.policy = inner
        self.of_rows = measured.updated
        if self.units is None or (first and (here < FAR * known).any()):
            self.units = measure_units(self.augmented, inner.states, inner.controls, measured.cost)
        inside = self._take(inner.states, inner.controls, measured)
        if inner.status is Status.INTERRUPTED:
            self.status = inner.status
        elif self.searching:
            self._judge(inner, measured)
        elif self._stationary(inner) and max(residual, inside.in_units(here)) <= options.constraint_tolerance:
            self.status = Status.CONVERGED
        else:
            self._tighten(residual, measured, moved=inner.iterations > 0)
        return measured.violation

    def _ran_off(self, inner: Solution, measured: Measured) -> bool:
        """Whether an inner solve diverged, or broke off beyond the rows, farther than before and than a row's unit."""
        beyond = measured.violation > max(1.0, self.violation)
        broke_off = inner.status is Status.DIVERGED or (beyond and inner.status in (Status.STALLED, Status.GAVE_UP))
        return broke_off and not self.searching

    def _measure(self, states: Sequence[Array], controls: Sequence[Array]) -> Measured:
        return self.augmented.measure(states, controls, self._parameters(), self._known_units.rows)

    def _residual(self, measured: Measured, here: Array) -> float:
        """Return r = max |y⁺ − y|/ρ [units of the rows here]."""
        units, largest = self._known_units, 0.0
        for row, new, old in by_blocks(units.rows * (units.rows / here), measured.updated, self.of_rows):
            largest = max(largest, float((np.abs(new - old) * row).max(initial=0.0)))
        return largest / (self.penalty * units.cost)

    def _rows_here(self, inner: Solution) -> Array:
        """Units in which the rows must hold where an inner solve ends."""
        known = self._known_units.rows
        if self.units is None or not self.options.scaling:
            return known
        return rows_here(self.augmented, inner.states, inner.controls, known)

    def _take(self, states: Sequence[Array], controls: Sequence[Array], measured: Measured | None = None) -> Measured:
        """Keep a trajectory, moved inside the bounds of the controls, and return what is measured on it."""
        inside = gather(self.problem.clip(controls))
        measured = measured or self._measure(states, controls)
        self.cost, self.violation = measured.cost, measured.violation
        if any((u != v).any() for u, v in zip(blocks_of(inside), blocks_of(controls))):
            states, _ = self.problem.rollout(inside)
            measured = self._measure(states, inside)
        self.trajectory = Trajectory(list(states), inside, measured.cost)
        self.details = replace(self.details, violation=measured.worst, inner_iterations=self.inner_iterations)
        return measured

    def _stationary(self, inner: Solution) -> bool:
        """Whether the inner solver has converged to the last tolerance, under the last barrier."""
        last = self.tolerance <= self.options.gradient_tolerance and self.barrier <= self.last_barrier
        return last and inner.status is Status.CONVERGED

    def _judge(self, inner: Solution, measured: Measured) -> None:
        """Say what the least violation means: a larger ρ that lowers it no more shows that it is stationary."""
        violated = measured.violation > self.options.constraint_tolerance
        if self.searching == 1 and violated:
            self._search(measured)
            return
        noticed = inner.cost - measured.cost >= SETTLED * abs(measured.cost)  # else J says where the search ends
        found = violated and noticed and inner.status is Status.CONVERGED
        settled = measured.squares >= (1 - SETTLED) * self.least_squares
        self.status = Status.INFEASIBLE if found and settled else Status.GAVE_UP

    def _minimize(self) -> Solution:
        """Minimize the augmented Lagrangian at the current (y, ρ)."""
        if self.options.scaling and self.units is not None:
            self.barrier_unit = min(self.units.cost, max(SMALLEST_COST * self.units.cost, abs(self.cost)))
        problem = self.augmented.lagrangian(self._parameters())
        limit = min(self.options.inner.time_limit, max(self.time_left, SHORTEST))
        undamped = self.minimizer.curvature is not None
        solver = replace(
            self.minimizer,
            gradient_tolerance=self.tolerance,
            damping=None if undamped else replace(self.minimizer.schedule, initial=self.damping),
            cost_tolerance=LEAST_DECREASE if self.searching else NEGLIGIBLE,
            time_limit=limit,
        )
        if self.inner is None:
            inner = solver.find_stationary(problem, controls=self.guess.controls, states=self.guess.states)
        else:
            finite = np.isfinite(np.concatenate(list(self.inner.states))).all()  # or it left a saddle too far
            inner = solver.find_stationary(problem, self.inner, states=self.inner.states if finite else None)
        self.inner_iterations += inner.iterations
        now, last = self.details, inner.details
        self.details = replace(now, engine=last.engine, why=last.why, seconds=now.seconds + last.seconds)
        return inner

    def _tighten(self, residual: float, measured: Measured, *, moved: bool) -> None:
        """Prepare the next outer iteration: smaller tolerance and barrier, larger penalty unless r falls by itself.

        What a warm start cannot improve at a tolerance says nothing of the penalty, but asks for a finer tolerance.
        """
        options, finest = self.options, FINEST * self.options.gradient_tolerance
        tried = moved or self.tolerance <= finest
        near = residual <= options.constraint_tolerance
        last = options.gradient_tolerance if moved else finest
        wanted = options.gradient_tolerance if near else self.tolerance / 10
        self.tolerance = min(self.tolerance, last if wanted < 2 * last else wanted)  # rounding asks for no other solve
        if tried and residual > options.constraint_tolerance and options.penalty.too_slow(residual, self.residual):
            self.penalty = options.penalty.raised(self.penalty)
            if options.penalty.exhausted(self.penalty):
                self._search(measured)
        self.residual = residual
        if self.schedule is not None:
            self.barrier = self.schedule.lowered(self.barrier)

    def _search(self, measured: Measured) -> None:
        """Let the next inner solve minimize the violation alone, for a second time under a much larger ρ."""
        self.penalty = SEARCH_FACTOR * self.penalty if self.searching else self.options.penalty.maximum
        self.searching, self.least_squares, self.of_rows = self.searching + 1, measured.squares, self.augmented.zeros()

    def _fail(self, inner: Solution) -> None:
        """Begin again, damped, with a larger ρ where an inner solve came to no end that helps; end at the largest ρ."""
        self.damping = max(1.0, 10 * self.damping)
        self.penalty = self.options.penalty.raised(self.penalty)
        if self.inner is None and inner.status is Status.INVALID_INPUT:
            self.status = Status.INVALID_INPUT
        elif self.searching:
            self.status = Status.GAVE_UP
        elif self.options.penalty.exhausted(self.penalty):
            self.status = Status.DIVERGED

    def _record(self, before: float, inner_before: int, violation: float) -> Iteration:
        return OuterIteration(
            index=0,
            cost=self.cost,
            actual_decrease=before - self.cost,
            gradient_norm=self.inner.last_iteration.gradient_norm if self.inner is not None else float("nan"),
            step_size=1.0,
            penalty=self.penalty,
            barrier=self.barrier,
            inner_iterations=self.inner_iterations - inner_before,
            violation=violation,
        )
