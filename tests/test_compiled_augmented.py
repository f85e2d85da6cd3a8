"""Augmented Lagrangian and interior point in C take the outer iterations of those in Python, wherever they end."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from floors import Floor
from random_problems import random_problem
from test_constrained import CASES, bryson_denham, swing

from ocpkit import (
    DDP,
    ILQR,
    AugmentedLagrangian,
    Barrier,
    Constraint,
    Damping,
    InteriorPoint,
    Penalty,
    Problem,
    Solution,
    Status,
    models,
)

PYTHON = AugmentedLagrangian(inner=DDP(max_iterations=300, engine="numpy"))
COMPILED = AugmentedLagrangian(inner=DDP(max_iterations=300, engine="c"))
GRAPHS = AugmentedLagrangian(inner=DDP(max_iterations=300, engine="vm"))
INSIDE, INSIDE_COMPILED = (InteriorPoint(inner=each.inner) for each in (PYTHON, COMPILED))
SLOW = {"quadrotor-gate"}
SMOOTH = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in models.names()
    if models.get(name).solver == "auto" and name != "goddard"  # whose exponentials need the interior
]
SINGULAR = {"minimum-time"}
"""Between two free controls Q_uu = 0: its sign is rounding, ±1e-16, and decides about the damping. On the virtual
machine the outer iteration in Python has the same expressions as C, and the same rounding of them."""


def assert_equal(ours: Solution, expected: Solution) -> None:
    """The same outer iterations to rounding, the same trajectory, policy and multipliers, the same words."""
    assert ours.details.engine == "c"
    assert ours.status is expected.status
    assert ours.details.inner_iterations == expected.details.inner_iterations
    assert ours.details.reason == expected.details.reason
    mine, worst = ours.details.violation, expected.details.violation
    assert replace(mine, amount=worst.amount) == worst or expected.history[-1].violation < 1e-8
    scale = 1 + max(abs(line.cost) for line in expected.history)
    for line, other in zip(ours.history, expected.history, strict=True):
        assert (line.index, line.penalty, line.barrier) == (other.index, other.penalty, other.barrier)
        assert (line.inner_iterations, line.step_size) == (other.inner_iterations, other.step_size)
        assert line.cost == pytest.approx(other.cost, abs=1e-7 * scale)
        assert line.violation == pytest.approx(other.violation, rel=1e-5, abs=1e-9)
    for name in ("states", "controls", "multipliers"):
        a, b = (np.concatenate([np.atleast_1d(v) for v in getattr(s, name)]) for s in (ours, expected))
        np.testing.assert_allclose(a, b, atol=1e-6 * (1 + np.abs(b).max()))
    gains, others = (np.concatenate([K.ravel() for K in s.feedback_gains]) for s in (ours, expected))
    np.testing.assert_allclose(gains, others, atol=1e-5 * (1 + np.abs(others).max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_every_constrained_task(name: str) -> None:
    problem = models.get(name).build()
    assert_equal(COMPILED.solve(problem), (GRAPHS if name in SINGULAR else PYTHON).solve(problem))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "declaration"), [("goddard", {"horizon": 30}), ("minimum-time", {})])
def test_damped_solves_reach_the_same_optimum(name: str, declaration: dict[str, Any]) -> None:
    problem = models.get(name).build(**declaration)
    ours, expected = COMPILED.solve(problem), PYTHON.solve(problem)
    assert ours.success
    assert ours.cost == pytest.approx(expected.cost, rel=1e-9)
    assert ours.history[-1].violation <= 1e-8


@pytest.mark.parametrize("name", sorted(SINGULAR))
def test_the_first_outer_iteration_of_singular_tasks(name: str) -> None:
    problem = models.get(name).build()
    assert_equal(*(replace(solver, max_iterations=1).solve(problem) for solver in (COMPILED, PYTHON)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixed", "curved obstacle", "parameters at each stage", "stages that differ"])
def test_small_problems(name: str) -> None:
    problem = CASES[name]()
    assert_equal(COMPILED.solve(problem), PYTHON.solve(problem))
    assert_equal(INSIDE_COMPILED.solve(problem), INSIDE.solve(problem))


@pytest.mark.slow
def test_random_problems() -> None:
    """Feasible or not, with every kind of row."""
    converged = Floor()
    for seed in range(6):
        problem = random_problem(seed)
        ours, expected = COMPILED.solve(problem), PYTHON.solve(problem)
        assert ours.status is expected.status, seed
        if converged.when(expected.success):
            assert_equal(ours, expected)
    converged.check(4)


def test_residuals_by_gauss_newton() -> None:
    problem = CASES["residuals"]()
    ours, expected = (
        AugmentedLagrangian(inner=ILQR(max_iterations=300, engine=engine)).solve(problem) for engine in ("c", "numpy")
    )
    assert_equal(ours, expected)


def test_a_guess_of_states_is_taken() -> None:
    """Not a rollout: the controls alone would leave this unstable system far away."""
    problem = bryson_denham(0.1, horizon=20)
    states = np.linspace([0.0, 1.0], [0.0, -1.0], 21)
    ours, expected = COMPILED.solve(problem, states=states), PYTHON.solve(problem, states=states)
    assert_equal(ours, expected)
    assert ours.history[1].cost != COMPILED.solve(problem).history[1].cost


def test_a_warm_start_brings_its_multipliers() -> None:
    problem = bryson_denham(0.1, horizon=20)
    solved = PYTHON.solve(problem)
    ours, expected = COMPILED.solve(problem, solved), PYTHON.solve(problem, solved)
    assert_equal(ours, expected)
    assert ours.details.inner_iterations < COMPILED.solve(problem).details.inner_iterations


INFEASIBLE: dict[str, Any] = {
    "the end is out of reach": {
        "control_bounds": (-1, 1),
        "terminal_constraints": (Constraint(lambda x: x, 9.0, 9.0, "too far"),),
    },
    "rows contradict each other": {
        "constraints": (
            Constraint(lambda x, u: u[0], 1.0, 2.0, "push"),
            Constraint(lambda x, u: u[0], -2.0, -1.0, "pull"),
        )
    },
    "x0 breaks a row": {"constraints": (Constraint(lambda x, u: x[0], -1.0, -0.5, "rail"),)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", INFEASIBLE)
def test_infeasible_problems_are_named_alike(name: str) -> None:
    problem = swing(**INFEASIBLE[name])
    ours, expected = COMPILED.solve(problem), PYTHON.solve(problem)
    assert ours.status is expected.status is Status.INFEASIBLE
    assert ours.iterations == expected.iterations
    assert ours.details.reason == expected.details.reason
    assert str(ours.details.violation) == str(expected.details.violation)  # to the digits that are printed


def blowing_up() -> Problem:
    """Without a large penalty the state runs to where exp overflows."""
    return Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: -1e3 * x[0] ** 3 + 1e-3 * u[0] ** 2,
        terminal_cost=lambda x: 0 * x[0],
        x0=[0.1],
        horizon=3,
        control_size=1,
        constraints=(Constraint(lambda x, u: x[0], -1.0, 1.0, "range"),),
        terminal_constraints=(Constraint(lambda x: x[0], -1.0, 1.0, "range"),),
    )


@pytest.mark.slow
def test_inner_solves_that_fail_raise_the_penalty() -> None:
    problem = blowing_up()
    ours, expected = COMPILED.solve(problem), PYTHON.solve(problem)
    assert ours.status is expected.status
    assert [line.penalty for line in ours.history] == [line.penalty for line in expected.history]
    assert ours.cost == pytest.approx(expected.cost, rel=1e-6)


@pytest.mark.slow
def test_it_stops_when_told_to() -> None:
    problem = models.get("goddard").build()
    stopped = COMPILED.solve(problem, callback=lambda line: line.index < 2)
    assert (stopped.status, stopped.iterations) == (Status.STOPPED, 2)
    late = replace(COMPILED, time_limit=1e-4).solve(problem)
    assert late.status is Status.TIME_LIMIT
    assert late.cost == pytest.approx(problem.cost(late.states, late.controls), rel=1e-12, nan_ok=True)
    assert replace(COMPILED, max_iterations=1).solve(problem).status is Status.ITERATION_LIMIT


# ------------------------------------------------------------------------------------------------ any options
def random_method(rng: np.random.Generator) -> AugmentedLagrangian | InteriorPoint:
    """Any options that both loops know; tolerances and limits loose enough for each of them to end a solve."""
    pick = lambda *values: values[rng.integers(len(values))]  # noqa: E731
    penalty = Penalty(
        initial=pick(1.0, 30.0, 1e3), maximum=pick(2e3, 1e9), factor=pick(3.0, 10.0), required_decrease=pick(0.1, 0.5)
    )
    inner = DDP(
        engine="numpy", second_order=pick(True, False), max_iterations=pick(2, 30, 30), damping=pick(None, Damping())
    )
    options: dict[str, Any] = {
        "inner": inner,
        "penalty": penalty,
        "gradient_tolerance": 10.0 ** rng.integers(-6, -1),
        "constraint_tolerance": 10.0 ** rng.integers(-7, -1),
        "first_tolerance": pick(1e-4, 1e-2, 1.0),
        "max_iterations": pick(2, 12, 12),
        "scaling": pick(True, True, False),
    }
    if rng.integers(3):
        return AugmentedLagrangian(**options)
    return InteriorPoint(barrier=Barrier(first=pick(1e-1, 1e-2), last=pick(1e-9, 1e-4), factor=0.1), **options)


def random_guess(rng: np.random.Generator, problem: Problem) -> dict[str, Any]:
    """Controls near zero and, one time in three, states that leave gaps."""
    controls = [0.3 * rng.standard_normal(n) for n in problem.control_sizes]
    if rng.integers(3):
        return {"controls": controls}
    return {"controls": controls, "states": [problem.x0, *(rng.standard_normal(n) for n in problem.state_sizes[1:])]}


def short(problem: Problem) -> Problem:
    """The first five stages."""
    p = problem.parameters
    return problem.replace(stages=problem.stages[:5], controls=(), parameters=p if p.ndim == 1 else p[:6])


SHORT: dict[str, Any] = {
    "mixed": CASES["mixed"],
    "obstacle": CASES["curved obstacle"],
    "parameters": CASES["parameters at each stage"],
    "too far": lambda: swing(**INFEASIBLE["the end is out of reach"]),
    "contradiction": lambda: swing(**INFEASIBLE["rows contradict each other"]),
}


def assert_same_way(ours: Solution, expected: Solution) -> None:
    """The decisions are the same, and the numbers up to what loose inner solves make of rounding."""
    assert ours.status is expected.status
    assert ours.details.inner_iterations == expected.details.inner_iterations
    assert ours.details.stationary_points_left == expected.details.stationary_points_left
    assert ours.warm_start is not None
    assert expected.warm_start is not None
    assert astuple(ours.warm_start) == pytest.approx(astuple(expected.warm_start), rel=1e-12)
    scale = 1 + max(abs(line.cost) for line in expected.history)
    for line, other in zip(ours.history, expected.history, strict=True):
        assert (line.inner_iterations, line.step_size) == (other.inner_iterations, other.step_size)
        for name in ("penalty", "barrier", "cost", "violation", "gradient_norm", "actual_decrease"):
            a, b = getattr(line, name), getattr(other, name)
            assert a == pytest.approx(b, rel=1e-3, abs=1e-6 * scale, nan_ok=True), (line.index, name)
    for name in ("states", "controls", "multipliers"):
        a, b = (np.concatenate([np.atleast_1d(v) for v in getattr(s, name)]) for s in (ours, expected))
        np.testing.assert_allclose(a, b, atol=1e-3 * (1 + np.abs(b).max()), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_the_outer_loops_go_the_same_way(name: str) -> None:
    """And so do solves that go on from their ends."""
    problem = short(SHORT[name]())
    for seed in range(1, 13):
        rng = np.random.default_rng(seed)
        method, guess = random_method(rng), random_guess(rng, problem)
        compiled = replace(method, inner=replace(method.inner, engine="c"))
        expected = method.solve(problem, **guess)
        assert_same_way(compiled.solve(problem, **guess), expected)
        if expected.success:
            moved = problem.replace(x0=problem.x0 + 0.05)
            assert_same_way(compiled.solve(moved, expected), method.solve(moved, expected))
