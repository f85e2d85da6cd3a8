"""Continuous dynamics ẋ = f(x, u) become a discrete step x_{t+1} = F(x_t, u_t).

The control is held over the step (zero-order hold). Each rule is one function of the vector field
``g(x)`` with u and p already fixed; a user's own rule is passed to `discretize` in the same form.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.autodiff.differentiable import with_parameters
from ocpkit.autodiff.intermediate import intermediate
from ocpkit.boundary.arrays import whole_number
from ocpkit.boundary.pickling import CarriesFunctions
from ocpkit.errors import ProblemError

VectorField = Callable[[Any], Any]
Rule = Callable[[VectorField, Any, Any], Any]
TimeStep = float | Callable[[Any], Any]
NEWTON_ITERATIONS = 4  # quadratic convergence: 1e-1, 1e-2, 1e-4, 1e-8, 1e-16


def euler_rule(field: VectorField, x: Any, h: Any) -> Any:
    """Explicit Euler, first order: x + h g(x)."""
    return x + h * field(x)


def rk4_rule(field: VectorField, x: Any, h: Any) -> Any:
    """The classical Runge-Kutta rule, fourth order (Kutta 1901)."""

    def rate(y: Any) -> Any:
        return intermediate(field(intermediate(y)))

    k1 = rate(x)
    k2 = rate(x + (h / 2) * k1)
    k3 = rate(x + (h / 2) * k2)
    k4 = rate(x + h * k3)
    return x + (h / 6) * (k1 + 2 * k2 + 2 * k3 + k4)


def implicit_trapezoid_rule(field: VectorField, x: Any, h: Any) -> Any:
    """Trapezoidal rule, second order and A-stable: y = x + h/2 (g(x) + g(y)), by Newton from an Euler step."""
    at_x = field(x)
    identity = np.eye(len(x))

    def residual(y: Any) -> Any:
        return y - x - (h / 2) * (at_x + field(y))

    y = x + h * at_x
    for _ in range(NEWTON_ITERATIONS):
        slope = m.jacobian(field, y)
        unit = identity if isinstance(slope, np.ndarray) else slope.new_tensor(identity)
        y = y - m.solve(unit - (h / 2) * slope, residual(y))
    return y


def discretize(rule: Rule, f: Callable[..., Any], dt: TimeStep, substeps: int = 1) -> Callable[..., Any]:
    """Turn ``f(x, u)`` or ``f(x, u, p)`` [state units per second] into the step over `dt`.

    Parameters
    ----------
    rule
        One step ``rule(field, x, h)`` of an integration scheme.
    f
        Continuous dynamics, written with `ocpkit.math`; returns the rate of change, same shape as x.
    dt
        Sampling time [s], positive; or a function of p that returns it, where time is scaled by a parameter.
    substeps
        Number of equal inner steps, at least 1.

    Returns
    -------
    callable
        A function with the signature of `f`; of (x, u, p) where `dt` is a function.

    Raises
    ------
    ProblemError
        If `dt` is no positive number, `substeps` is below 1, or `f` takes other arguments.
    """
    if not callable(dt) and not (isinstance(dt, Real) and 0 < dt < np.inf):
        raise ProblemError(f"dt must be a positive number of seconds, got {dt!r}")
    count, of_p = whole_number(substeps, "substeps"), with_parameters(f, 3, "continuous dynamics")
    return _StepOfParameters(rule, of_p, dt, count) if callable(dt) else _Step(rule, f, dt, count)


class _Step(CarriesFunctions):
    """x, u[, p] → the next state; has the name and the signature of f."""

    def __init__(self, rule: Rule, f: Callable[..., Any], dt: Any, substeps: int) -> None:
        self.rule, self.f, self.dt, self.substeps = rule, f, dt, substeps
        functools.update_wrapper(self, f, updated=())

    def __call__(self, x: Any, u: Any, *p: Any) -> Any:
        return self._advance(lambda y: m.array(self.f(y, u, *p)), x, self.dt)

    def _advance(self, field: VectorField, x: Any, h: Any) -> Any:
        for _ in range(self.substeps):
            x = self.rule(field, x, h / self.substeps)
        return x


class _StepOfParameters(_Step):
    """x, u, p → the next state, with a time step that depends on p."""

    def __init__(self, rule: Rule, f: Callable[..., Any], dt: Callable[[Any], Any], substeps: int) -> None:
        self.rule, self.f, self.dt, self.substeps = rule, f, dt, substeps

    def __call__(self, x: Any, u: Any, p: Any) -> Any:  # type: ignore[override]
        return self._advance(lambda y: m.array(self.f(y, u, p)), x, self.dt(p))


def euler(f: Callable[..., Any], dt: TimeStep, substeps: int = 1) -> Callable[..., Any]:
    """Discretize by explicit Euler (see `discretize`)."""
    return discretize(euler_rule, f, dt, substeps)


def rk4(f: Callable[..., Any], dt: TimeStep, substeps: int = 1) -> Callable[..., Any]:
    """Discretize by the classical fourth-order Runge-Kutta rule (see `discretize`)."""
    return discretize(rk4_rule, f, dt, substeps)


def implicit_trapezoid(f: Callable[..., Any], dt: TimeStep, substeps: int = 1) -> Callable[..., Any]:
    """Discretize by the implicit trapezoidal rule, for stiff systems (see `discretize`)."""
    return discretize(implicit_trapezoid_rule, f, dt, substeps)
