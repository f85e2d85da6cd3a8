"""Numbers between bounds under a logarithmic barrier, with a multiplier for either side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ocpkit.boundary.arrays import Array

APART = 1e10
"""κ_Σ of Wächter & Biegler (2006), Eq. 16: how far z (v − bound) may be from μ, as a factor."""

NARROW = 1e-9
"""Distance between bounds that fixes a value: it leaves no interior. A share of their size where that is above 1."""
ROUNDING = 4 * float(np.finfo(float).eps)
FIXED = 1e20
"""Σ of values that are fixed: no step moves them."""


@dataclass(frozen=True)
class Bounded:
    """Values between bounds and their multipliers z, of which those of infinite bounds are zero.

    Values whose bounds leave no room are fixed: they have no barrier and no z.

    Attributes
    ----------
    value, lower, upper
        lower < value < upper, (N,).
    below, above
        z of the lower and of the upper bound.
    """

    value: Array
    lower: Array
    upper: Array
    below: Array
    above: Array

    @classmethod
    def inside(cls, value: Array, lower: Array, upper: Array, *, push: float, multiplier: float) -> Bounded:
        """Values pushed inside their bounds (Wächter & Biegler 2006, section 3.6), at equal multipliers."""
        wide = np.where(np.isfinite(upper - lower), upper - lower, np.inf)
        away = [np.maximum(push * np.minimum(np.maximum(1.0, b), wide), ROUNDING * b) for b in np.abs([lower, upper])]
        least, most = lower + away[0], upper - away[1]
        with np.errstate(invalid="ignore"):
            value = np.where(np.isfinite(lower), np.maximum(value, least), value)
            value = np.where(np.isfinite(upper), np.minimum(value, most), value)
        none = np.zeros_like(value)
        at = cls(value, lower, upper, none, none)
        at = replace(at, value=np.where(at.fixed, np.clip(value, lower, upper), value))
        below, above = (np.where(np.isfinite(room), multiplier, 0.0) for room in at.room)
        return replace(at, below=below, above=above)

    @property
    def fixed(self) -> NDArray[np.bool_]:
        """Mask of the values that cannot move."""
        size = np.abs(np.where(np.isfinite(self.lower), self.lower, 0.0))
        return self.upper - self.lower <= NARROW * np.maximum(1.0, size)

    @property
    def room(self) -> tuple[Array, Array]:
        """Distances to both bounds; ∞ where there is none, or no room at all."""
        fixed = self.fixed
        low, high = self.value - self.lower, self.upper - self.value
        return np.where(fixed, np.inf, low), np.where(fixed, np.inf, high)

    def sigma(self) -> Array:
        """Σ = z_l/(v − l) + z_u/(u − v)."""
        low, high = self.room
        return np.where(self.fixed, FIXED, self.below / low + self.above / high)

    def slope(self, mu: float) -> Array:
        """Gradient of the barrier, −μ/(v − l) + μ/(u − v)."""
        low, high = self.room
        return mu / high - mu / low

    def felt(self, least: float) -> tuple[Array, Array]:
        """Multipliers of both sides; 0 where they are below `least` and below the room: the barrier's own."""
        low, high = (
            np.where((z <= least) & (z <= room), 0.0, z) for z, room in zip((self.below, self.above), self.room)
        )
        return low, high

    def barrier(self) -> float:
        """−Σ ln(v − l) − Σ ln(u − v)."""
        low, high = (side[np.isfinite(side)] for side in self.room)
        return -float(np.log(low).sum() + np.log(high).sum())

    def multiplier_steps(self, step: Array, mu: float) -> tuple[Array, Array]:
        """δz of both sides after a step of the values."""
        low, high = self.room
        return (mu - self.below * step) / low - self.below, (mu + self.above * step) / high - self.above

    def complementarity(self, mu: float) -> float:
        """Largest |z (v − bound) − μ|."""
        low, high = self.room
        sides = ((self.below, low), (self.above, high))
        return max(float(np.abs(z[np.isfinite(d)] * d[np.isfinite(d)] - mu).max(initial=0.0)) for z, d in sides)

    def largest_step(self, step: Array, tau: float) -> float:
        """Fraction of a step that keeps 1 − τ of the room to every bound."""
        low, high = self.room
        return min(longest(low, step, tau), longest(high, -step, tau))

    def largest_multiplier_step(self, steps: tuple[Array, Array], tau: float) -> float:
        """The same for the multipliers, which stay positive."""
        return min(longest(z, step, tau) for z, step in zip((self.below, self.above), steps))

    def moved(self, step: Array) -> Bounded:
        """Return other values at the same multipliers."""
        return replace(self, value=np.where(self.fixed, self.value, self.value + step))

    def with_multipliers(self, below: Array, above: Array, mu: float) -> Bounded:
        """Return other multipliers, held within a factor of μ over the room."""
        found = []
        for z, room in zip((below, above), self.room):
            near = mu / room
            found.append(np.clip(z, near / APART, near * APART))
        return replace(self, below=found[0], above=found[1])


def longest(room: Array, step: Array, tau: float) -> float:
    """Return the largest α ≤ 1 with α step ≥ −τ room."""
    shrinking: NDArray[np.bool_] = step < 0
    return min(1.0, float((-tau * room[shrinking] / step[shrinking]).min(initial=1.0)))
