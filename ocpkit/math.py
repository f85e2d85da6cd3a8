"""The functions a model is written with: one name for NumPy arrays, traced symbols and torch tensors.

Everything here follows NumPy's meaning of shapes. Operators (``+ - * / ** @``), indexing and unpacking
need no function. Use `where` in the place of ``if`` and `stack` to assemble the next state.

>>> import ocpkit.math as m
>>> m.stack([m.sin(0.0), 1.0])
array([0., 1.])
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import casadi as ca
import numpy as np

from ocpkit.autodiff.intermediate import recording
from ocpkit.autodiff.symbol import Symbol, from_casadi, operation, symbols, to_casadi

pi = float(np.pi)


def _torch() -> Any:
    """Return torch if the program has imported it (a tensor cannot exist otherwise)."""
    return sys.modules.get("torch")


def _is_tensor(x: Any) -> bool:
    torch = _torch()
    return torch is not None and isinstance(x, torch.Tensor)


def _as_tensors(items: Sequence[Any]) -> list[Any]:
    """Return tensors of the type that holds those among the items, on the device of the first."""
    torch, tensors = _torch(), [item for item in items if _is_tensor(item)]
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return [torch.as_tensor(item, dtype=dtype, device=tensors[0].device) for item in items]


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, Symbol) or (isinstance(x, np.ndarray) and x.dtype == object)


def _elementwise(name: str) -> Callable[..., Any]:
    """Build a function of NumPy's `name` that also takes symbols and tensors."""
    on_arrays: Callable[..., Any] = getattr(np, name)
    on_scalars = operation(name)

    def function(*arguments: Any) -> Any:
        if any(map(_is_tensor, arguments)):
            return getattr(_torch(), name)(*_as_tensors(arguments))
        if any(map(_is_symbolic, arguments)):
            return np.frompyfunc(on_scalars, len(arguments), 1)(*arguments)
        return on_arrays(*arguments)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise ``{name}``, as in NumPy."
    return function


sin = _elementwise("sin")
cos = _elementwise("cos")
tan = _elementwise("tan")
arcsin = _elementwise("arcsin")
arccos = _elementwise("arccos")
arctan = _elementwise("arctan")
arctan2 = _elementwise("arctan2")
sinh = _elementwise("sinh")
cosh = _elementwise("cosh")
tanh = _elementwise("tanh")
exp = _elementwise("exp")
log = _elementwise("log")
sqrt = _elementwise("sqrt")
abs = _elementwise("abs")
sign = _elementwise("sign")
minimum = _elementwise("minimum")
maximum = _elementwise("maximum")
less = _elementwise("less")
greater = _elementwise("greater")


def where(condition: Any, a: Any, b: Any) -> Any:
    """Choose `a` where the condition holds, else `b`, entry by entry (both are evaluated); two numbers give float64."""
    if any(map(_is_tensor, (a, b))):
        a, b = _as_tensors([a, b])
        return _torch().where(_torch().as_tensor(condition, device=a.device), a, b)
    if _is_tensor(condition):  # of two numbers, which torch would round to its default type
        numbers = (_torch().as_tensor(side, dtype=_torch().float64, device=condition.device) for side in (a, b))
        return _torch().where(condition, *numbers)
    if any(map(_is_symbolic, (condition, a, b))):
        choose = np.frompyfunc(lambda *s: Symbol(ca.if_else(*(Symbol(e).sx for e in s))), 3, 1)
        return choose(condition, a, b)
    return np.where(condition, a, b)


def stack(items: Sequence[Any]) -> Any:
    """Assemble scalars into a vector ``(k,)`` (or equal vectors into rows of a matrix)."""
    if any(map(_is_tensor, items)):
        return _torch().stack(_as_tensors(items))
    return np.stack([np.asarray(item) for item in items])


def concatenate(items: Sequence[Any]) -> Any:
    """Join vectors end to end; scalars count as vectors of length one."""
    if any(map(_is_tensor, items)):
        return _torch().cat([tensor.reshape(-1) for tensor in _as_tensors(items)])
    return np.concatenate([np.atleast_1d(np.asarray(item)) for item in items])


def array(items: Any) -> Any:
    """Turn nested lists of numbers, symbols or tensors into one array (a vector or a matrix)."""
    if isinstance(items, (list, tuple)) and items and isinstance(items[0], (list, tuple)):
        return stack([stack(row) for row in items])
    return stack(items) if isinstance(items, (list, tuple)) else items


def sum(x: Any) -> Any:
    """Sum all entries."""
    return x.sum() if _is_tensor(x) else np.sum(x)


def dot(a: Any, b: Any) -> Any:
    """Inner product of two vectors."""
    return sum(a * b)


def norm(x: Any) -> Any:
    """Euclidean length of a vector; not differentiable at zero (add a small constant under the root there)."""
    return sqrt(dot(x, x))


def cross(a: Any, b: Any) -> Any:
    """Cross product of two vectors of length three."""
    return stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def solve(matrix: Any, right: Any) -> Any:
    """Solve ``matrix @ x = right`` for one right-hand side (k,) or several (k, r)."""
    if _is_tensor(matrix):
        return _torch().linalg.solve(matrix, right)
    if _is_symbolic(matrix) or _is_symbolic(right):
        result = from_casadi(ca.solve(to_casadi(matrix), to_casadi(right)))
        return result[:, 0] if np.ndim(right) == 1 else result
    return np.linalg.solve(matrix, right)


def jacobian(function: Callable[[Any], Any], x: Any) -> Any:
    """Jacobian ``(k, n)`` of a vector function at `x`: exact for symbols and tensors.

    For numbers it is measured by central differences, with an error near 1e-10 relative.
    """
    if _is_tensor(x):
        return _torch().func.jacfwd(function)(x)
    if _is_symbolic(x):
        column, variable = symbols("v", len(x))
        with recording(None):  # intermediate vectors would hide what the function depends on
            graph = ca.jacobian(to_casadi(function(variable)), column)
        return from_casadi(ca.densify(ca.substitute(graph, column, to_casadi(x))))
    from ocpkit.autodiff.differences import central_jacobian

    return central_jacobian(function, np.asarray(x, dtype=float))
