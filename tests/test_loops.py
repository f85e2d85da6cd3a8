"""DDP's loop in Python and the one in C, written apart: the same iterates, dampings and ends under any options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import blows_up, hand_written, no_minimum
from test_decisions import swing_up
from test_engines import barrier, in_narrow_bounds, stalls

import ocpkit.math as m
from ocpkit import DDP, Damping, Failure, LineSearch, Problem, Reason, Solution, Status
from ocpkit.recursion.curvature import Exact, Identity

PROBLEMS = {
    "swing": swing_up,
    "far": lambda: swing_up(15.0),
    "in bounds": lambda: in_narrow_bounds(swing_up()),
    "convex": hand_written,
    "barrier": barrier,
    "stalls": stalls,
    "no minimum": no_minimum,
    "blows up": blows_up,
}


def random_solver(rng: np.random.Generator) -> DDP:
    """Any options that both loops know; tolerances loose enough for each of them to end a solve."""
    pick = lambda *values: values[rng.integers(len(values))]  # noqa: E731
    damping = Damping(
        target=pick("control", "state"),
        initial=pick(0.0, 0.0, 0.3),
        maximum=pick(1e12, 10.0),
        growth=pick("geometric", "quadratic"),
    )
    search = LineSearch(min_step_size=pick(1e-3, 0.3), armijo=pick(1e-4, 0.3, 0.9))
    return DDP(
        second_order=pick(True, False),
        feedback=pick(True, True, False),
        gradient_tolerance=10.0 ** rng.integers(-7, 0),
        cost_tolerance=10.0 ** pick(-300, -300, -12, -6, -3),
        gap_tolerance=pick(1e-9, 1e-1),
        tikhonov=pick(0.0, 0.0, 0.2),
        damping=damping,
        line_search=pick(search, search, search, None),
        scaling=pick(True, True, False),
        max_iterations=pick(2, 20),
    )


def random_guess(rng: np.random.Generator, problem: Problem) -> dict[str, Any]:
    """Controls near the problem's own and, one time in three, states that leave gaps."""
    controls = [u + 0.3 * rng.standard_normal(len(u)) for u in problem.controls]
    if rng.integers(3):
        return {"controls": controls}
    states = [0.3 * rng.standard_normal(n) for n in problem.state_sizes]
    return {"controls": controls, "states": [problem.x0, *states[1:]]}


def assert_same_way(ours: Solution, reference: Solution) -> None:
    """The decisions are the same, and the numbers up to what an unstable search makes of rounding."""
    assert ours.status is reference.status
    assert ours.iterations == reference.iterations
    assert ours.details.reason == reference.details.reason
    assert ours.details.stationary_points_left == reference.details.stationary_points_left
    scale = 1 + max(abs(line.cost) for line in reference.history)
    for line, expected in zip(ours.history, reference.history, strict=True):
        assert (line.step_size, line.regularization) == (expected.step_size, expected.regularization)
        for name in ("cost", "expected_decrease", "actual_decrease", "gradient_norm", "gap"):
            a, b = getattr(line, name), getattr(expected, name)
            assert a == pytest.approx(b, rel=1e-3, abs=1e-7 * scale, nan_ok=True), (line.index, name)
    for name in ("controls", "feedforward", "feedback_gains", "value_hessians", "multipliers"):
        mine, theirs = getattr(ours, name), getattr(reference, name)
        assert (mine is None) == (theirs is None), name
        if theirs is not None:
            a, b = (np.concatenate([np.ravel(entry) for entry in each]) for each in (mine, theirs))
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-2 * (1 + np.abs(b).max()), err_msg=name)


# ------------------------------------------------------------------------------- a curvature that is not damped
def test_the_exact_curvature_by_hand_is_the_default_where_nothing_is_damped() -> None:
    problem = hand_written()
    sharp = {"gradient_tolerance": 1e-9, "cost_tolerance": 1e-300, "engine": "numpy"}
    ours, expected = DDP(curvature=Exact(), **sharp).solve(problem), DDP(**sharp).solve(problem)
    assert_same_way(ours, expected)
    assert expected.iterations > 2


def test_a_small_promise_ends_no_solve_by_a_curvature_of_its_own() -> None:
    """What it promises need not be what J would fall by; without feedback, or damped, it need not either."""
    problem = hand_written()
    for options in ({"curvature": Exact()}, {"feedback": False}, {"damping": Damping(initial=1.0, factor=1.001)}):
        one = {"engine": "numpy", "gradient_tolerance": 1e-4, "max_iterations": 8} | options
        loose, tight = (DDP(cost_tolerance=tolerance, **one).solve(problem) for tolerance in (1e3, 1e-300))
        assert loose.iterations == tight.iterations > 2
    assert DDP(cost_tolerance=1e3, gradient_tolerance=1e-9, engine="numpy").solve(problem).iterations == 0


def test_steps_by_a_curvature_of_its_own_are_halved_however_much_they_promise() -> None:
    """A damped Q_uu would be damped more instead."""
    solver = DDP(curvature=Identity(10.0), feedback=False, max_iterations=1, engine="numpy")
    first, line = solver.solve(swing_up()).history
    assert 0 < line.step_size < 0.5
    assert line.expected_decrease / line.step_size > 10 * abs(first.cost)


def test_where_a_curvature_of_its_own_is_not_positive_definite_the_solve_ends() -> None:
    solution = DDP(curvature=Exact(), engine="numpy").solve(no_minimum())
    assert solution.status is Status.STALLED
    assert solution.iterations == 0
    assert solution.details.reason == Reason(failure=Failure.NOT_POSITIVE_DEFINITE, stage=2)
    assert solution.history[0].regularization == 0


# ------------------------------------------------------------------------------------------ where a solve may end
def at_rest(cost: Any, size: int, **changes: Any) -> Problem:
    """One stage, which starts at u = 0."""
    declaration: dict[str, Any] = {"dynamics": lambda x, u: x, "terminal_cost": lambda x: 0 * x[0], "x0": [0.0]}
    declaration |= {"cost": cost, "horizon": 1, "controls": [0.0] * size}
    return Problem.from_functions(**(declaration | changes))


@pytest.mark.parametrize("damping", [Damping(), Damping(initial=1.0)])
def test_controls_that_save_nothing_alone_but_much_together_are_no_end(damping: Damping) -> None:
    """J falls from 100 to 75 along (1, −1), where its curvature is 1e-4 of that of each control."""
    problem = at_rest(
        lambda x, u: 100 + 0.5 * (1 - 1e-4) * (u[0] + u[1]) ** 2 + 0.5e-4 * u @ u - 0.05 * (u[0] - u[1]), 2
    )
    solver = DDP(gradient_tolerance=1e-2, cost_tolerance=1e-300, damping=damping, engine="numpy")
    solution = solver.solve(problem)
    assert solution.status is Status.CONVERGED
    assert solution.cost == pytest.approx(75, abs=0.1)
    assert not solution.details.stationary_points_left
    assert DDP(gradient_tolerance=1.0, engine="numpy", damping=damping).solve(problem).iterations == 0


@pytest.mark.parametrize("damping", [Damping(), Damping(initial=1.0)])
def test_a_strict_maximum_is_left_for_the_minima_beside_it(damping: Damping) -> None:
    problem = at_rest(lambda x, u: 0.25 * u[0] ** 4 - 0.5 * u[0] ** 2 + 1, 1)
    for engine in ("numpy", "vm"):
        solution = DDP(engine=engine, damping=damping).solve(problem)
        assert solution.success
        assert solution.cost == pytest.approx(0.75)
        assert solution.details.stationary_points_left == 1
        np.testing.assert_allclose(abs(solution.controls), 1.0, atol=1e-5)


def test_a_cost_beyond_all_bounds_is_no_minimum_however_flat() -> None:
    solution = DDP(engine="numpy").solve(at_rest(lambda x, u: 1e101 + u[0] ** 2, 1))
    assert solution.status is Status.DIVERGED


def test_ten_steps_that_change_only_rounding_are_the_end() -> None:
    """They are accepted, not damped, whatever the unit of J; at a convex problem's optimum."""
    for unit in (1e9, 1e-9):
        problem = Problem.from_functions(
            dynamics=lambda x, u: x + 0.1 * m.stack([x[1] + 0.3 * m.tanh(u[1]), u[0] - m.sin(x[0])]),
            cost=lambda x, u, *, unit=unit: unit * (x @ x + m.exp(0.1 * u[0]) + u @ u),
            terminal_cost=lambda x, *, unit=unit: unit * m.exp(x[0] + x[1]),
            x0=[1.5, 0.3],
            horizon=20,
            control_size=2,
        )
        solver = DDP(engine="numpy", scaling=False, gradient_tolerance=1e-300, cost_tolerance=1e-300)
        solution = solver.solve(problem)
        assert solution.status is Status.STALLED
        last = solution.history[-11:]
        assert all((line.step_size, line.regularization) == (1.0, 0.0) for line in last)
        assert solution.iterations < 30


# ----------------------------------------------------------------------------------------------- any options
@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_loops_go_the_same_way(name: str) -> None:
    problem = PROBLEMS[name]()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        solver, guess = random_solver(rng), random_guess(rng, problem)
        reference = replace(solver, engine="numpy").solve(problem, **guess)
        assert_same_way(replace(solver, engine="c").solve(problem, **guess), reference)
