"""The check that no system shares: is (x, u) a Karush–Kuhn–Tucker point of its problem?

First the dynamics, rows and bounds have to hold to `FEASIBLE`, relative to the largest entry of each along the answer.
Then multipliers are sought, none of which a system is asked for. With w the variables, ∇J and A the derivatives of J
and of all rows (`answer`),

    minimize over y   ½ ‖S (∇J + Aᵀ y)‖² + ½ Σ (θ y_i d_i)²,    y_i ≥ 0 near an upper bound, ≤ 0 near a lower one,

where d is the distance from the nearer bound, zero for equalities, and S makes slopes relative to the units of J and w.
It is solved as a sequence of sparse least-squares problems, in which some multipliers are fixed at zero; where none of
them passes, a linear program seeks the y with the smallest largest residual. Where multipliers of any sign are far from
passing, nothing more is tried.

A point passes if the residual is at most `STATIONARY` of the largest sum of magnitudes that cancel in it, for each kind
of variable, and no |y_i| d_i is above `COMPLEMENTARY` of J's unit. Co-states are free as all other y are, so that
nothing is rolled out or back: of unstable systems too the residual is not made of rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog
from scipy.sparse.linalg import splu

from benchmarks.robustness.answer import SMALLEST, AtAnswer, largest
from ocpkit import Problem
from ocpkit.boundary.arrays import Array

FEASIBLE, STATIONARY, COMPLEMENTARY = 1e-6, 1e-4, 1e-5
FLAT = 1e-4  # sums of magnitudes below count as this, in units of J and w
REGULARIZATION, REFINEMENTS = 1e-10, 5
ROUNDS, TINY = 12, 1e-12
HOPELESS = 100.0  # times what is allowed: no linear program is tried
PATIENCE = 10.0  # seconds for the linear program


@dataclass(frozen=True)
class Verdict:
    """What was found of an answer.

    Attributes
    ----------
    cost
        J, summed anew.
    violation
        Largest relative violation of dynamics, rows and bounds.
    slope
        Largest relative residual of the Lagrangian's gradient; infinite where it was not looked at.
    left
        Largest |y_i| d_i, in J's unit.
    """

    cost: float
    violation: float
    slope: float = np.inf
    left: float = np.inf

    @property
    def feasible(self) -> bool:
        """Whether dynamics, rows and bounds hold."""
        return self.violation <= FEASIBLE

    @property
    def excess(self) -> float:
        """The larger one of slope and what is left, as a multiple of what is allowed."""
        return max(self.slope / STATIONARY, self.left / COMPLEMENTARY)

    @property
    def holds(self) -> bool:
        """Whether the point is a Karush–Kuhn–Tucker point."""
        return self.feasible and self.excess <= 1


def check(problem: Problem, states: Sequence[Array], controls: Sequence[Array]) -> Verdict:
    """Judge an answer of any system: T + 1 states and T controls."""
    if not all(np.isfinite(z).all() for z in (*states, *controls)):
        return Verdict(float("nan"), float("inf"))
    at = AtAnswer(problem, states, controls)
    cost, excess = float(at.costs.sum()), violation(at)
    if not (np.isfinite(cost) and excess <= FEASIBLE):
        return Verdict(cost, excess)
    system = _System.of(at)

    def judged(y: Array) -> Verdict:
        return Verdict(cost, excess, *system.judge(y))

    free = _least_squares(system.slopes, system.columns, system.weight)
    least = judged(free)
    if least.excess > HOPELESS:  # although multipliers of any sign were allowed
        return least
    least = judged(np.where(free * system.sign < 0, 0.0, free))
    for y in _candidates(system, free):
        if least.holds:
            break
        least = min(least, judged(y), key=lambda each: each.excess)
    return least


def violation(at: AtAnswer) -> float:
    """Largest relative violation of the start, the dynamics, the rows and the bounds."""
    gaps = [np.abs(gap) / size for gap, size in zip([at.x[0] - at.problem.x0, *at.gaps], largest(at.x))]
    value, lower, upper = at.rows
    bounds = [np.where(np.isfinite(side), np.abs(side), 0.0) for side in (lower, upper)]
    sizes = np.maximum.reduce([np.abs(value), *bounds])
    beyond = np.maximum(lower - value, value - upper) / np.maximum(sizes, SMALLEST)
    return float(np.max(np.concatenate([*gaps, beyond, [0.0]])))


@dataclass(frozen=True)
class _System:
    """The residual s + C y with units: of its rows those of J and w, of its columns such that their norm is one.

    Attributes
    ----------
    distance
        d, such that y d is in J's unit; zero where a row holds.
    sign
        What y must have; 0: any.
    """

    slopes: Array
    columns: Any
    distance: Array
    sign: Array
    kinds: Array

    @classmethod
    def of(cls, at: AtAnswer) -> _System:
        """Collect the rows that have a bound, and the dynamics."""
        S = sp.diags(at.units / at.cost_unit)
        value, lower, upper = at.rows
        below, above = np.maximum(value - lower, 0.0), np.maximum(upper - value, 0.0)
        equal, free = lower == upper, np.zeros(sum(map(len, at.gaps)))
        distance = np.concatenate([free, np.where(equal, 0.0, np.minimum(below, above))])
        sign = np.concatenate([free, np.where(equal, 0.0, np.where(above <= below, 1.0, -1.0))])
        kept = np.isfinite(distance)
        columns = sp.csc_matrix(S @ at.jacobian.T)[:, kept]
        norms = np.maximum(np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0)).ravel()), 1e-12)
        scaled = sp.csc_matrix(columns @ sp.diags(1 / norms))
        return cls(S @ at.gradient, scaled, distance[kept] / norms, sign[kept], at.kinds)

    @property
    def weight(self) -> Array:
        """θ d: as much of y d is allowed as of the residual."""
        return self.distance * STATIONARY / COMPLEMENTARY

    def judge(self, y: Array) -> tuple[float, float]:
        """Return the largest relative residual, and the largest |y| d."""
        cancelling, residual = (
            np.abs(self.slopes) + abs(self.columns) @ np.abs(y),
            np.abs(self.slopes + self.columns @ y),
        )
        of_kinds = [self.kinds == kind for kind in np.unique(self.kinds)]
        slope = max(residual[kind].max() / max(cancelling[kind].max(), FLAT) for kind in of_kinds)
        return float(slope), float(np.max(np.abs(y) * self.distance, initial=0.0))


def _candidates(system: _System, y: Array) -> Iterator[Array]:
    """Yield y from the free one on: by block pivoting (Portugal, Júdice & Vicente 1994), then by a linear program.

    Of the multipliers those with the wrong sign are fixed at zero, and those that are fixed and want to leave it in the
    right direction are let go, all at once; which need not end, but mostly does in a few rounds.
    """
    kept = np.ones(len(y), bool)
    for _ in range(ROUNDS):
        wanted = -(system.columns.T @ (system.slopes + system.columns @ y))
        exchanged = np.where(kept, y * system.sign < 0, wanted * system.sign > TINY)
        if not exchanged.any():
            break
        kept ^= exchanged
        y = np.zeros(len(kept))
        y[kept] = _least_squares(system.slopes, system.columns[:, kept], system.weight[kept])
        yield np.where(y * system.sign < 0, 0.0, y)
    found = _linear_program(system)
    if found is not None:
        yield found


def _least_squares(slopes: Array, columns: Any, weight: Array) -> Array:
    """Minimize ‖s + C y‖² + ‖weight · y‖² by the proximal point method, factored once."""
    factors = splu(sp.csc_matrix(columns.T @ columns + sp.diags(weight**2 + REGULARIZATION)))
    y = np.zeros(columns.shape[1])
    for _ in range(REFINEMENTS):
        y -= factors.solve(columns.T @ (slopes + columns @ y) + weight**2 * y)
    return y


def _linear_program(system: _System) -> Array | None:
    """Minimize t where |s + C y| ≤ t and |weight · y| ≤ t; None where that takes too long."""
    columns, count, held = system.columns, len(system.sign), np.flatnonzero(system.weight > 0)
    weights = sp.diags(system.weight * system.sign, format="csr")[held]
    t = [-np.ones((size, 1)) for size in (len(system.slopes), len(held))]
    found = linprog(
        np.concatenate([np.zeros(count), [1.0]]),
        A_ub=sp.csr_matrix(sp.bmat([[columns, t[0]], [-columns, t[0]], [weights, t[1]]])),
        b_ub=np.concatenate([-system.slopes, system.slopes, np.zeros(len(held))]),
        bounds=[
            *zip(np.where(system.sign > 0, 0.0, -np.inf), np.where(system.sign < 0, 0.0, np.inf)),
            (0.0, None),
        ],
        method="highs",
        options={"time_limit": PATIENCE},
    )
    return None if found.x is None else np.asarray(found.x[:count])
