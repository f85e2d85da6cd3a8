"""Distance of a point from a stationary one, in units of J, so that a verdict does not change with the user's units.

    decrement  max_t,i (Q_u + y)_i² / |Q_uu,ii|        twice what one control alone promises to save
    rounding   Σ_t ε² (|Q_uu| · u² + |V_xx| · x²)      what the rounding of u and x itself makes of J

Both change with the units of J only; a tolerance is a share of Σ |ℓ_t| + |φ|, of which J is the sum. Where this falls
to zero, as at a regulator's rest, J's own spread since the guess stands behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.series import blocks_of
from ocpkit.engines.interface import AnyPolicy
from ocpkit.solution.trajectory import Trajectory

ROUNDING = 16 * float(np.finfo(float).eps)
SPREAD = 1e-60
"""Share of J's spread that J is measured against at least."""
PROMISE_FACTOR = 1e3
"""Multiple of what each control alone may still promise that the whole step may."""
BOTTOMLESS = 1e60
"""Multiple of the first |J| that is not zero, below whose negative J counts as falling for ever."""


@dataclass(frozen=True)
class Optimality:
    """The two numbers of this page, and the geometric mean of |Q_uu|'s diagonal over stages of as many controls.

    The mean leaves out zeros; it is zero where there is nothing else.
    """

    decrement: float
    rounding: float
    metric: dict[int, Array]

    @classmethod
    def of(cls, policy: AnyPolicy, trajectory: Trajectory) -> Optimality:
        """Measure a trajectory by the result of its backward pass."""
        decrement, rounding, metric = 0.0, 0.0, dict[int, Array]()
        with np.errstate(all="ignore"):
            for slope, hessian_diagonal, u in _stacked(policy.slopes, policy.curvatures, trajectory.controls):
                hessian_diagonal = np.abs(hessian_diagonal)
                decrement = float(
                    np.maximum(decrement, _largest_ratio(slope * slope, hessian_diagonal))
                )  # a NaN stays one
                rounding += float(np.vdot(hessian_diagonal, u * u))
                metric[u.shape[1]] = _geometric_mean(hessian_diagonal)
            hessians = policy.value_hessians
            for V, x in () if hessians is None else _stacked(hessians, trajectory.states):
                rounding += float(np.vdot(np.abs(V.diagonal(axis1=1, axis2=2)), x * x))
        if not np.isfinite(rounding):
            rounding = 0.0  # a V_xx that is not finite excuses nothing
        return cls(decrement, ROUNDING**2 * rounding, metric)


def _stacked(*series: Sequence[Array]) -> Iterator[tuple[Array, ...]]:
    """Yield the stages of one size after those of another, each series as an array (stages, …)."""
    groups = defaultdict[int, list[tuple[Array, ...]]](list)
    for blocks in zip(*map(blocks_of, series), strict=True):
        groups[blocks[0].shape[1]].append(blocks)
    for group in groups.values():
        yield group[0] if len(group) == 1 else tuple(map(np.concatenate, zip(*group)))


def _geometric_mean(values: Array) -> Array:
    """Return that of the positive entries of each column, or 0."""
    mean = np.exp(np.log(values).sum(0) / len(values))
    if (mean > 0).all():
        return mean
    positive = values > 0
    logs = np.log(values, out=np.zeros_like(values), where=positive).sum(0) / np.maximum(positive.sum(0), 1)
    return np.where(positive.any(0), np.exp(logs), 0.0)


def _largest_ratio(squares: Array, hessian_diagonals: Array) -> float:
    """Return max a/b with 0/0 = 0."""
    largest = float((squares / hessian_diagonals).max(initial=0.0))
    if largest == largest:
        return largest
    ratios = np.divide(squares, hessian_diagonals, out=np.where(squares == 0, 0.0, np.inf), where=hessian_diagonals > 0)
    return float(np.where(np.isnan(squares), np.nan, ratios).max(initial=0.0))


class Spread:
    """Range that J has covered on trajectories without gaps."""

    def __init__(self) -> None:
        self.highest, self.first = -float("inf"), 0.0

    def unit(self, trajectory: Trajectory) -> float:
        """Return what J's tolerances are shares of, [J]; takes note of this trajectory."""
        if trajectory.gaps is not None:
            return trajectory.magnitude
        self.highest = max(self.highest, trajectory.cost)
        self.first = self.first or abs(trajectory.cost)
        return trajectory.magnitude + SPREAD * (self.highest - trajectory.cost)

    def bottomless(self, cost: float) -> bool:
        """Whether J has fallen so far that there is no minimum in reach."""
        return self.first > 0 and cost < -BOTTOMLESS * self.first
