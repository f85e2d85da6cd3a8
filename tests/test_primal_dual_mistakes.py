"""The primal-dual interior point where something is wrong: infeasible or dependent rows, torn models, interrupts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import declare, no_minimum
from random_problems import random_problem
from scipy.optimize import linprog
from test_constrained import CASES as CONSTRAINED
from test_constrained import swing
from test_primal_dual import REST, assert_is_a_point, excess_of_controls, upside_down_quadrotor

import ocpkit.math as m
from ocpkit import DDP, IPOPT, Constraint, Iteration, PrimalDual, Problem, ProblemError, Solution, Status
from ocpkit.solvers.primal_dual.program import Program

Array = Any


# ------------------------------------------------------------------------------------------- infeasible
def trolley(row: Constraint, **changes: Any) -> Problem:
    """One second at |u| ≤ 1 N/kg."""
    A, b = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([0.005, 0.1])
    declaration: dict[str, Any] = {
        "dynamics": lambda x, u: A @ x + b * u[0],
        "cost": lambda x, u: 0.1 * u[0] ** 2,
        "terminal_cost": lambda x: 0.1 * x[0] ** 2,
        "x0": [0.0, 0.0],
        "horizon": 10,
        "control_size": 1,
        "control_bounds": (-1, 1),
        "terminal_constraints": (row,),
    }
    return Problem.from_functions(**(declaration | changes))


def least_violation(problem: Problem, solution: Solution) -> tuple[float, float]:
    """Σ |gaps| + Σ violations of a linear problem in its natural units: at the solution, and the least by an LP."""
    program = Program(problem, solution.scaling)
    w = program.join(solution.states, solution.controls) / program.unit
    values = program.values(w)
    low, high = program.row_lower, program.row_upper
    found = np.abs(values.gaps).sum() + np.maximum(np.maximum(low - values.rows, values.rows - high), 0).sum()
    blocks, layout = program.derivatives(w, 0 * values.gaps, 0 * values.rows), program.layout
    J = np.zeros((len(values.gaps) + len(values.rows), len(w)))
    for t, z in enumerate(layout.z):
        if t < layout.horizon:
            J[layout.gap[t], z] = blocks.dynamics_of[t]
            J[layout.gap[t], layout.x[t + 1]] = -np.eye(layout.states[t + 1])
        J[len(values.gaps) + np.arange(layout.row[t].start, layout.row[t].stop), z] = blocks.rows_of[t]
    c = np.concatenate([values.gaps, values.rows]) - J @ w
    lower = np.concatenate([0 * values.gaps, low]) - c
    upper = np.concatenate([0 * values.gaps, high]) - c
    one, above, below = np.eye(len(c)), np.isfinite(upper), np.isfinite(lower)
    A = np.block([[J[above], -one[above]], [-J[below], -one[below]]])
    bounds = [*zip(program.lower, program.upper), *[(0, None)] * len(c)]
    for i in range(layout.states[0]):
        bounds[i] = (w[i], w[i])
    price = np.concatenate([np.zeros(len(w)), np.ones(len(c))])
    answer = linprog(price, A, np.concatenate([upper[above], -lower[below]]), bounds=bounds)
    assert answer.success
    return float(found), float(answer.fun)


FAR = {
    "far": Constraint(lambda x: x[0], 5.0, 6.0, "far"),
    "fast and far": Constraint(lambda x: x, [0.4, 3.0], [0.4, np.inf], "both"),
    "not where it began": Constraint(lambda x: m.stack([x[0], x[0]]), [0.3, -1.0], [1.0, 0.1], "torn"),
}


@pytest.mark.parametrize("name", FAR)
def test_what_is_called_infeasible_violates_the_rows_least(name: str) -> None:
    problem = trolley(FAR[name])
    solution = PrimalDual().solve(problem)
    assert solution.status is Status.INFEASIBLE
    worst = solution.details.violation
    assert worst.row.partition("[")[0] == FAR[name].name
    assert worst.end
    found, least = least_violation(problem, solution)
    assert found == pytest.approx(least, rel=1e-2)
    g = np.atleast_1d(FAR[name].function(solution.states[-1]))
    assert worst.amount == pytest.approx(np.maximum(FAR[name].lower - g, g - FAR[name].upper).max(), rel=1e-6)


def test_contradictory_rows_are_named_with_their_stage() -> None:
    above = Constraint(lambda x, u: u[0], 0.5, 2.0, "above")
    below = Constraint(lambda x, u: u[0], -2.0, -0.5, "below")
    first = trolley(above, terminal_constraints=(), constraints=(above,))
    both = trolley(above, terminal_constraints=(), constraints=(above, below))
    problem = first.replace(stages=(first.stages[0],) * 4 + (both.stages[0],) + (first.stages[0],) * 5)
    solution = PrimalDual().solve(problem)
    assert solution.status is Status.INFEASIBLE
    worst = solution.details.violation
    assert (worst.stage, worst.row) in ((4, "above"), (4, "below"))
    found, least = least_violation(problem, solution)
    assert found == pytest.approx(least, rel=1e-2)


@pytest.mark.parametrize("start", [-1.0, 0.3, 1.0])
def test_rows_without_a_gradient_where_they_hold_are_not_called_infeasible(start: float) -> None:
    square = Constraint(lambda x: m.dot(x, x), 0.0, 0.0, "|x|²")
    problem = trolley(square, control_bounds=(-9, 9), x0=[0.1, 0.0], controls=[start])
    solution = PrimalDual(max_iterations=60).solve(problem)
    assert solution.status is not Status.INFEASIBLE
    assert solution.history[-1].violation < 1e-3


@pytest.mark.parametrize("name", ["once more", "a multiple", "along the way", "of nothing"])
def test_rows_that_depend_on_each_other(name: str) -> None:
    """The optimum is that of one of them."""
    end = {"terminal_constraints": (REST,)}
    spring = Constraint(lambda x, u: u[0] - 2 * x[0], 0.0, 0.0, "spring")
    torn: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "once more": (end, {"terminal_constraints": (REST, Constraint(lambda x: x, 0.0, 0.0, "again"))}),
        "a multiple": (end, {"terminal_constraints": (REST, Constraint(lambda x: x[0] - 3 * x[1], 0.0, 0.0, "sum"))}),
        "along the way": ({"constraints": (spring,)}, {"constraints": (
            spring, Constraint(lambda x, u: 4 * x[0] - 2 * u[0], 0.0, 0.0, "twice"))}),
        "of nothing": ({}, {"constraints": (Constraint(lambda x, u: 0 * u[0], 0.0, 0.0, "nothing"),)}),
    }  # fmt: skip
    once, twice = (PrimalDual().solve(swing(**changes)) for changes in torn[name])
    assert once.success
    assert twice.success, str(twice)
    assert twice.cost == pytest.approx(once.cost, rel=1e-7)
    assert twice.iterations <= once.iterations + 3


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-6])
def test_controls_that_cannot_move(gap: float) -> None:
    problem = swing(control_bounds=(0.3, 0.3 + gap))
    solution = PrimalDual().solve(problem)
    assert solution.success, str(solution)
    assert excess_of_controls(problem, solution) <= 0
    assert solution.cost == pytest.approx(problem.rollout(np.full((20, 1), 0.3))[1], rel=1e-5)
    assert_is_a_point(problem, solution)


def test_one_control_that_cannot_move_beside_one_that_can() -> None:
    """Also where it keeps the end from being reached; beside it all is as if it were a number of the model."""
    problem = trolley(REST, control_bounds=(-9, 9), x0=[1.0, 0.0])
    A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.005, 0.002], [0.1, 0.3]])
    two = Problem.from_functions(
        dynamics=lambda x, u: A @ x + B @ u,
        cost=lambda x, u: 0.1 * u[0] ** 2 + u[1] ** 2,
        terminal_cost=lambda x: 0.1 * x[0] ** 2,
        x0=problem.x0,
        horizon=10,
        control_size=2,
        control_bounds=([-9, 0.0], [9, 0.0]),
        terminal_constraints=(REST,),
    )
    solution, reference = PrimalDual().solve(two), PrimalDual().solve(problem)
    assert solution.success
    assert solution.cost == pytest.approx(reference.cost, rel=1e-9)
    assert (solution.controls[:, 1] == 0).all()
    assert_is_a_point(two, solution)
    far = two.replace(terminal_constraints=(Constraint(lambda x: x[0], 50.0, 60.0, "far"),))
    assert PrimalDual().solve(far).status is Status.INFEASIBLE


def test_rows_without_bounds_cost_nothing() -> None:
    free = swing(constraints=(Constraint(lambda x, u: m.stack([x[0], u[0]]), -np.inf, np.inf, "free"),))
    solution = PrimalDual().solve(free)
    assert solution.success, str(solution)
    assert solution.cost == pytest.approx(DDP().solve(swing()).cost, rel=1e-8)


# --------------------------------------------------------------------------------------------- bad input
TORN: dict[str, Callable[[], Problem]] = {
    "√ of what controls make negative": lambda: swing(
        cost=lambda x, u: 0.05 * (m.sqrt(1.2 - x[0]) + 0.1 * u[0] ** 2), controls=[0.5]
    ),
    "a logarithm that is near": lambda: swing(
        cost=lambda x, u: 0.05 * (x[0] ** 2 - 0.1 * m.log(1.05 - x[0]) + 0.001 * u[0] ** 2)
    ),
    "dynamics that are not there": lambda: swing(
        dynamics=lambda x, u: m.stack([x[0] + 0.05 * x[1], x[1] + 0.05 * u[0] * m.sqrt(1.5 - x[1] ** 2)])
    ),
    "a row": lambda: swing(constraints=(Constraint(lambda x, u: m.log(2.0 + u[0]), -np.inf, 1.0, "log"),)),
}


@pytest.mark.parametrize("name", TORN)
def test_a_model_that_is_no_number_at_trial_points(name: str) -> None:
    problem = TORN[name]()
    solution, reference = PrimalDual().solve(problem), IPOPT().solve(problem)
    assert solution.success, str(solution)
    assert np.isfinite(solution.cost)
    assert solution.cost <= reference.cost * (1 + 1e-6)


def test_a_model_that_is_no_number_at_the_guess() -> None:
    solution = PrimalDual().solve(swing(cost=lambda x, u: m.sqrt(u[0] - 1) + u[0] ** 2))
    assert solution.status is Status.INVALID_INPUT
    with pytest.raises(ProblemError, match="not finite"):
        PrimalDual().solve(swing(), controls=np.full((20, 1), np.nan))
    with pytest.raises(ProblemError, match="not finite"):
        PrimalDual().solve(swing(), states=np.full((21, 2), np.nan))


def test_a_guess_of_another_horizon_is_refused() -> None:
    problem = swing(terminal_constraints=(REST,))
    with pytest.raises(ProblemError, match="horizon"):
        PrimalDual().solve(problem, PrimalDual().solve(swing(horizon=10)))


def test_no_minimum() -> None:
    for problem in (no_minimum(), declare(cost=lambda x, u: u[0], terminal_cost=lambda x: 0 * x[0])):
        solution = PrimalDual().solve(problem)
        assert solution.status is Status.DIVERGED
        assert np.isfinite(solution.cost)


def test_a_start_that_breaks_a_row() -> None:
    solution = PrimalDual().solve(swing(constraints=(Constraint(lambda x, u: x[0], -0.5, 0.5, "angle"),)))
    assert solution.status is Status.INFEASIBLE
    assert (solution.details.reason.row, solution.details.reason.stage) == ("angle", 0)
    assert solution.details.reason.amount == pytest.approx(0.5)


@pytest.mark.parametrize("last", [0, 1, 5, 20])
def test_an_interrupt_in_any_iteration_leaves_a_solution(last: int) -> None:
    """Also in a restoration."""

    def interrupt(line: Iteration) -> None:
        if line.index == last:
            raise KeyboardInterrupt

    for problem in (CONSTRAINED["curved obstacle"](), trolley(FAR["far"])):
        solution = PrimalDual().solve(problem, callback=interrupt)
        assert solution.status in (Status.INTERRUPTED, Status.INFEASIBLE)
        assert solution.iterations <= last
        assert np.isfinite(solution.cost)
        assert excess_of_controls(problem, solution) <= 0


@pytest.mark.parametrize("limit", [1e-9, 0.01])
def test_a_time_limit(limit: float) -> None:
    """Of one iteration at most; what is there is a point inside the bounds."""
    problem = upside_down_quadrotor(0)
    solution = PrimalDual(time_limit=limit).solve(problem)
    assert solution.status is Status.TIME_LIMIT
    assert excess_of_controls(problem, solution) <= 0


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_problems_end_in_a_status(seed: int) -> None:
    problem = random_problem(seed)
    solution = PrimalDual(max_iterations=40).solve(problem)
    assert isinstance(solution.status, Status)
    assert excess_of_controls(problem, solution) <= 0
    if solution.success:
        assert_is_a_point(problem, solution)
