"""States and controls along the horizon, with the gaps of an infeasible (multiple-shooting) trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.series import blocks_of

ROUNDING = 64 * float(np.finfo(float).eps)
"""Relative gap that is none."""
SMALL = 1e-9
"""Relative gap that is not worth closing."""


@dataclass(frozen=True)
class Trajectory:
    """T + 1 states, T controls and J.

    Attributes
    ----------
    gaps
        Defects f(x_t, u_t) − x_{t+1}, one per stage; None for a trajectory that was rolled out.
    magnitude
        Σ |ℓ_t| + |φ| [units of J], which the rounding of J is relative to.
    open
        Share of the guess's gaps that is left; all of them shrink alike. 0 where none of them is worth closing.
    """

    states: Sequence[Array]
    controls: Sequence[Array]
    cost: float
    gaps: Sequence[Array] | None = None
    magnitude: float = float("nan")
    open: float = 0.0

    @property
    def gap(self) -> float:
        """Largest defect, max_t ‖·‖_∞."""
        return 0.0 if self.gaps is None else float(np.max([np.abs(gaps).max() for gaps in blocks_of(self.gaps)]))

    @property
    def widest(self) -> tuple[float, int, int]:
        """Largest defect, its stage and its state."""
        if self.gaps is None:
            return 0.0, 0, 0
        sizes = [float(np.abs(gap).max(initial=0.0)) for gap in self.gaps]
        t = int(np.argmax(sizes))
        return sizes[t], t, int(np.abs(self.gaps[t]).argmax())

    @property
    def finite(self) -> bool:
        """Whether J and every state and gap are finite numbers."""
        series = [self.states] if self.gaps is None else [self.states, self.gaps]
        return bool(np.isfinite(self.cost)) and all(
            np.isfinite(block).all() for entries in series for block in blocks_of(entries)
        )


def relative_gap(gaps: Sequence[Array], states: Sequence[Array]) -> float:
    """Return the largest gap, relative to the largest value that its state takes where there are as many states."""
    found, largest, sizes = 0.0, _largest(states), _largest(gaps)
    for n, values in largest.items():
        size = sizes.get(n, np.zeros(n))
        ratios = np.divide(size, values, out=np.where(size == 0, 0.0, np.inf), where=values > 0)
        found = float(np.maximum(found, ratios.max(initial=0.0)))  # a NaN stays one
    return found


def _largest(series: Sequence[Array]) -> dict[int, Array]:
    """Return the largest magnitude of each entry of the vectors (n,), by n."""
    found = dict[int, Array]()
    for block in blocks_of(series):
        n = block.shape[1]
        found[n] = np.maximum(found.get(n, np.zeros(n)), np.abs(block).max(0, initial=0.0))
    return found
