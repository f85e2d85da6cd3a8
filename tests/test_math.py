"""One model, three kinds of arrays: NumPy, traced symbols and torch give the same numbers."""

from collections.abc import Callable
from typing import Any

import casadi as ca
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ocpkit.math as m
from ocpkit.autodiff.symbol import Symbol, symbols, to_casadi

X = np.array([0.3, -0.7, 0.9])
MATRIX = np.array([[2.0, 0.5, 0.0], [0.1, 3.0, 0.2], [0.0, -0.4, 1.5]])

MODELS: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda x: (2 * x - x / 3 + 1) ** 2 - x**3 + (-x) * abs(x[0]),
    "reflected operators": lambda x: 1 - x + 2.0 / (x + 3) + 2.0**x,
    "trigonometry": lambda x: m.sin(x) + m.cos(x) * m.tan(x) + m.arcsin(x) - m.arccos(x) + m.arctan(x),
    "hyperbolic": lambda x: m.sinh(x) + m.cosh(x) - m.tanh(x),
    "exponential": lambda x: m.exp(x) + m.log(x + 2) + m.sqrt(x + 1),
    "two arguments": lambda x: m.arctan2(x, 1 + x[0]) + m.minimum(x, 0.1) + m.maximum(0.2, x),
    "absolute and sign": lambda x: m.abs(x) * m.sign(x) + m.abs(x[1]),
    "where": lambda x: m.where(x[0] > 0, x * 2, x - 1) + m.where(m.less(x, 0.5), 1.0, 0.0),
    "where of numbers": lambda x: m.where(m.less(x, 0.5), 0.1, 0.3),
    "where of arrays": lambda x: (
        m.where(np.array([True, False, True]), x, X) + m.where(m.greater(x, 0), X, x) + m.where(True, x, 0.1)
    ),
    "comparisons": lambda x: m.where(m.greater(x, x[0]), x, -x),
    "stack": lambda x: m.stack([x[0] * x[1], 1.0, m.sin(x[2])]),
    "concatenate": lambda x: m.concatenate([x, x[:2] * 2, x[0], 5.0]),
    "array": lambda x: m.sum(m.array([[x[0], x[1]], [1.0, x[2]]])) + m.array([x[0], 1.0]),
    "reductions": lambda x: m.stack([m.sum(x), m.dot(x, x), m.norm(x)]),
    "cross": lambda x: m.cross(x, x[::1] * 2 + 1),
    "unpacking": lambda x: (lambda a, b, c: m.stack([a * b, b - c]))(*x),
    "solve": lambda x: m.solve(m.array([[2 + x[0], x[1]], [0.5, 3.0 + x[2]]]), m.stack([x[0], 1.0 + x[1]])),
    "several right sides": lambda x: m.sum(
        m.solve(m.array([[2 + x[0], x[1]], [0.5, 3.0]]), m.array([[x[0], 1.0], [0.0, x[2]]]))
    ),
    "jacobian": lambda x: m.sum(m.jacobian(lambda y: m.stack([y[0] * y[1], m.sin(y[2]), y[0] ** 2]), x)),
}


def on_symbols(model: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    column, array = symbols("x", len(x))
    return np.squeeze(ca.Function("f", [column], [to_casadi(model(array))])(x).full())


@pytest.mark.parametrize("name", MODELS)
def test_same_numbers_everywhere(name: str) -> None:
    model = MODELS[name]
    expected = np.asarray(model(X))
    rough = 1e-9 if name == "jacobian" else 1e-14  # numbers have no exact jacobian
    np.testing.assert_allclose(on_symbols(model, X), np.squeeze(expected), rtol=rough, atol=rough)
    on_tensors = model(torch.tensor(X, dtype=torch.float64))
    np.testing.assert_allclose(np.squeeze(on_tensors.numpy()), np.squeeze(expected), rtol=rough, atol=rough)


def test_matrix_products_trace() -> None:
    np.testing.assert_allclose(on_symbols(lambda x: MATRIX @ x, X), MATRIX @ X, rtol=1e-15)
    np.testing.assert_allclose(on_symbols(lambda x: x @ MATRIX @ x, X), X @ MATRIX @ X, rtol=1e-15)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
@settings(deadline=None, max_examples=50)
def test_random_points_agree(x: list[float]) -> None:
    def model(x: Any) -> Any:
        return m.stack([m.sin(x[0]) * x[1], m.where(x[2] > 0, m.exp(x[0]), x[1] ** 2), m.sqrt(1 + m.dot(x, x))])

    point = np.array(x)
    np.testing.assert_allclose(on_symbols(model, point), model(point), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(model(torch.tensor(point)).numpy(), model(point), rtol=1e-13, atol=1e-13)


def test_types_stay_what_they_are() -> None:
    assert isinstance(m.sin(X), np.ndarray)
    assert isinstance(m.sin(torch.tensor(X)), torch.Tensor)
    assert m.sin(symbols("x", 3)[1]).dtype == object


def test_tensors_of_two_types_become_the_larger_one() -> None:
    both = [torch.tensor([0.1], dtype=torch.float32), torch.tensor([0.1], dtype=torch.float64)]
    for joined in (m.stack(both), m.concatenate(both), m.minimum(*both), m.where(True, *both)):
        assert joined.dtype == torch.float64
    assert m.concatenate([both[0], 1.0]).dtype == torch.float32


@pytest.mark.parametrize(
    "branch", [lambda s: s > 0 and 1, lambda s: 1 if s == 0 else 2, lambda s: max(s, 0), lambda s: s != 1 or 2]
)
def test_branch_on_a_symbol_is_refused(branch: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"cannot be traced; use ocpkit\.math\.where"):
        branch(Symbol(ca.SX.sym("x")))


def test_number_of_a_symbol_is_refused() -> None:
    with pytest.raises(TypeError, match="has no number yet"):
        float(Symbol(ca.SX.sym("x")))
