"""Places of the stages in flat vectors: w = (x_0, u_0, x_1, …, x_T), the gaps of the dynamics, the rows of constraints.

What is one number per entry is arithmetic on vectors; what belongs to a stage is cut out here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise

import numpy as np

from ocpkit.boundary.arrays import Array


@dataclass(frozen=True)
class Layout:
    """Places of the vectors of each stage in those of all: slices of w by x and by u, of the gaps, and of the rows.

    Attributes
    ----------
    states, controls
        n_t of x_0 … x_T and m_t of u_0 … u_{T-1}.
    rows
        k_t of stages 0 … T-1 and of the end.
    """

    states: tuple[int, ...]
    controls: tuple[int, ...]
    rows: tuple[int, ...]

    @property
    def horizon(self) -> int:
        """Number of stages T."""
        return len(self.controls)

    @cached_property
    def starts(self) -> list[int]:
        """Offsets of x_t in w, and its length at the end."""
        sizes = [n + m for n, m in zip(self.states, (*self.controls, 0))]
        return [0, *np.cumsum(sizes).tolist()]

    @cached_property
    def z(self) -> list[slice]:
        """Of (x_t, u_t), at the end of x_T, in w."""
        return [slice(a, b) for a, b in zip(self.starts, self.starts[1:])]

    @cached_property
    def x(self) -> list[slice]:
        """Of x_t in w."""
        return [slice(a, a + n) for a, n in zip(self.starts, self.states)]

    @cached_property
    def u(self) -> list[slice]:
        """Of u_t in w."""
        return [slice(a + n, b) for a, n, b in zip(self.starts, self.states, self.starts[1:-1])]

    @cached_property
    def gap(self) -> list[slice]:
        """Of the gap at the end of stage t among all of them."""
        ends = np.cumsum([0, *self.states[1:]]).tolist()
        return [slice(a, b) for a, b in pairwise(ends)]

    @cached_property
    def row(self) -> list[slice]:
        """Of the rows of stage t among all of them."""
        ends = np.cumsum([0, *self.rows]).tolist()
        return [slice(a, b) for a, b in pairwise(ends)]

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """n_t + m_t of every stage, and n_T."""
        return tuple(n + m for n, m in zip(self.states, (*self.controls, 0)))

    @cached_property
    def following(self) -> Array:
        """Places in w of x_1 … x_T."""
        return np.concatenate([np.arange(x.start, x.stop) for x in self.x[1:]])

    def runs(self, flat: Array, counts: Sequence[int]) -> Iterator[tuple[slice, Array, slice]]:
        """Yield places in w, matrices (L, k, n + m), and places of their rows for stages of equal shapes in turn."""
        first = row = matrix = 0
        for (k, width), group in groupby(zip(counts, self.widths)):
            L = len(list(group))
            size = L * k * width
            if k:
                yield (
                    slice(first, first + L * width),
                    flat[matrix : matrix + size].reshape(L, k, width),
                    slice(row, row + L * k),
                )
            first, row, matrix = first + L * width, row + L * k, matrix + size

    @cached_property
    def of_controls(self) -> Array:
        """Mask of the entries of w that are controls."""
        mask = np.zeros(self.starts[-1], dtype=bool)
        for u in self.u:
            mask[u] = True
        return mask


def cut(flat: Array, shapes: Sequence[tuple[int, int]]) -> list[Array]:
    """Return matrices of these shapes that lie one after another."""
    ends = np.cumsum([0, *(a * b for a, b in shapes)]).tolist()
    return [flat[a:b].reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes)]
