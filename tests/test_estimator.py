"""The Kalman filter: Riccati's equation backward, Bayes' rule, the separation principle, and Monte Carlo bands."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from problems import LQR, pendulum_field
from test_mpc import upright

import ocpkit.math as m
from ocpkit import DDP, MPC, Health, KalmanFilter, Problem, ProblemError, rk4, sample, simulate, without_noise

RUNS, T, N = 1000, 10, 3
RNG = np.random.default_rng(5)
F, H, D = 0.15 * RNG.normal(size=(N, 2)), RNG.normal(size=(2, N)), np.array([[1.5, 0.5], [0.0, 1.0]])
P0 = np.diag([0.5, 0.2, 0.0])
LINEAR = LQR.random(N, 2, T, seed=1)


@cache
def noisy() -> Problem:
    lqr = LINEAR
    return Problem.from_functions(
        dynamics=lambda x, u: lqr.A @ x + lqr.B @ u,
        cost=lambda x, u: 0.5 * (x @ lqr.Q @ x + u @ lqr.R @ u) + u @ lqr.S @ x,
        terminal_cost=lambda x: 0.5 * x @ lqr.F @ x,
        x0=lqr.x0,
        horizon=lqr.horizon,
        control_size=2,
        noise=lambda x, u: F,
    )


def linear_filter() -> KalmanFilter:
    return KalmanFilter(noisy(), lambda x: H @ x, D, P0)


@cache
def plan() -> Any:
    return DDP(engine="numpy").solve(without_noise(noisy()))


@cache
def runs() -> Any:
    """Many runs of the LQG controller."""
    return sample(noisy(), plan().policy, RUNS, estimator=linear_filter())


def test_its_covariances_are_the_value_hessians_of_the_dual_problem() -> None:
    """A, B, Q, R, terminal cost of the controller ↔ Aᵀ, Hᵀ, F Fᵀ, D Dᵀ, P_0 of the filter, with time reversed."""
    dual = LQR(LINEAR.A.T, H.T, F @ F.T, np.zeros((2, N)), D @ D.T, P0, np.ones(N), T)
    control = DDP(engine="numpy").solve(dual.problem())
    found = linear_filter().along(plan().states, plan().controls)
    np.testing.assert_allclose(found.predicted, control.value_hessians[::-1], atol=1e-9)
    for K, L in zip(found.gains, control.feedback_gains[::-1]):
        np.testing.assert_allclose(LINEAR.A @ K, -L.T, atol=1e-9)


def test_its_estimate_is_the_mean_of_the_state_given_all_measurements() -> None:
    """By Bayes' rule for the Gaussian vector (x_0, ε, η) as a whole, without a recursion."""
    rng, problem, known = np.random.default_rng(0), noisy(), linear_filter()
    controls, measured = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    state, seen = np.hstack([np.linalg.cholesky(P0 + 1e-300 * np.eye(N)), np.zeros((N, 3 * 2 + 4 * 2))]), list[Any]()
    mean, means = problem.x0, list[Any]()
    for t in range(4):
        of_eta = np.zeros((2, state.shape[1]))
        of_eta[:, N + 3 * 2 + 2 * t :][:, :2] = D
        seen.append(H @ state + of_eta)
        means.append(H @ mean)
        known.update(measured[t], t)
        if t < 3:
            known.predict(controls[t], t)
            state, mean = LINEAR.A @ state, LINEAR.A @ mean + LINEAR.B @ controls[t]
            state[:, N + 2 * t :][:, :2] += F
    Y = np.vstack(seen)
    gain = np.linalg.solve(Y @ Y.T, Y @ state.T).T
    np.testing.assert_allclose(known.estimate, mean + gain @ (measured.ravel() - np.concatenate(means)), atol=1e-10)
    np.testing.assert_allclose(known.error_covariance, state @ state.T - gain @ Y @ state.T, atol=1e-10)


def test_the_filters_covariance_is_that_of_many_runs_and_errors_are_orthogonal_to_estimates() -> None:
    """An entry of a sample covariance of N runs has the deviation √((P_ii P_jj + P_ij²)/N)."""
    expected = linear_filter().along(plan().states, plan().controls).updated
    for t in range(T + 1):
        error, estimate = runs().states[:, t] - runs().estimates[:, t], runs().estimates[:, t]
        P, found = expected[t], error.T @ error / RUNS
        spread = np.sqrt((np.outer(np.diag(P), np.diag(P)) + P**2) / RUNS)
        assert (np.abs(found - P) <= 5 * spread + 1e-12).all()
        about = estimate - estimate.mean(axis=0)
        crossed = np.sqrt(np.outer(np.diag(P), about.var(axis=0)) / RUNS)
        assert (np.abs(error.T @ about / RUNS) <= 5 * crossed + 1e-12).all()


def test_the_cost_of_filter_and_controller_together_is_the_formula_of_the_separation_principle() -> None:
    """J = ½ x̄_0ᵀ V_0 x̄_0 + ½ tr V_0 P_0 + ½ Σ tr(V_{t+1} F Fᵀ) + ½ Σ tr(P_t Kᵀ (R + Bᵀ V_{t+1} B) K), P_t updated."""
    V, K = LINEAR.riccati()
    P = linear_filter().along(plan().states, plan().controls).updated
    of_state = (
        0.5 * LINEAR.x0 @ V[0] @ LINEAR.x0
        + 0.5 * np.trace(V[0] @ P0)
        + 0.5 * sum(np.trace(V[t + 1] @ F @ F.T) for t in range(T))
    )
    of_doubt = 0.5 * sum(
        np.trace(P[t] @ K[t].T @ (LINEAR.R + LINEAR.B.T @ V[t + 1] @ LINEAR.B) @ K[t]) for t in range(T)
    )
    costs = runs().costs
    error = costs.std() / np.sqrt(RUNS)
    assert abs(costs.mean() - of_state - of_doubt) < 4 * error
    assert of_doubt > 6 * error


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_a_filter_that_takes_the_sensor_for_better_or_worse_than_it_is_costs_more(factor: float) -> None:
    truth = linear_filter()

    class Wrong(KalmanFilter):
        def measure(self, x: Any, rng: np.random.Generator, t: int = 0) -> Any:
            return truth.measure(x, rng, t)

    wrong = Wrong(noisy(), lambda x: H @ x, factor * D, P0)
    costs = sample(noisy(), plan().policy, 400, estimator=wrong).costs
    difference = costs - runs().costs[:400]  # of the same draws
    assert difference.mean() > 3 * difference.std() / 20


def test_with_a_sensor_that_is_exact_and_sees_all_the_estimates_are_the_states() -> None:
    exact = KalmanFilter(noisy(), lambda x: x, 1e-9, P0 + np.eye(N))
    found = sample(noisy(), plan().policy, 3, estimator=exact)
    np.testing.assert_allclose(found.estimates, found.states, atol=1e-6)


def test_with_gains_of_your_own_the_covariance_is_that_of_the_error_with_these() -> None:
    """With K = I on a sensor that sees all, the error is the sensor's; with K = 0 that of the model alone."""
    for share, expected in ((1.0, 0.04 * np.eye(N)), (0.0, P0)):
        own = KalmanFilter(noisy(), lambda x: x, 0.2, P0, gains=[share * np.eye(N)] * (T + 1))
        own.update(np.ones(N))
        np.testing.assert_allclose(own.error_covariance, expected, atol=1e-12)
        np.testing.assert_allclose(own.estimate, share * np.ones(N) + (1 - share) * LINEAR.x0, atol=1e-12)


def sees_the_angle(problem: Problem, noise: float) -> KalmanFilter:
    return KalmanFilter(problem, lambda x: x[:1], noise, 0.01)


def test_a_receding_horizon_balances_on_a_filter_that_sees_only_the_angle() -> None:
    """The rate is never measured; the plant is pushed as the filter's model expects, and its errors match P."""
    pushed = upright(noise=lambda x, u: 0.01 * np.eye(2))
    estimator = sees_the_angle(pushed, 0.02)
    controller = MPC(without_noise(pushed), DDP(max_iterations=1))
    loop = simulate(controller, 150, process_noise=0.01, seed=2, estimator=estimator)
    assert loop.count(Health.HELD) == 0
    assert np.abs(loop.states[40:, 0] - np.pi).max() < 0.25
    estimator.update(loop.states[-1, :1])
    error = (loop.states[:-1] - loop.known)[40:]
    assert (np.abs(error.std(axis=0) / np.sqrt(np.diag(estimator.error_covariance)) - 1) < 0.4).all()
    assert error[:, 0].std() < 0.02


def test_a_filter_on_a_curved_model_follows_the_swing_up() -> None:
    """Extended: A and H are taken anew at every estimate; started elsewhere, it finds the plant."""
    problem = upright(
        dynamics=rk4(pendulum_field, 0.05), x0=[0.0, 0.0], horizon=60, noise=lambda x, u: 0.005 * np.eye(2)
    )
    solution = DDP().solve(without_noise(problem))
    estimator = KalmanFilter(problem, lambda x: m.stack([m.sin(x[0]), m.cos(x[0])]), 0.05, 0.09)
    found = sample(problem, solution.policy, 30, estimator=estimator)
    first, last = (np.abs(found.states[:, t] - found.estimates[:, t]).mean() for t in (0, 60))
    assert last < 0.5 * first
    assert np.abs(found.states[:, -1, 0] - np.pi).max() < 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((lambda x: H @ x, np.ones(3)), r"measurement_noise has shape \(3,\), expected \(2, j\), \(2,\) or one"),
        ((lambda x: H @ x, np.nan), "measurement_noise is not finite"),
        ((lambda x: H @ x, 0.1, np.eye(2)), r"covariance has shape \(2, 2\), expected \(3, 3\)"),
        ((lambda x: H @ x, 0.1, -1.0), "without negative eigenvalues"),
        ((lambda x: H @ x, 0.1, np.diag([1.0, 1.0, -1e-6])), "without negative eigenvalues"),
        ((lambda x: H @ x, 0.1, 0.0, [np.zeros((2, 3))]), r"gains\[0\] has shape \(2, 3\), expected \(3, 2\)"),
        ((lambda x: x[7], 0.1), "the measurement: the function could not be traced"),
        ((3.0, 0.1), "the measurement: expected a function"),
    ],
    ids=["noise", "nan", "covariance", "negative", "one negative", "gains", "index", "number"],
)
def test_wrong_declarations(arguments: Any, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        KalmanFilter(noisy(), *arguments)


@pytest.mark.parametrize("seed", range(3))
def test_a_doubt_in_one_direction_only_is_a_covariance(seed: int) -> None:
    """Its zero eigenvalues are rounded, to either side."""
    direction = np.random.default_rng(seed).standard_normal(3)
    known = KalmanFilter(noisy(), lambda x: H @ x, 0.1, np.outer(direction, direction))
    away = known.start(np.random.default_rng(1)) - LINEAR.x0
    assert np.linalg.norm(np.cross(away, direction)) < 1e-6


def test_wrong_measurements() -> None:
    known = linear_filter()
    for y in ([1.0], [np.nan, 0.0]):
        with pytest.raises(ProblemError, match="the measurement"):
            known.update(y)
    np.testing.assert_array_equal(known.estimate, LINEAR.x0)
    certain = KalmanFilter(noisy(), lambda x: H @ x, 0.0)
    with pytest.raises(ProblemError, match="leaves no doubt of a measurement at stage 0"):
        certain.update([0.0, 0.0])
    with pytest.raises(ProblemError, match="leave out that of simulate"):
        simulate(MPC(upright()), 1, measurement_noise=0.1, estimator=sees_the_angle(upright(), 0.1))
