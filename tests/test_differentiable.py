"""Traced derivatives against central differences, the complex step and torch's autodiff."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import ocpkit.math as m
from ocpkit import FunctionCost, LeastSquares, ProblemError
from ocpkit.autodiff.differences import central_hessian, central_jacobian, complex_jacobian
from ocpkit.autodiff.differentiable import differentiable

SIZES = (3, 2, 1)
X, U, P = np.array([0.3, -0.4, 0.8]), np.array([0.5, -1.2]), np.array([1.7])
W = np.array([0.7, -1.1])


def model(x: Any, u: Any, p: Any) -> Any:
    return m.stack([m.sin(x[0] * u[0]) + p[0] * x[1] ** 2 * u[1], m.exp(x[2]) * x[0] / (2 + m.cos(u[1])) + u[0] ** 3])


def by_torch() -> tuple[np.ndarray, np.ndarray]:
    p, weights = torch.tensor(P), torch.tensor(W)
    z = torch.tensor(np.concatenate([X, U]))
    jacobian = torch.func.jacfwd(lambda z: model(z[:3], z[3:], p))(z)
    hessian = torch.func.hessian(lambda z: weights @ model(z[:3], z[3:], p))(z)
    return jacobian.numpy(), hessian.numpy()


@pytest.mark.parametrize(
    ("derivatives", "first", "second"), [("casadi", 1e-14, 1e-13), ("complex", 1e-14, 2e-7), ("central", 1e-9, 2e-7)]
)
def test_against_torch(derivatives: str, first: float, second: float) -> None:
    function = differentiable(model, SIZES, "model", derivatives)
    jacobian, hessian = by_torch()
    np.testing.assert_allclose(function.value(X, U, P), model(X, U, P), rtol=1e-14)
    np.testing.assert_allclose(function.jacobian(X, U, P), jacobian, rtol=first, atol=first)
    np.testing.assert_allclose(function.hessian_product(W, X, U, P), hessian, rtol=second, atol=second)


def test_jacobian_inside_a_traced_model() -> None:
    """A derivative of a derivative: the traced one is exact."""

    def slope(x: Any, u: Any) -> Any:
        return m.jacobian(lambda y: m.stack([m.sin(y[0]) * y[1], y[1] ** 3]), x)[0] * u[0]

    traced = differentiable(slope, (2, 1, 0), "slope", "casadi")
    x, u = np.array([0.4, 0.9]), np.array([2.0])
    exact = np.array([[-np.sin(0.4) * 0.9, np.cos(0.4)], [np.cos(0.4), 0.0]]) * 2
    np.testing.assert_allclose(traced.jacobian(x, u, np.zeros(0))[:, :2], exact, atol=1e-14)


def test_least_squares_hessian() -> None:
    residual = FunctionCost(LeastSquares(lambda x, u: m.stack([m.sin(x[0]) * u[0], x[1] - u[0] ** 2])), 2, 1)
    plain = FunctionCost(lambda x, u: 0.5 * ((m.sin(x[0]) * u[0]) ** 2 + (x[1] - u[0] ** 2) ** 2), 2, 1)
    arguments = np.array([0.4, -0.3]), np.array([0.7]), np.zeros(0)
    assert residual.value(*arguments) == pytest.approx(plain.value(*arguments), rel=1e-14)
    for a, b in zip(residual.gradient(*arguments), plain.gradient(*arguments)):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    for a, b in zip(residual.hessian(*arguments), plain.hessian(*arguments)):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)
    jacobian = np.array([[np.cos(0.4) * 0.7, 0, np.sin(0.4)], [0, 1, -1.4]])
    gauss_newton = np.block([[a for a in (residual.gauss_newton_hessian(*arguments)[0],)]])
    np.testing.assert_allclose(gauss_newton, (jacobian.T @ jacobian)[:2, :2], rtol=1e-13, atol=1e-15)


def test_traced_functions_survive_pickle_and_copy() -> None:
    function = differentiable(model, SIZES, "model", "casadi")
    for other in (pickle.loads(pickle.dumps(function)), copy.deepcopy(function)):
        np.testing.assert_array_equal(other.jacobian(X, U, P), function.jacobian(X, U, P))


def test_results_do_not_alias() -> None:
    """The buffers that CasADi writes to are not handed out."""
    function = differentiable(model, SIZES, "model", "casadi")
    first = function.value(X, U, P)
    kept = first.copy()
    function.value(2 * X, U, P)
    np.testing.assert_array_equal(first, kept)


def test_difference_errors_follow_the_step() -> None:
    x = np.array([0.7])
    errors = [abs(central_jacobian(np.sin, x, relative=h)[0, 0] - np.cos(0.7)) for h in (1e-2, 5e-3)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=1e-2)
    assert abs(complex_jacobian(np.sin, x)[0, 0] - np.cos(0.7)) < 1e-16 * 4
    hessian = central_hessian(lambda z: float(z[0] ** 2 * z[1]), np.array([2.0, 3.0]))
    np.testing.assert_allclose(hessian, [[6, 4], [4, 0]], atol=1e-6)


def test_complex_step_refuses_a_real_function() -> None:
    with pytest.raises(TypeError, match="use derivatives='central'"):
        complex_jacobian(lambda x: np.abs(x), np.array([1.0]))


def test_empty_variables() -> None:
    assert central_jacobian(lambda z: np.ones(3), np.zeros(0)).shape == (3, 0)
    assert complex_jacobian(lambda z: np.ones(3), np.zeros(0)).shape == (3, 0)


def test_a_misspelt_way_is_corrected() -> None:
    with pytest.raises(ProblemError, match="did you mean 'central'"):
        differentiable(model, SIZES, "model", "centrall")
