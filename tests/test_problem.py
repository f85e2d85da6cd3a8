"""What a Problem offers: copies of its numbers, rollouts, costs, sizes found in functions, parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from problems import BY_NAME, declare

import ocpkit.math as m
from ocpkit import DDP, Problem


def test_arrays_are_copied_and_read_only() -> None:
    x0 = np.array([1.0, 0.0])
    problem = declare(x0=x0, controls=np.ones((5, 1)))
    x0[0] = 7.0
    assert problem.x0[0] == 1.0
    for array in (problem.x0, problem.controls[0], problem.parameters, problem.stages[0].control_lower):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0  # type: ignore[index]


def test_what_holds_arrays_is_equal_only_to_itself() -> None:
    problem = declare()
    moved = problem.replace(x0=[2.0, 0.0])
    solutions = [DDP().solve(problem), DDP().solve(moved)]
    assert problem != moved
    assert {problem: 1, moved: 2}[moved] == 2
    assert solutions.index(solutions[1]) == 1
    assert len({*problem.stages, *declare(horizon=1).stages}) == 2


def test_without_controls_the_guess_is_zero() -> None:
    np.testing.assert_array_equal(declare(controls=[1.0]).replace(controls=None).controls, np.zeros((5, 1)))


def test_rollout_and_cost() -> None:
    problem = declare(controls=np.arange(5.0)[:, None])
    states, cost = problem.rollout()
    np.testing.assert_array_equal(np.stack(states)[:, 0], [1, 1, 2, 4, 7, 11])
    assert cost == sum(k * k for k in range(5)) + 121
    assert problem.cost(states, problem.controls) == cost


@pytest.mark.parametrize(
    ("cost", "size"),
    [
        (lambda x, u: u[0] ** 2 + u[2], 3),
        (lambda x, u: (lambda a, b: a * b)(*u), 2),
        (lambda x, u: u @ np.eye(4) @ u, 4),
    ],
)
def test_control_size_is_found(cost: Callable[..., Any], size: int) -> None:
    problem = declare(cost=cost, dynamics=lambda x, u: m.stack([x[0] + u[0], x[1]]))
    assert set(problem.control_sizes) == {size}


def test_control_size_of_functions_with_options_by_keyword() -> None:
    def step(x: Any, u: Any, *, gain: float = 1.0) -> Any:
        return m.stack([x[0] + gain * u[0], x[1]])

    assert declare(dynamics=step).control_sizes[0] == 1


def test_parameters_per_stage() -> None:
    problem = BY_NAME["reference"].problem()
    assert problem.parameter(3) == problem.parameters[3]
    shared = BY_NAME["parameters"].problem()
    assert shared.parameter(3) is shared.parameters
    moved = shared.replace(parameters=np.array([2.0, 0.0, 0.1]))
    assert moved.stages[0] is shared.stages[0]
    assert DDP().solve(moved).states[-1][0] == pytest.approx(2.0, abs=0.2)


def test_the_short_way_shows_what_it_takes() -> None:
    with pytest.raises(TypeError, match=r"from_functions.*'dynamic'"):
        Problem.from_functions(dynamic=abs)  # type: ignore[call-arg]


def test_room_is_the_old_name_of_step_bounds() -> None:
    problem = BY_NAME["pendulum"].problem()
    with pytest.warns(DeprecationWarning, match="step_bounds"):
        old = problem.room(problem.controls)
    np.testing.assert_equal(old, problem.step_bounds(problem.controls))
