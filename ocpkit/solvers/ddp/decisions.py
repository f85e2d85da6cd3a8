"""Decisions of DDP after each event, as one table: the change of the damping μ, and the status that ends the solve.

A Q_uu that the damping has only just made positive definite is nearly singular, and its step has no sensible length. So
the damping is raised once more where the model promises more than J is made of.

The NumPy loop (`run`) and the batch (`batched`) read it; the loop in C (engines/c/kernel/ddp.c) is tested against it.
Where μ would have to grow beyond its maximum, the solve ends as `exhausted` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ocpkit.solution.solution import Status

LARGE = 0.5  # step sizes from this on count as large
IDLE_LIMIT = 10  # steps in a row without a change of J or of the gradient, after which the search has stalled
BLOWN_UP = 1e100  # a cost beyond this, of either sign, means that the problem has no minimum in reach


class Event(Enum):
    """Event of an iteration."""

    LARGE_STEP = "a step α ≥ ½ is accepted"
    SMALL_STEP = "a step α < ½ is accepted"
    NO_STEP = "no step is accepted"
    NO_FULL_STEP = "without a line search, the step is not finite"
    INDEFINITE = "Q_uu is not positive definite"
    BARELY_DEFINITE = "Q_uu has just become positive definite, and the model promises more than Σ|ℓ_t| + |φ|"
    NOT_FINITE_AT_GUESS = "derivatives are not finite before there has been a policy"
    NOT_FINITE = "derivatives are not finite after a step"
    IDLE = "ten steps in a row have changed J and the gradient by rounding only"
    BOTTOMLESS = "J falls for ever"


class Change(Enum):
    """Change of μ."""

    LOWER = "lower"
    KEEP = "keep"
    RAISE = "raise"


class End(Enum):
    """A status that depends on where the solve stands, see `end_of_progress`."""

    OF_PROGRESS = "the end of progress"


@dataclass(frozen=True)
class Decision:
    """A row of the table.

    Attributes
    ----------
    change
        Of μ; it is raised only where the exact Q_uu is damped, not under a curvature of the user's own.
    status
        How the solve ends here; None: it goes on.
    exhausted
        How it ends where μ cannot be raised; None: it goes on.
    """

    change: Change = Change.KEEP
    status: Status | End | None = None
    exhausted: Status | End | None = None


DECISIONS: dict[Event, Decision] = {
    Event.LARGE_STEP: Decision(Change.LOWER),
    Event.SMALL_STEP: Decision(Change.KEEP),
    Event.NO_STEP: Decision(Change.RAISE, exhausted=End.OF_PROGRESS),
    Event.NO_FULL_STEP: Decision(Change.RAISE, exhausted=Status.DIVERGED),
    Event.INDEFINITE: Decision(Change.RAISE, exhausted=End.OF_PROGRESS),
    Event.BARELY_DEFINITE: Decision(Change.RAISE),
    Event.NOT_FINITE_AT_GUESS: Decision(status=Status.INVALID_INPUT),
    Event.NOT_FINITE: Decision(status=Status.DIVERGED),
    Event.IDLE: Decision(status=End.OF_PROGRESS),
    Event.BOTTOMLESS: Decision(status=Status.DIVERGED),
}


def of_step(step_size: float) -> Event:
    """Name an accepted step by its size."""
    return Event.LARGE_STEP if step_size >= LARGE else Event.SMALL_STEP


def of_refusal(*, searched: bool) -> Event:
    """Name a refused step, with a line search or without."""
    return Event.NO_STEP if searched else Event.NO_FULL_STEP


def of_infinity(*, had_policy: bool) -> Event:
    """Name derivatives that are not finite."""
    return Event.NOT_FINITE if had_policy else Event.NOT_FINITE_AT_GUESS


def end_of_progress(*, blown_up: bool, closed: bool) -> Status:
    """Status of a solve that cannot go on: |J| beyond `BLOWN_UP`, or not; gaps closed, or not."""
    if blown_up:
        return Status.DIVERGED
    return Status.STALLED if closed else Status.GAVE_UP
