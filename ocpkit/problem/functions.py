"""Dynamics and costs made of plain functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike

from ocpkit import moved
from ocpkit.autodiff.differentiable import Traced, differentiable, with_parameters
from ocpkit.boundary.arrays import Array
from ocpkit.boundary.pickling import CarriesFunctions
from ocpkit.errors import ProblemError, refuse_hidden_fields
from ocpkit.problem.stage import Cost, Dynamics, TerminalCost, cut_hessian
from ocpkit.recursion.linalg import half_square


@dataclass(frozen=True)
class LeastSquares(CarriesFunctions):
    """Mark a function r(x, u) as residuals of the cost ½‖r‖², so that Gauss-Newton uses r_zᵀ r_z exactly."""

    residual: Callable[..., Any]

    def __post_init__(self) -> None:
        refuse_hidden_fields(self)


class FunctionDynamics(Dynamics):
    """x_{t+1} = f(x, u[, p]) from a plain function.

    Parameters
    ----------
    function
        Returns the next state; written with `ocpkit.math` unless `derivatives` says otherwise.
    state_size, control_size
        n and m.
    next_state_size
        n', by default n.
    parameter_size
        Length of p.
    derivatives
        ``"casadi"``, ``"central"`` or ``"complex"``.

    Raises
    ------
    ProblemError
        If the function cannot be traced or returns a vector of another length than n'.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        state_size: int,
        control_size: int,
        *,
        next_state_size: int | None = None,
        parameter_size: int = 0,
        derivatives: str = "casadi",
        name: str = "dynamics",
    ) -> None:
        self.state_size, self.control_size = state_size, control_size
        self.next_state_size = state_size if next_state_size is None else next_state_size
        self._function, self.parameter_size = function, parameter_size
        self.f = differentiable(function, (state_size, control_size, parameter_size), name, derivatives)
        if self.f.size != self.next_state_size:
            raise ProblemError(
                f"{name}: the function returned a state of shape ({self.f.size},), expected ({self.next_state_size},)"
            )

    @property
    def function(self) -> Callable[..., Any]:
        """Function that the dynamics were made of."""
        return self._function

    @property
    def sole_function(self) -> Callable[..., Any] | None:
        return None if self.overrides(FunctionDynamics) else self._function

    @property
    def traced_function(self) -> Traced | None:
        return self.f if isinstance(self.f, Traced) and not self.overrides(FunctionDynamics) else None

    def extended(self, p_size: int, width: int) -> Dynamics:
        traced = self.traced_function
        if traced is None:
            return super().extended(p_size, width)
        extended = FunctionDynamics.__new__(FunctionDynamics)
        extended.state_size, extended.control_size = self.state_size, self.control_size
        extended.next_state_size, extended.parameter_size = self.next_state_size, width
        extended.f = traced.extended(width)
        function = with_parameters(self._function, 3, "dynamics")
        extended._function = lambda x, u, p: function(x, u, p[:p_size])
        extended.curved = self.curved
        return extended

    def step(self, x: Array, u: Array, p: Array) -> Array:
        return self.f.value(x, u, p)

    def jacobians(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        jacobian = self.f.jacobian(x, u, p)
        return jacobian[:, : self.state_size], jacobian[:, self.state_size :]

    def hessian_product(self, x: Array, u: Array, p: Array, costate: Array) -> tuple[Array, Array, Array]:
        return cut_hessian(self.f.hessian_product(costate, x, u, p), self.state_size)


class _ScalarOfFunction(CarriesFunctions):
    """ℓ(z, p), or ½‖r(z, p)‖² for residuals, with gradient and Hessian in z = (x, u) or z = x."""

    def __init__(self, function: Any, sizes: tuple[int, ...], name: str, derivatives: str) -> None:
        self.declared, self.least_squares = function, isinstance(function, LeastSquares)
        self.function = residual_of(function)
        self.g = differentiable(self.function, sizes, name, derivatives)
        if not self.least_squares and self.g.size != 1:
            raise ProblemError(
                f"{name}: a cost must be one number, the function returned {self.g.size} "
                "(wrap residuals of ½‖r‖² in ocpkit.LeastSquares)"
            )

    def value(self, *arguments: Array) -> float:
        g = self.g.value(*arguments)
        value: Any = half_square(g) if self.least_squares else g[0]
        return value if g.dtype == object else float(value)  # a symbol stays one

    def gradient(self, *arguments: Array) -> Array:
        jacobian = self.g.jacobian(*arguments)
        return jacobian.T @ self.g.value(*arguments) if self.least_squares else jacobian[0]

    def hessian(self, *arguments: Array) -> Array:
        if not self.least_squares:
            return self.g.hessian_product(np.ones(1), *arguments)
        return self.gauss_newton(*arguments) + self.g.hessian_product(self.g.value(*arguments), *arguments)

    def gauss_newton(self, *arguments: Array) -> Array:
        """Of residuals: r_zᵀ r_z."""
        jacobian = self.g.jacobian(*arguments)
        return jacobian.T @ jacobian


class FunctionCost(Cost):
    """ℓ(x, u[, p]) from a plain function, or ½‖r(x, u[, p])‖² from `LeastSquares` residuals.

    Parameters
    ----------
    rows
        Of a cost that prices constraints (see `ocpkit.solvers.constrained.augmented`): (x, u, p) → their new
        multipliers (k,), their distances from where they hold (k,), and the cost without the price (1,).
    """

    def __init__(
        self,
        function: Callable[..., Any] | LeastSquares,
        state_size: int,
        control_size: int,
        *,
        parameter_size: int = 0,
        derivatives: str = "casadi",
        name: str = "cost",
        rows: ca.Function | None = None,
    ) -> None:
        self.state_size, self.control_size = state_size, control_size
        self.parameter_size, self.rows = parameter_size, rows
        self.scalar = _ScalarOfFunction(function, (state_size, control_size, parameter_size), name, derivatives)
        self.least_squares = self.scalar.least_squares

    @property
    def sole_function(self) -> Any:
        return None if self.overrides(FunctionCost) else self.scalar.declared

    @property
    def traced_function(self) -> Traced | None:
        return self.scalar.g if isinstance(self.scalar.g, Traced) and not self.overrides(FunctionCost) else None

    def value(self, x: Array, u: Array, p: Array) -> float:
        return self.scalar.value(x, u, p)

    def gradient(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        gradient = self.scalar.gradient(x, u, p)
        return gradient[: self.state_size], gradient[self.state_size :]

    def hessian(self, x: Array, u: Array, p: Array) -> tuple[Array, Array, Array]:
        return cut_hessian(self.scalar.hessian(x, u, p), self.state_size)

    def gauss_newton_hessian(self, x: Array, u: Array, p: Array) -> tuple[Array, Array, Array]:
        if not self.least_squares:
            return self.hessian(x, u, p)
        return cut_hessian(self.scalar.gauss_newton(x, u, p), self.state_size)


class FunctionTerminalCost(TerminalCost):
    """φ(x[, p]) from a plain function, or ½‖r(x[, p])‖² from `LeastSquares` residuals; `rows` as in `FunctionCost`."""

    def __init__(
        self,
        function: Callable[..., Any] | LeastSquares,
        state_size: int,
        *,
        parameter_size: int = 0,
        derivatives: str = "casadi",
        name: str = "terminal cost",
        rows: ca.Function | None = None,
    ) -> None:
        self.state_size = state_size
        self.parameter_size, self.rows = parameter_size, rows
        self.scalar = _ScalarOfFunction(function, (state_size, parameter_size), name, derivatives)
        self.least_squares = self.scalar.least_squares

    @property
    def sole_function(self) -> Any:
        return None if self.overrides(FunctionTerminalCost) else self.scalar.declared

    @property
    def traced_function(self) -> Traced | None:
        return self.scalar.g if isinstance(self.scalar.g, Traced) and not self.overrides(FunctionTerminalCost) else None

    def value(self, x: Array, p: Array) -> float:
        return self.scalar.value(x, p)

    def gradient(self, x: Array, p: Array) -> Array:
        return self.scalar.gradient(x, p)

    def hessian(self, x: Array, p: Array) -> Array:
        return self.scalar.hessian(x, p)

    def gauss_newton_hessian(self, x: Array, p: Array) -> Array:
        return self.scalar.gauss_newton(x, p) if self.least_squares else self.hessian(x, p)


def residual_of(function: Any) -> Any:
    """Return the function itself, or the residual function of `LeastSquares`."""
    return function.residual if isinstance(function, LeastSquares) else function


def composed(function: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """Return a function inside another one; residuals stay residuals."""
    return LeastSquares(wrap(function.residual)) if isinstance(function, LeastSquares) else wrap(function)


def bounds_pair(bounds: Any, what: str) -> tuple[ArrayLike, ArrayLike]:
    try:
        lower, upper = bounds
    except (TypeError, ValueError) as error:
        raise ProblemError(f"{what} must be a pair (lower, upper), got {bounds!r}") from error
    return lower, upper


def find_control_size(dynamics: Any, cost: Any, x0: Array, p: Array, name: str) -> int:
    """Find m by calling the functions with controls of different lengths.

    Functions that unpack u or multiply it by a matrix accept one length; functions that index u accept
    every length from some m ≥ 1 on. Anything else (u used whole, as in ``x + u``) is ambiguous.
    """
    step = with_parameters(dynamics, 3, f"{name}: dynamics")
    running_cost = with_parameters(residual_of(cost), 3, f"{name}: cost")
    p, largest = (p if p.ndim == 1 else p[0]), max(12, len(x0) + 2)

    def obstacle(m: int) -> str:
        """Say why the functions do not take m controls; empty if they do."""
        try:
            with np.errstate(all="ignore"):
                running_cost(x0, np.zeros(m), p)
                shape = np.shape(step(x0, np.zeros(m), p))
        except (IndexError, ValueError, TypeError) as error:
            return " ".join(str(error).split())
        return "" if shape == x0.shape else f"dynamics returned shape {shape}, expected {x0.shape}, that of x0"

    obstacles = [obstacle(m) for m in range(largest + 1)]
    accepted = [m for m, why in enumerate(obstacles) if not why]
    if accepted and accepted[0] > 0 and (len(accepted) == 1 or accepted == list(range(accepted[0], largest + 1))):
        return accepted[0]
    if not accepted:
        ran = next((why for why in obstacles if why.startswith("dynamics returned")), obstacles[-1])
        raise ProblemError(
            f"the functions take no number of controls up to {largest}, or not this x0 {x0.shape}: {ran}"
        )
    raise ProblemError(
        f"the number of controls cannot be told from the functions (lengths that they accept: {accepted}); "
        "give control_size="
    )


__getattr__ = moved.names(__name__)
