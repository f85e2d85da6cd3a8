"""Orders of convergence by halving the step, A-stability, conservation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import ocpkit.math as m
from ocpkit import ProblemError, discretize, euler, implicit_trapezoid, rk4
from ocpkit.autodiff.symbol import symbols

ORDERS = {euler: 1, implicit_trapezoid: 2, rk4: 4}


def field(x: Any, u: Any) -> Any:
    """A forced, damped pendulum."""
    return m.stack([x[1], -m.sin(x[0]) - 0.2 * x[1] + u[0]])


def simulate(step: Callable[..., Any], x: np.ndarray, u: np.ndarray, count: int) -> np.ndarray:
    for _ in range(count):
        x = step(x, u)
    return x


@pytest.mark.parametrize("rule", ORDERS, ids=lambda rule: rule.__name__)
def test_order_of_convergence(rule: Any) -> None:
    x0, u = np.array([1.0, 0.0]), np.array([0.3])
    exact = solve_ivp(lambda t, x: field(x, u), (0, 2), x0, rtol=1e-13, atol=1e-13, method="DOP853").y[:, -1]
    errors = [np.abs(simulate(rule(field, 2 / k), x0, u, k) - exact).max() for k in (40, 80, 160)]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(orders, ORDERS[rule], atol=0.12)


@pytest.mark.parametrize("rule", ORDERS, ids=lambda rule: rule.__name__)
def test_substeps_are_smaller_steps(rule: Any) -> None:
    x0, u = np.array([1.0, 0.5]), np.array([0.3])
    np.testing.assert_allclose(rule(field, 0.1, substeps=4)(x0, u), simulate(rule(field, 0.025), x0, u, 4), rtol=1e-14)


def test_trapezoid_is_a_stable_where_rk4_is_not() -> None:
    def stiff(x: Any, u: Any) -> Any:
        return m.stack([-1000.0 * x[0]])

    x0, u = np.array([1.0]), np.zeros(0)
    assert abs(simulate(implicit_trapezoid(stiff, 0.1), x0, u, 50)[0]) < 1.0
    assert abs(simulate(rk4(stiff, 0.1), x0, u, 5)[0]) > 1e6
    factor = implicit_trapezoid(stiff, 0.1)(x0, u)[0]
    assert factor == pytest.approx((1 - 50) / (1 + 50), rel=1e-9)  # the stability function R(z) at z = -100


def test_energy_of_an_oscillator() -> None:
    def oscillator(x: Any, u: Any) -> Any:
        return m.stack([x[1], -x[0]])

    def drift(rule: Any) -> float:
        end = simulate(rule(oscillator, 0.1), np.array([1.0, 0.0]), np.zeros(0), 200)
        return float(end @ end - 1)

    assert abs(drift(implicit_trapezoid)) < 1e-7  # conserves quadratic invariants, up to finite-difference slopes
    assert -1e-3 < drift(rk4) < 0  # slightly dissipative
    assert drift(euler) > 1  # gains energy


@pytest.mark.parametrize("rule", ORDERS, ids=lambda rule: rule.__name__)
def test_same_step_for_tensors_and_symbols(rule: Any) -> None:
    step, x, u = rule(field, 0.1), np.array([1.0, 0.5]), np.array([0.3])
    expected = step(x, u)
    np.testing.assert_allclose(step(torch.tensor(x), torch.tensor(u)).numpy(), expected, rtol=1e-12)
    assert step(symbols("x", 2)[1], symbols("u", 1)[1]).shape == (2,)


def test_parameters_reach_the_field() -> None:
    step = euler(lambda x, u, p: p[0] * x, 0.5)
    np.testing.assert_allclose(step(np.array([2.0]), np.zeros(0), np.array([3.0])), [5.0])


def test_own_rule() -> None:
    midpoint = discretize(lambda g, x, h: x + h * g(x + h / 2 * g(x)), field, 0.1)
    x, u = np.array([1.0, 0.5]), np.array([0.3])
    np.testing.assert_allclose(midpoint(x, u), x + 0.1 * field(x + 0.05 * field(x, u), u), rtol=1e-15)


@pytest.mark.parametrize("dt", [0, -0.1, float("nan"), float("inf"), "0.1", None, np.array([0.1, 0.2])])
def test_bad_step_is_refused(dt: Any) -> None:
    with pytest.raises(ProblemError, match="dt must be a positive number"):
        rk4(field, dt)


@pytest.mark.parametrize("substeps", [0, -1, 1.5, float("nan"), "2"])
def test_bad_substeps_are_refused(substeps: Any) -> None:
    with pytest.raises(ProblemError, match="substeps must be a whole number"):
        rk4(field, 0.1, substeps)


def test_a_field_of_other_arguments_is_refused() -> None:
    for wrong in (None, lambda x: x):
        with pytest.raises(ProblemError, match="continuous dynamics"):
            rk4(wrong, 0.1)  # type: ignore[arg-type]


def test_an_option_in_the_place_of_the_parameters_is_refused() -> None:
    """``lambda x, u, i=i`` keeps a loop's i elsewhere; here it would be given p."""
    with pytest.raises(ProblemError, match=r"'rate' stands where the parameters p are passed.* \(x, u, \*, rate=2.0\)"):
        rk4(lambda x, u, rate=2.0: rate * x, 0.1)
    x, u, p = np.ones(1), np.zeros(1), np.array([0.5])
    after = euler(lambda x, u, p, rate=2.0: p * rate * x, dt=0.5)
    np.testing.assert_array_equal(after(x, u, p), [1.5])


def test_options_by_keyword_are_no_parameters() -> None:
    def growth(x: Any, u: Any, *, rate: float = 2.0) -> Any:
        return rate * x

    x, u, p = np.ones(1), np.zeros(1), np.array([0.5])
    np.testing.assert_array_equal(euler(growth, dt=lambda p: p[0])(x, u, p), [2.0])
    np.testing.assert_array_equal(euler(growth, dt=0.5)(x, u), [2.0])
