"""Graphs of dynamics and costs with their derivatives, and how a method is called with symbols.

Functions written with `ocpkit.math` are differentiated by CasADi. Hand-written parts are called once with symbols,
their own derivatives included, so that every engine takes the steps that the user's formulas say; the default
central differences of `Dynamics.hessian_product` become exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import casadi as ca

from ocpkit.autodiff.symbol import symbols, to_casadi
from ocpkit.errors import ProblemError, UnsupportedProblem
from ocpkit.recursion.linalg import half_square

UNTRACED = "{where} cannot be traced: {error}"
UNTRACED_VALUE = (
    "{where} cannot be traced ({method}: {error}); write it with ocpkit.math, without float(), branches and "
    "assignments into NumPy arrays, or choose a solver that only evaluates it: 'ddp', 'ilqr', 'fddp'"
)


Rewrite = Callable[[ca.Function], ca.Function]
"""A graph of (x, u, p, …) for another one."""


class Derivatives(Protocol):
    """Graphs of the derivatives of f, which may be made only when they are asked for."""

    @property
    def jacobian_graph(self) -> ca.Function:
        """The Jacobian (n', n + m) of (x, u, p)."""

    @property
    def hessian_graph(self) -> ca.Function | None:
        """v ↦ Σ v_i ∇²f_i (n + m, n + m) of (x, u, p, v); None where hand-written dynamics lack it."""

    @property
    def sources(self) -> tuple[ca.Function | None, ...]:
        """Graphs that these follow from."""

    def rewritten(self, rewrite: Rewrite) -> Derivatives:
        """Return those that follow from other graphs."""


@dataclass(frozen=True)
class WrittenDerivatives:
    """Derivatives by the formulas of hand-written dynamics."""

    jacobian_graph: ca.Function
    hessian_graph: ca.Function | None

    @property
    def sources(self) -> tuple[ca.Function | None, ...]:
        """The same graphs."""
        return self.jacobian_graph, self.hessian_graph

    def rewritten(self, rewrite: Rewrite) -> WrittenDerivatives:
        """Return other graphs."""
        return WrittenDerivatives(rewrite(self.jacobian_graph), _if_any(rewrite, self.hessian_graph))


@dataclass(frozen=True)
class DynamicsGraph:
    """f of (x, u, p) and its derivatives. Where f is not `curved`, solvers take v·∇²f = 0."""

    f: ca.Function
    derivatives: Derivatives
    curved: bool = True

    def rewritten(self, rewrite: Rewrite) -> DynamicsGraph:
        """Return what follows from other graphs."""
        return replace(self, f=rewrite(self.f), derivatives=self.derivatives.rewritten(rewrite))

    @property
    def jacobian(self) -> ca.Function:
        """The Jacobian (n', n + m) of (x, u, p)."""
        return self.derivatives.jacobian_graph

    def hessian(self, z: ca.SX, v: ca.SX, arguments: Sequence[ca.SX]) -> ca.SX:
        """Return v·f_zz (n + m, n + m)."""
        if not self.curved:
            return ca.SX(z.numel(), z.numel())
        product = self.derivatives.hessian_graph
        if product is not None:
            return product(*arguments, v)
        hessian = ca.jacobian(self.jacobian(*arguments).T @ v, z)
        return (hessian + hessian.T) / 2


@dataclass(frozen=True)
class CostGraph:
    """ℓ, or residuals r of ½‖r‖²; hand-written costs bring their own gradient and two Hessians (in z).

    `rows` belongs to costs that price constraints; see `ocpkit.problem.functions.FunctionCost`.
    """

    g: ca.Function
    least_squares: bool = False
    rows: ca.Function | None = None
    gradient: ca.Function | None = None
    hessian: ca.Function | None = None
    gauss_newton: ca.Function | None = None

    def rewritten(self, rewrite: Rewrite) -> CostGraph:
        """Return what follows from other graphs."""
        graphs = self.rows, self.gradient, self.hessian, self.gauss_newton
        return CostGraph(rewrite(self.g), self.least_squares, *(_if_any(rewrite, graph) for graph in graphs))

    @property
    def one_hessian(self) -> bool:
        """Whether the Hessian by Gauss-Newton is the full one."""
        return not self.least_squares and None in (self.gradient, self.hessian, self.gauss_newton)

    def value(self, arguments: Sequence[ca.SX]) -> ca.SX:
        """Return ℓ (1,)."""
        g = self.g(*arguments)
        return half_square(g) if self.least_squares else g

    def expand(self, z: ca.SX, arguments: Sequence[ca.SX], second_order: bool) -> tuple[ca.SX, ca.SX]:
        """Return the gradient (n + m,) and the Hessian (n + m, n + m), full or by Gauss-Newton."""
        if self.gradient is not None and self.hessian is not None and self.gauss_newton is not None:
            return self.gradient(*arguments), (self.hessian if second_order else self.gauss_newton)(*arguments)
        if not self.least_squares:
            hessian, gradient = ca.hessian(self.value(arguments), z)
            return gradient, hessian
        residual = self.g(*arguments)
        jacobian = ca.jacobian(residual, z)
        gradient, hessian = jacobian.T @ residual, jacobian.T @ jacobian
        if second_order:
            weights = ca.SX.sym("w", residual.numel())
            curvature, _ = ca.hessian(ca.dot(weights, residual), z)
            hessian += ca.substitute(curvature, weights, residual)
        return gradient, hessian


def _if_any(rewrite: Rewrite, function: ca.Function | None) -> ca.Function | None:
    return None if function is None else rewrite(function)


def half_squares(residual: ca.Function) -> ca.Function:
    """Graph of ½‖r‖² from that of r."""
    arguments = residual.sx_in()
    return ca.Function("value", arguments, [half_square(residual(*arguments))])


def trace(
    function: Callable[..., Any],
    sizes: Sequence[int],
    where: str,
    assemble: Callable[[Any], ca.SX] = to_casadi,
    refusal: str = UNTRACED,
) -> ca.Function:
    """Graph of a function, called once with symbols; a graph already is its own.

    Parameters
    ----------
    function
        Takes one array per entry of `sizes`.
    sizes
        Lengths of its arguments.
    where
        How messages call it.
    assemble
        One matrix of what it returns.
    refusal
        What to say where it cannot be called so: a text with ``{where}``, ``{method}`` and ``{error}``.

    Raises
    ------
    UnsupportedProblem
        If the function fails on symbols.
    ProblemError
        If a graph takes arguments of other sizes.
    """
    if isinstance(function, ca.Function):
        traced = tuple(function.numel_in(i) for i in range(function.n_in()))
        if traced != tuple(sizes):
            raise ProblemError(f"{where}: traced for arguments of sizes {traced}, but the problem has {tuple(sizes)}")
        return function
    columns, arrays = zip(*(symbols(f"v{i}", size) for i, size in enumerate(sizes)))
    try:
        return ca.Function("value", columns, [assemble(function(*arrays))])
    except Exception as error:  # whatever a user's own code raises when it meets a symbol
        method = getattr(function, "__qualname__", type(function).__name__)
        raise UnsupportedProblem(refusal.format(where=where, method=method, error=error)) from error


def beside(blocks: Sequence[Any]) -> ca.SX:
    """Matrices beside each other: the Jacobian in z = (x, u)."""
    return ca.horzcat(*map(_matrix, blocks))


def below(blocks: Sequence[Any]) -> ca.SX:
    """Vectors below each other: the gradient in z = (x, u)."""
    return ca.vertcat(*map(to_casadi, blocks))


def square(blocks: Sequence[Any]) -> ca.SX:
    """The Hessian in z = (x, u) of its blocks xx, ux, uu."""
    xx, ux, uu = map(_matrix, blocks)
    return ca.vertcat(ca.horzcat(xx, ux.T), ca.horzcat(ux, uu))


def _matrix(block: Any) -> ca.SX:
    """Keep the shape of matrices without rows or columns, which nested lists lose."""
    shape = getattr(block, "shape", None)
    return ca.SX(*shape) if shape and 0 in shape else to_casadi(block)
