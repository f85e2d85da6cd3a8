"""Every constraint of a problem as rows lower ≤ g(x, u, p) ≤ upper, bounds of controls included; which fails most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ocpkit import moved
from ocpkit.autodiff.differentiable import BufferedFunction
from ocpkit.autodiff.identities import Identities
from ocpkit.boundary.arrays import Array
from ocpkit.boundary.series import blocks_of
from ocpkit.problem.graphs import TracedConstraints, trace_constraints
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint, Stage, TerminalCost

REMEMBERED = 256  # stages whose traced form is kept for the next solve
ALIKE = 1 + 1e-9  # of rows that are as far from holding, but for rounding, the first is named


@dataclass(frozen=True, eq=False)
class ConstraintRows:
    """The rows lower ≤ g(x, u, p) ≤ upper of one kind of stage (at the end: of (x, p)), with a name for each."""

    traced: TracedConstraints
    names: tuple[str, ...]

    @cached_property
    def evaluate(self) -> BufferedFunction:
        """(x, u, p), or (x, p), → g (k, 1)."""
        return BufferedFunction(self.traced.function)

    @property
    def count(self) -> int:
        """Number of rows k."""
        return len(self.names)

    @cached_property
    def depends_on_control(self) -> Any:
        """Whether any control enters each row of a stage (k,)."""
        rows, _ = self.traced.function.jac_sparsity(0, 1).get_triplet()
        return np.isin(np.arange(self.count), rows)


def problem_rows(problem: Problem, *, bounds: bool = True) -> tuple[ConstraintRows, ...]:
    """Return the rows of stages 0 … T-1, control bounds included or not, and of the end; equal stages share theirs."""
    p_size = problem.parameters.shape[-1]
    return rows_of(problem.stages, problem.terminal_cost, problem.terminal_constraints, p_size, bounds=bounds)


def rows_of(
    stages: Sequence[Stage], cost: TerminalCost, terminal: Sequence[Constraint], p_size: int, *, bounds: bool
) -> tuple[ConstraintRows, ...]:
    """Return those of the parts of a problem."""
    end = _terminal_rows(Identities(cost, *terminal), p_size)
    return (*(_stage_rows(Identities(stage), p_size, bounds) for stage in stages), end)


@lru_cache(maxsize=REMEMBERED)
def _stage_rows(parts: Identities, p_size: int, bounds: bool) -> ConstraintRows:
    """Rows of a stage: its constraints as declared, then perhaps each control with a finite bound."""
    (stage,) = parts.parts
    n, m = stage.dynamics.state_size, stage.dynamics.control_size
    lower, upper = np.asarray(stage.control_lower), np.asarray(stage.control_upper)
    bounded = stage.bounded_controls
    limits = Constraint(lambda x, u, p: u[bounded], lower[bounded], upper[bounded], "control bound")
    constraints = (*stage.constraints, *([limits] if bounds and len(bounded) else []))
    return _rows(constraints, (n, m, p_size), f"stage {stage.name!r}")


@lru_cache(maxsize=REMEMBERED)
def _terminal_rows(parts: Identities, p_size: int) -> ConstraintRows:
    cost, *constraints = parts.parts
    return _rows(constraints, (cost.state_size, p_size), "the terminal constraints")


def _rows(constraints: Sequence[Constraint], sizes: tuple[int, ...], where: str) -> ConstraintRows:
    traced, names = trace_constraints(constraints, sizes, where), list[str]()
    for constraint, count in zip(constraints, traced.counts):
        names += [constraint.name if count == 1 else f"{constraint.name}[{i}]" for i in range(count)]
    return ConstraintRows(traced, tuple(names))


def has_rows(problem: Problem) -> bool:
    """Whether there are constraints beside the bounds of the controls."""
    return bool(problem.terminal_constraints) or any(stage.constraints for _, stage in problem.distinct_stages)


def row_values(
    problem: Problem, rows: Sequence[ConstraintRows], states: Sequence[Array], controls: Sequence[Array]
) -> list[Array]:
    """Return g of every stage and of the end along a trajectory."""
    arguments = [*zip(states, controls), (states[-1],)]
    return [
        each.evaluate(*z, problem.parameter(t))[:, 0] if each.count else np.zeros(0)
        for t, (each, z) in enumerate(zip(rows, arguments))
    ]


def largest_violation(rows: Sequence[ConstraintRows], values: Sequence[Array]) -> tuple[float, int, int]:
    """Return max dist(g, C) over all rows, and where it is: the stage and the row there."""
    return worst_row([each.traced.distance(g) for g, each in zip(values, rows)])[1:]


def worst_row(distances: Sequence[Array], units: Array | None = None) -> tuple[float, float, int, int]:
    """Return the largest distance, in units (T + 1, k) of the rows and in the user's, its stage and its row there.

    `distances` (k,) are those of all stages and of the end; without units both are the user's. What is not a number is
    larger than all others.
    """
    blocks, first = blocks_of(distances), 0
    every = relative = np.concatenate([block.ravel() for block in blocks])
    if units is not None:
        starts = np.cumsum([0, *map(len, blocks)])
        of_rows = [units[a : a + len(block), : block.shape[1]].ravel() for a, block in zip(starts, blocks)]
        relative = every / np.concatenate(of_rows)
    largest = float(relative.max(initial=0.0))
    if largest == 0:
        return 0.0, 0.0, 0, 0
    at = int((np.isnan(relative) | (relative * ALIKE >= largest)).argmax())
    left = at
    for block in blocks:
        if left < block.size:
            t, i = divmod(left, block.shape[1])
            return largest, float(every[at]), first + t, i
        left, first = left - block.size, first + len(block)
    raise AssertionError


def broken_at_start(problem: Problem, rows: ConstraintRows) -> tuple[float, str]:
    """Return the largest violation at x0 of a row of stage 0 that no control enters, and the row's name."""
    if not rows.count:
        return 0.0, ""
    g = rows.evaluate(problem.x0, problem.controls[0], problem.parameter(0))[:, 0]
    distance = np.where(rows.depends_on_control, 0.0, rows.traced.distance(g))
    return float(distance.max()), rows.names[int(distance.argmax())]


__getattr__ = moved.names(__name__)
