"""The constrained tasks: IPOPT's optimum from the task's own guess, known optima, and constraints that matter."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ocpkit import IPOPT, Constraint, GradientDescent, Problem, Solution, Status, models, registry
from ocpkit.autodiff.differentiable import with_parameters
from ocpkit.models.aircraft_climb import climb_rate
from ocpkit.models.hager import optimal_cost
from ocpkit.models.minimum_time import least_time
from ocpkit.models.van_der_pol import rates

Array = Any
BOUNDED = ["cartpole-bounded", "acrobot-bounded", "car-parking-bounded", "hager"]
NAMES = [name for name in models.names() if models.get(name).solver != "ddp" or name in BOUNDED]
every_constrained_task = pytest.mark.parametrize("name", NAMES)
COARSE = {"car-parking-bounded": {"horizon": 100, "time_step": 0.15}}
"""The parking car takes long at full size, and has many optima there."""


@cache
def built(name: str) -> Problem:
    return models.get(name).build(**COARSE.get(name, {}))


@cache
def solved(name: str, **arguments: Any) -> Solution:
    problem = models.get(name).build(**arguments) if arguments else built(name)
    return IPOPT(max_iterations=500).solve(problem)


def excess(constraint: Constraint, *arguments: Array) -> Array:
    """Distance beyond the nearer bound of each row: 0 on it, negative within."""
    value = with_parameters(constraint.function, len(arguments), constraint.name)(*arguments)
    return np.atleast_1d(np.maximum(value - constraint.upper, constraint.lower - value))


def excesses(problem: Problem, states: Array, controls: Array) -> dict[str, Array]:
    """What each constraint and control bound of the problem leaves, along a trajectory."""
    found: dict[str, list[Array]] = {}
    for t, stage in enumerate(problem.stages):
        u = controls[t]
        found.setdefault("controls", []).append(np.maximum(u - stage.control_upper, stage.control_lower - u))
        for constraint in stage.constraints:
            at_t = (states[t], u, problem.parameter(t))
            found.setdefault(constraint.name, []).append(excess(constraint, *at_t))
    for constraint in problem.terminal_constraints:
        at_end = (states[-1], problem.parameter(problem.horizon))
        found.setdefault(constraint.name, []).append(excess(constraint, *at_end))
    return {name: np.concatenate(rows) for name, rows in found.items() if np.isfinite(np.concatenate(rows)).any()}


@cache
def by_default(name: str) -> Solution:
    """Solve by the solver that the task names."""
    return registry.make(models.get(name).solver).solve(built(name))


def without_limits(problem: Problem) -> Problem:
    free = {"control_lower": -np.inf, "control_upper": np.inf, "constraints": ()}
    stages = {id(stage): replace(stage, **free) for stage in problem.stages}
    return problem.replace(stages=tuple(stages[id(stage)] for stage in problem.stages), terminal_constraints=())


@pytest.mark.slow
@every_constrained_task
def test_the_optimum_is_found_and_obeys_the_limits(name):
    problem, solution = built(name), solved(name)
    assert solution.status is Status.CONVERGED
    cost = problem.rollout(solution.controls)[1]
    assert cost == pytest.approx(solution.cost, rel=1e-5, abs=1e-8)
    worst = {kind: rows.max() for kind, rows in excesses(problem, solution.states, solution.controls).items()}
    assert max(worst.values()) <= 1e-7, worst


@pytest.mark.slow
@every_constrained_task
def test_the_default_solver_finds_the_same_optimum(name):
    problem, solution = built(name), by_default(name)
    assert solution.status is Status.CONVERGED
    best = solved(name).cost
    if name in COARSE:  # of many: if it is a better one, IPOPT does not leave it
        assert solution.cost <= best * (1 + 1e-6)
        best = IPOPT().solve(problem, solution).cost
    assert solution.cost == pytest.approx(best, rel=1e-6)
    assert max(rows.max() for rows in excesses(problem, solution.states, solution.controls).values()) <= 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_alone_need_no_augmented_lagrangian(name):
    """Exactly inside the bounds, and the same optimum and multipliers by either way."""
    problem, solution = built(name), by_default(name)
    other = registry.make("al").solve(problem)
    assert solution.cost == pytest.approx(other.cost, rel=1e-7)
    assert max(rows.max() for rows in excesses(problem, solution.states, solution.controls).values()) <= 0
    ours, theirs = (np.concatenate(s.multipliers) for s in (solution, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-2 * np.abs(theirs).max())


@every_constrained_task
def test_every_kind_of_limit_is_reached(name):
    """A limit that no optimum touches would not belong in the task."""
    problem, solution = built(name), solved(name)
    nearest = {kind: rows.max() for kind, rows in excesses(problem, solution.states, solution.controls).items()}
    assert min(nearest.values()) >= -1e-4, nearest


@every_constrained_task
def test_without_the_limits_another_trajectory_is_better(name):
    """The optimum is no stationary point of the same task without its limits, so they have multipliers."""
    free = without_limits(built(name))
    steepest = GradientDescent(max_iterations=0).solve(free, controls=solved(name).controls)
    assert steepest.history[0].gradient_norm > 1e-4


# ------------------------------------------------------------------------------------------- bounds on the controls
def test_parking_bounds_are_those_of_the_source():
    stage = models.get("car-parking-bounded").build().stages[0]
    np.testing.assert_array_equal([stage.control_lower, stage.control_upper], [[-0.5, -2.0], [0.5, 2.0]])


@pytest.mark.parametrize(
    ("name", "end", "tolerance"),
    [
        ("cartpole-bounded", [0.0, np.pi, 0.0, 0.0], 0.02),
        ("acrobot-bounded", [np.pi, 0.0, 0.0, 0.0], 0.04),
        ("car-parking-bounded", [0.0, 0.0, 0.0, 0.0], 0.1),
        ("unicycle-obstacles", [4.0, 1.0, 0.0], 0.03),
    ],
)
def test_the_goal_is_reached_within_the_limits(name, end, tolerance):
    np.testing.assert_allclose(solved(name).states[-1], end, atol=tolerance)


@pytest.mark.slow
def test_the_car_of_the_source_parks():
    """At full size, where solvers end in different optima; all of them beat the car that stays where it is."""
    problem = models.get("car-parking-bounded").build()
    solution = registry.make("ddp").solve(problem)
    assert solution.status is Status.CONVERGED
    np.testing.assert_allclose(solution.states[-1], 0.0, atol=0.1)
    assert solution.cost < problem.rollout(np.zeros((problem.horizon, 2)))[1] / 2


# ---------------------------------------------------------------------------------------------------- known optima
def bryson_denham(wall: float) -> float:
    return 4 / (9 * wall) if wall <= 1 / 6 else 2 + 6 * max(1 - 4 * wall, 0.0) ** 2


# task, arguments (without horizon), seconds, J* of the continuous problem
KNOWN = [
    *(("bryson-denham", {"wall": wall}, 1.0, bryson_denham(wall)) for wall in (1 / 12, 1 / 9, 1 / 6, 0.2, 0.3)),
    ("hager", {}, 1.0, optimal_cost()),
    ("van-der-pol", {"slowest": -10.0}, 5.0, 2.8672595),
    ("rayleigh", {"voltage_limit": np.inf, "to_rest": False}, 2.5, 29.3760797),
    ("rayleigh", {}, 4.5, 44.7209),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "seconds", "optimum"), KNOWN)
def test_the_known_optimum_is_approached_as_the_steps_shrink(name, arguments, seconds, optimum):
    costs = [solved(name, horizon=steps, time_step=seconds / steps, **arguments).cost for steps in (50, 200)]
    coarse, fine = (abs(cost - optimum) / optimum for cost in costs)
    assert coarse < 2e-3
    assert fine < max(coarse / 3, 3e-5)  # held controls: second order, down to the digits of the published value


def test_hager_runs_at_the_limit_and_then_as_proved():
    controls = solved("hager").controls[:, 0]
    middle = (np.arange(50) + 0.5) / 50
    known = np.where(middle < 0.5, 1.0, (np.exp(middle) - np.exp(2 - middle)) / (np.sqrt(np.e) * (1 - np.e)))
    np.testing.assert_allclose(controls, known, atol=1e-3)


def test_bryson_denham_rests_on_the_wall_from_3l_to_1_minus_3l():
    touching = np.flatnonzero(solved("bryson-denham").states[:, 0] > 1 / 9 - 1e-6) / 50
    assert touching.min() == pytest.approx(1 / 3, abs=0.02)
    assert touching.max() == pytest.approx(2 / 3, abs=0.02)


def test_the_cost_of_a_stage_is_the_integral_along_it():
    stage = models.get("van-der-pol").build(time_step=0.02).stages[0]
    x, u, p = np.array([0.3, -0.8]), np.array([0.5]), np.zeros(0)

    def extended(_: float, y: Array) -> Array:
        return np.array([*rates(y[:2], u), y[0] ** 2 + y[1] ** 2 + u[0] ** 2])

    exact = solve_ivp(extended, (0.0, 0.02), [*x, 0.0], rtol=1e-12, atol=1e-14).y[:, -1]
    np.testing.assert_allclose([*stage.dynamics.step(x, u, p), stage.cost.value(x, u, p)], exact, rtol=1e-8)


@pytest.mark.parametrize(("distance", "limit"), [(1.0, 1.0), (4.0, 0.5)])
def test_minimum_time_is_full_force_forward_then_backward(distance, limit):
    solution = solved("minimum-time", distance=distance, acceleration_limit=limit)
    assert solution.cost == pytest.approx(least_time(distance, limit), rel=1e-6)
    pushes = np.array([u[0] for u in solution.controls])
    np.testing.assert_allclose(pushes, np.repeat([limit, -limit], 20), atol=1e-4)


def test_goddard_burns_then_trades_drag_for_gravity_then_coasts():
    """On the singular arc D (1 + v/c) = m g, which follows from Pontryagin's principle and is not in the model."""
    solution = solved("goddard")
    assert -solution.cost == pytest.approx(1.01283, abs=1e-5)
    thrust = np.array([u[0] for u in solution.controls])
    height, velocity, mass, duration = np.array(solution.states[1:]).T
    assert thrust[:10] == pytest.approx(3.5, abs=1e-3)
    assert thrust[40:] == pytest.approx(0.0, abs=1e-3)
    drag = 310 * velocity**2 * np.exp(-500 * (height - 1))
    balance = drag * (1 + velocity / 0.5) * height**2 / mass
    np.testing.assert_allclose(balance[15:33], 1.0, rtol=0.02)
    assert np.ptp(duration) < 1e-8


# ------------------------------------------------------------------------------------------- what limits bring about
def test_the_quadrotor_rolls_only_for_the_gate():
    passing = solved("quadrotor-gate").states[50]
    level = IPOPT().solve(without_limits(models.get("quadrotor-gate").build())).states[50]
    assert abs(level[3]) < 0.1 < 0.5 < passing[3]


def test_the_climb_is_as_steep_as_allowed_most_of_the_way():
    states = solved("aircraft-climb").states
    assert (climb_rate(states.T) > 30 - 1e-4).sum() > len(states) / 3
    np.testing.assert_allclose(states[-1, 3], 400.0, atol=5.0)


def test_consumption_obeys_eulers_equation_where_something_is_saved():
    problem, solution = models.get("life-cycle").build(), solved("life-cycle")
    consumed, assets = np.exp(solution.controls[:, 0]), solution.states[:, 0]
    growth, euler, saving = consumed[1:] / consumed[:-1], (0.96 * 1.03) ** 0.5, assets[1:-1] > 1e-4
    np.testing.assert_allclose(growth[saving], euler, rtol=1e-5)
    assert (growth[~saving] > euler + 1e-3).all()
    assert 10 < (~saving).sum() < 30
    np.testing.assert_allclose(consumed[:20], problem.parameters[:20, 1], rtol=1e-5)
    assert assets[-1] == pytest.approx(0.0, abs=1e-5)
