"""What the race asks of a system: an adapter that prepares a task, and a contestant that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.control.tasks import Task


class Unavailable(Exception):
    """The system cannot run here; says what to install or why."""


@dataclass(frozen=True)
class Outcome:
    """Controls (T, m) that a system returned, and its number of iterations."""

    controls: Sequence[np.ndarray] | np.ndarray
    iterations: int


@dataclass(frozen=True)
class Contestant:
    """A system that is ready to run one task.

    Attributes
    ----------
    solve
        From the task's guess until the system says that it has converged.
    iterate
        Does k ≥ 0 full iterations from given controls, without stopping early; None: the time of `solve` is divided
        by its number of iterations.
    batch
        Iterations that one measurement of their time spans; many where they are short beside a call from Python.
    note
        Settings that a reader must know.
    """

    solve: Callable[[], Outcome]
    iterate: Callable[[int, Sequence[np.ndarray]], object] | None = None
    batch: int = 8
    note: str = ""


def compiled_batch(horizon: int) -> int:
    """Number of iterations of compiled code that takes milliseconds: 20,000 stages, at least four sweeps."""
    return max(4, 20_000 // horizon)


class System(Protocol):
    """An adapter.

    `accepts` says whether the system can state the task; `prepare` sets it up (this time is reported as build) and
    raises `Unavailable` where a package or a compiler is missing.
    """

    name: str

    def accepts(self, task: Task) -> bool: ...

    def prepare(self, task: Task) -> Contestant: ...
