"""DDP, iLQR and FDDP: exact on LQR, fast near the optimum, and finding their way to it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from floors import Floor
from hypothesis import HealthCheck, given, settings
from problems import BY_NAME, CASES, LQR, LQRS, Case, blows_up, runs
from scipy.linalg import solve_discrete_are
from strategies import smooth_problems

import ocpkit.math as m
from ocpkit import (
    DDP,
    FDDP,
    ILQR,
    Damping,
    Problem,
    Status,
    registry,
)
from ocpkit.autodiff.differences import FIRST_STEP, central_jacobian


def gradient(problem: Problem, controls: Any) -> np.ndarray:
    """∇_u J by differences of rollouts, to O(h⁴) by Richardson's extrapolation: knows no adjoint.

    Of steps h that differ by eight, those two are taken that agree best: unstable chains ask for small ones.
    """
    cuts = np.cumsum(problem.control_sizes)[:-1]
    cost = lambda flat: np.asarray(problem.rollout(np.split(flat, cuts))[1])  # noqa: E731
    at, best, least = np.concatenate(list(controls)), np.array(0.0), np.inf
    whole = central_jacobian(cost, at, FIRST_STEP)
    for k in range(1, 6):
        part = central_jacobian(cost, at, FIRST_STEP / 8.0**k)
        apart = np.nan_to_num(np.abs(part - whole), nan=np.inf).max(initial=0.0)
        if apart < least:
            best, least = (64 * part - whole) / 63, apart
        if apart <= 1e-6 * (1 + abs(cost(at))):
            break
        whole = part
    return best


# ------------------------------------------------------------------------------------------- optimality
@pytest.mark.parametrize("size", LQRS, ids=str)
@pytest.mark.parametrize("solver", [DDP(), ILQR(), FDDP()], ids=lambda s: type(s).__name__)
def test_lqr_in_one_iteration(size: Any, solver: DDP) -> None:
    lqr = LQRS[size]
    solution, (P, K) = solver.solve(lqr.problem()), lqr.riccati()
    assert solution.status is Status.CONVERGED
    assert solution.iterations == 1
    assert solution.cost == pytest.approx(lqr.optimum, rel=1e-10)
    np.testing.assert_allclose(solution.feedback_gains, K, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(solution.value_hessians, P, rtol=1e-10, atol=1e-10)
    x = lqr.x0
    for u, gain in zip(solution.controls, K):
        np.testing.assert_allclose(u, gain @ x, rtol=1e-9, atol=1e-10)
        x = lqr.A @ x + lqr.B @ u


def test_long_horizon_gain_is_the_stationary_one() -> None:
    """SciPy's algebraic Riccati equation, with the cross term."""
    lqr = replace(LQR.random(3, 2, 1, seed=5), horizon=200)
    P = solve_discrete_are(lqr.A, lqr.B, lqr.Q, lqr.R, s=lqr.S.T)
    K = -np.linalg.solve(lqr.R + lqr.B.T @ P @ lqr.B, lqr.B.T @ P @ lqr.A + lqr.S)
    solution = DDP().solve(lqr.problem())
    np.testing.assert_allclose(solution.feedback_gains[0], K, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(solution.value_hessians[0], P, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "solver"), runs("ddp", "ilqr", "fddp"), ids=str)
def test_converges_within_its_budget(case: Case, solver: str) -> None:
    problem = case.problem()
    solution = registry.make(solver).solve(problem)
    assert solution.status is Status.CONVERGED
    assert solution.iterations <= case.budget[solver]
    if case.optimum is not None:
        assert solution.cost == pytest.approx(case.optimum, rel=1e-8)
    states, cost = problem.rollout(solution.controls)
    assert cost == pytest.approx(solution.cost, rel=1e-9)
    for ours, theirs in zip(solution.states, states):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
    assert np.abs(gradient(problem, solution.controls)).max() < 1e-3 * (1 + abs(cost))


def errors_after(solver: DDP, starts: list[Problem], optimum: np.ndarray) -> np.ndarray:
    """Distance to the optimal controls after the iterations of `solver`, from each start."""
    return np.array([np.abs(solver.solve(start).controls - optimum).max() for start in starts])


def test_ddp_converges_quadratically_and_ilqr_linearly() -> None:
    """One iteration turns an error e into C e² (DDP) or C e (iLQR): the exponents, over three decades of e."""
    problem = BY_NAME["pendulum"].problem()
    sharp = {"gradient_tolerance": 1e-13, "cost_tolerance": 1e-300}
    optimum = DDP(**sharp).solve(problem).controls
    sizes = 10.0 ** np.arange(-1.0, -4.1, -0.5)
    starts = [problem.replace(controls=tuple(optimum + e)) for e in sizes]
    once = {"max_iterations": 1} | sharp
    for solver, exponent in ((DDP(**once), 2.0), (ILQR(**once), 1.0)):
        errors = errors_after(solver, starts, optimum)
        exponents = np.diff(np.log(errors)) / np.diff(np.log(sizes))
        np.testing.assert_allclose(exponents[1:], exponent, atol=0.1, err_msg=str(errors))
    assert DDP(**sharp).solve(starts[0]).iterations <= 6
    assert ILQR(gradient_tolerance=1e-9, cost_tolerance=1e-300).solve(starts[0]).iterations > 20


def test_theorem_1_against_brute_force() -> None:
    """Dynamic programming on a fine grid of a scalar problem finds DDP's value at every stage."""
    horizon, x, u = 4, np.linspace(-2.5, 2.5, 2001), np.linspace(-2, 2, 801)
    value = np.cos(2 * x) + 2 * x**2
    grid, tables = x[:, None] + 0.3 * (np.sin(x)[:, None] + u[None, :]), [value]
    running = 0.1 * x[:, None] ** 2 + 0.3 * u[None, :] ** 2 + 0.05 * np.sin(3 * x)[:, None] * u[None, :]
    for _ in range(horizon):
        value = (running + np.interp(grid, x, value)).min(axis=1)
        tables.insert(0, value)
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + 0.3 * (m.sin(x) + u),
        cost=lambda x, u: 0.1 * x[0] ** 2 + 0.3 * u[0] ** 2 + 0.05 * m.sin(3 * x[0]) * u[0],
        terminal_cost=lambda x: m.cos(2 * x[0]) + 2 * x[0] ** 2,
        x0=[0.9],
        horizon=horizon,
        control_size=1,
    )
    for start in (0.9, -0.4, 1.3):
        solution = DDP().solve(problem.replace(x0=[start]))
        assert solution.success
        assert solution.cost == pytest.approx(np.interp(start, x, tables[0]), abs=1e-4)
        slope = (np.interp(start + 0.02, x, tables[0]) - np.interp(start - 0.02, x, tables[0])) / 0.04
        assert solution.value_gradients[0][0] == pytest.approx(slope, abs=5e-3)
        for t, state in enumerate(solution.states):
            tail = problem.replace(x0=state, stages=problem.stages[t:], controls=()) if t < horizon else None
            to_go = DDP().solve(tail).cost if tail else problem.terminal_cost.value(state, np.zeros(0))
            assert to_go == pytest.approx(np.interp(state[0], x, tables[t]), abs=1e-4)


# ------------------------------------------------------------------------------------- random problems
@pytest.mark.slow
def test_random_smooth_problems_ddp() -> None:
    converged = Floor()

    @given(smooth_problems())
    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    def check(problem: Problem) -> None:
        converged.when(check_random(DDP(max_iterations=200), problem))

    check()
    converged.check(95)


@pytest.mark.slow
def test_random_smooth_problems_ilqr() -> None:
    converged = Floor()

    @given(smooth_problems(max_horizon=12))
    @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    def check(problem: Problem) -> None:
        converged.when(check_random(ILQR(max_iterations=200), problem))

    check()
    converged.check(28)


def test_random_smooth_problems_state_regularization() -> None:
    converged = Floor()

    @given(smooth_problems(max_horizon=12))
    @settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    def check(problem: Problem) -> None:
        converged.when(check_random(DDP(max_iterations=200, damping=Damping(target="state")), problem))

    check()
    converged.check(16)


def check_random(solver: DDP, problem: Problem) -> bool:
    """No exception, J never increases, and the status is true; return whether it has converged."""
    solution = solver.solve(problem)
    costs = np.array([line.cost for line in solution.history])
    assert (np.diff(costs) <= 1e-14 * (1 + np.abs(costs[:-1])) * 16).all()
    assert solution.cost == costs[-1]
    assert problem.rollout(solution.controls)[1] == pytest.approx(solution.cost, rel=1e-10, abs=1e-10)
    if solution.success:
        slope, unit = gradient(problem, solution.controls), 1 + abs(solution.cost)
        if np.abs(slope).max() > 1e-4 * unit:  # where J curves by 1e9, differences see a slope that is none
            down, cuts = slope / np.linalg.norm(slope), np.cumsum(problem.control_sizes)[:-1]
            for step in np.geomspace(1e-9, 1e-2, 15):
                moved = np.split(np.concatenate(list(solution.controls)) - step * down, cuts)
                assert problem.rollout(moved)[1] >= solution.cost - 1e-9 * unit, (step, np.abs(slope).max())
    else:
        assert solution.status in (Status.ITERATION_LIMIT, Status.STALLED)
    return solution.success


# ---------------------------------------------------------------------------------------- globalization
def test_backs_off_where_the_model_is_not_a_number() -> None:
    """A full step leaves the domain of the logarithm; the line search comes back into it."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: 0.01 * u[0] ** 2,
        terminal_cost=lambda x: x[0] - 0.05 * m.log(x[0]),
        x0=[3.0],
        horizon=5,
        control_size=1,
    )
    solution = DDP(engine="numpy").solve(problem)
    tried = [line.step_size for line in solution.history]
    assert solution.details.seconds.line_search > 0
    assert solution.success
    assert min(tried[1:]) < 1
    assert solution.history[-1].cost < solution.history[0].cost
    assert np.abs(gradient(problem, solution.controls)).max() < 1e-5


@pytest.mark.parametrize("where", ["control", "state"])
def test_regularization_gets_through_negative_curvature(where: str) -> None:
    case = BY_NAME["pendulum"]
    solution = DDP(damping=Damping(target=where)).solve(case.problem())
    assert solution.success
    assert max(line.regularization for line in solution.history) > 0
    assert solution.cost == pytest.approx(case.optimum, rel=1e-8)


def test_history_is_consistent() -> None:
    history = DDP().solve(BY_NAME["pendulum"].problem()).history
    assert [line.index for line in history] == list(range(len(history)))
    for before, line in pairwise(history):
        assert line.actual_decrease == pytest.approx(before.cost - line.cost, abs=1e-12)
        assert line.seconds >= before.seconds
        if line.step_size:
            assert line.actual_decrease >= 1e-4 * line.expected_decrease - 1e-13
    last = history[-1]
    assert last.actual_decrease == pytest.approx(last.expected_decrease, rel=0.1)  # the model is good near the end


def test_fddp_closes_gaps_and_finds_the_same_optimum() -> None:
    problem = BY_NAME["cart-pole"].problem()
    torn = DDP().solve(problem).states + 0.3 * np.random.default_rng(0).standard_normal((101, 4))
    solution = FDDP().solve(problem, states=torn)
    gaps = [iteration.gap for iteration in solution.history]
    assert gaps[0] > 0.3
    assert gaps[-1] == 0
    assert (np.diff(gaps) <= 0).all()
    assert solution.status is Status.CONVERGED
    assert solution.cost == pytest.approx(BY_NAME["cart-pole"].optimum, rel=1e-8)
    np.testing.assert_allclose(np.stack(problem.rollout(solution.controls)[0]), solution.states, atol=1e-8)


def test_fddp_solves_where_the_rollout_blows_up() -> None:
    problem = blows_up()
    assert not np.isfinite(problem.rollout()[1])
    assert DDP().solve(problem).status is Status.INVALID_INPUT
    solution = FDDP().solve(problem)
    assert solution.status is Status.CONVERGED
    assert np.isfinite(problem.rollout(solution.controls)[1])


def test_state_guess_of_the_problem_is_used() -> None:
    problem = BY_NAME["pendulum"].problem()
    guessed = problem.replace(states=tuple(np.linspace([0.0, 0.0], [np.pi, 0.0], 61)))
    assert DDP().solve(guessed).history[0].gap > 0.05
    assert DDP().solve(problem).history[0].gap == 0


def test_warm_start_saves_iterations() -> None:
    problem = BY_NAME["pendulum"].problem()
    cold = DDP().solve(problem)
    moved = problem.replace(x0=np.array([0.02, 0.0]))
    warm = DDP().solve(moved, cold)
    assert warm.success
    assert warm.iterations < cold.iterations / 2
    assert warm.iterations < DDP().solve(moved).iterations


def test_parameters_change_without_tracing_again() -> None:
    problem = BY_NAME["parameters"].problem()
    ends = [DDP().solve(problem.replace(parameters=np.array([p, 0.0, 0.3]))).states[-1][0] for p in (0.5, 1.0, 2.0)]
    np.testing.assert_allclose(ends, [0.5, 1.0, 2.0], rtol=0.1)
    assert np.all(np.diff(ends) > 0.4)


def test_all_cases_are_named_once() -> None:
    assert len(BY_NAME) == len(CASES)
