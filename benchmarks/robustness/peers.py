"""IPOPT and fatrop through CasADi: tolerance 1e-8, exact Hessians, functions in C, else their defaults."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.robustness.contract import Answer, Claim, Solve, System, timed
from benchmarks.robustness.program import Program, arguments, split
from ocpkit import Problem

TOLERANCE = 1e-8
ACCEPTABLE = "Solved_To_Acceptable_Level"  # success to CasADi, and no claim of the tolerance
SAY_INFEASIBLE = ("Infeasible_Problem_Detected", "Invalid_Problem_Definition")  # the second: bounds of x_0 contradict
MOST = 1_000_000  # IPOPT's count is any number where it refuses a program


@dataclass(frozen=True)
class Peer:
    """A plugin of CasADi on the program of `benchmarks.robustness.program`."""

    plugin: str
    options: dict[str, Any]
    limits: Callable[[float], dict[str, Any]]

    def __call__(self, problem: Problem, limit: float) -> Solve:
        own = {"print_level": 0, "tol": TOLERANCE} | self.options | self.limits(limit)
        options: dict[str, Any] = {"detect_simple_bounds": True, self.plugin: own}
        if self.plugin == "fatrop":
            given = arguments(problem, problem.simulate(problem.controls), problem.controls)
            equal = [bool(a == b) for a, b in zip(given["lbg"], given["ubg"])]
            options |= {"structure_detection": "auto", "equality": equal}
        program = Program.of(problem)
        in_c = program.solver(self.plugin, options, compiled=shutil.which("gcc") is not None)
        expanded = cache(lambda: program.solver(self.plugin, options, compiled=False))

        def solve(problem: Problem) -> Answer:
            states = problem.simulate(problem.controls) if problem.states is None else problem.states
            given, solver = arguments(problem, states, problem.controls), in_c
            try:
                found, seconds = timed(lambda: solver(**given))
            except RuntimeError:  # fatrop gives up on the functions in C at times, and not on the same as scalar graphs
                solver = expanded()
                found, seconds = timed(lambda: solver(**given))
            stats, w = solver.stats(), found["x"].full()[:, 0]
            count = int(stats["iter_count"])
            iterations = count if 0 <= count < MOST else 0
            return Answer(*split(problem, w), _claim(stats), str(stats["return_status"]), iterations, seconds)

        return solve


def _claim(stats: dict[str, Any]) -> Claim:
    if stats["return_status"] in SAY_INFEASIBLE:
        return Claim.INFEASIBLE
    return Claim.OPTIMAL if stats["success"] and stats["return_status"] != ACCEPTABLE else Claim.NOTHING


def _ipopt(**options: Any) -> Peer:
    return Peer("ipopt", {"sb": "yes"} | options, lambda limit: {"max_cpu_time": limit})


PEERS: dict[str, System] = {
    "ipopt": _ipopt(),
    "ipopt-adaptive": _ipopt(mu_strategy="adaptive"),
    "fatrop": Peer("fatrop", {}, lambda limit: {}),
}
