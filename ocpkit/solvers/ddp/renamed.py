"""Options that `DDP` had in version 0.1 in the place of `Damping` and `LineSearch`; they stay for one version."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

from ocpkit.errors import ProblemError
from ocpkit.solvers.ddp.damping import QUADRATIC
from ocpkit.solvers.ddp.line_search import LineSearch

Kind = TypeVar("Kind", bound=type)

OF_DAMPING = {
    "regularize": "target",
    "initial_regularization": "initial",
    "min_regularization": "minimum",
    "max_regularization": "maximum",
    "regularization_factor": "factor",
}
OF_LINE_SEARCH = {"min_step_size": "min_step_size", "armijo": "armijo"}
OLD_NAMES = (*OF_DAMPING, *OF_LINE_SEARCH)


def accept_old_names(kind: Kind) -> Kind:
    """Let the constructor of a kind of DDP take the old options; it warns, and says what to write instead.

    They mean what they did: without `damping` they change the schedule that was the default then.
    """
    own: Any = kind.__init__  # type: ignore[misc]

    @wraps(own)
    def init(self: Any, **options: Any) -> None:
        for name in OLD_NAMES:
            if hasattr(type(self), name):
                who = f"{type(self).__name__} defines {name!r}"
                raise ProblemError(f"{who}, which has no effect: {_new_form(name, None)}")
        given = [name for name in options if name in OLD_NAMES]
        given += ["line_search"] if isinstance(options.get("line_search"), bool) else []
        if given:
            advice = "; ".join(_new_form(name, options[name]) for name in given)
            warnings.warn(f"old options of {type(self).__name__}: {advice}", DeprecationWarning, stacklevel=2)
            options = translated(options)
        own(self, **options)

    kind.__init__ = init  # type: ignore[misc]
    return kind


def translated(options: Mapping[str, Any]) -> dict[str, Any]:
    """Put `damping` and `line_search` in the place of the old options.

    Raises
    ------
    ProblemError
        If the line search is switched off and has options.
    """
    new = {name: value for name, value in options.items() if name not in OLD_NAMES}
    of_damping = {OF_DAMPING[name]: options[name] for name in OF_DAMPING if name in options}
    of_search = {OF_LINE_SEARCH[name]: options[name] for name in OF_LINE_SEARCH if name in options}
    if of_damping:
        new["damping"] = replace(new.get("damping") or QUADRATIC, **of_damping)
    search = new.get("line_search", True)
    search = LineSearch() if search is True else search or None
    if search is None and of_search:
        raise ProblemError(f"{next(iter(of_search))} has no effect without line_search")
    new["line_search"] = replace(search, **of_search) if search is not None else None
    return new


def _new_form(name: str, value: Any) -> str:
    if name in OF_DAMPING:
        return f"for {name} write damping=Damping({OF_DAMPING[name]}=...)"
    if name in OF_LINE_SEARCH:
        return f"for {name} write line_search=LineSearch({OF_LINE_SEARCH[name]}=...)"
    return f"for line_search={value} write line_search={'LineSearch()' if value else None}"
