"""What is solved: families of problems of one structure, which every system prepares once, and their instances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ocpkit import Problem


def _as_declared(problem: Problem) -> Problem:
    return problem


@dataclass(frozen=True)
class Instance:
    """One problem of a family: other numbers in the same graphs.

    Attributes
    ----------
    change
        Makes it of the family's problem.
    infeasible
        Whether it is known that nothing keeps its rows and bounds.
    """

    name: str
    change: Callable[[Problem], Problem] = _as_declared
    infeasible: bool = False


@dataclass(frozen=True)
class Family:
    """Problems with the same graphs, sizes and kinds of rows; their numbers and bounds differ.

    Attributes
    ----------
    group
        Whose part in the tables it is.
    declare
        Makes the problem whose graphs all instances have.
    """

    group: str
    name: str
    declare: Callable[[], Problem]
    instances: tuple[Instance, ...] = (Instance(""),)
