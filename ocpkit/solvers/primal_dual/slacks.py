"""Variables that enter one constraint each, and are eliminated from a Newton step in closed form.

A constraint reads c_i(w) + Σ_k a_k v_k = 0. The slack of an inequality row, lower ≤ v ≤ upper, has a = −1 and costs
nothing; the elastic variables of a restoration, p, n ≥ 0 with a = −1 and +1, cost ρ each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocpkit.boundary.arrays import Array


@dataclass(frozen=True)
class Slacks:
    """Separable variables v.

    Attributes
    ----------
    place
        Index i of the constraint of each, among the gaps and then the rows.
    sign
        a.
    cost
        Price of one unit.
    lower, upper
        Bounds.
    """

    place: NDArray[np.intp]
    sign: Array
    cost: Array
    lower: Array
    upper: Array

    @classmethod
    def of_rows(cls, lower: Array, upper: Array, first: int) -> Slacks:
        """Slacks of the rows (which follow `first` gaps) that are no equalities."""
        rows = np.flatnonzero(lower < upper)
        return cls(first + rows, np.full(len(rows), -1.0), np.zeros(len(rows)), lower[rows], upper[rows])

    def with_elastic(self, count: int, price: float) -> Slacks:
        """Return these, then p and then n of all `count` constraints."""
        every, none = np.arange(count), np.zeros(2 * count)
        return Slacks(
            np.concatenate([self.place, every, every]),
            np.concatenate([self.sign, np.full(count, -1.0), np.ones(count)]),
            np.concatenate([self.cost, np.full(2 * count, price)]),
            np.concatenate([self.lower, none]),
            np.concatenate([self.upper, np.full(2 * count, np.inf)]),
        )

    def sum(self, values: Array, count: int) -> Array:
        """Return the sum of values (one for each v) over every constraint (count,)."""
        found: Array = np.bincount(self.place, values, count).astype(float)  # of integers where there are none
        return found
