"""Gradient descent as back-propagation (Alg. 2): DDP with Q_ux dropped and M/η in the place of Q_uu (Prop. 2).

    u_t ← u_t − η M_t⁻¹ ∇_{u_t} J,     ∇_{u_t} J = ℓ_u + f_uᵀ p_{t+1},     p_t = ℓ_x + f_xᵀ p_{t+1}

With M = I this is gradient descent; the adaptive diagonals make it RMSprop and Adam. Control bounds are kept
by projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.errors import refuse_unused, unknown_name
from ocpkit.problem.problem import Problem
from ocpkit.recursion.bellman import ActionValue, Curvature, Operator
from ocpkit.recursion.curvature import Adam, AdaptiveDiagonal, Identity
from ocpkit.recursion.linalg import dot
from ocpkit.solution.history import Iteration
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.solution import Status
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.ddp.decisions import BLOWN_UP
from ocpkit.solvers.driver import positive
from ocpkit.solvers.first_order.adjoint import FirstOrderRun, FirstOrderSolver
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.verdicts.optimality import ROUNDING

SMALLEST_STEP = 1e-30
RULES = {"identity": Identity, "rmsprop": AdaptiveDiagonal, "adam": Adam}


@dataclass(frozen=True, kw_only=True)
class GradientDescent(FirstOrderSolver):
    """Gradient descent through back-propagation.

    Parameters
    ----------
    learning_rate
        η [squared unit of a control per unit of J; of the adaptive rules, unit of a control]; with the line search the
        first step tried. None: 1 in the natural units of J and of each control.
    rule
        ``"identity"`` (gradient descent), ``"rmsprop"`` or ``"adam"``.
    line_search
        Halve the step until the cost falls enough and double it after success; False: constant η, as in training.
    armijo
        Fraction of the decrease of the linear model that a step must achieve.
    """

    learning_rate: float | None = None
    rule: str = "identity"
    line_search: bool = True
    armijo: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "armijo", *(["learning_rate"] if self.learning_rate is not None else []))
        if self.rule not in RULES:
            raise unknown_name("rule", self.rule, RULES)
        if not self.line_search:
            refuse_unused(self, "without line_search", "armijo")

    def begin(self, problem: Problem, guess: Guess) -> GradientRun:
        return GradientRun(self, problem, guess)


@dataclass(frozen=True)
class _ScaledOperator:
    """The matrix c S⁻¹ H S⁻¹ (m, m) for the unit c of J and S = diag(s) of a stage's controls."""

    inner: Operator
    cost: float
    scales: Array

    def solve(self, right: Array) -> Array:
        """Return the inverse times a vector (m,)."""
        return np.asarray(self.scales * self.inner.solve(self.scales * right / self.cost))

    def dense(self) -> Array:
        """Return the matrix (tests and small problems)."""
        return np.asarray(self.cost * self.inner.dense() / np.outer(self.scales, self.scales))


@dataclass(frozen=True)
class InUnits:
    """A rule that is shown gradients, and gives steps, in natural units."""

    units: Scaling
    rule: Curvature

    def __call__(self, t: int, Q: ActionValue) -> tuple[_ScaledOperator, Array]:
        cost, scales = self.units.cost, self.units.controls[t]
        operator, direction = self.rule(t, Q._replace(u=Q.u * scales / cost))
        return _ScaledOperator(operator, cost, scales), direction * cost / scales


class GradientRun(FirstOrderRun):
    """One descent in progress."""

    def __init__(self, options: GradientDescent, problem: Problem, guess: Guess) -> None:
        super().__init__(options, problem, guess)
        self.options = options
        self.step_size = 1.0

    def measure(self) -> None:
        super().measure()
        rate, rule = self.options.learning_rate, RULES[self.options.rule]
        self.curvature: Curvature = InUnits(self.scaling, rule(1.0)) if rate is None else rule(rate)

    def leave(self, controls: Sequence[Array]) -> None:
        self.step_size = 1.0
        super().leave(controls)

    def step(self) -> Iteration:
        assert self.policy is not None
        before, step_size = self.trajectory, self.step_size
        while True:
            candidate = self.engine.forward_pass(before, self.policy, step_size)
            expected, actual = self._linear_decrease(candidate), before.cost - candidate.cost
            if self._accepts(candidate.finite, expected, actual):
                break
            step_size /= 2
            exhausted = candidate.finite and expected <= ROUNDING * max(abs(before.cost), self.scaling.cost)
            if not self.options.line_search or exhausted or step_size < SMALLEST_STEP:
                self.status = Status.STALLED if self.options.line_search else Status.DIVERGED
                return self.record(expected_decrease=expected)
        self.trajectory = candidate
        self.step_size = 2 * step_size if self.options.line_search else 1.0
        self.adjoint_sweep()
        if abs(candidate.cost) > BLOWN_UP:
            self.status = Status.DIVERGED
        return self.record(expected_decrease=expected, actual_decrease=actual, step_size=step_size)

    def _linear_decrease(self, candidate: Trajectory) -> float:
        """−∇Jᵀ δu for the step really taken, after projection on the bounds."""
        moves = zip(self.gradients(), self.trajectory.controls, candidate.controls)
        return float(sum(dot(gradient, u - v) for gradient, u, v in moves))

    def _accepts(self, finite: bool, expected: float, actual: float) -> bool:
        return finite and (not self.options.line_search or actual >= self.options.armijo * expected)
