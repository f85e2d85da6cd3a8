"""Options of version 0.1 that are options of parts now; they stay for one version, and their use warns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar

from ocpkit.errors import ProblemError

Kind = TypeVar("Kind", bound=type)


@dataclass(frozen=True)
class OldNames:
    """Options that are options of a part of a solver now.

    Attributes
    ----------
    part
        Name of the option that holds the part.
    base
        Part that old options change where none is given.
    names
        New names of the options by their old ones.
    switch
        Whether the part itself was a truth value, with ``False`` for what is None now.
    """

    part: str
    base: Any
    names: Mapping[str, str]
    switch: bool = False

    def given(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Return what to write in the place of each old option among these."""
        kind = type(self.base).__name__
        advice = {old: f"{self.part}={kind}({new}=...)" for old, new in self.names.items() if old in options}
        if self.switch and isinstance(options.get(self.part), bool):
            advice[f"{self.part}={options[self.part]}"] = f"{self.part}={f'{kind}()' if options[self.part] else None}"
        return advice

    def translate(self, options: dict[str, Any]) -> dict[str, Any]:
        """Put the part in the place of its old options.

        Raises
        ------
        ProblemError
            If the part is switched off and has options.
        """
        changes = {new: options[old] for old, new in self.names.items() if old in options}
        rest = {name: value for name, value in options.items() if name not in self.names}
        part = rest.get(self.part, self.base)
        if self.switch and isinstance(part, bool):
            part = self.base if part else None
        if self.switch and part is None and changes:
            raise ProblemError(f"{next(old for old in self.names if old in options)} has no effect without {self.part}")
        if changes:
            part = replace(self.base if part is None else part, **changes)
        return rest | {self.part: part}


@dataclass(frozen=True)
class OldName:
    """Option that has another name now."""

    old: str
    new: str

    @property
    def names(self) -> Mapping[str, str]:
        """Return the new name by the old one."""
        return {self.old: self.new}

    def given(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Return what to write in its place, if it is among these."""
        return {self.old: f"{self.new}=..."} if self.old in options else {}

    def translate(self, options: dict[str, Any]) -> dict[str, Any]:
        """Put the new name in the place of the old one."""
        return {self.names.get(name, name): value for name, value in options.items()}


def accept_old_names(*parts: OldNames | OldName) -> Callable[[Kind], Kind]:
    """Class decorator for solvers and controllers whose constructor also takes the old options."""

    def decorate(kind: Kind) -> Kind:
        own: Any = kind.__init__  # type: ignore[misc]

        @wraps(own)
        def init(self: Any, *arguments: Any, **options: Any) -> None:
            for part in parts:
                for name in part.names:
                    if getattr(type(self), name, None) is not getattr(kind, name, None):
                        raise ProblemError(
                            f"{type(self).__name__} defines {name!r}, which has no effect: "
                            f"write {part.given({name: None})[name]}"
                        )
            given = {old: new for part in parts for old, new in part.given(options).items()}
            if given:
                advice = "; ".join(f"for {old} write {new}" for old, new in given.items())
                warnings.warn(f"old options of {type(self).__name__}: {advice}", DeprecationWarning, stacklevel=2)
                for part in parts:
                    if part.given(options):
                        options = part.translate(options)
            own(self, *arguments, **options)

        kind.__init__ = init  # type: ignore[misc]
        return kind

    return decorate
