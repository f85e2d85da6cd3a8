"""Bellman's principle: what optimizing one more stage does, and the value against brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ocpkit.math as m
from ocpkit import DDP, Problem
from ocpkit.errors import NotPositiveDefinite
from ocpkit.recursion.curvature import Exact
from ocpkit.recursion.linalg import Cholesky
from properties.oracle import assert_close, backward
from properties.strategies import problems, seeds


@given(problems(dynamics_bend=0.0, cost_bend=0.0))
def test_optimizing_one_more_stage_lowers_the_cost_by_what_that_stage_promises(problem):
    """Linear-quadratic: with the policy from stage t on, J falls by Σ_{s ≥ t} ½ Q_uᵀ Q_uu⁻¹ Q_u, never less."""
    engine, nominal, policy = backward(problem, Exact())
    before = nominal.cost
    for t in reversed(range(problem.horizon)):
        tail = problem.replace(stages=problem.stages[t:], x0=nominal.states[t], controls=problem.controls[t:])
        _, tail_nominal, tail_policy = backward(tail, Exact())
        new = engine_of(tail).forward_pass(tail_nominal, tail_policy, 1.0)
        states, controls = nominal.states[:t] + new.states, nominal.controls[:t] + new.controls
        after, step = problem.cost(states, controls), policy.steps[t]
        promised = -step.Q.u @ np.linalg.solve(step.Q.uu, step.Q.u) / 2
        assert promised <= 0
        assert_close(step.expected_change, promised)
        assert abs(after - before - promised) <= 1e-9 * max(1.0, abs(nominal.cost))
        before = after
    assert engine.problem is problem


def engine_of(problem):
    return backward(problem, Exact())[0]


@pytest.mark.slow
@given(problems(dynamics_bend=0.3))
def test_the_value_never_rises_by_optimizing_one_more_stage(problem):
    """V_t(x_t) ≤ Q_t(x_t, u_t) = ℓ_t + V_{t+1}(f_t(x_t, u_t)): solve the tail from each stage, warm-started."""
    states, _ = problem.rollout()
    solver, optimal = DDP(max_iterations=50), []
    bound = problem.terminal_cost.value(states[-1], np.zeros(0))
    for t in reversed(range(problem.horizon)):
        stage, u = problem.stages[t], problem.controls[t]
        bound += stage.cost.value(states[t], u, np.zeros(0))
        tail = problem.replace(stages=problem.stages[t:], x0=states[t], controls=(u, *optimal))
        solution = solver.solve(tail)
        assert solution.cost <= bound + 1e-12 * (1 + abs(bound))
        bound, optimal = solution.cost, list(solution.controls)


def scalar_problem(seed, horizon, x0):
    """x' = x + u; ℓ = ½a(x − c)² + ½b u² + d cos x, φ alike; returns it with a bound on ∂²J/∂x_t²."""
    a, b, d, c = np.random.default_rng(seed).uniform([0.5, 0.5, 0.0, -0.5], [2.0, 2.0, 0.3, 0.5])

    def of_state(x):
        return 0.5 * a * (x[0] - c) ** 2 + d * m.cos(x[0])

    problem = Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + u[0]]),
        cost=lambda x, u: of_state(x) + 0.5 * b * u[0] ** 2,
        terminal_cost=of_state,
        x0=[x0],
        horizon=horizon,
        control_size=1,
    )
    return problem, a + d + 4 * b


def grid_values(problem, h, reach=2.0):
    """V_0 … V_T on the states hℤ ∩ [−reach, reach] by Bellman's equation over all grid controls (Eq. 1)."""
    grid, none = h * np.arange(-round(reach / h), round(reach / h) + 1), np.zeros(0)
    stage, phi = problem.stages[0], problem.terminal_cost
    V = np.array([phi.value(np.array([x]), none) for x in grid])
    running = np.array([[stage.cost.value(np.array([x]), np.array([y - x]), none) for y in grid] for x in grid])
    values = [V]
    for _ in range(problem.horizon):
        V = (running + V).min(axis=1)
        values.append(V)
    return grid, values[::-1]


@settings(max_examples=10)
@given(seeds, st.integers(1, 4), st.sampled_from([-1.0, -0.25, 0.5, 1.25]))
def test_the_ddp_value_is_that_of_brute_force_dynamic_programming(seed, horizon, x0):
    """On a grid of step h the minimum is above the true one by at most ½ λ T (h/2)², λ the curvature of J."""
    problem, curvature = scalar_problem(seed, horizon, x0)
    solution, h = DDP().solve(problem), 1 / 16
    assert solution.success
    grid, values = grid_values(problem, h)
    at_x0 = values[0][np.argmin(np.abs(grid - x0))]
    assert solution.cost <= at_x0 + 1e-12
    assert at_x0 <= solution.cost + 0.5 * curvature * horizon * (h / 2) ** 2 + 1e-12


@settings(max_examples=10)
@given(seeds, st.integers(1, 3))
def test_the_value_derivatives_are_those_of_the_optimal_cost(seed, horizon):
    """V_x and V_xx of the converged backward pass against differences of the optimal J over x0."""
    problem, _ = scalar_problem(seed, horizon, 0.5)
    solver, h = DDP(gradient_tolerance=1e-12, cost_tolerance=1e-300), 1e-3
    solution = solver.solve(problem)
    below, above = (solver.solve(problem.replace(x0=np.array([0.5 + s]))).cost for s in (-h, h))
    assert_close(solution.value_gradients[0], [(above - below) / (2 * h)], 1e-5)
    assert_close(solution.value_hessians[0], [[(above - 2 * solution.cost + below) / h**2]], 1e-5)
    corners = [problem.rollout(solution.controls + 1e-3 * np.array(s)[:, None])[1] for s in signs(horizon)]
    assert min(corners) > solution.cost


def signs(count):
    return list(product((-1.0, 1.0), repeat=count))


@pytest.mark.slow
@given(problems(), st.integers(0, 3))
def test_an_indefinite_quu_names_its_stage(problem, where):
    """Without a minimum in u there is no Bellman step: the error carries the stage."""
    where = min(where, problem.horizon - 1)

    def curvature(t, Q):
        return Cholesky(np.eye(len(Q.u)) * (-1.0 if t == where else 1.0)), Q.u

    with pytest.raises(NotPositiveDefinite, match=f"stage {where}") as caught:
        backward(problem, curvature)
    assert caught.value.stage == where
