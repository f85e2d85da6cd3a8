"""What the benchmark asks of a system."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from ocpkit import Problem
from ocpkit.boundary.arrays import Array

REPEATED, MOST = 0.2, 3  # a solve of fewer seconds is repeated, up to so many in all, and the fastest counts


class DoesNotApply(Exception):
    """The system cannot state such problems; says which."""


class Claim(Enum):
    """What a system says of its answer."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    NOTHING = "nothing"
    DOES_NOT_APPLY = "does not apply"


@dataclass(frozen=True)
class Answer:
    """What a system returned: T + 1 states, T controls, what it says of them, and its own word for that.

    Attributes
    ----------
    seconds
        Of the processor, from the call to the answer.
    """

    states: Sequence[Array]
    controls: Sequence[Array]
    claim: Claim
    status: str
    iterations: int
    seconds: float


Solve = Callable[[Problem], Answer]


class System(Protocol):
    """Prepares for a family of problems, and returns what solves each of them from the guess that it declares.

    Compiling belongs to the preparation. The limit [s] is that of one solve; a system that cannot keep it is ended.

    Raises
    ------
    DoesNotApply
        If the problems are none for it.
    """

    def __call__(self, problem: Problem, limit: float) -> Solve: ...


def timed(solve: Callable[[], Any]) -> tuple[Any, float]:
    """Return an answer, and the processor's seconds: the least of a few where it is quick."""
    least, answer = float("inf"), None
    for _ in range(MOST):
        began = time.process_time()
        answer = solve()
        least = min(least, time.process_time() - began)
        if least > REPEATED:
            break
    return answer, least
