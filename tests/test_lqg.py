"""Controller and filter under noise that grows with controls and states, against the moments of the closed loop."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from problems import LQR

import ocpkit.math as m
from ocpkit import DDP, ILQG, KalmanFilter, Problem, Solution, sample

T, N = 8, 2
LINEAR = replace(LQR.random(N, 1, T, seed=3), S=np.zeros((1, N)))
RNG = np.random.default_rng(1)
OF_STATE, OF_CONTROL = 0.15 * RNG.normal(size=(2, N, N)), 0.5 * RNG.normal(size=(2, N, 1))
ADDED, H, D, P0 = 0.1 * np.eye(N), RNG.normal(size=(1, N)), np.array([[0.5]]), 0.3 * np.eye(N)
PRECISE = DDP(engine="numpy", gradient_tolerance=1e-11, cost_tolerance=1e-300)


@cache
def problem(share: float = 1.0) -> Problem:
    """x' = A x + B u + share Σ_i (C_i x + D_i u) ε_i + 0.1 ε."""

    def noise(x: Any, u: Any) -> Any:
        columns = [share * (C @ x + B @ u) for C, B in zip(OF_STATE, OF_CONTROL)]
        return m.stack([*columns, *(ADDED + 0 * x[0])]).T

    return Problem.from_functions(
        dynamics=lambda x, u: LINEAR.A @ x + LINEAR.B @ u,
        cost=lambda x, u: 0.5 * (x @ LINEAR.Q @ x + u @ LINEAR.R @ u),
        terminal_cost=lambda x: 0.5 * x @ LINEAR.F @ x,
        x0=LINEAR.x0,
        horizon=T,
        control_size=1,
        noise=noise,
    )


def kalman(share: float = 1.0) -> KalmanFilter:
    return KalmanFilter(problem(share), lambda x: H @ x, D, P0)


@cache
def solved(share: float = 1.0) -> tuple[Solution, list[Any]]:
    """The policy, and the gains of the filter that goes with it."""
    solution = ILQG(inner=PRECISE, hessian_tolerance=1e-12, estimator=kalman(share)).solve(problem(share))
    assert solution.success
    return solution, kalman(share).along(solution.states, solution.controls, solution.feedback_gains).gains


def expected_cost(L: Any, K: Any, share: float = 1.0) -> float:
    """J of u = L x̂ and the gains K, by the second moments S of (x, x̂) after each measurement; no recursion for V."""
    A, B, Q, R = LINEAR.A, LINEAR.B, LINEAR.Q, LINEAR.R
    S, cost = np.outer([*LINEAR.x0, *LINEAR.x0], [*LINEAR.x0, *LINEAR.x0]), 0.0
    doubt = P0
    for t in range(T + 1):
        to_both = np.vstack([np.eye(N), K[t] @ H])  # noise reaches the state, and the estimate through y
        S = S + to_both @ doubt @ to_both.T
        S[N:, N:] += K[t] @ D @ D.T @ K[t].T
        if t == T:
            return cost + 0.5 * float(np.trace(LINEAR.F @ S[:N, :N]))
        cost += 0.5 * float(np.trace(Q @ S[:N, :N]) + np.trace(R @ L[t] @ S[N:, N:] @ L[t].T))
        moves = [np.hstack([C, E @ L[t]]) for C, E in zip(OF_STATE, OF_CONTROL)]
        doubt = share**2 * sum(C @ S @ C.T for C in moves) + ADDED @ ADDED.T
        closed = A + B @ L[t]
        step = np.block([[A, B @ L[t]], [K[t + 1] @ H @ A, closed - K[t + 1] @ H @ A]])
        S = step @ S @ step.T
    raise AssertionError


def test_the_cost_is_that_of_the_moments_and_of_many_runs() -> None:
    solution, K = solved()
    assert solution.cost == pytest.approx(expected_cost(solution.feedback_gains, K), rel=1e-9)
    costs = sample(problem(), solution.policy, 600, estimator=replace(kalman(), gains=K)).costs
    assert abs(costs.mean() - solution.cost) < 4 * costs.std() / np.sqrt(600)


def test_no_change_of_a_gain_of_either_lowers_the_cost() -> None:
    """First-order optimality of both at once, by differences; the pair beats those that ignore some of the noise."""
    solution, K = solved()
    L, rng = np.asarray(solution.feedback_gains), np.random.default_rng(0)
    for _ in range(10):
        dL, dK = rng.normal(size=L.shape), [rng.normal(size=k.shape) for k in K]
        for a, b in ((1e-4, 0.0), (0.0, 1e-4)):
            up, down = (expected_cost(L + s * a * dL, [k + s * b * d for k, d in zip(K, dK)]) for s in (1, -1))
            assert abs(up - down) / 2e-4 < 1e-6 * solution.cost
            assert up + down > 2 * solution.cost
    for_states = ILQG(inner=PRECISE).solve(problem())
    apart = kalman().along(for_states.states, for_states.controls, for_states.feedback_gains).gains
    assert expected_cost(for_states.feedback_gains, apart) > solution.cost * (1 + 1e-4)
    ignoring, gains = solved(0.0)
    assert expected_cost(ignoring.feedback_gains, gains) > expected_cost(for_states.feedback_gains, apart)


def test_with_additive_noise_controller_and_filter_are_those_of_the_separation_principle() -> None:
    solution, K = solved(0.0)
    V, L = LINEAR.riccati()
    np.testing.assert_allclose(solution.feedback_gains, L, rtol=1e-8)
    known = kalman(0.0).along(solution.states, solution.controls)
    np.testing.assert_allclose(K, known.gains, rtol=1e-10)
    of_state = LINEAR.x0 @ V[0] @ LINEAR.x0 + np.trace(V[0] @ P0) + sum(np.trace(W @ ADDED @ ADDED.T) for W in V[1:])
    weights = [L[t].T @ (LINEAR.R + LINEAR.B.T @ V[t + 1] @ LINEAR.B) @ L[t] for t in range(T)]
    of_doubt = sum(np.trace(P @ weight) for P, weight in zip(known.updated, weights))
    assert solution.cost == pytest.approx(0.5 * (of_state + of_doubt), rel=1e-9)
