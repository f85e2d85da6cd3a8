"""When the solve in progress must end, for whatever takes its time inside it.

What a solve begins with has many parts, from pricing a row to unrolling a sweep, in rooms that know of no solver. Each
looks at the clock between two of its own steps; what is given up there is made anew when it is asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

_deadline = ContextVar("deadline", default=float("inf"))


class OutOfTime(Exception):
    """The time limit was reached inside a step of a solve, which is given up."""


@contextmanager
def ending_at(moment: float) -> Iterator[None]:
    """Give what is done here time until a moment of `time.perf_counter`, or until an earlier one given around it."""
    before = _deadline.set(min(moment, _deadline.get()))
    try:
        yield
    finally:
        _deadline.reset(before)


@contextmanager
def in_any_case() -> Iterator[None]:
    """Finish what is done here whatever the time; else a result that is there already would be lost."""
    before = _deadline.set(float("inf"))
    try:
        yield
    finally:
        _deadline.reset(before)


def time_left() -> float:
    """Seconds until the deadline, ∞ without one."""
    return _deadline.get() - perf_counter()


def check_time() -> None:
    """Give up where the time is over; of no use where exceptions of a user's code are caught.

    Raises
    ------
    OutOfTime
        If it is.
    """
    if time_left() <= 0:
        raise OutOfTime


def in_time(items: Iterable[T]) -> Iterator[T]:
    """Yield stages, or anything else that takes its time, and look at the clock before each."""
    for item in items:
        check_time()
        yield item
