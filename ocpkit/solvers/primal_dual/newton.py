"""Newton's step of the barrier problem: the right-hand side of the KKT system, its solution, and all that follows.

    minimize J(w) + Σ cost_k v_k − μ Σ ln(room)   subject to   c(w) + Σ_k a_k v_k = 0

The slacks v and the multipliers z of bounds are eliminated first (Wächter & Biegler 2006, Eq. 11-13); `kkt` solves for
what is left. Where the inertia is wrong a multiple δ of the identity, in natural units, is added to the Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.errors import NotPositiveDefinite
from ocpkit.solvers.primal_dual.blocks import Blocks, Values
from ocpkit.solvers.primal_dual.bounded import FIXED, Bounded
from ocpkit.solvers.primal_dual.kkt import AnyFactors, Step, Weights, factorize
from ocpkit.solvers.primal_dual.slacks import Slacks

REGULARIZATION = 1e-8
"""Compliance of equality rows, in natural units: what keeps rows that depend on each other from a division by zero."""
REFINEMENTS = 3
"""Solutions with one factorization, after which a regularized equality holds as if it were not."""
EXACT = 1e-10
"""Residual of a linearized equality that needs no more of them, as a share of the largest residual."""

LEAST_SIGMA = 1e-20
"""Curvature of a slack without bounds, which follows its row."""

ON_STATES = 1e-2
"""Share of the damping that states get: less leaves directions open in which V_xx falls, more shortens steps of states
that controls have long decided."""

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-4, 1e-20, 1e20
STEEPLY, GROWTH, DECAY = 100.0, 8.0, 1 / 3


@dataclass(frozen=True)
class Iterate:
    """Primal and dual variables, and the functions there.

    Attributes
    ----------
    w, v
        Variables of the stages, and slacks.
    duals
        Multipliers of the constraints: co-states of the gaps first, then y of the rows.
    values
        J, gaps and rows.
    """

    w: Bounded
    v: Bounded
    duals: Array
    values: Values


@dataclass(frozen=True)
class Direction:
    """A step of all variables.

    Attributes
    ----------
    w, v, duals
        δ of those of the iterate.
    slope
        Derivative of the barrier objective along it.
    """

    w: Array
    v: Array
    duals: Array
    slope: float


@dataclass
class Damping:
    """δ that the inertia needed, as Wächter & Biegler (2006, Alg. IC) choose it."""

    last: float = 0.0
    used: float = 0.0

    def trials(self) -> list[float]:
        """Return values to try in turn."""
        value = FIRST_DAMPING if self.last == 0 else max(LEAST_DAMPING, DECAY * self.last)
        found = [0.0]
        growth = STEEPLY if self.last == 0 else GROWTH
        while value <= MOST_DAMPING:
            found.append(value)
            value *= growth
        return found


class NewtonSystem:
    """The linearized optimality conditions at an iterate.

    Raises
    ------
    NotPositiveDefinite
        If no damping gives the inertia of a minimum.
    """

    def __init__(self, slacks: Slacks, blocks: Blocks, at: Iterate, mu: float, damping: Damping) -> None:
        self.slacks, self.blocks, self.at, self.mu = slacks, blocks, at, mu
        self.gaps, count = len(at.values.gaps), len(at.duals)
        self._sigma = np.maximum(at.v.sigma(), LEAST_SIGMA)
        self._slope = slacks.cost + at.v.slope(mu)
        compliance = slacks.sum(1 / self._sigma, count)  # a² = 1
        self._shift = slacks.sum(slacks.sign * self._slope / self._sigma, count)
        self._regular = np.where(compliance[self.gaps :] == 0, REGULARIZATION, 0.0)
        self._metric = np.where(blocks.layout.of_controls, 1.0, ON_STATES)
        self.q = blocks.gradient + at.w.slope(mu)
        elastic = compliance[: self.gaps] if compliance[: self.gaps].any() else None
        self.factors = self._factorize(damping, compliance[self.gaps :] + self._regular, elastic)

    def _factorize(self, damping: Damping, compliance: Array, elastic: Array | None) -> AnyFactors:
        sigma = self.at.w.sigma()
        for value in damping.trials():
            self.weights = Weights(sigma + value * self._metric, compliance, elastic)
            try:
                found = factorize(self.blocks, self.weights)
            except NotPositiveDefinite:
                continue
            damping.used = value
            damping.last = value if value > 0 else damping.last
            return found
        raise NotPositiveDefinite(0)

    def direction(self, residual: Array) -> Direction:
        """Return the step towards c(w) + Σ a v = 0 from these residuals, of gaps and then of rows."""
        right = residual - self._shift
        y = self.at.duals[self.gaps :]
        for _ in range(REFINEMENTS):
            h = right[self.gaps :] + self._regular * y
            step = self._solve(right[: self.gaps], h)
            missed = np.abs(self._regular * (step.multipliers - y)).max(initial=0.0)
            y = step.multipliers
            if missed <= EXACT * np.abs(residual).max(initial=0.0):
                break
        duals = np.concatenate([step.costates, step.multipliers])
        s = self.slacks
        v = -(self._slope + s.sign * duals[s.place]) / self._sigma
        slope = float(self.q @ step.d + self._slope @ v)
        return Direction(step.d, v, duals - self.at.duals, slope)

    def _solve(self, b: Array, h: Array) -> Step:
        """Solve; behind elastic rows, whose compliance comes to rounding, once more for what the multipliers miss."""
        step, (_, compliance, elastic) = self.factors.solve(self.q, b, h), self.weights
        if elastic is None:
            return step
        blocks = self.blocks
        along = blocks.along(step.costates, step.multipliers) - blocks.gradient
        q = self.q + blocks.curved(step.d) + self.weights.variables * step.d + along
        gaps, rows = blocks.linear(step.d)
        more = self.factors.solve(q, gaps + b - elastic * step.costates, rows + h - compliance * step.multipliers)
        return Step(*(a + b for a, b in zip(step, more)))


LARGEST_GUESS = 1e3
"""Largest multiplier of a guess by least squares that is believed (Wächter & Biegler 2006, section 3.6)."""


def least_squares_duals(slacks: Slacks, blocks: Blocks, at: Iterate) -> Array:
    """Multipliers for which the gradient of the Lagrangian is smallest, those of the bounds held; zero where large.

    Also where rounding leaves none, as along dynamics that grow beyond it.
    """
    gaps, count = len(at.values.gaps), len(at.duals)
    flat = replace(blocks, hessians=np.zeros_like(blocks.hessians))
    slope = slacks.cost - at.v.below + at.v.above
    compliance = slacks.sum(np.ones(len(slope)), count)
    elastic = compliance[:gaps] if compliance[:gaps].any() else None
    of_rows = np.where(compliance[gaps:] > 0, compliance[gaps:], REGULARIZATION)
    try:
        factors = factorize(flat, Weights(np.where(at.w.fixed, FIXED, 1.0), of_rows, elastic))
    except NotPositiveDefinite:
        return np.zeros(count)
    shift = -slacks.sum(slacks.sign * slope, count)
    step = factors.solve(blocks.gradient - at.w.below + at.w.above, shift[:gaps], shift[gaps:])
    duals = np.concatenate([step.costates, step.multipliers])
    fine = np.isfinite(duals).all() and np.abs(duals).max(initial=0.0) <= LARGEST_GUESS
    return duals if fine else np.zeros(count)
