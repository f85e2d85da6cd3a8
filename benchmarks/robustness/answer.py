"""Values and derivatives of a problem at an answer (x, u), its variables and rows in one vector each.

Variables are w = (u_0, x_1, u_1, x_2, …, u_{T−1}, x_T), of which x_0 is none. Rows are the dynamics x_{t+1} − f_t, then
the rows of each stage, those of the end, and the controls themselves, which have bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import casadi as ca
import numpy as np
import scipy.sparse as sp

from ocpkit import Problem
from ocpkit.boundary.arrays import Array
from ocpkit.problem.graphs import TracedTerminal, trace_stage, trace_terminal
from ocpkit.problem.stage import Stage

SMALLEST = 0.1  # scale of a state, control or row, at least
LEAST_COST = 1e-8  # unit of J, at least


class AtAnswer:
    """A problem at states (T + 1 vectors) and controls (T vectors), linearized by CasADi stage by stage."""

    def __init__(self, problem: Problem, states: Sequence[Array], controls: Sequence[Array]) -> None:
        self.problem, self.x, self.u = problem, states, controls
        p_size = problem.parameters.shape[-1]
        self._stages = [
            [value.full() for value in _stage_function(stage, p_size)(x, u, problem.parameter(t))]
            for t, (stage, x, u) in enumerate(zip(problem.stages, states, controls))
        ]
        self._terminal = trace_terminal(problem.terminal_cost, problem.terminal_constraints, p_size)
        end = _end_function(self._terminal, problem.state_sizes[-1], p_size)
        self._end = [value.full() for value in end(states[-1], problem.parameter(problem.horizon))]
        sizes = [size for pair in zip(problem.control_sizes, problem.state_sizes[1:]) for size in pair]
        self._starts = np.cumsum([0, *sizes])

    @property
    def costs(self) -> Array:
        """ℓ_0 … ℓ_{T−1} and φ."""
        return np.array([*(stage[1].item() for stage in self._stages), self._end[0].item()])

    @property
    def cost_unit(self) -> float:
        """Σ |ℓ_t| + |φ|."""
        return max(float(np.abs(self.costs).sum()), LEAST_COST)

    @property
    def gaps(self) -> list[Array]:
        """x_{t+1} − f_t."""
        return [x - stage[0][:, 0] for x, stage in zip(self.x[1:], self._stages)]

    @cached_property
    def rows(self) -> tuple[Array, Array, Array]:
        """Values, lower and upper bounds of all rows but the dynamics."""
        p_size = self.problem.parameters.shape[-1]
        blocks: list[tuple[Any, Any, Any]] = [
            (found[2][:, 0], limits.lower, limits.upper)
            for found, limits in zip(self._stages, (_limits(stage, p_size) for stage in self.problem.stages))
        ]
        blocks.append((self._end[1][:, 0], self._terminal.constraints.lower, self._terminal.constraints.upper))
        for stage, u in zip(self.problem.stages, self.u):
            lower, upper = (np.broadcast_to(side, len(u)) for side in (stage.control_lower, stage.control_upper))
            blocks.append((u, lower, upper))
        values, below, above = (np.concatenate(series) for series in zip(*blocks))
        return values, below, above

    @cached_property
    def gradient(self) -> Array:
        """∇J by w."""
        g = np.zeros(self._starts[-1])
        for t, (*_, by_x, by_u) in enumerate(stage[:7] for stage in self._stages):
            for place, slopes in ((2 * t - 1, by_x), (2 * t, by_u)):
                if place >= 0:
                    g[self._starts[place] : self._starts[place + 1]] += slopes[0]
        g[self._starts[-2] :] += self._end[2][0]
        return g

    @cached_property
    def jacobian(self) -> Any:
        """Jacobian by w of the dynamics and of all rows, sparse."""
        return sp.csr_matrix(sp.vstack([*self._of_dynamics(), *self._of_rows()]))

    def _of_dynamics(self) -> Iterator[Any]:
        for t, stage in enumerate(self._stages):
            yield self._placed({2 * t - 1: -stage[3], 2 * t: -stage[4], 2 * t + 1: np.eye(len(stage[0]))})

    def _of_rows(self) -> Iterator[Any]:
        for t, stage in enumerate(self._stages):
            yield self._placed({2 * t - 1: stage[7], 2 * t: stage[8]})
        yield self._placed({2 * self.problem.horizon - 1: self._end[3]})
        for t, u in enumerate(self.u):
            yield self._placed({2 * t: np.eye(len(u))})

    def _placed(self, blocks: dict[int, Array]) -> Any:
        """Rows with blocks at some places of w; x_0, at −1, is none."""
        kept = {place: block for place, block in blocks.items() if place >= 0}
        columns = np.concatenate([self._starts[place] + np.arange(block.shape[1]) for place, block in kept.items()])
        values = np.hstack(list(kept.values()))
        rows = np.repeat(np.arange(len(values)), len(columns))
        return sp.csr_matrix((values.ravel(), (rows, np.tile(columns, len(values)))), (len(values), self._starts[-1]))

    @property
    def kinds(self) -> Array:
        """A number for each variable of w, the same for the same entry of x, or of u, of vectors of one length."""
        return self._interleaved(
            [-1 - 1000 * len(u) - np.arange(len(u)) for u in self.u],
            [1000 * len(x) + np.arange(len(x)) for x in self.x[1:]],
        )

    @property
    def units(self) -> Array:
        """Of each variable of w: the largest magnitude of its kind along the answer."""
        return self._interleaved(largest(self.u), largest(self.x[1:]))

    def _interleaved(self, of_u: Sequence[Any], of_x: Sequence[Any]) -> Any:
        return np.concatenate([piece for pair in zip(of_u, of_x) for piece in pair])


def largest(series: Sequence[Array]) -> list[Array]:
    """For each vector of a series the largest magnitudes of its entries in all of its length, at least `SMALLEST`."""
    sizes = {len(z): np.full(len(z), SMALLEST) for z in series}
    for z in series:
        sizes[len(z)] = np.maximum(sizes[len(z)], np.abs(z))
    return [sizes[len(z)] for z in series]


@lru_cache(maxsize=64)
def _stage_function(stage: Stage, p_size: int) -> ca.Function:
    """(x, u, p) → f, ℓ, g and their derivatives by x and u, in turn."""
    traced, sizes = trace_stage(stage, p_size), (stage.dynamics.state_size, stage.dynamics.control_size, p_size)
    x, u, p = z = [ca.SX.sym(name, size) for name, size in zip("xup", sizes)]
    values = [traced.f(*z), traced.l(*z), traced.constraints.function(*z)]
    slopes = [ca.densify(ca.jacobian(value, by)) for value in values for by in (x, u)]
    return ca.Function("stage", [x, u, p], [*values, *slopes], {"cse": True})


def _end_function(traced: TracedTerminal, n: int, p_size: int) -> ca.Function:
    """(x, p) → φ, g and their derivatives by x."""
    x, p = ca.SX.sym("x", n), ca.SX.sym("p", p_size)
    values = [traced.phi(x, p), traced.constraints.function(x, p)]
    return ca.Function("end", [x, p], [*values, *(ca.densify(ca.jacobian(value, x)) for value in values)])


@lru_cache(maxsize=64)
def _limits(stage: Stage, p_size: int) -> Any:
    return trace_stage(stage, p_size).constraints
