"""Constrained problems by an augmented Lagrangian around DDP (Rockafellar 1973; ALTRO, Howell et al. 2019).

    minimise φ(x_T) + Σ ℓ_t(x_t, u_t)   subject to   x_{t+1} = f_t(x_t, u_t),   lower ≤ g_t(x_t, u_t) ≤ upper

One outer iteration minimises the augmented Lagrangian at (y, ρ) by DDP, warm-started, which keeps the control bounds by
itself, and then moves the multipliers, y ← ρ (s − Π_C(s)). With r = |y⁺ − y|/ρ, which is zero only where the rows are
satisfied *and* complementary to y, the penalty grows by a factor whenever r has not fallen enough. The inner tolerance
tightens with r. Where ρ is so small that DDP runs off to where the model has no derivatives, beyond the constraints, it
begins again with a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ocpkit.augmented import NEGLIGIBLE, Augmented
from ocpkit.engines.choose import choose_engine
from ocpkit.errors import ProblemError
from ocpkit.problem import Array, Problem
from ocpkit.rows import broken_at_start, say_start, say_violation
from ocpkit.solution import History, Iteration, Solution, Status
from ocpkit.solvers.compiled_augmented import CompiledAugmentedRun
from ocpkit.solvers.ddp import DDP
from ocpkit.solvers.driver import Clock, Guess, Run, Solver, positive
from ocpkit.trajectory import Trajectory

SHORTEST = 1e-3  # seconds; a limit must be positive


@dataclass(frozen=True)
class Barrier:
    """The schedule of μ: its first and last value, and what it is multiplied by in between."""

    first: float = 0.0
    last: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AugmentedLagrangian(Solver):
    """DDP under constraints: control bounds, stage and terminal constraints, equalities and inequalities.

    Parameters
    ----------
    inner
        The unconstrained solver; its iteration limit is per outer iteration.
    constraint_tolerance
        Converged when every row holds to this [units of the row], complementarity included.
    gradient_tolerance
        … and max_t ‖Q_u‖_∞ of the Lagrangian is at most this [cost per unit of control].
    first_tolerance
        ‖Q_u‖ asked of the first inner solve; each outer iteration asks for a tenth, down to `gradient_tolerance`.
    initial_penalty, max_penalty
        First ρ [cost per squared unit of the row], and the ρ beyond which the problem counts as infeasible.
    penalty_factor
        Growth of ρ.
    enough
        r must fall to at most this share of what it was, else ρ grows.
    """

    max_iterations: int = 50
    inner: DDP = field(default_factory=lambda: DDP(max_iterations=300))
    constraint_tolerance: float = 1e-8
    gradient_tolerance: float = 1e-6
    first_tolerance: float = 1e-2
    initial_penalty: float = 10.0
    max_penalty: float = 1e9
    penalty_factor: float = 10.0
    enough: float = 0.1

    handles_constraints = True
    takes_states = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "constraint_tolerance", "gradient_tolerance", "first_tolerance", "initial_penalty")
        positive(self, "max_penalty", "penalty_factor", "enough")
        if not isinstance(self.inner, DDP):
            raise ProblemError(f"inner must be a DDP solver, got {type(self.inner).__name__}")
        if self.penalty_factor <= 1 or self.enough >= 1:
            raise ProblemError("penalty_factor must be above 1 and enough below 1")

    @property
    def barrier(self) -> Barrier:
        """That of `InteriorPoint`; here there is none."""
        return Barrier()

    def begin(self, problem: Problem, guess: Guess) -> Run:
        augmented, inner = Augmented(problem, barrier=self.barrier.first > 0), self.inner
        obstacle = "" if inner.curvature is None else "a curvature of its own is Python code"
        choice = choose_engine(augmented.template, inner.engine, obstacle)
        plain = not inner.infeasible_start and inner.time_limit == float("inf")
        if choice.graph is not None and choice.library is not None and plain:
            run: Run = CompiledAugmentedRun(self, augmented, choice.graph, choice.library, guess)
            run.details["engine"] = f"{choice.name}: {choice.reason}"
        else:
            run = AugmentedLagrangianRun(self, augmented, guess)
        excess, row = broken_at_start(problem, augmented.rows[0])
        if excess > self.constraint_tolerance:
            run.status = Status.INFEASIBLE
            run.details["reason"] = say_start(excess, row)
        return run


class AugmentedLagrangianRun(Run):
    """One constrained solve in progress; its steps are outer iterations."""

    def __init__(self, options: AugmentedLagrangian, augmented: Augmented, guess: Guess) -> None:
        self.options, self.augmented, self.problem, self.guess = options, augmented, augmented.problem, guess
        self.of_rows = augmented.first_multipliers(guess.multipliers) or augmented.zeros()
        self.penalty, self.tolerance = options.initial_penalty, options.first_tolerance
        self.barrier = options.barrier.first
        self.inner: Solution | None = None
        self.residual, self.inner_iterations, self.time_left = float("inf"), 0, float("inf")
        self.details = {}

    @property
    def multipliers(self) -> Sequence[Array]:  # type: ignore[override]
        """Of the constraints, then of the control bounds."""
        problem = self.augmented.template
        of_controls = np.zeros(sum(problem.control_sizes))
        if self.inner is not None and self.inner.multipliers is not None:
            bounded = np.isfinite(problem.control_bounds).any(axis=0)
            of_controls[bounded] = np.concatenate(self.inner.multipliers)
        return self.augmented.multipliers(self._parameters(), of_controls)

    def _parameters(self) -> Array:
        return self.augmented.extended(self.of_rows, self.penalty, self.barrier)

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        self.time_left = time_limit - clock()
        super().advance(history, most, clock, time_limit)

    def start(self) -> Iteration:
        controls = self.problem.clip(self.guess.controls)
        states, _ = self.problem.rollout(controls)
        measured = self.augmented.measure(states, controls, self._parameters())
        self.trajectory = Trajectory(states, controls, measured.cost)
        self._report(measured.violation, measured.where)
        return Iteration(index=0, cost=measured.cost, gap=measured.violation, regularization=self.penalty)

    def step(self) -> Iteration:
        options, before = self.options, self.trajectory.cost
        inner = self._minimise()
        measured = self.augmented.measure(inner.states, inner.controls, self._parameters())
        if inner.value_gradients is None or not np.isfinite([inner.cost, measured.cost, measured.violation]).all():
            self._raise_penalty(Status.DIVERGED if np.isfinite(before) else Status.INVALID_INPUT)
            return self._record(before, self.violation)
        residual = _largest([new - old for new, old in zip(measured.updated, self.of_rows)]) / self.penalty
        self.inner = self.policy = inner
        self.of_rows = measured.updated
        self.trajectory = Trajectory(list(inner.states), list(inner.controls), measured.cost)
        self._report(measured.violation, measured.where)
        if inner.status is Status.INTERRUPTED:
            self.status = inner.status
        elif self._stationary(inner) and residual <= options.constraint_tolerance:
            self.status = Status.CONVERGED
        else:
            self._tighten(residual, moved=inner.iterations > 0)
        return self._record(before, measured.violation)

    def _stationary(self, inner: Solution) -> bool:
        last, options = inner.history[-1], self.options
        closed = last.gap == 0 and self.barrier <= options.barrier.last
        return closed and last.gradient_norm <= options.gradient_tolerance

    def _minimise(self) -> Solution:
        """Minimise the augmented Lagrangian at the current (y, ρ)."""
        problem = self.augmented.lagrangian(self.of_rows, self.penalty, self.barrier)
        limit = min(self.options.inner.time_limit, max(self.time_left, SHORTEST))
        solver = replace(
            self.options.inner, gradient_tolerance=self.tolerance, cost_tolerance=NEGLIGIBLE, time_limit=limit
        )
        if self.inner is None:
            inner = solver.solve(problem, controls=self.guess.controls, states=self.guess.states)
        else:
            inner = solver.solve(problem, self.inner, states=self.inner.states)
        self.inner_iterations += inner.iterations
        self.details["engine"] = inner.details["engine"]
        return inner

    def _tighten(self, residual: float, *, moved: bool) -> None:
        """Prepare the next outer iteration: smaller tolerance and barrier, larger penalty unless r falls by itself.

        What a warm start cannot improve at a loose tolerance says nothing of the penalty.
        """
        options = self.options
        tried = moved or self.tolerance <= options.gradient_tolerance
        self.tolerance = max(options.gradient_tolerance, self.tolerance / 10)
        if tried and residual > max(options.constraint_tolerance, options.enough * self.residual):
            self._raise_penalty(Status.INFEASIBLE)
        self.residual = residual
        self.barrier = max(options.barrier.last, self.barrier * options.barrier.factor)

    def _raise_penalty(self, otherwise: Status) -> None:
        """Let ρ grow; end with the given status where it is at its maximum."""
        self.penalty *= self.options.penalty_factor
        if self.penalty > self.options.max_penalty:
            self.status = otherwise

    def _report(self, violation: float, where: str) -> None:
        self.violation = violation
        self.details["violation"] = say_violation(violation, where)
        self.details["inner iterations"] = str(self.inner_iterations)

    def _record(self, before: float, violation: float) -> Iteration:
        return Iteration(
            index=0,
            cost=self.trajectory.cost,
            actual_decrease=before - self.trajectory.cost,
            gradient_norm=self.inner.history[-1].gradient_norm if self.inner is not None else float("nan"),
            regularization=self.penalty,
            step_size=1.0,
            gap=violation,
        )


def _largest(vectors: Sequence[Array]) -> float:
    return max((float(np.abs(v).max()) for v in vectors if v.size), default=0.0)
