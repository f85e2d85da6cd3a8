"""Derivatives of a function that is computed by way of intermediate vectors: w_i = e_i(z, w_<i), g = e(z, w).

Differentiated entry by entry, every direction of z passes through every operation of the function. Where a step of an
integrator calls the same small vector field several times, the chain rule over the field's own derivatives takes a
quarter to a third less arithmetic (preaccumulation: Griewank & Walther, Evaluating Derivatives, 2008, ch. 10):

    dw_i/dz = ∂e_i/∂z + Σ_j ∂e_i/∂w_j dw_j/dz         dg/dz likewise
    λ_i = (∂e/∂w_i)ᵀ v + Σ_j (∂e_j/∂w_i)ᵀ λ_j
    v·∇²g = Sᵀ ∇²(v·e + Σ λ_i·e_i) S,   S = d(z, w)/dz

A rule of `integrate` marks its vectors with `intermediate`, which does something only while a function is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import casadi as ca
import numpy as np

from ocpkit.autodiff.symbol import symbols, to_casadi
from ocpkit.boundary.deadline import check_time, in_time

Point = tuple[ca.SX, ca.SX]
"""The symbols w_i that stand for an intermediate vector, and e_i."""

_recorded: ContextVar[list[Point] | None] = ContextVar("recorded", default=None)


@contextmanager
def recording(points: list[Point] | None) -> Iterator[None]:
    """Append the intermediate vectors of the functions that are called meanwhile to a list; None: do not record."""
    token = _recorded.set(points)
    try:
        yield
    finally:
        _recorded.reset(token)


def intermediate(vector: Any) -> Any:
    """Mark a vector of a model: symbols are replaced by new ones while recording, all else is returned as it is."""
    points = _recorded.get()
    if points is None or not (isinstance(vector, np.ndarray) and vector.dtype == object and vector.ndim == 1):
        return vector
    formula = to_casadi(vector)
    if all(formula[i].is_leaf() for i in range(len(vector))):
        return vector
    column, array = symbols(f"w{len(points)}_", len(vector))
    points.append((column, formula))
    return array


def differentiate(g: ca.SX, points: list[Point], z: ca.SX, v: ca.SX) -> tuple[ca.SX, ca.SX, ca.SX]:
    """Return g (k,), dg/dz (k, n) and v·∇²g (n, n) as expressions of z alone.

    Parameters
    ----------
    g
        The function, in z and the symbols of the points.
    points
        What was recorded, in its order.
    z
        Variables (n,).
    v
        Weights (k,).
    """
    *formulas, g = ca.cse([*(formula for _, formula in points), g])
    if not points:
        return g, ca.jacobian(g, z), ca.hessian(ca.dot(v, g), z)[0]
    names, n = [name for name, _ in points], z.numel()
    variables = ca.vertcat(z, *names)  # every formula depends only on those that stand before it
    J = ca.jacobian(ca.vertcat(*formulas, g), variables)
    cuts = np.cumsum([0, *(name.numel() for name in names)]).tolist()
    rows, slope = list(pairwise(cuts)), J[cuts[-1] :, :]
    S = ca.SX.eye(n)
    for first, last in in_time(rows):
        S = ca.vertcat(S, J[first:last, : n + first] @ S)
    adjoint, costates = slope.T @ v, list[ca.SX]()
    for first, last in in_time(reversed(rows)):
        costates.insert(0, ca.densify(adjoint[n + first : n + last]))
        adjoint += J[first:last, :].T @ costates[0]
    held = [ca.SX.sym(f"l{i}_", name.numel()) for i, name in enumerate(names)]  # λ, as constants
    lagrangian = ca.dot(v, g) + sum(ca.dot(a, b) for a, b in zip(held, formulas))
    check_time()
    hessian = S.T @ (ca.hessian(lagrangian, variables)[0] @ S)
    check_time()
    values = resolved(names, formulas)
    costates = ca.substitute(costates, names, values)
    check_time()
    g, jacobian, hessian = ca.substitute([g, slope @ S, hessian], names + held, values + costates)
    return g, jacobian, hessian


def resolved(names: list[ca.SX], formulas: list[ca.SX]) -> list[ca.SX]:
    """Return the intermediate vectors as expressions of z alone.

    One after the other: CasADi's `substitute_inplace` fails on graphs that call functions of CasADi, such as tables.
    """
    values = list[ca.SX]()
    for i, formula in enumerate(formulas):
        values += ca.substitute([formula], names[:i], values)
    return values
