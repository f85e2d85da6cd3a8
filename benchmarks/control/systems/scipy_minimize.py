"""SciPy's minimizers over the controls (single shooting), on small tasks.

J and its gradient are one CasADi function of all controls, reverse mode: what a careful user would hand to SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import casadi as ca
import numpy as np
from scipy.optimize import minimize

from benchmarks.control.contestant import Contestant, Outcome
from benchmarks.control.tasks import Task
from ocpkit import Problem
from ocpkit.problem.graphs import trace_stage, trace_terminal

TASKS = ("pendulum", "lqr-4-1")


@dataclass(frozen=True)
class Scipy:
    """One method of `scipy.optimize.minimize`."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"SciPy {self.method}"

    def accepts(self, task: Task) -> bool:
        return task.name in TASKS

    def prepare(self, task: Task) -> Contestant:
        problem = task.problem
        objective, start = _objective(problem), np.concatenate(problem.controls)

        def value(u: np.ndarray) -> tuple[float, np.ndarray]:
            cost, gradient = objective(u)
            return float(cost), gradient.full()[:, 0]

        def solve() -> Outcome:
            answer = minimize(value, start, jac=True, method=self.method, options=self.options)
            return Outcome(answer.x.reshape(problem.horizon, -1), int(answer.nit))

        return Contestant(solve)


def _objective(problem: Problem) -> ca.Function:
    """Return the function u_0 … u_{T-1} → (J, ∇J)."""
    p, m = problem.parameters, problem.control_sizes[0]
    stage = trace_stage(problem.stages[0], len(p))
    phi = trace_terminal(problem.terminal_cost, (), len(p)).phi
    u = ca.MX.sym("u", m * problem.horizon)
    x, cost = ca.MX(problem.x0), ca.MX(0)
    for t in range(problem.horizon):
        control = u[t * m : (t + 1) * m]
        cost += stage.l(x, control, p)
        x = stage.f(x, control, p)
    cost += phi(x, p)
    return ca.Function("J", [u], [cost, ca.gradient(cost, u)]).expand()


SYSTEMS = (
    Scipy("SLSQP", {"maxiter": 2000, "ftol": 1e-14}),
    Scipy("trust-constr", {"maxiter": 3000, "gtol": 1e-6, "xtol": 1e-12}),
)
