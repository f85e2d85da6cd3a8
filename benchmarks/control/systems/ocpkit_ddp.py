"""ocpkit's DDP, one entry per engine, and iLQR, whose expansion is the one that Crocoddyl and pycddp use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from benchmarks.control.contestant import ITERATIONS, Contestant, Outcome, Unavailable
from benchmarks.control.tasks import Task
from ocpkit import DDP, ILQR, Solution

NEVER = 1e-300  # a tolerance that no iterate meets


@dataclass(frozen=True)
class Ocpkit:
    """DDP (second order) or iLQR with default options."""

    engine: str
    method: type[DDP] = DDP

    @property
    def name(self) -> str:
        return f"ocpkit {self.engine}" + (" iLQR" if self.method is ILQR else "")

    def accepts(self, task: Task) -> bool:
        return self.engine != "numpy" or task.problem.horizon <= 200  # minutes per solve beyond

    def prepare(self, task: Task) -> Contestant:
        options, problem = self.options(), task.problem
        solver = self.method(**options)
        first = solver.solve(problem)
        if not self.ran(first):
            raise Unavailable(f"the engine {self.engine!r} was asked for, {first.details['engine']!r} ran")
        endless = {
            k: self.method(
                **options,
                max_iterations=k,
                line_search=False,
                gradient_tolerance=NEVER,
                cost_tolerance=NEVER,
            )
            for k in (0, ITERATIONS)
        }

        def solve() -> Outcome:
            solution = solver.solve(problem)
            return Outcome(solution.controls, solution.iterations)

        def iterate(k: int, controls: Sequence[np.ndarray]) -> object:
            done = endless[k].solve(problem, controls=controls).iterations
            if done != k:
                raise RuntimeError(f"{self.name} stopped after {done} of {k} iterations on {task.name}")
            return done

        return Contestant(solve, iterate)

    def ran(self, solution: Solution) -> bool:
        """Whether this engine, and not a substitute, produced a solution."""
        return re.split(r"\W", solution.details["engine"])[0] == self.engine

    def options(self) -> dict[str, Any]:
        """Return the keyword that chooses the engine."""
        if "engine" in {field.name for field in fields(DDP)}:
            return {"engine": self.engine}
        if self.engine == "numpy":
            return {}
        raise Unavailable(f"DDP of this version of ocpkit has no engine {self.engine!r}")


SYSTEMS = (Ocpkit("c"), Ocpkit("c", ILQR), Ocpkit("vm"), Ocpkit("numpy"))
