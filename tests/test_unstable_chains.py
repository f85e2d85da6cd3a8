"""Multiple shooting on unstable chains over 500 stages, where a rollout overflows, or falls and cannot be mended.

Each node moves away from rest by itself and pulls its neighbors along. The guess is x0 at every stage (FDDP's own), or
noise; the references are Riccati's recursion and IPOPT.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import LQR

import ocpkit.math as m
from ocpkit import DDP, FDDP, ILQG, IPOPT, AugmentedLagrangian, Constraint, Problem, Solution, Status, rk4

T, DT = 500, 0.05


def neighbors(n: int) -> Any:
    return np.eye(n, k=1) + np.eye(n, k=-1)


def linear(n: int = 6) -> LQR:
    """Forces at both ends; eigenvalues up to 2.2: 500 stages multiply by 1e170, and J overflows."""
    B = np.zeros((n, 2))
    B[0, 0] = B[-1, 1] = 1.0
    A = 1.5 * np.eye(n) + 0.4 * neighbors(n)
    return LQR(A, B, np.eye(n), np.zeros((2, n)), 0.1 * np.eye(2), np.eye(n), np.linspace(1.0, 2.0, n), T)


def chain(field: Any, x0: Any, forces: int, **declaration: Any) -> Problem:
    return Problem.from_functions(
        dynamics=rk4(field, DT),
        cost=lambda x, u: 0.5 * DT * (m.dot(x, x) + 0.1 * m.dot(u, u)),
        terminal_cost=lambda x: 0.5 * m.dot(x, x),
        x0=x0,
        horizon=T,
        control_size=forces,
        **declaration,
    )


def cubic(n: int = 4, start: float = 1.0, **declaration: Any) -> Problem:
    """ẋ = x + x³ + Σ neighbors + u: without control at infinity in less than a second."""
    L = neighbors(n)
    return chain(lambda x, u: x + x**3 + L @ x + u, np.linspace(0.5 * start, start, n), n, **declaration)


def pendulums(n: int = 3, stiffness: float = 20.0, **declaration: Any) -> Problem:
    """Inverted pendulums joined by springs, with a torque at both ends."""
    L = neighbors(n)
    L -= np.diag(L.sum(axis=0))
    B = np.zeros((n, 2))
    B[0, 0] = B[-1, 1] = 1.0

    def field(x: Any, u: Any) -> Any:
        return m.concatenate([x[n:], 9.81 * m.sin(x[:n]) + stiffness * (L @ x[:n]) + B @ u])

    return chain(field, np.concatenate([np.full(n, 0.2), np.zeros(n)]), 2, **declaration)


def at_x0(problem: Problem) -> Problem:
    return problem.replace(states=(problem.x0,) * (T + 1))


def assert_is_ipopts(problem: Problem, solution: Solution) -> None:
    """The same optimum, and a trajectory of the problem's own dynamics."""
    reference = IPOPT().solve(at_x0(problem))
    assert reference.success
    assert solution.success
    assert solution.cost == pytest.approx(reference.cost, rel=1e-6)
    following = [
        stage.dynamics.step(x, u, problem.parameter(t))
        for t, (stage, x, u) in enumerate(zip(problem.stages, solution.states, solution.controls))
    ]
    np.testing.assert_allclose(following, solution.states[1:], atol=1e-9)


@pytest.mark.parametrize("engine", ["numpy", "vm", "c"])
def test_a_linear_chain_is_solved_as_riccati_does_in_one_step(engine: str) -> None:
    lqr = linear()
    problem = lqr.problem()
    assert DDP(engine=engine).solve(problem).status is Status.INVALID_INPUT
    solution = FDDP(engine=engine).solve(problem)
    _, K = lqr.riccati()
    assert solution.status is Status.CONVERGED
    assert solution.iterations == 1
    assert solution.cost == pytest.approx(lqr.optimum, rel=1e-9)
    np.testing.assert_allclose(solution.feedback_gains, K, rtol=1e-7, atol=1e-8)
    x = lqr.x0
    for t in range(T):
        np.testing.assert_allclose(solution.states[t], x, atol=1e-8 * np.abs(lqr.x0).max())
        x = (lqr.A + lqr.B @ K[t]) @ x


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 0])
def test_a_cubic_chain_from_x0_everywhere_and_from_noise(seed: int | None) -> None:
    problem = cubic()
    assert DDP(engine="vm").solve(problem).status is Status.INVALID_INPUT
    noise = None if seed is None else 0.7 * np.random.default_rng(seed).normal(size=(T + 1, 4))
    solution = FDDP(engine="vm").solve(problem, states=noise)
    assert solution.history[0].gap > 0.1
    assert_is_ipopts(problem, solution)


@pytest.mark.slow
def test_pendulums_that_have_fallen_before_the_first_iteration() -> None:
    """Single shooting is left with the pendulums hanging and turning."""
    problem = pendulums()
    solution = FDDP(engine="vm").solve(problem)
    assert_is_ipopts(problem, solution)
    assert DDP(engine="vm", max_iterations=20).solve(problem).cost > 100 * solution.cost


@pytest.mark.slow
@pytest.mark.parametrize(
    "problem",
    [cubic(control_bounds=(-3.5, 3.5)), pendulums(control_bounds=(-3.0, 1.0))],
    ids=["cubic", "pendulums"],
)
def test_within_control_bounds(problem: Problem) -> None:
    solution = FDDP(engine="vm").solve(problem)
    assert_is_ipopts(problem, solution)
    lower, upper = problem.control_bounds
    controls = solution.controls.ravel()
    assert ((lower <= controls) & (controls <= upper)).all()
    assert ((controls == lower) | (controls == upper)).any()


@pytest.mark.slow
def test_under_constraints_by_the_augmented_lagrangian() -> None:
    end = Constraint(lambda x: x[:2], [0.2, 0.0], [0.2, 0.0], "end")
    problem = at_x0(cubic(control_bounds=(-4.0, 4.0), terminal_constraints=(end,)))
    solution = AugmentedLagrangian(inner=DDP(engine="vm")).solve(problem)
    assert_is_ipopts(problem, solution)
    np.testing.assert_allclose(solution.states[-1][:2], [0.2, 0.0], atol=1e-8)


def test_under_noise_by_ilqg() -> None:
    """With additive noise the policy is that without; J grows by ½ tr(Fᵀ V_xx F) of every stage."""
    lqr = linear()
    noisy = at_x0(
        Problem.from_functions(
            dynamics=lambda x, u: lqr.A @ x + lqr.B @ u,
            cost=lambda x, u: 0.5 * (m.dot(x, x) + 0.1 * m.dot(u, u)),
            terminal_cost=lambda x: 0.5 * m.dot(x, x),
            x0=lqr.x0,
            horizon=T,
            control_size=2,
            noise=lambda x, u: 0.1 * np.eye(6),
        )
    )
    solution = ILQG(inner=DDP(engine="vm")).solve(noisy)
    P, K = lqr.riccati()
    assert solution.success
    np.testing.assert_allclose(solution.feedback_gains, K, rtol=1e-7, atol=1e-8)
    traces = sum(0.5 * 0.01 * np.trace(V) for V in P[1:])
    assert solution.cost == pytest.approx(lqr.optimum + traces, rel=1e-9)


def test_a_warm_start_for_another_engine_needs_the_states() -> None:
    """What rounding does to the first states, 500 stages make of it 1e170 times as much; feedback does not let it."""
    problem = linear().problem()
    solution = FDDP(engine="c").solve(problem)
    again = DDP(engine="numpy").solve(problem, solution, states=solution.states)
    assert again.success
    assert again.iterations <= 1
    assert again.cost == pytest.approx(solution.cost, rel=1e-9)
    moved = problem.replace(x0=(1 + 1e-14) * problem.x0)
    assert moved.rollout(solution.controls)[1] > 1e6 * solution.cost
    assert DDP(engine="numpy").solve(moved, solution, states=solution.states).iterations <= 1
