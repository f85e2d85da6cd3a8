"""A scalar that records arithmetic, so that a model written for NumPy arrays becomes a CasADi graph.

A model is traced by calling it with one-dimensional *object arrays of symbols*: indexing, unpacking,
broadcasting and `@` then keep NumPy's meaning, and every scalar operation lands in CasADi.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import casadi as ca
import numpy as np


class Symbol:
    """One scalar CasADi expression with Python's arithmetic (shape ``()``)."""

    __slots__ = ("sx",)

    def __init__(self, value: Any) -> None:
        try:
            self.sx: ca.SX = value.sx if isinstance(value, Symbol) else ca.SX(value)
        except (NotImplementedError, TypeError) as error:
            raise TypeError(f"{value!r} is not a number") from error

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


def _binary(operation: Callable[[Any, Any], Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(self: Symbol, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented  # NumPy then broadcasts entry by entry
        return Symbol(operation(self.sx, Symbol(other).sx))

    def reflected(self: Symbol, other: Any) -> Any:
        return Symbol(operation(Symbol(other).sx, self.sx))

    return forward, reflected


def _unary(operation: Callable[[Any], Any]) -> Callable[[Symbol], Symbol]:
    return lambda self: Symbol(operation(self.sx))


for _name in ("add", "sub", "mul", "truediv", "pow"):
    _forward, _reflected = _binary(getattr(operator, _name))
    setattr(Symbol, f"__{_name}__", _forward)
    setattr(Symbol, f"__r{_name}__", _reflected)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Symbol, f"__{_name}__", _binary(getattr(operator, _name))[0])
for _name in ("neg", "abs", "pos"):
    setattr(Symbol, f"__{_name}__", _unary(getattr(operator, _name)))
# NumPy's functions on object arrays look for methods of these names.
for _name in ("sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "exp", "log", "sqrt"):
    setattr(Symbol, _name, _unary(getattr(ca, _name)))


def symbols(name: str, size: int) -> tuple[ca.SX, np.ndarray]:
    """Make a CasADi column and the matching object array of shape ``(size,)``."""
    column = ca.SX.sym(name, size)
    array = np.empty(size, dtype=object)
    for i in range(size):
        array[i] = Symbol(column[i])
    return column, array


def to_casadi(value: Any) -> ca.SX:
    """Turn what a model returned (symbols, numbers, arrays, lists, CasADi) into a dense SX matrix."""
    if isinstance(value, ca.SX):
        return ca.densify(value)
    entries = np.asarray(value, dtype=object)
    if entries.ndim == 0:
        return Symbol(entries.item()).sx
    if entries.ndim == 1:
        return ca.densify(ca.vertcat(*(Symbol(entry).sx for entry in entries)))
    return ca.densify(ca.vertcat(*(ca.horzcat(*(Symbol(entry).sx for entry in row)) for row in entries)))


def from_casadi(matrix: ca.SX) -> np.ndarray:
    """Turn a CasADi matrix into an object array of symbols of the same shape."""
    entries = np.empty(matrix.shape, dtype=object)
    for i, j in np.ndindex(*matrix.shape):
        entries[i, j] = Symbol(matrix[i, j])
    return entries
