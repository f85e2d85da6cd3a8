"""Every public object goes through pickle and deepcopy, and does the same afterwards; in other processes too."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

import ocpkit.math as m
from ocpkit import (
    DDP,
    ILQG,
    MPC,
    AugmentedLagrangian,
    Constraint,
    KalmanFilter,
    LeastSquares,
    Problem,
    ProblemError,
    Sensitivity,
    Solution,
    check_derivatives,
    euler,
    implicit_trapezoid,
    models,
    registry,
    rk4,
    sample,
    simulate,
    solve_batch,
    with_free_parameters,
    without_noise,
)
from ocpkit.control.plan_feedback import PlanFeedback
from ocpkit.problem.integrate import discretize, rk4_rule
from ocpkit.recursion.curvature import Adam, Identity
from ocpkit.solvers.ddp.compiled import RunInC
from ocpkit.solvers.guess import Guess

Array = Any


# ------------------------------------------------------------------------------------------------ a problem with names
def rates(x: Array, u: Array, p: Array) -> Array:
    return m.stack([x[1], u[0] - p[0] * m.sin(x[0])])


def unforced(x: Array, u: Array) -> Array:
    return m.stack([x[1], u[0] - m.sin(x[0])])


def tick(p: Array) -> Array:
    return 0.05 * p[0]


def cost(x: Array, u: Array) -> Array:
    return 0.01 * u[0] ** 2


def miss(x: Array, p: Array) -> Array:
    return m.stack([4 * (x[0] - 3), 2 * x[1]])


def speed(x: Array, u: Array) -> Array:
    return x[1]


def noise(x: Array, u: Array) -> Array:
    return m.stack([m.stack([0.0 * x[0]]), m.stack([0.02 + 0.0 * x[0]])])


def seen(x: Array) -> Array:
    return m.stack([x[0]])


def build(dynamics: Any = None, **options: Any) -> Problem:
    declaration = {"dynamics": dynamics or rk4(rates, 0.05), "cost": cost, "terminal_cost": LeastSquares(miss)}
    declaration |= {"x0": [0.0, 0.0], "horizon": 20, "control_size": 1, "parameters": [1.0], "name": "named"}
    return Problem.from_functions(**(declaration | options))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "rk4": build,
    "rk4 without p": lambda: build(rk4(unforced, 0.05, substeps=2)),
    "rk4, time scaled": lambda: build(rk4(rates, tick)),
    "euler": lambda: build(euler(rates, 0.05)),
    "implicit trapezoid": lambda: build(implicit_trapezoid(rates, 0.05)),
    "a rule of one's own": lambda: build(discretize(rk4_rule, unforced, 0.05)),
    "black box": lambda: build(euler(unforced, 0.05), derivatives="central"),
    "bounds": lambda: build(control_bounds=(-2, 2)),
    "constraints": lambda: build(constraints=(Constraint(speed, -2, 2, "speed"),)),
    "noise": lambda: build(noise=noise),
    "free parameters": lambda: with_free_parameters(build(noise=noise), [0], lower=0.5, upper=2.0),
    "without noise": lambda: without_noise(build(noise=noise)),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
    "twice": lambda value: pickle.loads(pickle.dumps(copy.deepcopy(pickle.loads(pickle.dumps(value))))),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def solve(problem: Problem) -> Solution:
    if any(stage.noise is not None for stage in problem.stages):
        return ILQG(inner=DDP(engine="numpy"), max_iterations=3).solve(problem)
    if problem.terminal_constraints or any(stage.constraints for stage in problem.stages):
        return AugmentedLagrangian(inner=DDP(engine="numpy"), max_iterations=3).solve(problem)
    return DDP(engine="numpy", max_iterations=5).solve(problem)


def assert_same_solution(found: Solution, expected: Solution, rtol: float = 0.0) -> None:
    assert found.status is expected.status
    np.testing.assert_allclose(found.cost, expected.cost, rtol=rtol)
    for u, v in zip(found.controls, expected.controls, strict=True):
        np.testing.assert_allclose(u, v, rtol=rtol, atol=rtol)


@pytest.mark.slow
@ways
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_solves_to_the_same(name: str, way: Callable[[Any], Any]) -> None:
    problem = PROBLEMS[name]()
    assert_same_solution(solve(way(problem)), solve(problem))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted({*models.names()} - {"goddard"})
)  # which takes seconds to build, like minimum-time
def test_a_ready_task_solves_to_the_same(name: str) -> None:
    task = models.get(name)
    problem = task.build()
    assert pickle.loads(pickle.dumps(task)).build().horizon == problem.horizon
    for way in (WAYS["pickle"], WAYS["deepcopy"]):
        again = way(problem)
        states, J = again.rollout()
        expected, right = problem.rollout()
        np.testing.assert_array_equal(J, right)
        for x, y in zip(states, expected, strict=True):
            np.testing.assert_array_equal(x, y)
    changed = WAYS["pickle"](problem.replace(x0=problem.x0 + 0.01))  # in this process the call is remembered
    np.testing.assert_array_equal(changed.x0, problem.x0 + 0.01)


def test_options_of_a_task_are_kept() -> None:
    problem = models.get("pendulum").build(horizon=10, mass=3.0)
    again = WAYS["pickle"](problem)
    assert again.horizon == 10
    assert again.rollout()[1] == problem.rollout()[1] != models.get("pendulum").build(horizon=10).rollout()[1]


# ------------------------------------------------------------------------------------------------ everything else
def _everything() -> dict[str, Any]:
    problem, noisy = build(), build(noise=noise)
    solution = DDP(gradient_tolerance=1e-9).solve(problem)
    controller = MPC(problem, DDP(max_iterations=3))
    loop = simulate(controller, 3)
    estimator = KalmanFilter(without_noise(noisy), seen, 0.1, covariance=0.1)
    return {
        **{f"solver {name}": registry.make(name) for name in registry.names()},
        "solver with a curvature": DDP(curvature=Adam(0.1, memory={0: {"count": 3}}), line_search=None),
        "identity": Identity(0.1),
        "solution": solution,
        "mpc": controller,
        "plan feedback": PlanFeedback(problem, solution),
        "command": loop.commands[0],
        "closed loop": loop,
        "sensitivity": Sensitivity(problem, solution),
        "estimator": estimator,
        "solver with an estimator": ILQG(estimator=estimator),
        "batch": solve_batch(problem, x0=np.zeros((2, 2))),
        "sample": sample(noisy, lambda t, x: np.zeros(1), 2),
        "report": check_derivatives(problem),
        "stage": problem.stages[0],
        "dynamics": problem.stages[0].dynamics,
        "terminal cost": problem.terminal_cost,
        "constraint": Constraint(speed),
        "residuals": LeastSquares(miss),
        "step": rk4(rates, 0.05),
    }


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    return _everything()


@pytest.mark.parametrize("name", _everything())
@ways
def test_every_public_object_is_copied(name: str, way: Callable[[Any], Any], everything: dict[str, Any]) -> None:
    value = everything[name]
    again = way(value)
    assert type(again) is type(value)
    if is_dataclass(value):
        for field in fields(value):
            _assert_alike(getattr(again, field.name), getattr(value, field.name))


def _assert_alike(found: Any, expected: Any) -> None:
    """Numbers are equal, other things of one kind."""
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray) and expected.dtype != object:
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, (int, float, str)):
        np.testing.assert_equal(found, expected)


@ways
def test_copies_act_alike(way: Callable[[Any], Any], everything: dict[str, Any]) -> None:
    x = np.array([0.3, -0.1])
    for name in ("mpc", "plan feedback"):
        again = way(everything[name])
        np.testing.assert_allclose(again.step(x).control, copy.deepcopy(everything[name]).step(x).control, rtol=1e-9)
    changes = [way(everything["sensitivity"]).forward([1.0, 0.0]), everything["sensitivity"].forward([1.0, 0.0])]
    np.testing.assert_array_equal(changes[0][1], changes[1][1])
    estimates = [way(everything["estimator"]), everything["estimator"]]
    np.testing.assert_array_equal(*(each.update([0.2]) for each in estimates))
    for each in estimates:
        each.reset()


@ways
def test_a_copied_controller_goes_its_own_way(way: Callable[[Any], Any]) -> None:
    controller = MPC(build(), DDP(max_iterations=3))
    first = controller.step([0.0, 0.0])
    again = way(controller)
    controller.step([0.1, 0.0])
    assert (again.tick, controller.tick) == (1, 2)
    np.testing.assert_array_equal(again.plan.controls, first.plan.controls)


# ------------------------------------------------------------------------------------------------ what cannot be
LOCAL: dict[str, Callable[[], Any]] = {
    "cost": lambda: build(cost=lambda x, u: u[0] ** 2),
    "dynamics": lambda: build(lambda x, u: x + u),
    "rates": lambda: build(rk4(lambda x, u: m.stack([x[1], u[0]]), 0.05)),
    "time step": lambda: build(rk4(rates, lambda p: 0.05 * p[0])),
    "residuals": lambda: build(terminal_cost=LeastSquares(lambda x: x)),
    "constraint": lambda: build(constraints=(Constraint(lambda x, u: u[0]),)),
    "noise": lambda: build(noise=lambda x, u: noise(x, u)),
    "measurement": lambda: KalmanFilter(build(), lambda x: m.stack([x[0]]), 0.1),
    "free parameters": lambda: with_free_parameters(build(cost=lambda x, u: u[0] ** 2), [0]),
    "black box": lambda: build(euler(lambda x, u: m.stack([x[1], u[0]]), 0.05), derivatives="central"),
}


@pytest.mark.parametrize("name", LOCAL)
def test_a_function_without_a_name_is_named(name: str) -> None:
    value = LOCAL[name]()
    with pytest.raises(pickle.PicklingError, match=r"<lambda>.*test_pickle.*top level of a module") as raised:
        pickle.dumps(value)
    assert isinstance(raised.value, ProblemError)
    copy.deepcopy(value)


def test_a_solve_in_c_is_not_copied() -> None:
    """Its memory holds addresses."""
    problem = build()
    run = DDP(engine="c").begin(problem, Guess.choose(problem, None, None, None))
    assert isinstance(run, RunInC)
    for way in WAYS.values():
        with pytest.raises(ProblemError):
            way(run)


# ------------------------------------------------------------------------------------------------ processes
@pytest.mark.slow
@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & {*multiprocessing.get_all_start_methods()}))
def test_processes_solve_what_they_are_sent(method: str) -> None:
    problems = [PROBLEMS[name]() for name in ("rk4", "constraints", "noise", "free parameters")]
    problems += [models.get("pendulum").build(horizon=20), models.get("minimum-time").build(horizon=10)]
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = pool.map(solve, problems)
    for each, problem in zip(found, problems, strict=True):
        assert_same_solution(each, solve(problem), rtol=1e-12)
