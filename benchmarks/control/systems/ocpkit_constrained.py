"""ocpkit's augmented Lagrangian and interior point on tasks with general constraints, the task's own choice first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from benchmarks.control.contestant import Contestant, Outcome, Unavailable
from benchmarks.control.tasks import Task
from ocpkit import AugmentedLagrangian, InteriorPoint
from ocpkit.errors import UnsupportedProblem
from ocpkit.solution.complementarity import complementarity

METHODS: dict[str, AugmentedLagrangian] = {"al": AugmentedLagrangian(), "ip": InteriorPoint()}


@dataclass(frozen=True)
class Constrained:
    """Default options on one engine.

    Parameters
    ----------
    other
        Take the method that the task does not name.
    """

    engine: str
    other: bool = False
    methods: dict[str, AugmentedLagrangian] = field(default_factory=lambda: METHODS)

    @property
    def name(self) -> str:
        return f"ocpkit {self.engine}" + (" other method" if self.other else "")

    def accepts(self, task: Task) -> bool:
        return bool(task.method)

    def prepare(self, task: Task) -> Contestant:
        method = next(name for name in self.methods if (name != task.method) == self.other)
        chosen, problem = self.methods[method], task.problem
        solver = replace(chosen, inner=replace(chosen.inner, engine=self.engine))
        try:
            solution = solver.solve(problem)
        except UnsupportedProblem as error:  # no compiler, say
            raise Unavailable(str(error)) from error

        def solve() -> Outcome:
            solution = solver.solve(problem)
            return Outcome(solution.controls, solution.details.inner_iterations)

        left = complementarity(problem, solution)
        note = f"{method}, {solution.iterations} outer iterations, complementarity {left:.0e}"
        return Contestant(solve, note=note if solution.success else f"{note}, {solution.status.name.lower()}")


SYSTEMS = (Constrained("c"), Constrained("c", other=True))
