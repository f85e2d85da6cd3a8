"""Natural units of cost, controls, states and rows, in which every tolerance of a solver is meant.

A verdict must not change with the user's units. So each quantity is measured against a scale that changes with them:
J against the range that it has covered, a control against its bounds, its guess or the step that Newton's method asks
of it, a row against its bounds and its value at the guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ocpkit.arrays import Array


@dataclass(frozen=True, eq=False)
class Scaling:
    """Natural units of a problem at a guess, in the user's units.

    Attributes
    ----------
    cost
        Of J.
    controls, states, rows
        Of each entry of u_t, of x_t, and of the rows of stages 0 … T-1 and of the end; empty where a solver measures
        none.
    """

    cost: float = 1.0
    controls: tuple[Array, ...] = ()
    states: tuple[Array, ...] = ()
    rows: tuple[Array, ...] = ()

    def flat(self) -> dict[str, Array]:
        """Arrays by name, each series as its entries and their sizes, for a file."""
        found = {"cost": np.array(self.cost)}
        for name in _SERIES:
            series = getattr(self, name)
            found[name] = np.concatenate([np.zeros(0), *series])
            found[f"{name}_sizes"] = np.array([len(entry) for entry in series], dtype=int)
        return found

    @classmethod
    def from_flat(cls, arrays: Mapping[str, Array]) -> Scaling:
        """Scaling of what `flat` returned."""
        series = {name: np.split(arrays[name], np.cumsum(arrays[f"{name}_sizes"], dtype=int)) for name in _SERIES}
        return cls(float(arrays["cost"]), **{name: tuple(entries[:-1]) for name, entries in series.items()})


_SERIES = ("controls", "states", "rows")


def control_scales(
    lower: Sequence[Array],
    upper: Sequence[Array],
    controls: Sequence[Array],
    gradients: Sequence[Array],
    curvatures: Sequence[Array],
    cost: float,
) -> list[Array]:
    """Natural units of the controls (m,) of every stage; stages with as many controls share theirs.

    Half the range between two bounds; else the largest of |u|, of one finite bound, and of the smaller of Newton's
    step |∇J|/|∇²J| and of √(|J|/|∇²J|), what changes J by itself. Where nothing tells, 1.

    Parameters
    ----------
    lower, upper, controls
        Bounds and guess, (m,) each.
    gradients, curvatures
        ∇_{u_t} J and the diagonal of ∇²_{u_t} J, (m,) each.
    cost
        J at the guess.
    """
    found: list[Array] = [np.zeros(0)] * len(controls)
    for size in {len(u) for u in controls}:
        alike = [t for t, u in enumerate(controls) if len(u) == size]
        low, high, u, g, h = (
            np.abs(np.stack([np.asarray(series[t], dtype=float) for t in alike])) if size else np.zeros((1, 0))
            for series in (lower, upper, controls, gradients, curvatures)
        )
        with np.errstate(all="ignore"):
            steps = [np.where(h > 0, length, np.inf) for length in (g / h, np.sqrt(abs(cost) / h.max(0, initial=0.0)))]
        step = np.min([np.where(s > 0, s, np.inf) for s in steps], axis=0).min(0, initial=np.inf)
        known = np.max([np.where(np.isfinite(v), v, 0.0).max(0, initial=0.0) for v in (low, high, u)], axis=0)
        scale = np.maximum(known, np.where(np.isfinite(step), step, 0.0))
        span = np.max([(np.asarray(upper[t]) - np.asarray(lower[t])) / 2 for t in alike], axis=0) if size else scale
        scale = np.where(np.isfinite(span) & (span > 0), span, scale)
        for t in alike:
            found[t] = np.where(scale > 0, scale, 1.0)
    return found
