"""The interior point with a filter line search: one iteration of Wächter & Biegler (2006, Alg. A).

It is written for a program and separable slacks, whichever: the user's problem (`run`), or the least violation of its
constraints (`restoration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.errors import NotPositiveDefinite
from ocpkit.solvers.phases import Phases
from ocpkit.solvers.primal_dual.blocks import Blocks, Values
from ocpkit.solvers.primal_dual.filter import GAMMA_COST, GAMMA_VIOLATION, Filter
from ocpkit.solvers.primal_dual.layout import Layout
from ocpkit.solvers.primal_dual.newton import Damping, Direction, Iterate, NewtonSystem
from ocpkit.solvers.primal_dual.slacks import Slacks

LINEAR, SUPERLINEAR, ENOUGH = 0.2, 1.5, 10.0  # κ_μ, θ_μ, κ_ε
LEAST_TAU = 0.99
SUFFICIENT, SWITCH_VIOLATION, SWITCH_COST, SWITCH = 1e-8, 1.1, 2.3, 1.0  # η_φ, s_θ, s_φ, δ
SMALL_VIOLATION, LARGE_VIOLATION = 1e-4, 1e4
SHORTEST = 0.05  # γ_α
CORRECTIONS, LESS = 4, 0.99  # of second order: how many, and by which factor each must lower the violation
ROLLOUTS = 10  # closed-loop trials where all others are blocked
LEAST_SHARE, SMALLEST_SHARE = 10.0, 1e-5
LARGEST_DUAL = 100.0  # s_max: mean size of multipliers from which on the tolerance grows with it
ROUNDING = 10 * float(np.finfo(float).eps)
TINY = 10 * float(np.finfo(float).eps)


class Functions(Protocol):
    """The functions of a minimization: a program, or another objective under its constraints."""

    layout: Layout

    def values(self, w: Array) -> Values:
        """Evaluate J, gaps and rows."""

    def derivatives(self, w: Array, costates: Array, multipliers: Array, weight: float = 1.0) -> Blocks:
        """Differentiate them, and twice the Lagrangian with `weight` J."""

    def rollout(
        self, w: Array, step: Array, gains: Sequence[Array], sides: tuple[Array, Array], step_size: float
    ) -> Array | None:
        """Follow the dynamics with feedback; None where gaps are elastic."""


class Move(Enum):
    """End of an iteration."""

    TAKEN = "a step was taken"
    OPTIMAL = "the optimality conditions hold"
    BLOCKED = "no step is acceptable to the filter, or no damping gives one"
    NOT_FINITE = "derivatives are not finite"


class Errors(NamedTuple):
    """Residuals of the optimality conditions, scaled by the size of the multipliers."""

    dual: float
    primal: float
    complementarity: float

    @property
    def largest(self) -> float:
        """The largest of them."""
        return max(self)


class Trial(NamedTuple):
    """A point and what the filter knows of it."""

    at: Iterate
    violation: float
    cost: float


@dataclass
class Interior:
    """An interior point in progress.

    Attributes
    ----------
    functions, slacks, targets
        What is minimized; the separable variables; values of equality rows, 0 for others, after as many gaps.
    at
        The iterate.
    mu
        Barrier parameter.
    tolerance
        Of the scaled optimality conditions.
    """

    functions: Functions
    slacks: Slacks
    targets: Array
    at: Iterate
    mu: float
    tolerance: float
    last_mu: float | None = None

    def __post_init__(self) -> None:
        self.damping, self.step_size = Damping(), 1.0
        self.free = np.ones(len(self.at.w.value), dtype=bool)
        self.free[self.functions.layout.x[0]] = False
        self.free &= ~self.at.w.fixed
        first = self.violation(self.at)
        self.filter = Filter(LARGE_VIOLATION * max(1.0, first))
        self.small = SMALL_VIOLATION * max(1.0, first)
        self.errors = Errors(np.inf, first, np.inf)
        self.system: NewtonSystem | None = None
        self._known: tuple[Iterate, Blocks] | None = None

    def residual(self, at: Iterate) -> Array:
        """c(w) + Σ a v of all gaps and rows."""
        s = self.slacks
        c = np.concatenate([at.values.gaps, at.values.rows]) - self.targets
        return c + s.sum(s.sign * at.v.value, len(c))

    def violation(self, at: Iterate) -> float:
        """θ, the sum of the residuals."""
        return float(np.abs(self.residual(at)).sum())

    def cost(self, at: Iterate) -> float:
        """The barrier objective φ."""
        linear = float(self.slacks.cost @ at.v.value)
        return at.values.cost + linear + self.mu * (at.w.barrier() + at.v.barrier())

    def step(self, phases: Phases) -> Move:
        """Do one iteration."""
        blocks = self.look(phases)
        if not blocks.finite:
            return Move.NOT_FINITE
        if self.settled(phases):
            return Move.OPTIMAL
        self._lower_barrier(blocks)
        try:
            with phases.backward:
                self.system = NewtonSystem(self.slacks, blocks, self.at, self.mu, self.damping)
                direction = self.system.direction(self.residual(self.at))
        except NotPositiveDefinite:
            return Move.BLOCKED
        with phases.line_search:
            taken = self._search(direction)
        if taken is None:
            return Move.BLOCKED
        self._take(taken, direction)
        return Move.TAKEN

    def settled(self, phases: Phases) -> bool:
        """Whether the optimality conditions hold at the iterate."""
        blocks = self.look(phases)
        self.errors = self._errors(blocks, 0.0)
        return blocks.finite and self._optimal(self.errors)

    def look(self, phases: Phases) -> Blocks:
        """Return the derivatives at the iterate, evaluated once."""
        if self._known is None or self._known[0] is not self.at:
            gaps, at = len(self.at.values.gaps), self.at
            with phases.derivatives:
                self._known = at, self.functions.derivatives(at.w.value, at.duals[:gaps], at.duals[gaps:])
        return self._known[1]

    def system_at(self, phases: Phases) -> NewtonSystem | None:
        """Return the linearized conditions at the iterate, as `step` would solve them; None if no damping helps."""
        blocks = self.look(phases)
        with phases.backward:
            try:
                return NewtonSystem(self.slacks, blocks, self.at, self.mu, self.damping)
            except NotPositiveDefinite:
                return None

    def _errors(self, blocks: Blocks, mu: float) -> Errors:
        """E_μ (Wächter & Biegler 2006, Eq. 5)."""
        at, s = self.at, self.slacks
        gaps = len(at.values.gaps)
        of_w = blocks.along(at.duals[:gaps], at.duals[gaps:]) - at.w.below + at.w.above
        of_v = s.cost + s.sign * at.duals[s.place] - at.v.below + at.v.above
        dual = max(float(np.abs(each).max(initial=0.0)) for each in (of_w[self.free], of_v))
        z = np.concatenate([at.w.below, at.w.above, at.v.below, at.v.above])
        sum_z, count = float(z.sum()), int(np.count_nonzero(z))
        sum_y = float(np.abs(at.duals).sum())
        s_d = max(LARGEST_DUAL, (sum_z + sum_y) / max(count + len(at.duals), 1)) / LARGEST_DUAL
        s_c = max(LARGEST_DUAL, sum_z / max(count, 1)) / LARGEST_DUAL
        primal = float(np.abs(self.residual(at)).max(initial=0.0))
        return Errors(dual / s_d, primal, max(at.w.complementarity(mu), at.v.complementarity(mu)) / s_c)

    @property
    def least_barrier(self) -> float:
        """Last μ: what it leaves of J, μ for every bound, is less than the tolerance of J, where J is not zero."""
        if self.last_mu is not None:
            return self.last_mu
        count = sum(int(np.isfinite(side).sum()) for each in (self.at.w, self.at.v) for side in each.room)
        share = LEAST_SHARE * abs(self.at.values.cost) / max(count, 1)
        return self.tolerance / 100 * min(1.0, max(share, SMALLEST_SHARE))

    def _optimal(self, errors: Errors) -> bool:
        """Whether the optimality conditions hold; complementarity to the last barrier."""
        enough = ENOUGH * self.least_barrier
        return max(errors.dual, errors.primal) <= self.tolerance and errors.complementarity <= enough

    def _lower_barrier(self, blocks: Blocks) -> None:
        """Lower μ while the barrier problem is solved well enough for it; the filter then begins anew."""
        least = self.least_barrier
        while self.mu > least and self._errors(blocks, self.mu).largest <= ENOUGH * self.mu:
            self.mu = max(least, min(LINEAR * self.mu, self.mu**SUPERLINEAR))
            self.filter = Filter(self.filter.largest)

    def _search(self, direction: Direction) -> Trial | None:
        """The filter line search, with corrections of second order at its first trial."""
        at, tau = self.at, max(LEAST_TAU, 1 - self.mu)
        longest = min(at.w.largest_step(direction.w, tau), at.v.largest_step(direction.v, tau))
        theta, phi = self.violation(at), self.cost(at)
        shortest, step_size, first = self._shortest(direction.slope, theta), longest, True
        size = np.abs(direction.w) / (1 + np.abs(at.w.value))
        if max(size.max(initial=0.0), (np.abs(direction.v) / (1 + np.abs(at.v.value))).max(initial=0.0)) < TINY:
            return self._moved(direction, longest)
        while step_size >= shortest:
            trial = self._moved(direction, step_size)
            if trial is not None and self._acceptable(trial, direction.slope, step_size, theta, phi):
                self.step_size = step_size
                return trial
            if first and trial is not None and trial.violation >= theta:
                corrected = self._corrected(direction, trial, step_size, theta, phi, tau)
                if corrected is not None:
                    self.step_size = step_size
                    return corrected
            first = False
            step_size /= 2
        return self._search_along_dynamics(direction, longest, tau, theta, phi)

    def _search_along_dynamics(
        self, direction: Direction, longest: float, tau: float, theta: float, phi: float
    ) -> Trial | None:
        """Closed-loop rollouts, for where the filter blocks every step, judged by the exact penalty as well."""
        price, step_size = float(np.abs(self.at.duals + direction.duals).max(initial=0.0)), longest
        for _ in range(ROLLOUTS):
            trial = self._rolled(direction, step_size, tau)
            lower = trial is not None and trial.cost + price * trial.violation < phi + price * theta
            if trial is not None and lower and self._acceptable(trial, direction.slope, step_size, theta, phi):
                self.step_size = step_size
                return trial
            step_size /= 2
        return None

    def _rolled(self, direction: Direction, step_size: float, tau: float) -> Trial | None:
        """Follow the dynamics under the step's feedback: what the curvature of f adds to the gaps is none."""
        assert self.system is not None
        w, v = self.at.w, self.at.v
        low, high = w.room
        sides = w.value - tau * low, w.value + tau * high
        found = self.functions.rollout(w.value, direction.w, self.system.factors.gains, sides, step_size)
        values = self.functions.values(found) if found is not None and np.isfinite(found).all() else None
        if found is None or values is None or not values.finite:
            return None
        at = replace(self.at, w=replace(w, value=found), v=v.moved(step_size * direction.v), values=values)
        return Trial(at, self.violation(at), self.cost(at))

    def _shortest(self, slope: float, theta: float) -> float:
        """α_min (Eq. 23)."""
        least = GAMMA_VIOLATION
        if slope < 0:
            least = min(least, GAMMA_COST * theta / -slope)
            if theta <= self.small:
                least = min(least, SWITCH * theta**SWITCH_VIOLATION / (-slope) ** SWITCH_COST)
        return max(SHORTEST * least, 1e-16)

    def _moved(self, direction: Direction, step_size: float) -> Trial | None:
        """Return the point so far along a direction; None where a function is not finite there."""
        w, v = self.at.w.moved(step_size * direction.w), self.at.v.moved(step_size * direction.v)
        values = self.functions.values(w.value)
        if not values.finite:
            return None
        at = replace(self.at, w=w, v=v, values=values)
        return Trial(at, self.violation(at), self.cost(at))

    def _acceptable(self, trial: Trial, slope: float, step_size: float, theta: float, phi: float) -> bool:
        if not self.filter.accepts(trial.violation, trial.cost):
            return False
        slack = ROUNDING * abs(phi)
        if theta <= self.small and self._switches(slope, step_size, theta):
            return trial.cost <= phi + SUFFICIENT * step_size * slope + slack
        return (
            trial.violation <= (1 - GAMMA_VIOLATION) * theta or trial.cost <= phi - GAMMA_COST * theta + slack
        ) and np.isfinite(trial.cost)

    def _switches(self, slope: float, step_size: float, theta: float) -> bool:
        """Whether a step promises more of the objective than of the violation (Eq. 19)."""
        return slope < 0 and step_size * (-slope) ** SWITCH_COST > SWITCH * theta**SWITCH_VIOLATION

    def _corrected(
        self, direction: Direction, trial: Trial, step_size: float, theta: float, phi: float, tau: float
    ) -> Trial | None:
        """Correct for the curvature of the constraints (section 2.4)."""
        assert self.system is not None
        residual, before = step_size * self.residual(self.at) + self.residual(trial.at), theta
        for _ in range(CORRECTIONS):
            other = self.system.direction(residual)
            length = min(self.at.w.largest_step(other.w, tau), self.at.v.largest_step(other.v, tau))
            found = self._moved(other, length)
            if found is None or found.violation > LESS * before:
                return None
            if self._acceptable(found, direction.slope, step_size, theta, phi):
                return found
            before, residual = found.violation, length * residual + self.residual(found.at)
        return None

    def _take(self, trial: Trial, direction: Direction) -> None:
        """Move to a trial point, multipliers included; the filter keeps what was left for less violation."""
        at, tau, alpha = self.at, max(LEAST_TAU, 1 - self.mu), self.step_size
        theta, phi = self.violation(at), self.cost(at)
        decreases = trial.cost <= phi + SUFFICIENT * alpha * direction.slope + ROUNDING * abs(phi)
        if not (self._switches(direction.slope, alpha, theta) and decreases):
            self.filter.add(theta, phi)
        moves = [
            (bounded, moved, bounded.multiplier_steps(step, self.mu))
            for bounded, moved, step in ((at.w, trial.at.w, direction.w), (at.v, trial.at.v, direction.v))
        ]
        longest = min(bounded.largest_multiplier_step(steps, tau) for bounded, _, steps in moves)
        w, v = (
            moved.with_multipliers(bounded.below + longest * steps[0], bounded.above + longest * steps[1], self.mu)
            for bounded, moved, steps in moves
        )
        self.at = replace(trial.at, w=w, v=v, duals=at.duals + alpha * direction.duals)
