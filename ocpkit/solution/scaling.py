"""Natural units of cost, controls, states and rows, in which every tolerance of a solver is meant.

A verdict must not change with the user's units. So each quantity is measured against a scale that changes with them:
J against the range that it has covered, a control against its bounds, its guess or the step that Newton's method asks
of it, a row against its bounds and its value at the guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ocpkit.boundary.arrays import Array

ORDINARY, ORDINARY_COST = 1e3, 1e5
"""Factors by which units, and that of J, may be off and still be taken as they are for the programs of plugins."""


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

    @property
    def ordinary(self) -> bool:
        """Whether the user's units are within `ORDINARY` factors of these, so that they serve as well."""
        others = np.concatenate([*self.controls, *self.states, *self.rows])
        of_cost = 1 / ORDINARY_COST <= self.cost <= ORDINARY_COST
        return of_cost and bool(((others >= 1 / ORDINARY) & (others <= ORDINARY)).all())

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


WIDE = 10.0
"""Bounds farther apart than this times what J suggests tell nothing of a control."""
ROUNDING = 1e-14
"""A decrease of J, relative to |J|, that its rounding hides."""


def control_scales(
    lower: Sequence[Array],
    upper: Sequence[Array],
    controls: Sequence[Array],
    gradients: Sequence[Array],
    curvatures: Sequence[Array],
    cost: float,
    rooms: Sequence[Array] = (),
) -> list[Array]:
    """Natural units of the controls (m,) of every stage; stages with as many controls share theirs.

    J suggests the smaller of Newton's step |∇J|/|∇²J| (where it promises more than rounding) and of √(|J|/|∇²J|), what
    changes J by itself, at the middle stage, as single ones may be extreme; rows may leave less room. The unit is half
    the range between two bounds, but at most `WIDE` times, and without them the largest of, |u|, the one finite bound,
    and what J suggests. Where nothing tells, 1.

    Parameters
    ----------
    lower, upper, controls
        Bounds and guess, (m,) each.
    gradients, curvatures
        ∇_{u_t} J and the diagonal of ∇²_{u_t} J, (m,) each.
    cost
        J at the guess.
    rooms
        Changes of u, (m,) each, that rows of states and controls leave room for; 0 where they do not limit it.
    """
    found: list[Array] = [np.zeros(0)] * len(controls)
    for size in {len(u) for u in controls}:
        alike = [t for t, u in enumerate(controls) if len(u) == size]
        low, high, u, g, h = (
            np.stack([np.asarray(series[t], dtype=float) for t in alike])
            for series in (lower, upper, controls, gradients, curvatures)
        )
        g, h = np.abs(g), np.abs(h)
        room = rooms[alike[0]] if len(rooms) else np.zeros(size)
        with np.errstate(all="ignore"):
            newton = np.where(g * g > ROUNDING * abs(cost) * h, g / h, 0.0)
            steps = np.stack([typical(newton), typical(np.sqrt(abs(cost) / h)), room])
            span = ((high - low) / 2).max(0)
        step = np.where(steps > 0, steps, np.inf).min(0)
        known = largest([u, np.where(np.isfinite(step), step, 0.0)])
        known = np.where(
            np.isfinite(span) & (span > 0),
            np.where(known > 0, np.minimum(span, WIDE * known), span),
            largest([low, high, known]),
        )
        for t in alike:
            found[t] = np.where(known > 0, known, 1.0)
    return found


def typical(values: Array) -> Array:
    """Median over the stages (T, m) of the entries that are finite and not zero (m,); 0 where there is none."""
    return quantile(values, 0.5)


def quantile(values: Array, share: float) -> Array:
    """Quantile of |·| over the first axis of the entries that are finite and not zero; 0 where there is none."""
    sizes = np.abs(values)
    sizes = np.sort(np.where(np.isfinite(sizes) & (sizes > 0), sizes, np.inf), axis=0)
    count = np.isfinite(sizes).sum(0)
    place = np.clip(np.ceil(share * count).astype(int) - 1, 0, None)
    chosen = np.take_along_axis(sizes, place[None], axis=0)[0] if len(sizes) else np.zeros(sizes.shape[1:])
    return np.where(count > 0, chosen, 0.0)


def largest(values: Sequence[Array]) -> Array:
    """Largest |·| (m,) over all rows of (…, m) that is finite; 0 where there is none."""
    rows = np.concatenate([np.atleast_2d(value) for value in values])
    return np.where(np.isfinite(rows), np.abs(rows), 0.0).max(0, initial=0.0)
