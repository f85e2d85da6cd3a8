"""The free parameters that a solution has chosen."""

from __future__ import annotations

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.errors import ProblemError
from ocpkit.problem.problem import Problem
from ocpkit.solution.solution import Solution


def chosen_parameters(problem: Problem, solution: Solution) -> Array:
    """Return θ (k,) of a solution, in the order in which the parameters were freed.

    Parameters
    ----------
    problem
        The problem that was handed to `with_free_parameters`.
    solution
        A solution of the problem that it returned.

    Raises
    ------
    ProblemError
        If the solution has no free parameters.
    """
    n, final = problem.terminal_cost.state_size, solution.states[-1]
    if len(final) <= n:
        raise ProblemError(f"the solution's last state has {len(final)} entries, no free parameters after {n} states")
    return np.array(solution.controls[0][n - len(final) :])  # inside their bounds, even where a solver left gaps
