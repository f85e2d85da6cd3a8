"""ocpkit's DDP, one entry per engine, and iLQR, whose expansion is the one that Crocoddyl and pycddp use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.control.contestant import Contestant, Outcome, Unavailable, compiled_batch
from benchmarks.control.tasks import Task
from ocpkit import DDP, ILQR, Problem, Solution
from ocpkit.errors import ProblemError, UnsupportedProblem
from ocpkit.solvers.guess import Guess

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
        return not task.method and (self.engine != "numpy" or task.problem.horizon <= 200)  # minutes per solve beyond

    def prepare(self, task: Task) -> Contestant:
        problem, solver = task.problem, self.solver()
        batch = compiled_batch(problem.horizon) if self.engine == "c" else 8
        self.first_solve(problem)
        # what natural units cost counts: nothing in C, but sums over the stages in Python
        endless = {
            k: self.solver(
                max_iterations=k, line_search=None, scaling=False, gradient_tolerance=NEVER, cost_tolerance=NEVER
            )
            for k in (0, batch)
        }

        def solve() -> Outcome:
            solution = solver.solve(problem)
            return Outcome(solution.controls, solution.iterations)

        def iterate(k: int, controls: Sequence[np.ndarray]) -> None:
            done = endless[k].solve(problem, controls=controls).iterations
            if done != k:
                raise RuntimeError(f"{self.name} stopped after {done} of {k} iterations on {task.name}")

        def step(k: int, controls: Sequence[np.ndarray]) -> None:
            run = self.solver(line_search=None).begin(problem, Guess(tuple(controls), None))
            run.start()
            for _ in range(k):
                run.status = None  # whatever it has found
                run.step()

        return Contestant(solve, iterate if self.engine == "c" else step, batch)

    def solver(self, **options: Any) -> DDP:
        """Return a solver that runs on this engine."""
        try:
            return self.method(engine=self.engine, **options)
        except ProblemError as error:
            raise Unavailable(str(error)) from error

    def first_solve(self, problem: Problem) -> Solution:
        """Solve once, which traces and compiles; refuse a substitute of the engine."""
        try:
            solution = self.solver().solve(problem)
        except UnsupportedProblem as error:  # no compiler, say
            raise Unavailable(str(error)) from error
        if not self.ran(solution):
            raise Unavailable(f"the engine {self.engine!r} was asked for, this ran: {solution.details.engine}")
        return solution

    def ran(self, solution: Solution) -> bool:
        """Whether this engine, and not a substitute, produced a solution."""
        return solution.details.engine == self.engine


SYSTEMS = (Ocpkit("c"), Ocpkit("c", ILQR), Ocpkit("vm"), Ocpkit("numpy"))
