"""acados: SQP with exact Hessians on HPIPM, everything compiled to C for the task.

Needs an installation as its documentation describes: `acados_template` importable and ACADOS_SOURCE_DIR set;
`sh benchmarks/control/install_acados.sh DIR` makes one from a wheel. Settings: partial condensing, Hessians
projected stage by stage (the best of its regularizations on these tasks), merit backtracking, −O3 −march=native.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from benchmarks.control.contestant import Contestant, Outcome, Unavailable
from benchmarks.control.scratch import scratch_folder
from benchmarks.control.tasks import LQR, Task
from ocpkit.problem.graphs import trace_stage, trace_terminal

TASKS = ("pendulum", "cartpole", "quadrotor", "car-parking")


@dataclass(frozen=True)
class Acados:
    """SQP on the problem's own discrete dynamics and costs."""

    name: str = "acados SQP"

    def accepts(self, task: Task) -> bool:
        return task.name in TASKS or isinstance(task.source, LQR)

    def prepare(self, task: Task) -> Contestant:
        problem, solver = task.problem, _build(task)
        horizon, (states, _) = problem.horizon, problem.rollout()

        def solve() -> Outcome:
            solver.reset()
            for t in range(horizon):
                solver.set(t, "x", states[t])
                solver.set(t, "u", problem.controls[t])
            solver.set(horizon, "x", states[horizon])
            solver.solve()
            controls = [np.array(solver.get(t, "u")) for t in range(horizon)]
            return Outcome(controls, int(solver.get_stats("sqp_iter")[0]))

        return Contestant(solve, note="solve includes setting the guess from Python")


def _build(task: Task) -> Any:
    """Generate, compile and load a solver for the task, in a folder of its own."""
    try:
        from acados_template import AcadosOcpSolver
    except ImportError as error:
        raise Unavailable("needs acados_template: see benchmarks/control/install_acados.sh") from error
    if "ACADOS_SOURCE_DIR" not in os.environ:
        raise Unavailable("set ACADOS_SOURCE_DIR: see benchmarks/control/install_acados.sh")
    with scratch_folder():
        return AcadosOcpSolver(_declare(task), json_file="ocp.json", verbose=False)


def _declare(task: Task) -> Any:
    """Return the task as acados declares it."""
    from acados_template import AcadosModel, AcadosOcp

    problem = task.problem
    p, n, m = problem.parameters, problem.state_sizes[0], problem.control_sizes[0]
    stage = trace_stage(problem.stages[0], len(p))
    phi = trace_terminal(problem.terminal_cost, (), len(p)).phi
    model, ocp = AcadosModel(), AcadosOcp()
    model.name = "task_" + task.name.replace("-", "_")
    model.x, model.u = ca.SX.sym("x", n), ca.SX.sym("u", m)
    model.disc_dyn_expr = stage.f(model.x, model.u, p)
    model.cost_expr_ext_cost = stage.l(model.x, model.u, p)
    model.cost_expr_ext_cost_e = phi(model.x, p)
    ocp.model, ocp.dims.N = model, problem.horizon
    ocp.cost.cost_type = ocp.cost.cost_type_e = "EXTERNAL"
    ocp.constraints.x0 = np.array(problem.x0)
    options = ocp.solver_options
    options.tf = float(problem.horizon)  # stages of length 1: the cost of a stage is not scaled
    options.integrator_type, options.nlp_solver_type = "DISCRETE", "SQP"
    options.qp_solver, options.hessian_approx = "PARTIAL_CONDENSING_HPIPM", "EXACT"
    options.regularize_method, options.globalization = "PROJECT", "MERIT_BACKTRACKING"
    options.nlp_solver_max_iter, options.nlp_solver_tol_stat, options.print_level = 500, 1e-6, 0
    options.ext_fun_compile_flags = "-O3 -march=native"
    return ocp


SYSTEMS = (Acados(),)
