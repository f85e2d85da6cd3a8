"""Choice of the engine of a solve, with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from ocpkit.engines.c.compiler import CompilerError
from ocpkit.engines.c.library import Library, cached_library, load_library
from ocpkit.engines.graphs import ProblemGraph, trace_problem
from ocpkit.engines.interface import Engine
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.engines.vm import VMEngine
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem.problem import Problem

# The virtual machine runs unrolled arithmetic: from about n + m = 25 on NumPy's loops are faster (iLQR on random LQR,
# T = 50, ms per iteration VM / NumPy: 2.9 / 6.4 at (12, 4), 4.9 / 7.6 at (14, 7), 8.8 / 8.2 at (20, 5), 22 / 11 at
# (30, 8)), and each type of stage takes its time to be unrolled.
LARGEST_FOR_VM, KINDS_FOR_VM = 24, 8
LARGEST_AT_ALL = 80
LARGEST_TO_COMPILE = 20_000  # operations of a Jacobian; the compiler's time grows faster than the code


@dataclass(frozen=True)
class Choice:
    """Chosen engine.

    Attributes
    ----------
    name
        ``"numpy"``, ``"vm"`` or ``"c"``.
    reason
        Why, for the user.
    graph, library
        What the VM and the C engine run; with a graph, NumPy and the VM may give way to C later in the solve.
    """

    name: str
    reason: str
    graph: ProblemGraph | None = None
    library: Library | None = None

    def engine(self, problem: Problem) -> Engine:
        """Return the engine that is not compiled."""
        return VMEngine(problem, trace_problem(problem)) if self.name == "vm" else NumpyEngine(problem)


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
        return Choice("numpy", "as asked")
    try:
        if obstacle:
            raise UnsupportedProblem(obstacle)
        graph = trace_problem(problem)
        if wanted == "c":
            library = load_library(graph)
            return Choice("c", library.origin, graph, library)
        if wanted == "vm" and _size(graph) > LARGEST_AT_ALL:
            raise UnsupportedProblem(f"its unrolled arithmetic is for up to {LARGEST_AT_ALL} states and controls")
    except UnsupportedProblem as error:
        if wanted == "auto":
            return Choice("numpy", str(error))
        raise UnsupportedProblem(f"the engine {wanted!r} cannot run this: {error}; use another engine") from error
    return Choice("vm", "as asked") if wanted == "vm" else _automatic(graph)


def _automatic(graph: ProblemGraph) -> Choice:
    """C if it is compiled already; else what is faster without, and C later."""
    small = _size(graph) <= LARGEST_FOR_VM and len(graph.stage_types) <= KINDS_FOR_VM
    name = "vm" if small else "numpy"
    try:
        library = cached_library(graph)
    except CompilerError as error:
        return Choice(name, str(error))
    if library is not None:
        return Choice("c", library.origin, graph, library)
    operations = max(each.dynamics.jacobian.n_instructions() for each in graph.stage_types)
    if operations > LARGEST_TO_COMPILE:
        return Choice(name, f"a Jacobian of {operations} operations takes long to compile; engine='c' does it")
    return Choice(name, "not compiled yet", graph)


def _size(graph: ProblemGraph) -> int:
    return max(each.state_size + each.control_size for each in graph.stage_types)
