"""Noise in the dynamics: Riccati's equation with multiplicative noise, DDP without any, and Monte Carlo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import LQR, pendulum_field
from strategies import smooth_problems
from test_constrained import swing

import ocpkit.math as m
from ocpkit import (
    DDP,
    ILQG,
    IPOPT,
    MPC,
    AugmentedLagrangian,
    Constraint,
    GradientDescent,
    Problem,
    ProblemError,
    Sensitivity,
    Status,
    UnsupportedProblem,
    rk4,
    sample,
    with_free_parameters,
    without_noise,
)

PRECISE = ILQG(inner=DDP(gradient_tolerance=1e-10, cost_tolerance=1e-300), hessian_tolerance=1e-12)


def scalar(by_control: float, by_state: float, added: float, horizon: int = 30) -> Problem:
    """x' = 1.1 x + 0.5 u + by_control u ε₁ + by_state x ε₂ + added ε₃, J = ½ Σ (x² + 0.3 u²) + x_T²."""
    return Problem.from_functions(
        dynamics=lambda x, u: 1.1 * x + 0.5 * u,
        cost=lambda x, u: 0.5 * (x[0] ** 2 + 0.3 * u[0] ** 2),
        terminal_cost=lambda x: x[0] ** 2,
        x0=[2.0],
        horizon=horizon,
        control_size=1,
        noise=lambda x, u: m.stack([m.stack([by_control * u[0], by_state * x[0], added + 0 * x[0]])]),
        name="scalar",
    )


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.floats(0.0, 1.5), st.floats(0.0, 0.6), st.floats(0.0, 1.0))
def test_the_scalar_problem_in_closed_form(by_control: float, by_state: float, added: float) -> None:
    """P = 1 + (a² + s²) P' − (a b P')² / (r + (b² + c²) P'), and E[J] = ½ P x0² + ½ Σ P' σ²."""
    a, b, r, P, constant, gains = 1.1, 0.5, 0.3, 2.0, 0.0, list[float]()
    for _ in range(30):
        constant += 0.5 * P * added**2
        Q = r + (b**2 + by_control**2) * P
        gains.insert(0, -a * b * P / Q)
        P = 1 + (a**2 + by_state**2) * P - (a * b * P) ** 2 / Q
    solution = PRECISE.solve(scalar(by_control, by_state, added))
    assert solution.success
    assert solution.iterations <= 31
    np.testing.assert_allclose(solution.feedback_gains[:, 0, 0], gains, rtol=1e-8)
    assert solution.cost == pytest.approx(0.5 * P * 4 + constant, rel=1e-8)
    assert solution.value_hessians[0, 0, 0] == pytest.approx(P, rel=1e-8)


def test_a_linear_system_with_noise_of_several_sources_by_the_matrix_recursion() -> None:
    lqr, rng = LQR.random(3, 2, 20, seed=4), np.random.default_rng(0)
    of_u, of_x = 0.3 * rng.normal(size=(2, 3, 2)), 0.2 * rng.normal(size=(2, 3, 3))
    base = lqr.problem()
    problem = Problem.from_functions(
        dynamics=base.stages[0].dynamics.function,
        cost=base.stages[0].cost.scalar.function,
        terminal_cost=base.terminal_cost.scalar.function,
        x0=lqr.x0,
        horizon=20,
        control_size=2,
        noise=lambda x, u: m.stack([C @ u + D @ x for C, D in zip(of_u, of_x)]).T,
    )
    P, gains = lqr.F, list[Any]()
    for _ in range(20):
        Quu = lqr.R + lqr.B.T @ P @ lqr.B + sum(C.T @ P @ C for C in of_u)
        Qux = lqr.S + lqr.B.T @ P @ lqr.A + sum(C.T @ P @ D for C, D in zip(of_u, of_x))
        K = -np.linalg.solve(Quu, Qux)
        gains.insert(0, K)
        P = lqr.Q + lqr.A.T @ P @ lqr.A + sum(D.T @ P @ D for D in of_x) + Qux.T @ K
    solution = PRECISE.solve(problem)
    np.testing.assert_allclose(solution.feedback_gains, gains, rtol=1e-7, atol=1e-9)
    assert solution.cost == pytest.approx(0.5 * lqr.x0 @ P @ lqr.x0, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["feedback", "open loop"])
def test_the_expected_cost_is_the_mean_of_many_runs(policy: str) -> None:
    """For an LQ problem exactly; the same controls without feedback cost more, as E[x²] grows by 1.1² a stage."""
    problem = scalar(0.4, 0.1, 0.1, horizon=10)
    solution = PRECISE.solve(problem)
    played = solution.policy if policy == "feedback" else (lambda t, x: solution.controls[t])
    costs = sample(problem, played, 1500).costs
    error = costs.std() / np.sqrt(len(costs))
    if policy == "feedback":
        assert abs(costs.mean() - solution.cost) < 4 * error
    else:
        assert costs.mean() - solution.cost > 10 * error


def test_noise_that_grows_with_the_control_lowers_the_gains_and_added_noise_does_not() -> None:
    quiet, added, growing = (PRECISE.solve(scalar(*each)) for each in ((0, 0, 0), (0, 0, 1.0), (1.0, 0, 0)))
    np.testing.assert_allclose(added.feedback_gains, quiet.feedback_gains, rtol=1e-8)
    assert added.cost > quiet.cost + 1
    assert (np.abs(growing.feedback_gains) < 0.9 * np.abs(quiet.feedback_gains)).all()


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(problem=smooth_problems(max_horizon=10))
def test_without_noise_it_is_ddp(problem: Problem) -> None:
    solution, reference = ILQG().solve(problem), DDP().solve(problem)
    assert solution.status is reference.status
    assert solution.cost == pytest.approx(reference.cost, rel=1e-9, abs=1e-9)


def noisy_pendulum(size: float = 0.3) -> Problem:
    return swing(dynamics=rk4(pendulum_field, 0.05), noise=lambda x, u: m.stack([[0.0 * u[0]], [size * 0.2 * u[0]]]))


def test_on_a_curved_problem_the_policy_is_better_in_many_runs_than_that_of_no_noise() -> None:
    """Both with feedback and the same draws, so the difference is paired."""
    problem = noisy_pendulum(1.5)
    robust, naive = PRECISE.solve(problem), DDP().solve(without_noise(problem))
    costs = [sample(problem, solution.policy, 600).costs for solution in (robust, naive)]
    difference = costs[1] - costs[0]
    assert difference.mean() > 3 * difference.std() / np.sqrt(600)
    assert costs[0].mean() == pytest.approx(robust.cost, rel=0.05)


@pytest.mark.parametrize("size", [0.5, 2.0, 4.0])
def test_no_curvature_pays_for_noise(size: float) -> None:
    """V_xx is negative around the start, so a strong and noisy push would look like a gain without bound."""
    problem = swing(
        cost=lambda x, u: 0.025 * (0.02 * u[0] ** 2 + 0.1 * (1 + m.cos(x[0]))),
        terminal_cost=lambda x: 20 * (1 + m.cos(x[0])) + x[1] ** 2,
        x0=[0.0, 0.0],
        horizon=50,
        controls=[1.0],
        noise=lambda x, u: m.stack([[0.0 * u[0]], [0.05 * size * u[0]]]),
    )
    solution = ILQG().solve(problem)
    assert np.linalg.eigvalsh(DDP().solve(without_noise(problem)).value_hessians).min() < -0.01
    assert solution.success
    assert solution.cost >= problem.cost(solution.states, solution.controls)
    assert np.abs(solution.states).max() < 20


def test_a_free_parameter_and_noise_go_together() -> None:
    """The best gear b of x' = x + b u + c b u ε at price b², near that of trying every b: V_xx is held as b varies."""

    def geared(b: float) -> Problem:
        return Problem.from_functions(
            dynamics=lambda x, u, p: x + p[0] * u,
            cost=lambda x, u, p: 0.5 * u[0] ** 2 + 0.01 * p[0] ** 2,
            terminal_cost=lambda x: 5 * x[0] ** 2,
            x0=[1.0],
            horizon=5,
            control_size=1,
            parameters=[b],
            noise=lambda x, u, p: m.stack([m.stack([0.5 * p[0] * u[0]])]),
        )

    chosen = PRECISE.solve(with_free_parameters(geared(1.0), [0], lower=-np.inf))
    gears = np.linspace(0.5, 2.5, 41)
    costs = [PRECISE.solve(geared(b)).cost for b in gears]
    assert chosen.success
    assert min(costs) - 1e-9 <= chosen.cost <= 1.002 * min(costs)
    assert PRECISE.solve(geared(chosen.states[-1][1])).cost == pytest.approx(chosen.cost, rel=1e-6)


def test_the_band_of_wilson() -> None:
    """Against the textbook formula at z = 1.96: (p + z²/2n ± z √(p q/n + z²/4n²)) / (1 + z²/n)."""
    runs = sample(scalar(0.4, 0.1, 0.5, horizon=3), lambda t, x: np.zeros(1), 50)
    threshold = np.sort(runs.states[:, -1, 0])[44]
    rate, low, high = runs.confidence(lambda x: x[-1, 0] <= threshold)
    n, p, z = 50, 0.9, 1.959963984540054
    center, spread = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (rate, low, high) == pytest.approx(
        (p, (center - spread) / (1 + z**2 / n), (center + spread) / (1 + z**2 / n))
    )


def test_every_policy_meets_the_same_noise_inside_the_bounds() -> None:
    problem = scalar(0.0, 0.0, 1.0, horizon=4)
    first, second = (sample(problem, lambda t, x, u=u: np.array([u]), 5, seed=3).states for u in (0.0, 0.0))
    np.testing.assert_array_equal(first, second)
    assert np.ptp(first[:, 1, 0]) > 0.1
    bounded = swing(control_bounds=(-0.1, 0.1))
    runs = sample(bounded, lambda t, x: np.array([100.0]), 1)
    np.testing.assert_allclose(runs.states[0], bounded.rollout(np.full((20, 1), 0.1))[0], atol=1e-12)


# ---- failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [DDP(), AugmentedLagrangian(), IPOPT(), GradientDescent()], ids=str)
def test_solvers_of_problems_without_noise_refuse_it(solver: Any) -> None:
    with pytest.raises(UnsupportedProblem, match=r"noise of stage 0 .*'ilqg'"):
        solver.solve(noisy_pendulum())
    assert DDP().solve(without_noise(noisy_pendulum())).success


def test_constraints_under_noise_are_refused_with_a_way_out() -> None:
    """'al' would refuse the noise in turn."""
    end = Constraint(lambda x: x, 0.0, 0.0)
    with pytest.raises(UnsupportedProblem, match=r"terminal constraints; .*'al' or 'ipopt', on ocpkit.without_noise"):
        ILQG().solve(scalar(0.1, 0.1, 0.1).replace(terminal_constraints=(end,)))


def test_a_sensitivity_of_an_expected_cost_is_refused() -> None:
    problem = noisy_pendulum()
    with pytest.raises(ProblemError, match="without_noise"):
        Sensitivity(problem, ILQG().solve(problem))


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (3.0, "noise must be a function"),
        (lambda x, u: x, r"noise returned shape \(2,\), expected \(2, k\)"),
        (lambda x, u: m.stack([x, x, x]), r"noise returned shape \(3, 2\)"),
        (lambda x: x, "takes 1 arguments"),
    ],
    ids=["number", "vector", "rows", "arguments"],
)
def test_wrong_noise(noise: Any, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        swing(noise=noise)


@pytest.mark.parametrize("options", [{"hessian_tolerance": 0.0}, {"inner": IPOPT()}], ids=str)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match=next(iter(options))):
        ILQG(**options)


@pytest.mark.parametrize("runs", [0, 1.5])
def test_a_sample_of_no_run(runs: Any) -> None:
    with pytest.raises(ProblemError, match="runs must be a whole number of at least 1"):
        sample(scalar(0.1, 0.1, 0.1), lambda t, x: np.zeros(1), runs)


def test_a_model_that_is_not_finite_says_so() -> None:
    problem = swing(cost=lambda x, u: m.log(x[0] - 5.0) + u[0] ** 2, noise=lambda x, u: m.stack([0 * u, u]))
    solution = ILQG().solve(problem)
    assert solution.status is Status.INVALID_INPUT


def test_a_receding_horizon_takes_it() -> None:
    command = MPC(noisy_pendulum(), ILQG()).step([1.0, 0.0])
    assert command.status is Status.CONVERGED
