"""Cost of a declaration beside CasADi's construction of the same program: ``python -m benchmarks.declaration``.

For each classic task: processor time of building and tracing it, median of 5, and that of ``nlpsol("ipopt")`` on the
multiple-shooting program, with the stage's functions mapped over the horizon, or unrolled into one scalar expression.
The functions themselves are given to CasADi, so that its time has no tracing of the model.
With ``--memory [N]``: resident memory while so many small problems (2,000) of different constants are declared, traced
and solved, by DDP on NumPy, on the virtual machine and in C, and by the interior point.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import casadi as ca
import numpy as np

from ocpkit import DDP, Constraint, InteriorPoint, Problem, models, rk4
from ocpkit import math as m
from ocpkit.engines.graphs import trace_problem
from ocpkit.problem.graphs import trace_stage, trace_terminal
from ocpkit.solvers.driver import Solver

ROUNDS, UNROLLED_ROUNDS = 5, 2
QUIET = {"ipopt.print_level": 0, "print_time": 0}
PROBLEMS, REPORTS = 2000, 8
SOLVERS: dict[str, Solver] = {
    "numpy": DDP(engine="numpy", max_iterations=2),
    "vm": DDP(engine="vm", max_iterations=2),
    "c": DDP(engine="c", max_iterations=2),
    "ip": InteriorPoint(inner=DDP(engine="vm", max_iterations=2), max_iterations=2),
}


def declare(name: str) -> Problem:
    """Build and trace a task."""
    problem: Problem = models.get(name).build()
    _ = trace_problem(problem).key
    return problem


def construct(problem: Problem, unrolled: bool) -> float:
    """Processor time of CasADi's construction [s], with the second stage's functions at all stages."""
    stage, p_size = problem.stages[1], problem.parameters.shape[-1]
    traced, end = trace_stage(stage, p_size), trace_terminal(problem.terminal_cost, (), p_size)
    T, n, size = problem.horizon, stage.dynamics.state_size, stage.dynamics.control_size
    p = ca.DM(np.atleast_2d(problem.parameters)[-1])
    began = time.process_time()
    kind = ca.SX if unrolled else ca.MX
    X, U = kind.sym("X", n, T + 1), kind.sym("U", size, T)
    if unrolled:
        steps = [traced.f(X[:, t], U[:, t], p) for t in range(T)]
        J, following = sum(traced.l(X[:, t], U[:, t], p) for t in range(T)), ca.horzcat(*steps)
    else:
        P = ca.repmat(p, 1, T)
        J, following = ca.sum2(traced.l.map(T)(X[:, :T], U, P)), traced.f.map(T)(X[:, :T], U, P)
    w, g = ca.vertcat(ca.vec(X), ca.vec(U)), ca.vec(following - X[:, 1:])
    ca.nlpsol("program", "ipopt", {"x": w, "f": J + end.phi(X[:, T], p), "g": g}, QUIET)
    return time.process_time() - began


def compare() -> None:
    """Print a line per task."""
    print(f"{'ms':<22}{'declared':>9}{'mapped':>9}{'ratio':>7}{'unrolled':>10}{'ratio':>7}")
    for name in models.names():
        spent = list[float]()
        for _ in range(ROUNDS):
            began = time.process_time()
            problem = declare(name)
            spent.append(time.process_time() - began)
        own = statistics.median(spent)
        mapped = statistics.median(construct(problem, False) for _ in range(ROUNDS))
        unrolled = statistics.median(construct(problem, True) for _ in range(UNROLLED_ROUNDS))
        times = f"{own * 1e3:>9.1f}{mapped * 1e3:>9.1f}{own / mapped:>7.2f}"
        print(f"{name:<22}{times}{unrolled * 1e3:>10.1f}{own / unrolled:>7.2f}", flush=True)


def small_problem(number: int, *, walled: bool) -> Problem:
    """A pendulum with a wall, with constants of its own for each number."""
    c = 1.0 + number * 1e-3
    wall = Constraint(lambda x, u: c * x[1], lower=-1.0, name="speed")
    return Problem.from_functions(
        dynamics=rk4(lambda x, u: m.stack([x[1], u[0] - c * m.sin(x[0])]), dt=0.1),
        cost=lambda x, u: 0.5 * (x @ x + c * u @ u),
        terminal_cost=lambda x: c * x @ x,
        x0=[1.0, 0.0],
        horizon=8,
        control_size=1,
        constraints=(wall,) if walled else (),
    )


def resident() -> float:
    """Resident memory of this process [MB]."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def remember(count: int, solver: Solver) -> list[float]:
    """Resident memory [MB] at equal distances while so many problems are declared, traced and solved."""
    seen = list[float]()
    for number in range(1, count + 1):
        solver.solve(small_problem(number, walled=solver.handles_constraints))
        if number % max(1, count // REPORTS) == 0:
            seen.append(resident())
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, nargs="?", const=PROBLEMS, metavar="N")
    count = parser.parse_args().memory
    if count is not None:
        for name, solver in SOLVERS.items():
            print(name, *(f"{megabytes:.1f}" for megabytes in remember(count, solver)), "MB", flush=True)
    else:
        compare()


if __name__ == "__main__":
    main()
