"""Choice of the engine of a solve, with its reason."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from ocpkit.engines.c.build import Build, begin_build, library_within, ready_library
from ocpkit.engines.c.compiler import CompilerError
from ocpkit.engines.c.kernels import BESIDE
from ocpkit.engines.c.library import Library
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
SHARE = 0.7  # of a time limit, after which a solve that wants C goes on without, to have an answer in time


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
        What the VM and the C engine run; with a graph, NumPy, the VM and C without optimization give way to what is
        being built beside.
    """

    name: str
    reason: str
    graph: ProblemGraph | None = None
    library: Library | None = None

    def engine(self, problem: Problem) -> Engine:
        """Return the engine that is not compiled."""
        return VMEngine(problem, trace_problem(problem)) if self.name == "vm" else NumpyEngine(problem)


_log = logging.getLogger("ocpkit")


def choose_engine(problem: Problem, wanted: str, obstacle: str = "", time_limit: float = float("inf")) -> Choice:
    """Choose what runs a solve.

    Parameters
    ----------
    problem
        What is to be solved.
    wanted
        One of `ENGINES`.
    obstacle
        Why only NumPy can treat the options, if so.
    time_limit
        Seconds that a solver in C asked for by name may take to build.

    Raises
    ------
    UnsupportedProblem
        If an engine asked for by name cannot treat the problem.
    """
    choice = _choose(problem, wanted, obstacle, time_limit)
    _log.info("engine %s: %s", choice.name, choice.reason)
    return choice


def _choose(problem: Problem, wanted: str, obstacle: str, time_limit: float) -> Choice:
    if wanted == "numpy":
        return Choice("numpy", "as asked")
    try:
        if obstacle:
            raise UnsupportedProblem(obstacle)
        graph = trace_problem(problem)
        if wanted == "c":
            library = library_within(graph, SHARE * time_limit)
            if library is None:
                return Choice("numpy", f"C was not compiled within {SHARE * time_limit:.3g} s")
            return Choice("c", library.origin, graph, library)
        if wanted == "vm" and _size(graph) > LARGEST_AT_ALL:
            raise UnsupportedProblem(f"its unrolled arithmetic is for up to {LARGEST_AT_ALL} states and controls")
    except UnsupportedProblem as error:
        if wanted == "auto":
            return Choice("numpy", str(error))
        raise UnsupportedProblem(f"the engine {wanted!r} cannot run this: {error}; use another engine") from error
    return Choice("vm", "as asked") if wanted == "vm" else _automatic(graph)


def begin_compiling(problem: Problem, wanted: str, obstacle: str = "") -> Build | None:
    """Begin to build what `choose_engine` would take, in a process beside; None where it would compile nothing.

    C that is asked for by name is waited for.
    """
    if wanted in ("numpy", "vm") or obstacle:
        return None
    try:
        graph = trace_problem(problem)
        if wanted == "auto" and _not_worth_it(graph):
            return None
        build = begin_build(graph)
        if wanted == "c":
            build.wait()
        return build
    except UnsupportedProblem:  # which the solve says, with its reason
        return None


def _automatic(graph: ProblemGraph) -> Choice:
    """C if it is compiled already; else what is faster without, and C when it is."""
    small = _size(graph) <= LARGEST_FOR_VM and len(graph.stage_types) <= KINDS_FOR_VM
    name = "vm" if small else "numpy"
    try:
        library = ready_library(graph)
    except CompilerError as error:
        return Choice(name, str(error))
    if library is not None:
        return Choice("c", library.origin, graph, library)
    obstacle = _not_worth_it(graph)
    return Choice(name, obstacle or "not compiled yet", None if obstacle else graph)


def _not_worth_it(graph: ProblemGraph) -> str:
    """Say why the compiler is left alone unless C is asked for by name, or nothing."""
    if os.environ.get(BESIDE) == "0":
        return f"not compiled yet; {BESIDE}=0 leaves that to engine='c'"
    operations = max(each.dynamics.jacobian.n_instructions() for each in graph.stage_types)
    if operations > LARGEST_TO_COMPILE:
        return f"a Jacobian of {operations} operations takes long to compile; engine='c' does it"
    return ""


def _size(graph: ProblemGraph) -> int:
    return max(each.state_size + each.control_size for each in graph.stage_types)
