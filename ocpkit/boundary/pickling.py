"""Pickling of functions: by their names, or as part of the problem of a builder that can be called again.

Pickle writes a function as its name, which inner functions and lambdas do not have. Those of a builder, such as the
tasks of `ocpkit.models`, are written as the builder's call and their place in the problem that it returns; others are
refused with the way out. Copies share their functions.
"""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from types import FunctionType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from ocpkit.errors import ProblemError

Place = tuple[str | int, ...]
"""Names of attributes and indices of tuples, from a problem to a function in it."""
Builder = TypeVar("Builder", bound=Callable[..., Any])

_origins: WeakKeyDictionary[FunctionType, tuple[bytes, Place]] = WeakKeyDictionary()


class CannotPickle(ProblemError, pickle.PicklingError):
    """A function has no name by which another process could find it."""


class CarriesFunctions:
    """Mixin of objects with functions among their attributes."""

    def __getstate__(self) -> dict[str, Any]:
        return {k: _Function(v) if isinstance(v, FunctionType) else v for k, v in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({k: v.function if isinstance(v, _Function) else v for k, v in state.items()})


@dataclass(frozen=True)
class _Function:
    """A function on its way."""

    function: FunctionType

    def __deepcopy__(self, memo: dict[int, Any]) -> _Function:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        function = self.function
        if _has_name(function):
            return _Function, (function,)
        if function in _origins:
            return _found, _origins[function]
        raise CannotPickle(
            f"the function {function.__qualname__!r} of {function.__module__} cannot be pickled: lambdas, functions "
            "inside functions and wrapped ones have no name by which another process finds them; define it by def at "
            "the top level of a module, or build the problem in that process"
        )


def built_by_call(build: Builder) -> Builder:
    """Decorate a builder of problems whose functions are defined inside it, so that these can be pickled.

    Parameters
    ----------
    build
        A function at the top level of a module, which returns the same problem for the same arguments.
    """

    @functools.wraps(build)
    def built(*arguments: Any, **options: Any) -> Any:
        problem, call = build(*arguments, **options), None
        for function, place in _functions(vars(problem), (), set()):
            if not _has_name(function) and function not in _origins:
                call = call or pickle.dumps((built, arguments, options))
                _origins[function] = call, place
        return problem

    return built  # type: ignore[return-value]


def _has_name(function: FunctionType) -> bool:
    try:
        return attrgetter(function.__qualname__)(sys.modules[function.__module__]) is function
    except (KeyError, AttributeError):
        return False


def _functions(value: Any, place: Place, seen: set[int]) -> Iterator[tuple[FunctionType, Place]]:
    """Yield every function below a value, and its place."""
    if isinstance(value, FunctionType):
        yield value, place
    elif isinstance(value, (tuple, dict, CarriesFunctions)) and id(value) not in seen:
        seen.add(id(value))
        below = enumerate(value) if isinstance(value, tuple) else _attributes(value).items()
        for key, each in below:
            if isinstance(each, (FunctionType, tuple, dict, CarriesFunctions)):  # most are arrays
                yield from _functions(each, (*place, key), seen)


def _attributes(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else vars(value)


@functools.lru_cache(maxsize=8)
def _built(call: bytes) -> Any:
    build, arguments, options = pickle.loads(call)
    return build(*arguments, **options)


def _found(call: bytes, place: Place) -> _Function:
    value: Any = _built(call)
    for key in place:
        value = value[key] if isinstance(key, int) else _attributes(value)[key]
    return _Function(value)
