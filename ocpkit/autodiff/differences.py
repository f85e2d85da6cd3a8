"""Numerical derivatives of a black box: central differences and the complex step.

Central differences of a function with rounding error ε have error O(h²) + O(ε/h); the best step is
h ~ ε^{1/3} for first and ε^{1/4} for second derivatives. The complex step Im f(x + ih)/h has no
subtraction, so h = 1e-30 leaves only rounding (Squire & Trapp 1998); it needs an analytic function
that accepts complex numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ocpkit.boundary.arrays import Array

VectorFunction = Callable[[Array], Array]

FIRST_STEP = float(np.finfo(float).eps ** (1 / 3))
SECOND_STEP = float(np.finfo(float).eps ** (1 / 4))
COMPLEX_STEP = 1e-30


def _steps(x: Array, relative: float) -> Array:
    """Scale the step with the variable and make x + h exact in floating point."""
    step = relative * np.maximum(1.0, np.abs(x))
    return np.asarray((x + step) - x)


def central_jacobian(function: VectorFunction, x: Array, relative: float = FIRST_STEP) -> Array:
    """Jacobian ``(k, n)`` by central differences."""
    x = np.asarray(x, dtype=float)
    columns = []
    for i, h in enumerate(_steps(x, relative)):
        forward, backward = x.copy(), x.copy()
        forward[i] += h
        backward[i] -= h
        columns.append((np.asarray(function(forward)) - np.asarray(function(backward))) / (2 * h))
    return np.stack(columns, axis=-1) if columns else np.zeros((len(np.atleast_1d(function(x))), 0))


def complex_jacobian(function: VectorFunction, x: Array) -> Array:
    """Jacobian ``(k, n)`` by the complex step.

    Raises
    ------
    TypeError
        If the function drops the imaginary part or rejects complex numbers.
    """
    x = np.asarray(x, dtype=float)
    columns = []
    for i in range(len(x)):
        shifted = x.astype(complex)
        shifted[i] += 1j * COMPLEX_STEP
        value = np.asarray(function(shifted))  # type: ignore[arg-type]
        if value.dtype.kind != "c" and value.dtype != object:
            raise TypeError(
                "the function does not return complex numbers for complex input, so the complex step is "
                "not available; use derivatives='central'"
            )
        columns.append(value.astype(complex).imag / COMPLEX_STEP)
    return np.stack(columns, axis=-1) if columns else np.zeros((len(np.atleast_1d(function(x))), 0))


def central_hessian(function: Callable[[Array], float], x: Array) -> Array:
    """Hessian ``(n, n)`` of a scalar function by four-point central differences."""
    x = np.asarray(x, dtype=float)
    n, h = len(x), _steps(x, SECOND_STEP)
    shift = np.diag(h)
    hessian = np.zeros((n, n))
    for i in range(n):
        for j in range(i, n):
            a, b = shift[i], shift[j]
            second = function(x + a + b) - function(x + a - b) - function(x - a + b) + function(x - a - b)
            hessian[i, j] = hessian[j, i] = second / (4 * h[i] * h[j])
    return hessian
