"""The same problem in other units of J, of states, of controls and of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from ocpkit import Constraint, FunctionCost, FunctionDynamics, FunctionTerminalCost, Problem, Solution, Stage
from ocpkit.autodiff.symbol import to_casadi
from ocpkit.problem.graphs import trace_constraints, trace_stage, trace_terminal


@dataclass(frozen=True)
class Rescaling:
    """What J, x, u and every row are multiplied by."""

    cost: float = 1.0
    states: Any = 1.0  # or (n,)
    controls: Any = 1.0  # or (m,)
    rows: float = 1.0

    def __call__(self, problem: Problem) -> Problem:
        """Return the problem in these units."""
        p_size, known = problem.parameters.shape[-1], dict[int, Stage]()
        for stage in problem.stages:
            if id(stage) not in known:
                known[id(stage)] = self._stage(stage, p_size)
        end = trace_terminal(problem.terminal_cost, (), p_size)
        return problem.replace(
            stages=tuple(known[id(stage)] for stage in problem.stages),
            terminal_cost=FunctionTerminalCost(
                self._of(end.phi, self.cost), problem.terminal_cost.state_size, parameter_size=p_size
            ),
            terminal_constraints=self._rows(problem.terminal_constraints, (problem.terminal_cost.state_size, p_size)),
            x0=problem.x0 * self.states,
            controls=tuple(u * self.controls for u in problem.controls),
            states=None if problem.states is None else tuple(x * self.states for x in problem.states),
        )

    def back(self, solution: Solution) -> tuple[float, Any, Any]:
        """Return J, states and controls of a solution in the units before."""
        states, controls = np.asarray(solution.states) / self.states, np.asarray(solution.controls) / self.controls
        return solution.cost / self.cost, states, controls

    def _stage(self, stage: Stage, p_size: int) -> Stage:
        sizes = (stage.dynamics.state_size, stage.dynamics.control_size)
        traced = trace_stage(stage, p_size)
        return Stage(
            FunctionDynamics(
                self._of(traced.f, self.states),
                *sizes,
                next_state_size=stage.dynamics.next_state_size,
                parameter_size=p_size,
            ),
            FunctionCost(self._of(traced.l, self.cost), *sizes, parameter_size=p_size),
            np.asarray(stage.control_lower) * self.controls,
            np.asarray(stage.control_upper) * self.controls,
            self._rows(stage.constraints, (*sizes, p_size)),
            stage.name,
        )

    def _rows(self, constraints: Any, sizes: tuple[int, ...]) -> tuple[Constraint, ...]:
        found = []
        for each in constraints:
            traced = trace_constraints([each], sizes, "rows")
            bounds = (traced.lower * self.rows, traced.upper * self.rows)
            found.append(Constraint(self._of(traced.function, self.rows), *bounds, each.name))
        return tuple(found)

    def _of(self, graph: ca.Function, factor: Any) -> Any:
        """Return a function of (x, u, p) or (x, p) in these units."""

        def at_stage(x: Any, u: Any, p: Any) -> Any:
            return factor * graph(to_casadi(x) / self.states, to_casadi(u) / self.controls, to_casadi(p))

        def at_end(x: Any, p: Any) -> Any:
            return factor * graph(to_casadi(x) / self.states, to_casadi(p))

        return at_stage if graph.n_in() == 3 else at_end
