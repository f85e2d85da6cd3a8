"""Crocoddyl's BoxFDDP on problems without rows whose stages are all equal: derivatives in one CasADi function each.

Its dynamics have first derivatives only, as all its actions have, and its model is called from Python, so that its
seconds say little beside those of compiled code; what it reaches, and in how many iterations, does.
"""

from __future__ import annotations

from typing import Any

import casadi as ca
import numpy as np

from benchmarks.control.systems.crocoddyl_cpp import load
from benchmarks.control.systems.crocoddyl_python import action
from benchmarks.robustness.contract import Answer, Claim, DoesNotApply, Solve, timed
from ocpkit import Problem
from ocpkit.problem.constraint_rows import problem_rows
from ocpkit.problem.graphs import trace_stage, trace_terminal

MOST, STOP = 1000, 1e-9


def prepare(problem: Problem, limit: float) -> Solve:
    """Return what solves a problem by BoxFDDP."""
    crocoddyl = load()
    rows = any(each.count for each in problem_rows(problem, bounds=False))
    if rows or len({id(stage) for stage in problem.stages}) > 1 or problem.parameters.ndim > 1:
        raise DoesNotApply("rows, or stages that differ")
    return lambda problem: _solve(crocoddyl, problem)


def _solve(crocoddyl: Any, problem: Problem) -> Answer:
    solver = crocoddyl.SolverBoxFDDP(_shooting(crocoddyl, problem))
    solver.th_stop = STOP
    states = problem.simulate(problem.controls) if problem.states is None else problem.states
    guess = [list(map(np.asarray, series)) for series in (states, problem.controls)]
    done, seconds = timed(lambda: solver.solve(*guess, MOST, problem.states is None))
    x, u = (list(map(np.asarray, series.tolist())) for series in (solver.xs, solver.us))
    return Answer(x, u, Claim.OPTIMAL if done else Claim.NOTHING, str(done), int(solver.iter) + 1, seconds)


def _shooting(crocoddyl: Any, problem: Problem) -> Any:
    """State the problem in Crocoddyl's terms."""
    p, n, m = problem.parameters, problem.state_sizes[0], problem.control_sizes[0]
    stage, end = trace_stage(problem.stages[0], len(p)), trace_terminal(problem.terminal_cost, (), len(p))
    x, u = ca.SX.sym("x", n), ca.SX.sym("u", m)
    running = action(crocoddyl, x, u, stage.f(x, u, p), stage.l(x, u, p))
    running.u_lb, running.u_ub = (
        np.broadcast_to(getattr(problem.stages[0], f"control_{side}"), m).astype(float) for side in ("lower", "upper")
    )
    terminal = action(crocoddyl, x, u, x, end.phi(x, p))
    return crocoddyl.ShootingProblem(np.asarray(problem.x0), [running] * problem.horizon, terminal)
