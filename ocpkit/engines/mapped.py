"""Functions of one stage as one call over many: CasADi's virtual machine goes through the stages, not Python."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import casadi as ca
import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import in_time
from ocpkit.boundary.series import join


class Sweep:
    """A CasADi function that reads and writes NumPy memory; what belongs to several stages lies side by side.

    Arguments are (L, …) arrays, or what all stages share; results are (L, …) arrays, copied.

    Attributes
    ----------
    done
        How many stages it has gone through.
    """

    def __init__(self, function: ca.Function, length: int, ranks: Sequence[int]) -> None:
        self.length, self.done = length, 0
        # CasADi stores by column, so that the memory of L matrices (m, n) has the shape (L n, m)
        self._inputs = [np.zeros(function.size_in(i)[::-1]) for i in range(function.n_in())]
        self._outputs = [np.zeros(function.size_out(i)[::-1]) for i in range(function.n_out())]
        self._views = [
            memory if rank == 1 else memory.reshape(length, len(memory) // length, memory.shape[1]).swapaxes(1, 2)
            for memory, rank in zip(self._outputs, ranks, strict=True)
        ]
        self._buffer, self._evaluate = function.buffer()
        for i, memory in enumerate(self._inputs):
            self._buffer.set_arg(i, memory.data)
        for i, memory in enumerate(self._outputs):
            self._buffer.set_res(i, memory.data)

    def __call__(self, *arguments: Any) -> list[Array]:
        for memory, argument in zip(self._inputs, arguments, strict=True):
            array = np.asarray(argument)
            memory[:] = array if array.ndim < 3 else array.swapaxes(1, 2).reshape(memory.shape)
        self._evaluate()
        self.done += self.length
        return [view.copy() for view in self._views]


class AlongStages:
    """Functions of all stages and of the end, along a trajectory.

    Parameters
    ----------
    functions
        Of (x, u, p') at each stage, and of (x, p') at the end; all with one result of the same rank.
    rank
        1 for vectors, 2 for matrices.
    """

    def __init__(self, functions: Sequence[ca.Function], rank: int) -> None:
        self._runs, self._rank, first = list[tuple[ca.Function, int, int]](), rank, 0
        for _, group in groupby(functions[:-1], id):
            alike = list(group)
            self._runs.append((alike[0], first, first + len(alike)))
            first += len(alike)
        self._end, self._of_thread = functions[-1], threading.local()

    def __call__(self, states: Sequence[Array], controls: Sequence[Array], p: Array) -> Any:
        """Return the results of stages 0 … T, as `join` does."""
        if not hasattr(self._of_thread, "sweeps"):
            self._of_thread.sweeps = [
                Sweep(f.map(last - first) if last - first > 1 else f, last - first, [self._rank])
                for f, first, last in in_time([*self._runs, (self._end, 0, 1)])
            ]
        *sweeps, end = self._of_thread.sweeps
        found = [
            sweep(rows_between(states, a, b), rows_between(controls, a, b), p[a:b])[0]
            for sweep, (_, a, b) in zip(sweeps, self._runs)
        ]
        return join([*found, end(states[-1], p[-1])[0]])


def rows_between(series: Sequence[Array], first: int, last: int) -> Array:
    """Return the vectors or matrices of stages first … last - 1, which have one shape, as one array (L, …)."""
    rows = series[first:last]
    return rows if isinstance(rows, np.ndarray) else np.stack(rows)
