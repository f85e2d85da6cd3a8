"""Crocoddyl on a model that its user wrote in Python, as its documentation shows: a subclass of
`ActionModelAbstract` with `calc` and `calcDiff`.

The numbers come from one CasADi function each, called on NumPy memory: faster than formulas in NumPy would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from benchmarks.control.contestant import Contestant
from benchmarks.control.systems.crocoddyl_cpp import contestant, load
from benchmarks.control.tasks import Task
from ocpkit.problem.graphs import trace_stage, trace_terminal

TASKS = ("pendulum", "cartpole", "quadrotor")
BOUNDED = ("cartpole-bounded", "acrobot-bounded", "cddp-cartpole-bounded", "cddp-car-bounded")


@dataclass(frozen=True)
class CrocoddylPython:
    """One of Crocoddyl's solvers on an action written in Python; those for control bounds run where there are some."""

    solver: str = "SolverDDP"

    @property
    def name(self) -> str:
        return "Crocoddyl Python" + ("" if self.solver == "SolverDDP" else f" {self.solver.removeprefix('Solver')}")

    def accepts(self, task: Task) -> bool:
        return task.name in (BOUNDED if "Box" in self.solver else TASKS)

    def prepare(self, task: Task) -> Contestant:
        crocoddyl, problem = load(), task.problem
        p, n, m = problem.parameters, problem.state_sizes[0], problem.control_sizes[0]
        stage = trace_stage(problem.stages[0], len(p))
        phi = trace_terminal(problem.terminal_cost, (), len(p)).phi
        x, u = ca.SX.sym("x", n), ca.SX.sym("u", m)
        running = action(crocoddyl, x, u, stage.f(x, u, p), stage.l(x, u, p))
        if problem.bounded:
            running.u_lb, running.u_ub = problem.stages[0].control_lower, problem.stages[0].control_upper
        terminal = action(crocoddyl, x, u, x, phi(x, p))
        return contestant(crocoddyl, task, running, terminal, 8, self.solver)


def action(crocoddyl: Any, x: ca.SX, u: ca.SX, following: ca.SX, cost: ca.SX) -> Any:
    """Return the action of one stage, its derivatives to second order in the cost and first in the dynamics."""
    n, m = x.numel(), u.numel()
    z = ca.vertcat(x, u)
    hessian, gradient = ca.hessian(cost, z)
    value = _Numbers([x, u], [following, cost])
    slopes = _Numbers([x, u], [ca.jacobian(following, z), gradient, hessian])

    class Action(crocoddyl.ActionModelAbstract):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(crocoddyl.StateVector(n), m, 0)

        def calc(self, data: Any, x: np.ndarray, u: np.ndarray | None = None) -> None:
            following, cost = value(x, _or_zeros(u, m))
            data.xnext, data.cost = following[:, 0], cost[0, 0]

        def calcDiff(self, data: Any, x: np.ndarray, u: np.ndarray | None = None) -> None:
            F, L, LL = slopes(x, _or_zeros(u, m))
            data.Fx, data.Fu = F[:, :n], F[:, n:]
            data.Lx, data.Lu = L[:n, 0], L[n:, 0]
            data.Lxx, data.Lxu, data.Luu = LL[:n, :n], LL[:n, n:], LL[n:, n:]

    return Action()


def _or_zeros(u: np.ndarray | None, m: int) -> np.ndarray:
    return np.zeros(m) if u is None else u


class _Numbers:
    """A CasADi function on NumPy memory."""

    def __init__(self, inputs: list[ca.SX], outputs: list[ca.SX]) -> None:
        function = ca.Function("f", inputs, [ca.densify(output) for output in outputs])
        self.buffer, self.run = function.buffer()
        self.inputs = [np.zeros(v.numel()) for v in inputs]
        self.outputs = [np.zeros(v.shape, order="F") for v in outputs]
        for i, v in enumerate(self.inputs):
            self.buffer.set_arg(i, memoryview(v))
        for i, v in enumerate(self.outputs):
            self.buffer.set_res(i, memoryview(v.reshape(-1, order="F")))

    def __call__(self, *arguments: np.ndarray) -> list[Any]:
        for stored, argument in zip(self.inputs, arguments):
            stored[:] = argument
        self.run()
        return self.outputs


SYSTEMS = (CrocoddylPython(), CrocoddylPython("SolverBoxDDP"), CrocoddylPython("SolverBoxFDDP"))
