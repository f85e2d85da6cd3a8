"""Vectors or matrices of successive stages, kept as few arrays where neighbors have equal shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array


class Series(Sequence[Array]):
    """One vector or matrix for each stage, of changing shapes; what is equal in a row lies in one array.

    Parameters
    ----------
    blocks
        Arrays (L, …) of successive stages; neighbors of equal shapes are joined.
    """

    def __init__(self, blocks: Sequence[Array]) -> None:
        alike = (list(group) for _, group in groupby(blocks, lambda block: block.shape[1:]))
        self.blocks = [group[0] if len(group) == 1 else np.concatenate(group) for group in alike]
        self._ends = list(accumulate(map(len, self.blocks)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Array]:
        for block in self.blocks:
            yield from block

    def __getitem__(self, place: Any) -> Any:
        """Return an entry; of a slice an array (L, …) where shapes agree, else a list."""
        if not isinstance(place, slice):
            t, first = range(len(self))[place], 0
            for block, end in zip(self.blocks, self._ends):
                if t < end:
                    return block[t - first]
                first = end
        first, last, step = place.indices(len(self))
        for block, end in zip(self.blocks, self._ends):
            begin = end - len(block)
            if begin <= first and last <= end and step == 1:
                return block[first - begin : last - begin]
        return list(self)[place]


def join(blocks: Sequence[Array]) -> Any:
    """Join arrays (L, …) of successive stages: one array where the shapes agree, else a `Series`."""
    series = Series(blocks)
    return series if len(series.blocks) > 1 else series.blocks[0]


def gather(rows: Sequence[Array]) -> Any:
    """Return rows, one for each stage, as `join` does."""
    if isinstance(rows, np.ndarray | Series):
        return rows
    return join([np.stack(list(group)) for _, group in groupby(rows, np.shape)])


def blocks_of(series: Sequence[Array]) -> Sequence[Array]:
    """Return the arrays (L, …) that a series lies in."""
    series = gather(series)
    return series.blocks if isinstance(series, Series) else [np.asarray(series)]
