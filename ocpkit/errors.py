"""The exceptions of ocpkit: each says what was wrong, where, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any


class ProblemError(ValueError):
    """A problem, model, guess or option was declared wrongly."""


class UnsupportedProblem(ProblemError):
    """The problem is valid, but the chosen solver or engine cannot treat it."""


class NotPositiveDefinite(ArithmeticError):
    """Q_uu of a stage has no Cholesky factor: the Bellman minimization has no solution there."""

    def __init__(self, stage: int | None = None) -> None:
        super().__init__(f"Q_uu is not positive definite at stage {stage}")
        self.stage = stage


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ProblemError:
    """Build the error for a name that does not exist, with the nearest known names."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known)}"
    return ProblemError(f"unknown {kind} {name!r}; {hint}")


def refuse_hidden_fields(record: Any) -> None:
    """Refuse what a subclass of a dataclass says of a field without the dataclass's __init__ knowing of it.

    Raises
    ------
    ProblemError
        If a class attribute or method has the name of a field and is not its default.
    """
    kind = type(record)
    for field in fields(record):
        if getattr(kind, field.name, field.default) is not field.default:
            raise ProblemError(
                f"{kind.__name__} defines {field.name!r}, which has no effect: every object has its own, given to "
                f"{kind.__name__}(…); give it there, or make the subclass a dataclass that annotates {field.name}"
            )


def refuse_unused(record: Any, why: str, *names: str) -> None:
    """Refuse options that are not at their defaults though nothing would read them.

    Raises
    ------
    ProblemError
        Names the option, and says why and the way out in the words given.
    """
    for field in fields(record):
        if field.name in names and getattr(record, field.name) != field.default:
            raise ProblemError(f"{type(record).__name__}: {field.name} has no effect {why}")
