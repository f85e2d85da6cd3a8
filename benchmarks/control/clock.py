"""Medians of processor time, taken in turn so that a slow moment of the machine hits every system alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Action = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes
    ----------
    rounds
        Turns that every action gets.
    seconds
        Time of an action in one turn; it runs at least once.
    budget
        Time of an action over all turns; slow ones get fewer turns, at least two.
    """

    rounds: int
    seconds: float
    budget: float


QUICK = Effort(rounds=3, seconds=0.01, budget=0.3)
FULL = Effort(rounds=7, seconds=0.03, budget=1.0)


def pin_to_one_core() -> None:
    """Keep this process on the last of the cores that it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def once(action: Action) -> float:
    """Processor time of one call [s]."""
    start = time.process_time()
    action()
    return time.process_time() - start


def in_turn(actions: dict[str, Action], effort: Effort) -> dict[str, list[float]]:
    """Return, for every action, the median time of one call [s] in each of its turns."""
    first = {name: _first(action) for name, action in actions.items()}
    turns = {name: max(2, min(effort.rounds, int(effort.budget / seconds))) for name, seconds in first.items()}
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(effort.rounds):
        for name, action in actions.items():
            if turn < turns[name]:
                repeats = max(1, min(2000, int(effort.seconds / first[name])))
                times[name].append(statistics.median(once(action) for _ in range(repeats)))
    return times


def _first(action: Action) -> float:
    """A first idea of the time of a call [s]; short ones are called once more, warm."""
    seconds = once(action)
    return max(seconds if seconds > 0.1 else min(seconds, once(action)), 1e-7)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of the turn-by-turn ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs))
