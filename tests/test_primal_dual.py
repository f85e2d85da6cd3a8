"""The primal-dual interior point: IPOPT's optima, certificates of infeasibility, warm starts, and its policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import CASES
from random_problems import random_problem
from rescaling import Rescaling
from test_constrained import CASES as CONSTRAINED
from test_constrained import bryson_denham, kkt_residual
from test_unstable_chains import neighbors

import ocpkit.math as m
from benchmarks.suite import PROBLEMS, discretized
from ocpkit import (
    DDP,
    IPOPT,
    MPC,
    AugmentedLagrangian,
    Constraint,
    PrimalDual,
    Problem,
    Sensitivity,
    Solution,
    Status,
    models,
    rk4,
    shifted,
)
from ocpkit.problem.constraint_rows import problem_rows
from ocpkit.solution.complementarity import complementarity
from ocpkit.solvers.nlp.multiple_shooting import Program as NLP

Array = Any
FREE: dict[str, Callable[[], Problem]] = {case.name: case.problem for case in CASES if case.name != "black-box"}
TASKS: dict[str, Callable[[], Problem]] = {
    "bryson-denham": lambda: bryson_denham(0.1),
    "goddard": lambda: models.get("goddard").build(horizon=30),
    "minimum-time": lambda: models.get("minimum-time").build(),
    "life-cycle": lambda: models.get("life-cycle").build(),
    "van-der-pol": lambda: models.get("van-der-pol").build(),
    "unicycle-obstacles": lambda: models.get("unicycle-obstacles").build(),
}
SLOW = {"cart-pole", "bryson-denham", "goddard", "minimum-time", "life-cycle", "van-der-pol", "unicycle-obstacles"}
REST = Constraint(lambda x: x, 0.0, 0.0, "rest")


@cache
def solved(name: str) -> tuple[Problem, Solution]:
    problem = (FREE | CONSTRAINED | TASKS)[name]()
    return problem, PrimalDual().solve(problem)


def assert_is_a_point(problem: Problem, solution: Solution) -> None:
    """A KKT point: rows hold but for 1e-8 of their units, more or less, and bounds without that."""
    unit = max(1.0, float(np.concatenate([np.zeros(1), *solution.scaling.rows]).max()))
    nlp = NLP(problem)
    assert nlp.violation(nlp.join(solution.states, solution.controls)) <= 2e-8 * unit
    size = max(1.0, *(float(np.abs(y).max(initial=0.0)) for y in solution.multipliers))
    assert kkt_residual(problem, solution) <= 1e-6 * size
    assert complementarity(problem, solution) <= 1e-7 * size * unit
    assert excess_of_controls(problem, solution) <= 0


def excess_of_controls(problem: Problem, solution: Solution) -> float:
    """How far the controls are outside their bounds."""
    sides = [(np.asarray(stage.control_lower), np.asarray(stage.control_upper)) for stage in problem.stages]
    return max(float(np.maximum(low - u, u - high).max()) for (low, high), u in zip(sides, solution.controls))


# ----------------------------------------------------------------------------------------------- optima
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n
                                  for n in FREE | CONSTRAINED | TASKS])  # fmt: skip
def test_the_optimum_is_ipopts(name: str) -> None:
    problem, solution = solved(name)
    reference = IPOPT().solve(problem)
    assert reference.success
    assert solution.success, str(solution)
    assert solution.cost == pytest.approx(reference.cost, rel=1e-6)
    assert excess_of_controls(problem, solution) <= 0


@pytest.mark.parametrize("name", CONSTRAINED)
def test_multipliers_and_costates_make_a_kkt_point(name: str) -> None:
    """By the conditions of another program, in the user's units."""
    problem, solution = solved(name)
    size = max(1.0, *(float(np.abs(y).max(initial=0.0)) for y in solution.multipliers))
    assert kkt_residual(problem, solution) <= 1e-6 * size
    reference = AugmentedLagrangian().solve(problem)
    for ours, theirs in zip(solution.multipliers, reference.multipliers, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * size)


# --------------------------------------------------------------------------- named by what they are hard in
MASS, INERTIA, ARM, DRAG, GRAVITY = 1.2, (0.012, 0.013, 0.023), 0.22, 0.02, 9.81


def quadrotor_rates(x: Array, u: Array) -> Array:
    """x = position, attitude as a quaternion, velocity, body rates; u = four thrusts [N]."""
    w, i, j, k, a, b, c = x[3], x[4], x[5], x[6], x[10], x[11], x[12]
    lift = m.sum(u) / MASS
    turn = [-i * a - j * b - k * c, w * a + j * c - k * b, w * b - i * c + k * a, w * c + i * b - j * a]
    fall = [2 * lift * (i * k + w * j), 2 * lift * (j * k - w * i), lift * (w**2 - i**2 - j**2 + k**2) - GRAVITY]
    torque = ARM * (u[1] - u[3]), ARM * (u[2] - u[0]), DRAG * (u[0] - u[1] + u[2] - u[3])
    A, B, C = INERTIA
    spin = [(torque[0] + (B - C) * b * c) / A, (torque[1] + (C - A) * c * a) / B, (torque[2] + (A - B) * a * b) / C]
    return m.stack([x[7], x[8], x[9], *(0.5 * each for each in turn), *fall, *spin])


def upside_down_quadrotor(seed: int, T: int = 60, dt: float = 0.02) -> Problem:
    """Thrusts within bounds, a start 2.4 to 3 rad from upright, and x_0 at every stage as the guess."""
    rng = np.random.default_rng(seed)
    angle, axis = rng.uniform(2.4, 3.0), rng.normal(size=3)
    turn = [np.cos(angle / 2), *(np.sin(angle / 2) * axis / np.linalg.norm(axis))]
    x0 = np.concatenate([rng.uniform(-1, 1, 3), turn, np.zeros(6)])
    hover = MASS * GRAVITY / 4
    running, final = (np.repeat(each, (3, 1, 3, 3, 3)) for each in ((2, 0, 2, 0.2, 0.05), (100, 0, 200, 10, 5)))
    return Problem.from_functions(
        dynamics=rk4(quadrotor_rates, dt),
        cost=lambda x, u: dt * (m.dot(running * x, x) + 0.05 * m.sum((u - hover) ** 2)),
        terminal_cost=lambda x: m.dot(final * x, x),
        x0=x0,
        horizon=T,
        controls=[hover] * 4,
        control_bounds=(0.0, 6.0),
        states=np.tile(x0, (T + 1, 1)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_quadrotor_upside_down_from_a_guess_with_gaps(seed: int) -> None:
    problem = upside_down_quadrotor(seed)
    solution, reference = PrimalDual().solve(problem), IPOPT().solve(problem)
    assert solution.success
    assert reference.success
    assert solution.cost <= reference.cost * (1 + 1e-5)
    assert solution.iterations <= 1.6 * reference.iterations


def bounded_integrators(n: int = 3, T: int = 200, limit: float = 2.0) -> Problem:
    """ẋ_i = x_i / 2 + x_{i+1}, the last one driven by |u| ≤ limit: from x_0 it can just be brought to rest."""
    A = 0.5 * np.eye(n) + np.eye(n, k=1)
    b = np.eye(n)[-1]
    x0 = 0.1 * np.ones(n)
    return Problem.from_functions(
        dynamics=rk4(lambda x, u: A @ x + b * u[0], 0.05),
        cost=lambda x, u: 0.05 * (m.dot(x, x) + 0.01 * u[0] ** 2),
        terminal_cost=lambda x: 100 * m.dot(x, x),
        x0=x0,
        horizon=T,
        control_size=1,
        control_bounds=(-limit, limit),
        states=np.tile(x0, (T + 1, 1)),
    )


def cubic_chain(n: int = 3, T: int = 200) -> Problem:
    """ẋ = x + x³ + Σ neighbors + u, |u| ≤ 3.5: without control at infinity in less than a second."""
    L, x0 = neighbors(n), np.linspace(0.5, 1.0, n)
    return Problem.from_functions(
        dynamics=rk4(lambda x, u: x + x**3 + L @ x + u, 0.05),
        cost=lambda x, u: 0.025 * (m.dot(x, x) + 0.1 * m.dot(u, u)),
        terminal_cost=lambda x: 0.5 * m.dot(x, x),
        x0=x0,
        horizon=T,
        control_size=n,
        control_bounds=(-3.5, 3.5),
        states=np.tile(x0, (T + 1, 1)),
    )


@pytest.mark.parametrize("make", [bounded_integrators, pytest.param(cubic_chain, marks=pytest.mark.slow)])
def test_a_chain_of_three_bounded_unstable_integrators(make: Callable[[], Problem]) -> None:
    problem = make()
    solution, reference = PrimalDual().solve(problem), IPOPT().solve(problem)
    assert reference.success
    assert solution.success
    assert solution.cost == pytest.approx(reference.cost, rel=1e-6)
    assert solution.iterations <= 1.6 * reference.iterations
    held = np.abs(np.abs(solution.controls) - problem.stages[0].control_upper) < 1e-6
    assert held.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["free-flying-robot", "batch-temperature"])
def test_published_problems_that_others_fail_on(name: str) -> None:
    problem = discretized(PROBLEMS[name])
    solution, reference = PrimalDual().solve(problem), IPOPT().solve(problem)
    assert reference.success
    assert solution.success, str(solution)
    assert solution.cost <= reference.cost + 1e-6 * abs(reference.cost)
    assert solution.history[-1].violation <= 1e-8


@pytest.mark.slow
def test_random_problems_are_solved_as_often_as_by_ipopt() -> None:
    """And what is not is called infeasible, but for one restoration that ends short of its tolerance."""
    ours = theirs = gave_up = 0
    for seed in range(20):
        problem = random_problem(seed)
        solution = PrimalDual().solve(problem)
        assert solution.status in (Status.CONVERGED, Status.INFEASIBLE, Status.GAVE_UP), (seed, str(solution))
        gave_up += solution.status is Status.GAVE_UP
        if solution.success:
            assert_is_a_point(problem, solution)
        ours, theirs = ours + solution.success, theirs + IPOPT().solve(problem).success
    assert ours >= theirs
    assert gave_up <= 1


# ------------------------------------------------------------------------------------------ warm starts
@pytest.mark.parametrize("name", ["mixed", "state bound", "terminal equality", "curved obstacle", "bryson-denham"])
def test_a_warm_start_from_its_own_solution(name: str) -> None:
    problem, cold = solved(name)
    warm = PrimalDual().solve(problem, cold, states=cold.states)
    assert warm.success
    assert warm.iterations <= min(8, cold.iterations - 1)
    assert warm.cost == pytest.approx(cold.cost, rel=1e-7)


def test_an_optimum_is_recognized_where_it_is() -> None:
    """After the one step of a quadratic problem, and at a guess that is one."""
    problem, solution = solved("lqr-2-1-20")
    assert solution.iterations == 1
    assert PrimalDual().solve(problem, solution).iterations == 0
    assert solution.history[-1].gradient_norm <= 1e-8


def test_a_controller_goes_on_from_the_last_plan() -> None:
    problem, solver = CONSTRAINED["mixed"](), PrimalDual()
    controller, x, iterations = MPC(problem, solver), problem.x0, list[int]()
    for _ in range(4):
        plan = controller.step(x).plan
        assert plan is not None
        assert plan.success
        iterations.append(plan.iterations)
        x = plan.states[1]
    assert max(iterations[1:]) < iterations[0]


def test_a_warm_start_of_a_problem_nearby_and_of_the_next_tick() -> None:
    problem, cold = solved("bryson-denham")
    near = problem.replace(x0=problem.x0 + np.array([0.0, 1e-3]))
    warm, reference = PrimalDual().solve(near, cold, states=cold.states), PrimalDual().solve(near)
    assert warm.success
    assert warm.iterations < reference.iterations
    assert warm.cost == pytest.approx(reference.cost, rel=1e-6)
    problem = CONSTRAINED["mixed"]()
    first = PrimalDual().solve(problem)
    tick = problem.replace(x0=first.states[1])
    guess = shifted(tick, first)
    assert PrimalDual().solve(tick, guess, states=guess.states).iterations < PrimalDual().solve(tick).iterations


def test_a_warm_start_from_another_solver() -> None:
    problem, cold = solved("mixed")
    warm = PrimalDual().solve(problem, AugmentedLagrangian().solve(problem))
    assert warm.success
    assert warm.iterations <= cold.iterations
    assert warm.cost == pytest.approx(cold.cost, rel=1e-7)


def test_a_solution_is_saved_and_loaded(tmp_path: Path) -> None:
    problem, solution = solved("mixed")
    solution.save(tmp_path / "solution.npz")
    loaded = Solution.load(tmp_path / "solution.npz")
    assert loaded.history == solution.history
    assert type(loaded.history[-1]) is type(solution.history[-1])
    assert loaded.details.violation == solution.details.violation
    for ours, theirs in zip(loaded.multipliers, solution.multipliers, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again, direct = (PrimalDual().solve(problem, each, states=each.states) for each in (loaded, solution))
    assert (again.cost, again.iterations) == (direct.cost, direct.iterations)


# ------------------------------------------------------------------------------------------------ units
@pytest.mark.parametrize("name", ["mixed", "terminal equality", "curved obstacle"])
@pytest.mark.parametrize("scaling", [
    Rescaling(cost=1e6), Rescaling(cost=1e-6), Rescaling(states=1e6), Rescaling(states=1e-6),
    Rescaling(controls=1e6), Rescaling(controls=1e-6), Rescaling(rows=1e6), Rescaling(rows=1e-6),
    Rescaling(cost=1e-6, states=1e6, controls=1e-6),
], ids=str)  # fmt: skip
def test_units_do_not_change_the_iterations(name: str, scaling: Rescaling) -> None:
    problem, reference = solved(name)
    solution = PrimalDual().solve(scaling(problem))
    cost, _, controls = scaling.back(solution)
    assert solution.success, str(solution)
    assert abs(solution.iterations - reference.iterations) <= 2
    assert cost == pytest.approx(reference.cost, rel=1e-7)
    np.testing.assert_allclose(controls, reference.controls, atol=1e-4 * np.abs(reference.controls).max())


# ----------------------------------------------------------------------------- the policy and derivatives
@pytest.mark.parametrize("name", ["pendulum", "quadrotor", "varying-sizes", "parameters"])
def test_the_policy_is_ddps_at_an_optimum(name: str) -> None:
    problem, solution = solved(name)
    reference = DDP(gradient_tolerance=1e-10).solve(problem)
    for what in ("feedback_gains", "value_gradients", "value_hessians"):
        for ours, theirs in zip(getattr(solution, what), getattr(reference, what), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()), err_msg=what)


@pytest.mark.parametrize("name", ["state bound", "mixed", "terminal equality", "control bounds"])
def test_value_gradients_are_the_derivative_of_the_optimum(name: str) -> None:
    """dJ*/dx_0 by two other solves."""
    problem, solution = solved(name)
    h, direction = 1e-4, np.array([0.6, -0.8])
    ahead, behind = (PrimalDual().solve(problem.replace(x0=problem.x0 + s * h * direction)).cost for s in (1, -1))
    assert solution.value_gradients[0] @ direction == pytest.approx((ahead - behind) / (2 * h), rel=1e-3)


@pytest.mark.parametrize("name", ["mixed", "terminal equality", "control bounds", "parameters at each stage"])
def test_sensitivities_are_those_of_the_augmented_lagrangians_solution(name: str) -> None:
    problem, solution = solved(name)
    reference = AugmentedLagrangian().solve(problem)
    direction = np.array([1.0, 0.5])
    ours, theirs = (Sensitivity(problem, each).forward(x0=direction) for each in (solution, reference))
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(b).max())


def test_multipliers_are_in_the_order_of_the_rows() -> None:
    problem, solution = solved("stages that differ")
    rows = problem_rows(problem)
    assert [len(y) for y in solution.multipliers] == [each.count for each in rows]


def test_a_solve_says_what_it_did() -> None:
    _, solution = solved("bryson-denham")
    history = solution.history
    assert history[0].barrier == pytest.approx(0.1)
    assert history[-1].barrier <= 1e-9
    assert all(a.barrier >= b.barrier for a, b in pairwise(history))
    assert all(0 < line.step_size <= 1 for line in history[1:])
    assert history[-1].violation <= 1e-8
    assert solution.details.seconds.backward > 0
