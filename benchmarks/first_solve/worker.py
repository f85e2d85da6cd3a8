"""One fresh process that solves one case by one system: ``python -m benchmarks.first_solve.worker ROLE NAME LIMIT``.

Prints what it measured as one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.first_solve import cases
from ocpkit import Problem, Solution
from ocpkit.solvers.driver import Solver
from ocpkit.solvers.primal_dual.kkt import KERNEL

T = TypeVar("T")


@dataclass
class Stopwatch:
    """Wall clock and processor seconds, those of ended child processes among them, of named parts."""

    wall: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)

    def __call__(self, part: str, action: Callable[[], T]) -> T:
        wall, processor = time.perf_counter(), sum(os.times()[:4])
        result = action()
        self.wall[part] = time.perf_counter() - wall
        self.processor[part] = sum(os.times()[:4]) - processor
        return result

    def record(self) -> dict[str, Any]:
        """Return the seconds for a file."""
        return {"wall": self.wall, "processor": self.processor}


def solve_by_ocpkit(case: cases.Case, limit: float) -> dict[str, Any]:
    """Declare and solve, solve again, wait for C, and solve once more."""
    watch = Stopwatch()
    problem = watch("declare", case.declare)
    solver = cases.recommended(limit)
    first = watch("solve", lambda: solver.solve(problem))
    second = watch("second", lambda: solver.solve(problem))
    watch("ready", lambda: _wait_for_c(solver, problem))
    third = watch("in C", lambda: solver.solve(problem))
    return watch.record() | {
        "sizes": [max(problem.state_sizes), max(problem.control_sizes), problem.horizon],
        "solver": first.solver,
        "solves": [_answer(each) for each in (first, second, third)],
    }


def _answer(solution: Solution) -> dict[str, Any]:
    details = solution.details
    return {
        "J": solution.cost,
        "status": solution.status.name,
        "iterations": details.inner_iterations or solution.iterations,
        "engine": details.engine,
        "why": details.why,
        "seconds": vars(details.seconds),
    }


def build_in_c(case: cases.Case, limit: float) -> dict[str, Any]:
    """Declare, and wait for the compiled solver, which a process beside builds."""
    watch = Stopwatch()
    problem: Problem = watch("declare", case.declare)
    watch("build", lambda: _wait_for_c(cases.recommended(limit), problem))
    return watch.record()


def _wait_for_c(solver: Solver, problem: Problem) -> None:
    build = solver.compile(problem)
    if build is None:  # its compiled parts serve any problem
        KERNEL.wait()
    else:
        build.wait()


def solve_by_ipopt(case: cases.Case, limit: float) -> dict[str, Any]:
    """Write the program, build the solver, solve, and solve again, at IPOPT's fastest once it is built."""
    watch, write = Stopwatch(), case.prepare_program()
    nlp = watch("write", write)
    first = watch("build", lambda: nlp.solver(max_wall_time=limit))
    expanded = watch("expand", lambda: nlp.solver(expand=True, max_wall_time=limit))
    answers = []
    for part, solver in (("solve", first), ("second", expanded)):
        found = watch(part, lambda: solver(x0=nlp.start, **nlp.bounds))  # noqa: B023 - called at once
        stats = solver.stats()
        answers.append(
            {
                "J": float(found["f"]),
                "status": stats["return_status"],
                "success": stats["success"],
                "iterations": stats["iter_count"],
            }
        )
    return watch.record() | {"solves": answers}


ROLES = {"ocpkit": solve_by_ocpkit, "c": build_in_c, "ipopt": solve_by_ipopt}


def main(role: str, name: str, limit: str) -> None:
    """Print the measurements of one role on one case."""
    case = cases.get(name)
    print(json.dumps(ROLES[role](case, float(limit))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
