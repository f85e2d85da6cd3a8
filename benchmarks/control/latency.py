"""What one call costs: a warm-started step of model predictive control, and a solve that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.control.clock import Effort, in_turn
from benchmarks.control.row import Row
from benchmarks.control.systems.ocpkit_ddp import Ocpkit
from ocpkit import Problem, Solution, models

MPC, OVERHEAD = "mpc-quadrotor", "call-overhead"
DISTURBANCE = 0.01  # standard deviation of the measured state about the predicted one


def mpc_step(system: Ocpkit, effort: Effort) -> list[Row]:
    """Time one step of the quadrotor's controller, T = 50: a new measured state, the controls shifted by one stage.

    One row for a single iteration (the real-time iteration), one for solving until convergence; both include
    `Problem.replace`, whose share the note tells.
    """
    problem = models.get("quadrotor").build(horizon=50, time_step=0.04)
    start = time.perf_counter()
    solver, solution = system.solver(), system.first_solve(problem)
    build = time.perf_counter() - start
    measured = solution.states[1] + DISTURBANCE * np.random.default_rng(0).normal(size=12)
    shifted = np.concatenate([solution.controls[1:], solution.controls[-1:]])
    once = system.solver(max_iterations=1)

    def renew() -> Problem:
        return problem.replace(x0=measured)

    steps: dict[str, Callable[[], Solution]] = {
        "one iteration": lambda: once.solve(renew(), controls=shifted),
        "converged": lambda: solver.solve(renew(), controls=shifted),
    }
    times = {name: 1e3 * median(t) for name, t in in_turn({**steps, "replace": renew}, effort).items()}
    return [
        _row(f"{MPC} {name}", system, problem, step(), times[name], build, f"replace: {times['replace']:.3f} ms")
        for name, step in steps.items()
    ]


def call_overhead(system: Ocpkit, effort: Effort) -> list[Row]:
    """Time a solve of a tiny problem that starts at its solution: no iteration, all of it is overhead."""
    problem = models.get("double-integrator").build(horizon=2)
    start = time.perf_counter()
    solver, solution = system.solver(), system.first_solve(problem)
    build = time.perf_counter() - start
    times = in_turn({"call": lambda: solver.solve(problem, solution)}, effort)
    return [_row(OVERHEAD, system, problem, solver.solve(problem, solution), 1e3 * median(times["call"]), build)]


def _row(
    task: str, system: Ocpkit, problem: Problem, solution: Solution, milliseconds: float, build: float, note: str = ""
) -> Row:
    return Row(
        task=task,
        system=system.name,
        n=problem.state_sizes[0],
        m=problem.control_sizes[0],
        horizon=problem.horizon,
        iterations=solution.iterations,
        cost=solution.cost,
        solve_ms=milliseconds,
        build_s=build,
        note=note,
    )
