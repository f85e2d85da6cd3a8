"""CasADi graphs as torch graphs: every scalar becomes a tensor over the batch.

A CasADi function is a list of scalar instructions. Each of them is one torch call on all problems at once, on any
device and in any precision, so that whatever can be traced can be batched, derivatives included.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import casadi as ca
import torch
from torch import Tensor, fx

from ocpkit.errors import UnsupportedProblem

Scalar = Any
"""A tensor over the batch, or a number."""


def _on_tensors(function: Callable[..., Tensor]) -> Callable[[Scalar, Scalar], Tensor]:
    """Let a function of two tensors take a number in the place of one."""

    def call(a: Scalar, b: Scalar) -> Tensor:
        like = a if isinstance(a, Tensor) else b
        a, b = (x if isinstance(x, Tensor) else torch.full_like(like, x) for x in (a, b))
        return function(a, b)

    return call


def _number(compare: Callable[[Scalar, Scalar], Tensor]) -> Callable[[Scalar, Scalar], Tensor]:
    """Turn a comparison into one that answers 0 or 1, as in CasADi."""
    return lambda a, b: compare(a, b).to((a if isinstance(a, Tensor) else b).dtype)


def _if_else_zero(condition: Tensor, value: Scalar) -> Tensor:
    if isinstance(value, Tensor):
        return torch.where(condition != 0, value, 0.0)
    return value * (condition != 0).to(condition.dtype)


_OPERATIONS: dict[int, Callable[..., Tensor]] = {
    ca.OP_ASSIGN: lambda a: a,
    ca.OP_ADD: operator.add,
    ca.OP_SUB: operator.sub,
    ca.OP_MUL: operator.mul,
    ca.OP_DIV: operator.truediv,
    ca.OP_NEG: operator.neg,
    ca.OP_INV: torch.reciprocal,
    ca.OP_SQ: torch.square,
    ca.OP_TWICE: lambda a: a + a,
    ca.OP_POW: operator.pow,
    ca.OP_CONSTPOW: operator.pow,
    ca.OP_SQRT: torch.sqrt,
    ca.OP_EXP: torch.exp,
    ca.OP_EXPM1: torch.expm1,
    ca.OP_LOG: torch.log,
    ca.OP_LOG1P: torch.log1p,
    ca.OP_SIN: torch.sin,
    ca.OP_COS: torch.cos,
    ca.OP_TAN: torch.tan,
    ca.OP_ASIN: torch.asin,
    ca.OP_ACOS: torch.acos,
    ca.OP_ATAN: torch.atan,
    ca.OP_ATAN2: _on_tensors(torch.atan2),
    ca.OP_SINH: torch.sinh,
    ca.OP_COSH: torch.cosh,
    ca.OP_TANH: torch.tanh,
    ca.OP_ASINH: torch.asinh,
    ca.OP_ACOSH: torch.acosh,
    ca.OP_ATANH: torch.atanh,
    ca.OP_ERF: torch.erf,
    ca.OP_HYPOT: _on_tensors(torch.hypot),
    ca.OP_FLOOR: torch.floor,
    ca.OP_CEIL: torch.ceil,
    ca.OP_FMOD: _on_tensors(torch.fmod),
    ca.OP_FABS: torch.abs,
    ca.OP_SIGN: torch.sign,
    ca.OP_COPYSIGN: _on_tensors(torch.copysign),
    ca.OP_FMIN: _on_tensors(torch.fmin),
    ca.OP_FMAX: _on_tensors(torch.fmax),
    ca.OP_LT: _number(operator.lt),
    ca.OP_LE: _number(operator.le),
    ca.OP_EQ: _number(operator.eq),
    ca.OP_NE: _number(operator.ne),
    ca.OP_AND: _number(_on_tensors(torch.logical_and)),
    ca.OP_OR: _number(_on_tensors(torch.logical_or)),
    ca.OP_NOT: lambda a: torch.logical_not(a).to(a.dtype),
    ca.OP_IF_ELSE_ZERO: _if_else_zero,
}
_NAMES = {getattr(ca, name): name[3:].lower() for name in dir(ca) if name.startswith("OP_")}


def elementwise(arguments: Sequence[ca.SX], results: Sequence[ca.SX]) -> Callable[..., tuple[Tensor, ...]]:
    """Turn a CasADi function into one of tensors.

    Parameters
    ----------
    arguments, results
        Columns, and matrices of expressions in them.

    Returns
    -------
    function
        Of vectors (…, k), whose leading dimensions broadcast; returns matrices (…, rows, columns).

    Raises
    ------
    UnsupportedProblem
        If the graph has an operation that torch does not know; names it.
    """
    rows = [ca.densify(ca.SX(result)).T.reshape((-1, 1)) for result in results]  # row by row, as torch stores matrices
    function = ca.Function("function", list(arguments), ca.cse(rows))
    graph = fx.Graph()
    inputs = [graph.placeholder(f"x{i}") for i in range(len(arguments))]
    columns = [graph.call_function(torch.unbind, (x, -1)) for x in inputs]
    scalars: list[list[Any]] = [[None] * row.numel() for row in rows]
    w: list[Any] = [None] * function.sz_w()
    for i in range(function.n_instructions()):
        code, to, of = function.instruction_id(i), function.instruction_output(i), function.instruction_input(i)
        if code == ca.OP_CONST:
            w[to[0]] = function.instruction_constant(i)
        elif code == ca.OP_INPUT:
            w[to[0]] = graph.call_function(operator.getitem, (columns[of[0]], of[1]))
        elif code == ca.OP_OUTPUT:
            scalars[to[0]][to[1]] = w[of[0]]
        elif code in _OPERATIONS:
            w[to[0]] = graph.call_function(_OPERATIONS[code], tuple(w[k] for k in of))
        else:
            raise UnsupportedProblem(f"batches of problems cannot compute {_NAMES.get(code, code)!r} yet")
    shape = graph.call_function(_leading_shape, tuple(inputs))
    matrices = [
        graph.call_function(_matrix, (inputs[0], shape, ca.SX(result).shape, entries))
        for result, entries in zip(results, scalars)
    ]
    graph.output(tuple(matrices))
    return fx.GraphModule({}, graph)


def _leading_shape(*arguments: Tensor) -> torch.Size:
    return torch.broadcast_shapes(*(argument.shape[:-1] for argument in arguments))


def _matrix(like: Tensor, leading: torch.Size, shape: tuple[int, int], entries: Sequence[Scalar]) -> Tensor:
    """Assemble matrices (…, rows, columns) from their entries, row by row."""
    spread = [
        entry.expand(leading) if isinstance(entry, Tensor) else like.new_full((), entry).expand(leading)
        for entry in entries
    ]
    return torch.stack(spread, -1).unflatten(-1, shape) if spread else like.new_empty((*leading, *shape))
