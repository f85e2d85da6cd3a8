"""Quadratic programs in a box: the minimization of Eq. 4 where the controls have bounds (Tassa et al. 2014).

    minimize ½ kᵀ H k + gᵀ k   subject to   lower ≤ k ≤ upper,   lower ≤ 0 ≤ upper

Where k_i is at a bound and its slope (g + H k)_i pushes outward, k_i is *active*; the others are *free*. Newton's step
on the free ones is cut at the first bound it meets, which then is active as well; after a whole step, what its slope
leads inside is released. The objective falls from one whole step to the next, so no active set comes back, and the last
step solves

    H_ff k_f = −g_f − H_fc k_c,        y_c = −(g + H k)_c,   y_f = 0

exactly: y are the multipliers, positive at an upper bound, negative at a lower one (Nocedal & Wright 2006, ch. 16).
Tassa, Mansard & Todorov (ICRA 2014) find the same minimizer by projected Newton steps with a line search. The kernel's
box.c does the same, number by number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.errors import NotPositiveDefinite
from ocpkit.recursion.linalg import Cholesky, anywhere, either, negation, select, smallest, total

ROUNDING = 16 * float(np.finfo(float).eps)  # a slope below this, relative to its terms, has no sign
STEPS, STEPS_PER_ENTRY = 8, 4  # more than these have never been seen to be needed


@dataclass(frozen=True)
class BoxMinimum:
    """The minimizer in a box, and a matrix H (m, m) inverted as far as the box lets it.

    Attributes
    ----------
    matrix
        H.
    k, multipliers
        The minimizer (m,), and y (m,).
    solve
        For a vector (m,) or matrix (m, n): H_ff⁻¹ times its free rows, zero on the active ones.
    """

    matrix: Any
    k: Any
    multipliers: Any
    solve: Callable[[Any], Any]

    def dense(self) -> Any:
        """Return H."""
        return self.matrix


@dataclass(frozen=True)
class StepBounds:
    """Bounds of the steps k at every stage, and where the search for the minimum in them ended last.

    Attributes
    ----------
    steps
        lower − u_t and upper − u_t (m,) of every stage.
    multipliers
        y (m,) of each stage from an earlier pass, whose active set the next search begins with; overwritten.
    """

    steps: Sequence[tuple[Any, Any]]
    multipliers: dict[int, Any] = field(default_factory=dict)

    def minimize(self, t: int, H: Array, g: Array) -> BoxMinimum:
        """Minimize ½ kᵀ H k + gᵀ k (m,) within the bounds of stage t; raises as `minimize_in_box`."""
        minimum = minimize_in_box(H, g, *self.steps[t], self.multipliers.get(t))
        self.multipliers[t] = minimum.multipliers
        return minimum


def minimize_in_box(H: Array, g: Array, lower: Array, upper: Array, previous: Array | None = None) -> BoxMinimum:
    """Minimize ½ kᵀ H k + gᵀ k over lower ≤ k ≤ upper.

    Parameters
    ----------
    H, g
        (m, m) symmetric and (m,).
    lower, upper
        (m,), of which 0 is between.
    previous
        Multipliers of a similar problem: what they active is where the search begins.

    Raises
    ------
    NotPositiveDefinite
        If H is not positive definite among entries that are free.
    """
    k = _start(H, g, lower, upper, previous)
    slope = g + H @ k
    active = outward(k, slope, lower, upper)
    for _ in range(STEPS + STEPS_PER_ENTRY * len(k)):
        free = np.flatnonzero(~active)
        factor = Cholesky(H[np.ix_(free, free)])
        step = np.zeros_like(k)
        step[free] = -factor.solve(slope[free])
        bound = np.where(step > 0, upper, lower)
        lengths = np.divide(bound - k, step, out=np.full_like(k, np.inf), where=step != 0)
        length = min(1.0, float(lengths.min(initial=np.inf)))
        k = np.where(lengths <= length, bound, k + length * step)
        slope = g + H @ k
        if length < 1:
            active = active | (lengths <= length)
            continue
        wrong = active & ~outward(k, slope, lower, upper, ROUNDING * (np.abs(g) + np.abs(H) @ np.abs(k)))
        if not wrong.any():
            inverse = _on(free, factor) if active.any() else factor.solve
            return BoxMinimum(H, k, np.where(active, -slope, 0.0), inverse)
        active = active & ~wrong
    raise NotPositiveDefinite


def outward(k: Array, slope: Array, lower: Array, upper: Array, tolerance: Any = 0.0) -> Any:
    """Entries at a bound that their slope, by more than −tolerance, pushes against; those without room always."""
    return ((k <= lower) & (slope > -tolerance)) | ((k >= upper) & (slope < tolerance)) | (lower == upper)


class BoxSearch:
    """The same search with a selection for every decision: of symbols, or of many programs at once.

    What comes after the last step of a program changes nothing of it. Vectors are columns of symbols (m, 1), or torch
    tensors (B, m); conditions are symbols that are 0 or 1, or tensors of truth values.

    Parameters
    ----------
    H, g, lower, upper, previous
        As in `minimize_in_box`.
    times
        The product of a matrix like H and a vector.
    rounding
        See `ROUNDING`.
    never
        A condition (1,) that does not hold.

    Attributes
    ----------
    k, slope, active
        The point, g + H k, and where k is active (m,).
    finished
        Whether k is the minimizer, (1,).
    """

    def __init__(
        self,
        H: Any,
        g: Any,
        lower: Any,
        upper: Any,
        previous: Any,
        *,
        times: Callable[[Any, Any], Any],
        rounding: float,
        never: Any,
    ) -> None:
        self.H, self.g, self.lower, self.upper, self.times, self.rounding = H, g, lower, upper, times, rounding
        k = select(previous > 0, upper, select(previous < 0, lower, 0))
        self.k = select(total(k * (2 * g + times(H, k))) <= 0, k, 0)
        self.slope = g + times(H, self.k)
        self.active, self.finished = self._outward(0), never

    def advance(self, factor: Any) -> None:
        """Go one step; `factor` is that of H with the rows and columns of an identity where k is active."""
        step = -factor.solve(select(self.active, 0, self.slope))
        bound = select(step > 0, self.upper, self.lower)
        lengths = select(step != 0, (bound - self.k) / step, np.inf)
        length = smallest(lengths, 1.0)
        stops, cut = lengths <= length, length < 1
        self.k = select(self.finished, self.k, select(stops, bound, self.k + length * step))
        self.slope = self.g + self.times(self.H, self.k)
        tolerance = self.rounding * (abs(self.g) + self.times(abs(self.H), abs(self.k)))
        kept = self.active * self._outward(tolerance)
        self.finished = either(self.finished, negation(either(cut, anywhere(self.active * negation(kept)))))
        self.active = select(self.finished, self.active, select(cut, either(self.active, stops), kept))

    def minimum(self, solve: Callable[[Any], Any]) -> BoxMinimum:
        """Return the minimizer, with the inverse of H on the free rows."""
        return BoxMinimum(self.H, self.k, select(self.active, -self.slope, 0), solve)

    def _outward(self, tolerance: Any) -> Any:
        below = (self.k <= self.lower) * (self.slope > -tolerance)
        above = (self.k >= self.upper) * (self.slope < tolerance)
        return either(either(below, above), self.lower == self.upper)


def _start(H: Array, g: Array, lower: Array, upper: Array, previous: Array | None) -> Array:
    """Return k with what was active before at its bounds, unless k = 0 is better."""
    if previous is None:
        return np.zeros_like(g)
    k = np.where(previous > 0, upper, np.where(previous < 0, lower, 0.0))
    return k if k @ (2 * g + H @ k) <= 0 else np.zeros_like(g)


def _on(free: Any, factor: Cholesky) -> Callable[[Any], Any]:
    def solve(right: Any) -> Any:
        solution = np.zeros_like(right)
        solution[free] = factor.solve(right[free])
        return solution

    return solve
