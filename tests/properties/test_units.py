"""A verdict, and the relative error of J, do not change with the units of J, of each state and of each control."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ocpkit.math as m
from ocpkit import DDP, Problem, Solution, Status, registry
from ocpkit.solvers.ddp.solve_batch import solve_batch

EXPONENTS = st.integers(-8, 8)
FREE = ("ddp", "ilqr", "fddp")


@dataclass(frozen=True)
class Units:
    """Factors that turn natural units into the user's."""

    cost: float = 1.0
    states: NDArray[np.float64] = field(default_factory=lambda: np.ones(2))
    control: float = 1.0


UNITS = st.builds(
    lambda J, x, y, u: Units(10.0**J, np.array([10.0**x, 10.0**y]), 10.0**u), EXPONENTS, EXPONENTS, EXPONENTS, EXPONENTS
)


def swing(units: Units, guess: float = 0.0, limit: float = np.inf) -> Problem:
    """A pendulum that is to stand at 1 rad, in any units."""

    def step(x, u):  # type: ignore[no-untyped-def]
        angle, rate, torque = x[0] / units.states[0], x[1] / units.states[1], u[0] / units.control
        following = m.stack([angle + 0.1 * rate, rate + 0.1 * (torque - 4 * m.sin(angle))])
        return m.stack([following[0] * units.states[0], following[1] * units.states[1]])

    return Problem.from_functions(
        dynamics=step,
        cost=lambda x, u: units.cost * 0.01 * (u[0] / units.control) ** 2,
        terminal_cost=lambda x: (
            units.cost
            * (
                5 * (x[0] / units.states[0] - 1) ** 2
                + (x[1] / units.states[1]) ** 2 * (1 + (x[0] / units.states[0]) ** 2)
            )
        ),
        x0=[0.0, 0.0],
        horizon=12,
        controls=[guess * units.control],
        control_bounds=(-limit * units.control, limit * units.control),
    )


def assert_same_answer(ours: Solution, reference: Solution, units: Units, error: float) -> None:
    assert ours.status is reference.status is Status.CONVERGED
    assert ours.cost / units.cost == pytest.approx(reference.cost, rel=error)
    controls, expected = np.ravel(ours.controls) / units.control, np.ravel(reference.controls)
    np.testing.assert_allclose(controls, expected, atol=np.sqrt(error) * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("limit", [np.inf, 3.0])
@pytest.mark.parametrize("name", FREE)
@settings(max_examples=12, deadline=None)
@given(units=UNITS)
def test_units_do_not_change_the_answer(name: str, limit: float, units: Units) -> None:
    solver = registry.make(name, engine="vm") if name in ("ddp", "ilqr", "fddp") else registry.make(name)
    reference = solver.solve(swing(Units(), limit=limit))
    assert_same_answer(solver.solve(swing(units, limit=limit)), reference, units, 1e-8)


@settings(max_examples=3, deadline=None)
@given(units=UNITS)
def test_units_do_not_change_the_answer_of_a_batch(units: Units) -> None:
    problem, reference = swing(units), DDP(engine="vm").solve(swing(Units()))
    batch = solve_batch(problem, x0=np.zeros((2, 2)), solver=DDP())
    assert batch.converged.all()
    np.testing.assert_allclose(batch.cost / units.cost, reference.cost, rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-8, 1e-6, 1e8])
def test_without_scaling_tolerances_are_the_users(scale: float) -> None:
    """The first of the faults that this page guards against: a small J made everything small enough."""
    solution = DDP(scaling=False, engine="vm").solve(swing(Units(cost=scale)))
    reference = DDP(engine="vm").solve(swing(Units()))
    assert (solution.cost / scale > 1.01 * reference.cost) == (scale < 1e-6 or scale == 1e-6)


def test_damping_has_no_unit() -> None:
    """From a guess where Q_uu is indefinite, the same iterations in all units."""
    guess = 40.0
    reference = DDP(engine="vm").solve(swing(Units(), guess))
    assert max(line.regularization for line in reference.history) > 0
    for units in (Units(1e6), Units(1.0, np.array([1e-3, 1e4])), Units(control=1e5)):
        other = DDP(engine="vm").solve(swing(units, guess))
        assert other.iterations == pytest.approx(reference.iterations, abs=1)
        assert other.cost / units.cost == pytest.approx(reference.cost, rel=1e-8)
