"""The same problem in other units of J, of each state, of each control and of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ocpkit import (
    Constraint,
    FunctionCost,
    FunctionDynamics,
    FunctionTerminalCost,
    Problem,
    Stage,
    TerminalCost,
)
from ocpkit.differentiable import with_parameters
from ocpkit.solution import Solution

Array = Any


@dataclass(frozen=True)
class Units:
    """How many of the new units an old one is: of J, of x (n,), of u (m,), and of every row."""

    cost: float = 1.0
    states: Array = 1.0
    controls: Array = 1.0
    rows: float = 1.0

    def problem(self, problem: Problem) -> Problem:
        """Return a problem of plain functions (x, u), of one size, in the new units."""
        seen: dict[int, Stage] = {}
        for stage in problem.stages:
            seen.setdefault(id(stage), self._stage(stage))
        end = problem.terminal_cost
        assert isinstance(end, FunctionTerminalCost)
        phi = with_parameters(end.scalar.function, 2, "phi")
        terminal: TerminalCost = FunctionTerminalCost(
            lambda x, p: self.cost * phi(x / self.states, p), end.state_size, parameter_size=end.parameter_size
        )
        return Problem(
            stages=tuple(seen[id(stage)] for stage in problem.stages),
            terminal_cost=terminal,
            x0=problem.x0 * self.states,
            parameters=problem.parameters,
            controls=tuple(u * self.controls for u in problem.controls),
            states=None if problem.states is None else tuple(x * self.states for x in problem.states),
            terminal_constraints=tuple(self._row(row, 2) for row in problem.terminal_constraints),
            name=problem.name,
        )

    def _stage(self, stage: Stage) -> Stage:
        dynamics, cost = stage.dynamics, stage.cost
        assert isinstance(dynamics, FunctionDynamics)
        assert isinstance(cost, FunctionCost)
        f = with_parameters(dynamics.function, 3, "f")
        value = with_parameters(cost.scalar.function, 3, "cost")
        sizes = (dynamics.state_size, dynamics.control_size)
        p = dynamics.parameter_size
        return Stage(
            FunctionDynamics(
                lambda x, u, p: self.states * f(x / self.states, u / self.controls, p), *sizes, parameter_size=p
            ),
            FunctionCost(
                lambda x, u, p: self.cost * value(x / self.states, u / self.controls, p), *sizes, parameter_size=p
            ),
            stage.control_lower * self.controls,
            stage.control_upper * self.controls,
            tuple(self._row(row, 3) for row in stage.constraints),
        )

    def _row(self, row: Constraint, count: int) -> Constraint:
        g = with_parameters(row.function, count, row.name)
        scale = (self.states, self.controls)[: count - 1]

        def function(*z: Any) -> Any:
            return self.rows * g(*(a / s for a, s in zip(z, scale)), z[-1])

        at_stage, at_end = lambda x, u, p: function(x, u, p), lambda x, p: function(x, p)
        sides = row.lower * self.rows, row.upper * self.rows
        return Constraint(at_end if count == 2 else at_stage, *sides, row.name)

    def back(self, solution: Solution) -> tuple[float, Array, Array]:
        """Return J, states and controls of a solution in the old units."""
        return (
            solution.cost / self.cost,
            np.asarray(solution.states) / self.states,
            np.asarray(solution.controls) / self.controls,
        )
