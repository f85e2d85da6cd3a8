"""What one call costs: a warm-started step of model predictive control, and a solve that has nothing to do."""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from benchmarks.control.clock import Effort, in_turn, once
from benchmarks.control.row import Row
from benchmarks.control.systems.ocpkit_ddp import Ocpkit
from ocpkit import MPC, Problem, models
from ocpkit.control.mpc import Health

MPC_STEP, OVERHEAD = "mpc-quadrotor", "call-overhead"
TICKS, NOISE = 40, 0.01  # length of the closed loop; standard deviation of the noise on every state and tick
BUDGETS = {"one iteration": {"max_iterations": 1}, "converged": {}}


def mpc_step(system: Ocpkit, effort: Effort) -> list[Row]:
    """Time the ticks of the quadrotor's controller in closed loop, T = 50: the whole of `MPC.step`.

    One row for a single iteration per tick (real-time iteration), one for solving until convergence.
    """
    problem = models.get("quadrotor").build(horizon=50, time_step=0.04)
    start = time.perf_counter()
    system.first_solve(problem)
    build = time.perf_counter() - start
    rows = []
    for name, options in BUDGETS.items():
        seconds, healths = _closed_loop(MPC(problem, system.solver(**options)))
        note = f"median of {TICKS} ticks, worst {1e3 * max(seconds):.2g} ms; {_tally(healths)}"
        rows.append(_row(f"{MPC_STEP} {name}", system, problem, 1e3 * median(seconds), build, note))
    return rows


def _closed_loop(controller: MPC) -> tuple[list[float], list[Health]]:
    """Return the times of the ticks [s] after the first, cold one, and the health of each."""
    rng, problem = np.random.default_rng(0), controller.problem
    x, seconds, healths = problem.x0, [], []
    command = controller.step(x)
    for _ in range(TICKS):
        x = problem.stages[0].dynamics.step(x, command.control, problem.parameter(0))
        x = x + NOISE * rng.normal(size=len(x))
        results = []
        seconds.append(once(lambda x=x, results=results: results.append(controller.step(x))))
        command = results[0]
        healths.append(command.health)
    return seconds, healths


def _tally(healths: list[Health]) -> str:
    return ", ".join(f"{health.name.lower()} {healths.count(health)}" for health in Health if health in healths)


def call_overhead(system: Ocpkit, effort: Effort) -> list[Row]:
    """Time a solve of a tiny problem that starts at its solution: no iteration, all of it is overhead."""
    problem = models.get("double-integrator").build(horizon=2)
    start = time.perf_counter()
    solver, solution = system.solver(), system.first_solve(problem)
    build = time.perf_counter() - start
    times = in_turn({"call": lambda: solver.solve(problem, solution)}, effort)
    return [_row(OVERHEAD, system, problem, 1e3 * median(times["call"]), build, "T = 2, from the solution")]


def _row(task: str, system: Ocpkit, problem: Problem, milliseconds: float, build: float, note: str) -> Row:
    n, m = problem.state_sizes[0], problem.control_sizes[0]
    return Row(
        task=task,
        system=system.name,
        n=n,
        m=m,
        horizon=problem.horizon,
        solve_ms=milliseconds,
        build_s=build,
        note=note,
    )
