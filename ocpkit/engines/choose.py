"""Which engine runs a solve, and why."""

from __future__ import annotations

from ocpkit.engines.casadi import VMEngine
from ocpkit.engines.graphs import trace_problem
from ocpkit.engines.interface import Engine
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem import Problem

ENGINES = ("auto", "numpy", "vm")


def choose_engine(problem: Problem, wanted: str, obstacle: str = "") -> tuple[Engine, str]:
    """Return the engine and the reason, one line.

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
        return NumpyEngine(problem), "numpy: as asked"
    try:
        if obstacle:
            raise UnsupportedProblem(obstacle)
        graph = trace_problem(problem)
    except UnsupportedProblem as error:
        if wanted == "auto":
            return NumpyEngine(problem), f"numpy: {error}"
        raise UnsupportedProblem(f"the engine {wanted!r} cannot run this: {error}; use engine='numpy'") from error
    return VMEngine(problem, graph), "vm: as asked" if wanted == "vm" else "vm: the functions could be traced"
