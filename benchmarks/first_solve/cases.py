"""What is solved, and by which solver of ocpkit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import suite
from ocpkit import Automatic, Problem, models
from ocpkit.solvers.driver import Solver


@dataclass(frozen=True)
class Case:
    """A problem in ocpkit's terms and as a nonlinear program.

    Attributes
    ----------
    declare
        Makes the problem, with all the tracing that a declaration does.
    prepare_program
        Does what IPOPT is not charged for, and returns what writes its program.
    optimum
        The published J of the continuous problem, where there is one.
    """

    name: str
    declare: Callable[[], Problem]
    prepare_program: Callable[[], Callable[[], suite.Nlp]]
    optimum: float | None = None


def _task(name: str) -> Case:
    def prepare() -> Callable[[], suite.Nlp]:
        problem = models.get(name).build()
        suite.nlp_of(problem)  # the model's graphs are kept by its parts
        return lambda: suite.nlp_of(problem)

    return Case(name, lambda: models.get(name).build(), prepare)


def _of_suite(name: str) -> Case:
    problem = suite.PROBLEMS[name]
    return Case(
        f"{PREFIX}{name}", lambda: suite.discretized(problem), lambda: lambda: suite.as_nlp(problem), problem.optimum
    )


PREFIX = "suite/"


def names() -> tuple[str, ...]:
    """Names of all cases: tasks, without those of robots, which need an extra, and ``suite/…``."""
    return *models.names(), *(f"{PREFIX}{name}" for name in suite.PROBLEMS)


def get(name: str) -> Case:
    """Return a case."""
    return _of_suite(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else _task(name)


def recommended(time_limit: float) -> Solver:
    """Return the solver for somebody who does not choose one."""
    return Automatic(time_limit=time_limit)
