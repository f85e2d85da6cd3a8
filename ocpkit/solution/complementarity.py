"""Complementarity of multipliers and rows."""

from __future__ import annotations

import numpy as np

from ocpkit.errors import ProblemError
from ocpkit.problem.constraint_rows import problem_rows, row_values
from ocpkit.problem.problem import Problem
from ocpkit.solution.solution import Solution


def complementarity(problem: Problem, solution: Solution) -> float:
    """Return max |y| |g − bound| over all rows, those of control bounds included; y pushes from that bound.

    Raises
    ------
    ProblemError
        If the solution has no multipliers of this problem's rows.
    """
    rows, multipliers = problem_rows(problem), solution.multipliers
    if multipliers is None or [len(y) for y in multipliers] != [each.count for each in rows]:
        raise ProblemError(f"the solution of {solution.solver} has no multipliers of the rows of {problem.name!r}")
    largest = 0.0
    for y, g, each in zip(multipliers, row_values(problem, rows, solution.states, solution.controls), rows):
        bound = np.where(y > 0, each.traced.upper, each.traced.lower)
        largest = max(largest, float(np.abs(y * np.where(y == 0, 0.0, g - bound)).max(initial=0.0)))
    return largest
