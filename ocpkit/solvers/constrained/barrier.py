"""Logarithmic barrier on rows, with a slack that is always at its best and so never appears, and its schedule.

A row c ≤ 0 with its slack, c + s = 0 and s > 0, has in the mixed logarithmic barrier-augmented Lagrangian (Armand &
Omheni 2017) the price

    ψ(c) = min_s  −μ log s + y (c + s) + ½ ρ (c + s)².

The minimizer is the positive root of ρ (c + s) + y = μ/s. With it, and up to constants that leave no unit of s,

    ψ(c) = −½ μ log(ρ s²/μ) + (μ/s)² / 2ρ,        ψ'(c) = y⁺ = μ/s > 0,        ψ''(c) = 1 / (s²/μ + 1/ρ),

so s y⁺ = μ and y⁺ − y = ρ (c + s) hold exactly, wherever c is: the start may be infeasible, and no step has to stop
short of a boundary. ψ is smooth, while the price of the augmented Lagrangian, its limit for μ → 0, has a jump in its
second derivative. Newton's step on J + Σ ψ is that of the regularized interior-point system, δs eliminated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from ocpkit.errors import ProblemError, refuse_hidden_fields
from ocpkit.problem.constraint_rows import REMEMBERED, ConstraintRows
from ocpkit.problem.graphs import TracedConstraints
from ocpkit.solution.solution import WarmStart
from ocpkit.solvers.driver import positive


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """Options of the schedule of μ.

    Parameters
    ----------
    first, last
        First and last μ [natural unit of J, at most |J|]: s y of every inequality. J is too high by at most μ per row.
    factor
        What μ is multiplied by after each inner solve, below 1.

    Raises
    ------
    ProblemError
        For a number out of its range.
    """

    first: float = 1e-3
    last: float = 1e-9
    factor: float = 0.1

    def __post_init__(self) -> None:
        refuse_hidden_fields(self)
        positive(self, "first", "last", "factor")
        if self.factor >= 1:
            raise ProblemError(f"factor of the barrier must be below 1, got {self.factor!r}")

    def begin(self, warm: WarmStart | None) -> float:
        """Return the first μ: that of a warm start, between the first and the last."""
        if warm is None:
            return self.first
        return min(max(self.last, warm.barrier or self.first), self.first)

    def lowered(self, mu: float) -> float:
        """Return the next smaller μ."""
        return max(self.last, mu * self.factor)


@dataclass(frozen=True, eq=False)
class OneSided:
    """Rows with one bound each, or equalities, of which each follows from a row of `source` (k,) of other rows."""

    rows: ConstraintRows
    source: NDArray[np.intp]


@lru_cache(maxsize=REMEMBERED)
def one_sided(rows: ConstraintRows) -> OneSided:
    """Split lower ≤ g ≤ upper into g ≤ upper and lower ≤ g; equalities stay, and what has no bound goes."""
    lower, upper = rows.traced.lower, rows.traced.upper
    equal = lower == upper
    above, below = np.flatnonzero(np.isfinite(upper)), np.flatnonzero(np.isfinite(lower) & ~equal)
    source = np.concatenate([above, below])
    arguments = rows.traced.function.sx_in()
    g = rows.traced.function(*arguments)
    function = ca.Function("rows", arguments, [ca.vertcat(ca.SX(0, 1), *(g[i] for i in source.tolist()))])
    first = np.concatenate([np.where(equal, lower, -np.inf)[above], lower[below]])
    last = np.concatenate([upper[above], np.full(len(below), np.inf)])
    names = tuple(rows.names[i] for i in source)
    return OneSided(ConstraintRows(TracedConstraints(function, first, last, (len(names),)), names), source)


def barrier_price(rows: ConstraintRows, g: ca.SX, y: ca.SX, rho: ca.SX, mu: ca.SX) -> tuple[ca.SX, ca.SX]:
    """Return Σ ψ (1,), equalities under ½ ρ (g + y/ρ)² instead, and y⁺ (k,); y is negative at lower bounds.

    g, y and ρ are (k,); μ is one for all.
    """
    lower, upper, price, updated = rows.traced.lower, rows.traced.upper, ca.SX(0), ca.SX.zeros(len(rows.names), 1)
    equal, others = (np.flatnonzero(which).tolist() for which in (lower == upper, lower != upper))
    if equal:
        weight, s = rho[equal], g[equal] - ca.DM(upper[equal]) + y[equal] / rho[equal]
        price += ca.sum1(weight * s**2 / 2)
        updated[equal] = weight * s
    if others:
        weight, above = rho[others], np.isfinite(upper[others])
        sign, bound = ca.DM(np.where(above, 1.0, -1.0)), ca.DM(np.where(above, upper[others], lower[others]))
        shifted = sign * (g[others] - bound + y[others] / weight)
        half = (ca.fabs(shifted) + ca.sqrt(shifted**2 + 4 * mu / weight)) / 2  # the root without cancellation
        s = ca.if_else(shifted > 0, mu / (weight * half), half)
        push = ca.if_else(shifted > 0, weight * half, mu / half)
        price += ca.sum1(push**2 / (2 * weight) - mu * ca.log(s**2 / (mu / weight)) / 2)
        updated[others] = sign * push
    return price, updated
