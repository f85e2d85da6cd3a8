"""Derivatives by way of intermediate vectors against those of the whole expression."""

from functools import cache
from typing import Any

import casadi as ca
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ocpkit.math as m
from ocpkit import DDP, Problem, check_derivatives, rk4
from ocpkit.autodiff.differentiable import differentiable
from ocpkit.autodiff.intermediate import Point, differentiate, intermediate, recording
from ocpkit.autodiff.symbol import from_casadi, symbols, to_casadi
from ocpkit.problem import integrate


def rates(x: Any, u: Any, p: Any) -> Any:
    return m.stack([x[1] * x[2], m.sin(x[0]) * u[0] - p[0] * x[1], m.exp(-x[2]) + u[1] * x[0]])


def newton(x: Any, u: Any, p: Any) -> Any:
    """A model that contains the Jacobian of a Runge-Kutta step."""
    return m.jacobian(lambda y: rk4(rates, 0.3)(y, u, p), x) @ rates(x, u, p)


STEPS = {
    "one step": rk4(rates, 0.1),
    "substeps": rk4(rates, 0.4, substeps=3),
    "duration is a parameter": rk4(rates, lambda p: p[0] / 5),
    "a step of a step": lambda x, u, p: rk4(rates, 0.1)(rk4(rates, 0.2)(x, u, p), u, p),
    "Newton's method inside": integrate.implicit_trapezoid(rates, 0.1),
    "a Jacobian inside": newton,
    "a state that goes straight through": lambda x, u, p: m.stack([*rk4(rates, 0.1)(x, u, p)[:2], u[1]]),
    "a constant intermediate vector": lambda x, u, p: x * intermediate(m.array([1.0, 2.0, 3.0])),
}


@cache
def derivatives(name: str, *, record: bool) -> tuple[ca.Function, int]:
    """g, dg/dz and w·∇²g as one function of (z, p, w), and the number of points."""
    (x, xs), (u, us), (p, ps), w = symbols("x", 3), symbols("u", 2), symbols("p", 1), ca.SX.sym("w", 3)
    points = list[Point]()
    with recording(points if record else None):
        g = to_casadi(STEPS[name](xs, us, ps))
    z = ca.vertcat(x, u)
    return ca.Function("all", [z, p, w], list(differentiate(g, points, z, w))), len(points)


@pytest.mark.parametrize("name", STEPS)
@settings(deadline=None)  # the first example differentiates
@given(seed=st.integers(0, 2**32 - 1))
def test_equal_to_the_whole_expression(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arguments = rng.normal(size=5), rng.uniform(0.5, 2, size=1), rng.normal(size=3)
    ours, whole = (derivatives(name, record=record)[0](*arguments) for record in (True, False))
    for block, expected in zip(ours, whole):
        scale = 1 + np.abs(expected.toarray()).max()
        np.testing.assert_allclose(block.toarray(), expected.toarray(), rtol=1e-12, atol=1e-12 * scale)


def test_a_step_has_its_points_and_takes_less_arithmetic() -> None:
    (ours, points), (whole, none) = (derivatives("one step", record=record) for record in (True, False))
    assert (points, none) == (7, 0)  # four rates, and the three states at which they are new
    assert ours.n_instructions() < whole.n_instructions()


def test_only_recorded_symbols_are_replaced() -> None:
    array, (_, plain) = np.ones(2), symbols("x", 2)
    points = list[Point]()
    doubled = 2 * plain
    assert intermediate(doubled) is doubled
    with recording(points):
        assert intermediate(array) is array
        assert intermediate(plain) is plain
        inner = intermediate(2 * plain)
        with recording(None):
            intermediate(3 * plain)
    assert len(points) == 1
    assert str(to_casadi(inner)) == str(points[0][0])


def test_a_failed_trace_ends_the_recording() -> None:
    def broken(x: Any, u: Any, p: Any) -> Any:
        rk4(rates, 0.1)(x, u, p)
        raise RuntimeError("no")

    with pytest.raises(ValueError, match="could not be traced"):
        differentiable(broken, (3, 2, 1), "broken", "casadi")
    vector = 2 * symbols("x", 2)[1]
    assert intermediate(vector) is vector


def test_a_step_may_call_functions_of_casadi() -> None:
    """A table inside a Runge-Kutta step: its graph holds calls, which not every operation of CasADi on graphs bears."""
    grid = np.linspace(-4.0, 4.0, 9)
    table = ca.interpolant("table", "bspline", [grid], np.sin(grid))
    problem = Problem.from_functions(
        dynamics=rk4(
            lambda x, u: m.stack(
                [x[1], u[0] - (from_casadi(table(to_casadi(x[1])))[0, 0] if x.dtype == object else float(table(x[1])))]
            ),
            0.1,
        ),
        cost=lambda x, u: 0.02 * u[0] ** 2,
        terminal_cost=lambda x: 5 * (x[0] - 1) ** 2 + 5 * x[1] ** 2,
        x0=[0.0, 0.5],
        horizon=8,
        control_size=1,
    )
    assert check_derivatives(problem).ok
    by_vm, by_numpy = (DDP(engine=engine).solve(problem) for engine in ("vm", "numpy"))
    assert by_vm.success
    assert by_vm.cost == pytest.approx(by_numpy.cost, rel=1e-12)
