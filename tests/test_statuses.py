"""One table of statuses: the same event has the same word in every solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ocpkit.math as m
from ocpkit import Constraint, Iteration, Problem, Sensitivity, Status, registry

NAMES = registry.names()
CONSTRAINED = ("al", "ip", "pdip", "ipopt", "fatrop", "sqp")


def problem(**changes: Any) -> Problem:
    declaration: dict[str, Any] = {
        "dynamics": lambda x, u: m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * (u[0] - m.sin(x[0]))]),
        "cost": lambda x, u: 0.1 * u[0] ** 2,
        "terminal_cost": lambda x: 10 * (x[0] - 1) ** 2 + x[1] ** 2,
        "x0": [0.0, 0.0],
        "horizon": 10,
        "control_size": 1,
    }
    return Problem.from_functions(**(declaration | changes))


EVENTS: dict[str, tuple[Callable[[], Problem], set[Status]]] = {
    "a model that is not finite at the guess": (
        lambda: problem(cost=lambda x, u: m.sqrt(u[0] - 1) + u[0] ** 2),
        {Status.INVALID_INPUT},
    ),
    "a derivative that is infinite at the guess": (
        lambda: problem(cost=lambda x, u: m.sqrt(x[1]) + u[0] ** 2),
        {Status.INVALID_INPUT},
    ),
    "a cost without a lower bound": (
        lambda: problem(cost=lambda x, u: -(u[0] ** 2) + u[0], terminal_cost=lambda x: 0 * x[0]),
        {Status.DIVERGED, Status.ITERATION_LIMIT},
    ),
    "a cost without a lower bound, flat at the guess": (
        lambda: problem(cost=lambda x, u: -(u[0] ** 4), terminal_cost=lambda x: 0 * x[0]),
        {Status.DIVERGED, Status.ITERATION_LIMIT, Status.STALLED},
    ),
    "a strict maximum at the guess": (
        lambda: problem(cost=lambda x, u: u[0] ** 4 / 4 - u[0] ** 2 / 2, terminal_cost=lambda x: 0 * x[0]),
        {Status.CONVERGED},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("event", EVENTS)
def test_events_of_the_problem(name: str, event: str) -> None:
    build, expected = EVENTS[event]
    solution = registry.make(name).solve(build())
    assert solution.status in expected
    assert event != "a strict maximum at the guess" or solution.cost == pytest.approx(-2.5, rel=1e-6)


def test_gradient_descent_that_falls_without_end_is_not_stalled() -> None:
    """−u⁴ overflowed at −1e292, where no step was accepted any more."""
    solution = registry.make("gd").solve(problem(cost=lambda x, u: -(u[0] ** 4), controls=[0.1]))
    assert solution.status is Status.DIVERGED
    assert np.isfinite(solution.cost)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ilqg"])  # which is for problems with noise
def test_bounds_that_hold_have_multipliers_in_every_solver(name: str) -> None:
    bounded = problem(dynamics=lambda x, u: m.stack([0.9 * x[0] + 0.05 * u[0], x[1]]), control_bounds=(-1, 1.0))
    solution, reference = registry.make(name).solve(bounded), registry.make("ddp").solve(bounded)
    assert solution.success
    assert reference.multipliers is not None
    assert solution.multipliers is not None
    assert len(solution.multipliers) == 11
    assert max(y[0] for y in reference.multipliers[:-1]) > 0.1
    for ours, theirs in zip(solution.multipliers, reference.multipliers):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    Sensitivity(bounded, solution)


@pytest.mark.parametrize("name", CONSTRAINED)
def test_what_no_control_can_reach_is_not_solved(name: str) -> None:
    far = Constraint(lambda x: x[0], 50.0, 60.0, "far")
    solution = registry.make(name).solve(problem(control_bounds=(-1, 1), terminal_constraints=(far,)))
    assert solution.status in (Status.INFEASIBLE, Status.GAVE_UP)


@pytest.mark.parametrize("name", CONSTRAINED)
def test_a_row_without_a_gradient_where_it_holds_is_not_called_infeasible(name: str) -> None:
    rest = Constraint(lambda x: m.dot(x, x), 0.0, 0.0, "|x|²")
    solution = registry.make(name).solve(problem(terminal_constraints=(rest,), controls=1))
    assert solution.status is not Status.INFEASIBLE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [0, 1])
def test_an_iteration_limit(name: str, limit: int) -> None:
    solution = registry.make(name, max_iterations=limit).solve(problem())
    assert solution.status is Status.ITERATION_LIMIT
    assert solution.iterations <= limit
    assert np.isfinite(solution.cost)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fatrop"])  # which refuses a time limit
def test_a_time_limit(name: str) -> None:
    assert registry.make(name, time_limit=1e-9).solve(problem()).status is Status.TIME_LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_a_callback_that_stops(name: str) -> None:
    assert registry.make(name).solve(problem(), callback=lambda line: False).status is Status.STOPPED


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fatrop"])  # which calls from inside no iteration
def test_an_interrupt(name: str) -> None:
    def interrupt(line: Iteration) -> None:
        raise KeyboardInterrupt

    assert registry.make(name).solve(problem(), callback=interrupt).status is Status.INTERRUPTED


@pytest.mark.parametrize("name", NAMES)
def test_converged_at_the_guess(name: str) -> None:
    optimum = registry.make("ddp", tolerance=1e-10).solve(problem())
    solution = registry.make(name).solve(problem(), optimum)
    assert solution.status is Status.CONVERGED
    assert solution.cost == pytest.approx(optimum.cost, rel=1e-6)
