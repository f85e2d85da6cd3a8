"""Which engine runs a solve, and why."""

from __future__ import annotations

from dataclasses import dataclass

from ocpkit.engines.casadi import VMEngine
from ocpkit.engines.compiler import CompilerError
from ocpkit.engines.graphs import ProblemGraph, trace_problem
from ocpkit.engines.interface import Engine
from ocpkit.engines.library import Library, cached_library, load_library
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem import Problem

ENGINES = ("auto", "numpy", "vm", "c")


@dataclass(frozen=True)
class Choice:
    """What runs a solve: the library if there is one, else the VM if there is a graph, else NumPy.

    Attributes
    ----------
    undecided
        Whether the VM may give way to C later in the solve.
    """

    reason: str
    graph: ProblemGraph | None = None
    library: Library | None = None
    undecided: bool = False

    def engine(self, problem: Problem) -> Engine:
        """Return the engine that is not compiled."""
        return NumpyEngine(problem) if self.graph is None else VMEngine(problem, self.graph)


def choose_engine(problem: Problem, wanted: str, obstacle: str = "") -> Choice:
    """Choose what runs a solve.

    Parameters
    ----------
    problem
        What is to be solved.
    wanted
        One of `ENGINES`.
    obstacle
        Why only NumPy can treat the options, if so.

    Raises
    ------
    UnsupportedProblem
        If an engine asked for by name cannot treat the problem.
    """
    if wanted == "numpy":
        return Choice("numpy: as asked")
    try:
        if obstacle:
            raise UnsupportedProblem(obstacle)
        graph = trace_problem(problem)
        if wanted == "c":
            library = load_library(graph)
            return Choice(f"c: {library.origin}", graph, library)
    except UnsupportedProblem as error:
        if wanted == "auto":
            return Choice(f"numpy: {error}")
        raise UnsupportedProblem(f"the engine {wanted!r} cannot run this: {error}; use another engine") from error
    return Choice("vm: as asked", graph) if wanted == "vm" else _automatic(graph)


def _automatic(graph: ProblemGraph) -> Choice:
    try:
        library = cached_library(graph)
    except CompilerError as error:
        return Choice(f"vm: {error}", graph)
    if library is None:
        return Choice("vm: not compiled yet", graph, undecided=True)
    return Choice(f"c: {library.origin}", graph, library)
