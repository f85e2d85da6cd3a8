"""A scalar that records arithmetic, so that a model written for NumPy arrays becomes a CasADi graph.

A model is traced by calling it with one-dimensional *object arrays of symbols*: indexing, unpacking,
broadcasting and `@` then keep NumPy's meaning, and every scalar operation lands in CasADi.

An operation is called by its code (``SX.binary(OP_MUL, x, y)``): ``x * y`` gives the same expression, but finds out by
trial which of CasADi's types it was given, which takes most of the time of tracing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import casadi as ca
import numpy as np


class Symbol:
    """One scalar CasADi expression with Python's arithmetic (shape ``()``)."""

    __slots__ = ("sx",)

    def __init__(self, value: Any) -> None:
        self.sx: ca.SX = _expression(value)

    def __repr__(self) -> str:
        return f"Symbol({self.sx})"

    def __bool__(self) -> bool:
        raise TypeError(
            "a Python branch (if, and, or, min, max, array comparison) on a state or control cannot be "
            "traced; use ocpkit.math.where, minimum, maximum, less, greater, or derivatives='central'"
        )

    def __float__(self) -> float:
        raise TypeError(
            "a traced state or control has no number yet (math.sin, float() or a NumPy function that "
            "needs numbers was called on it); use ocpkit.math, or derivatives='central'"
        )

    def conjugate(self) -> Symbol:
        """Return itself: symbols are real."""
        return self

    __pos__ = conjugate


def _expression(value: Any) -> ca.SX:
    """Return the expression of a symbol, or of a number."""
    if isinstance(value, Symbol):
        return value.sx
    if isinstance(value, ca.SX):
        return value
    try:
        return ca.SX(value)
    except (NotImplementedError, TypeError) as error:
        raise TypeError(f"{value!r} is not a number") from error


_OF_ONE = {
    **{name: name for name in ("neg", "sign", "sqrt", "exp", "log", "floor", "ceil")},
    **{name: name for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "abs": "fabs",
    **{f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan")},
}
_OF_TWO = {
    **{name: name for name in ("add", "sub", "mul", "pow", "lt", "le", "eq", "ne")},
    **{"truediv": "div", "arctan2": "atan2", "minimum": "fmin", "maximum": "fmax", "less": "lt"},
}
_SWAPPED = {"gt": "lt", "ge": "le", "greater": "lt"}


def operation(name: str) -> Callable[..., Symbol]:
    """Operation on scalars, symbols or numbers, by the name in `operator` or NumPy: ``"mul"``, ``"arctan2"``, …"""
    if name in _OF_ONE:
        of_one = getattr(ca, f"OP_{_OF_ONE[name].upper()}")
        return lambda a: Symbol(ca.SX.unary(of_one, _expression(a)))
    of_two = getattr(ca, f"OP_{(_SWAPPED.get(name) or _OF_TWO[name]).upper()}")
    if name in _SWAPPED:
        return lambda a, b: Symbol(ca.SX.binary(of_two, _expression(b), _expression(a)))
    return lambda a, b: Symbol(ca.SX.binary(of_two, _expression(a), _expression(b)))


def _binary(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    apply = operation(name)

    def forward(self: Symbol, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented  # NumPy then broadcasts entry by entry
        return apply(self, other)

    return forward, lambda self, other: apply(other, self)


for _name in ("add", "sub", "mul", "truediv", "pow"):
    _forward, _reflected = _binary(_name)
    setattr(Symbol, f"__{_name}__", _forward)
    setattr(Symbol, f"__r{_name}__", _reflected)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Symbol, f"__{_name}__", _binary(_name)[0])
for _name in ("neg", "abs"):
    setattr(Symbol, f"__{_name}__", operation(_name))
# NumPy's functions on object arrays look for methods of these names.
for _name in ("sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "exp", "log", "sqrt"):
    setattr(Symbol, _name, operation(_name))


def symbols(name: str, size: int) -> tuple[ca.SX, np.ndarray]:
    """Make a CasADi column and the matching object array of shape ``(size,)``."""
    column = ca.SX.sym(name, size)
    array = np.empty(size, dtype=object)
    array[:] = [Symbol(entry) for entry in column.elements()]
    return column, array


def to_casadi(value: Any) -> ca.SX:
    """Turn what a model returned (symbols, numbers, arrays, lists, CasADi) into a dense SX matrix."""
    if isinstance(value, ca.SX):
        return _dense(value)
    entries = np.asarray(value, dtype=object)
    if entries.ndim == 0:
        return _expression(entries.item())
    if entries.ndim == 1:
        return _dense(ca.vertcat(*map(_expression, entries)))
    return _dense(ca.vertcat(*(ca.horzcat(*map(_expression, row)) for row in entries)))


def _dense(matrix: ca.SX) -> ca.SX:
    return matrix if matrix.is_dense() else ca.densify(matrix)


def from_casadi(matrix: ca.SX) -> np.ndarray:
    """Turn a CasADi matrix into an object array of symbols of the same shape."""
    entries = np.empty(matrix.shape, dtype=object)
    for i, j in np.ndindex(*matrix.shape):
        entries[i, j] = Symbol(matrix[i, j])
    return entries
