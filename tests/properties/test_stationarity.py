"""Success is a minimum: where the gradient vanishes without one, no first-order method claims to have converged."""

from dataclasses import replace

import numpy as np
import pytest
from floors import Floor
from hypothesis import given, settings
from hypothesis import strategies as st

import ocpkit.math as m
from ocpkit import DDP, EMSA, MSA, Cost, Failure, GradientDescent, Problem, Reason, Status
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.models import growth
from ocpkit.solvers.verdicts.stationarity import hidden_decrease
from properties.oracle import assert_close
from properties.strategies import networks, positive_definite, problems, seeds, times

SOLVERS = [MSA(minimization="gradient", learning_rate=1.0), EMSA(), GradientDescent()]
NAMES = ["msa", "emsa", "gd"]


def hidden_at(problem, controls):
    engine = NumpyEngine(problem)
    return hidden_decrease(engine, engine.rollout(controls))


def of_control(cost, guess, bounds=(-np.inf, np.inf)):
    """One stage whose cost is a function of u alone."""
    guess = np.atleast_1d(np.asarray(guess, dtype=float))
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + u[0]]),
        cost=lambda x, u: cost(u),
        terminal_cost=lambda x: 0.0 * x[0],
        x0=[0.0],
        horizon=1,
        controls=guess[None],
        control_bounds=bounds,
    )


def share(u):
    return 1 / (1 + m.exp(-u))


def saturating(guess, horizon=3):
    """x' = x + 1/(1 + e^{−u}) to the target horizon/2, best reached with u = 0."""
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + share(u[0])]),
        cost=lambda x, u: 0.0 * u[0],
        terminal_cost=lambda x: 0.5 * (x[0] - horizon / 2) ** 2,
        x0=[0.0],
        horizon=horizon,
        controls=[guess],
    )


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
@given(depth=st.floats(13.0, 30.0), side=st.sampled_from([-1.0, 1.0]))
@settings(max_examples=5)
def test_a_saturated_control_is_no_minimum(solver, depth, side):
    """The gradient is below e^{−13}, and a better cost, J* = 0, is far away: those that search a line go to it."""
    problem = saturating(side * depth)
    solution = solver.solve(problem)
    if isinstance(solver, MSA):
        assert solution.status in (Status.STALLED, Status.ITERATION_LIMIT)
    else:
        assert solution.cost <= 1e-18
    assert solver.solve(problem, controls=np.full((3, 1), side)).success


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
@given(seed=seeds, size=st.integers(1, 3))
@settings(max_examples=5)
def test_a_saddle_is_no_minimum(solver, seed, size):
    """J = ½uᵀHu with one negative eigenvalue, started where the gradient is zero: left behind, as far as one cares."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    eigenvalues = np.r_[-rng.uniform(0.1, 1.0), rng.uniform(0.1, 10.0, size - 1)]
    H = basis * eigenvalues @ basis.T
    solution = solver.solve(of_control(lambda u: 0.5 * m.dot(u, times(H, u)), np.zeros(size)))
    assert not solution.success
    assert solution.cost < 0


def test_nothing_is_hidden_at_a_strict_minimum():
    """Where DDP has converged with every Q_uu positive definite, the probe finds nothing."""
    converged = Floor()

    @given(st.one_of(problems(dynamics_bend=0.3, max_horizon=3), networks()))
    @settings(max_examples=15)
    def check(problem):
        solution = DDP(gradient_tolerance=1e-9, max_iterations=200).solve(problem)
        if converged.when(solution.success):
            assert hidden_at(problem, list(solution.controls)) <= 1e-9 * (1 + abs(solution.cost))

    check()
    converged.check(8)


@given(st.floats(1.0, 30.0))
def test_a_tail_without_minimum_hides_nothing_if_it_is_convex(u):
    """J = e^{−u}: there is no minimum to reach, and J is above its infimum by no more than its gradient."""
    assert hidden_at(of_control(lambda v: m.exp(-v[0]), u), [np.array([u])]) == 0


@given(st.floats(1.0, 4.0))
def test_what_is_hidden_is_what_the_gradient_does_not_admit(target):
    """J = 1 − 1/(1 + (u − target)²) from u far out on its concave flank: nearly all of J can be won."""
    u = target + 300.0
    problem = of_control(lambda v: 1 - 1 / (1 + (v[0] - target) ** 2), u)
    hidden = hidden_at(problem, [np.array([u])])
    assert 0 < hidden < problem.rollout([np.array([u])])[1]


@given(seeds, st.integers(1, 3))
def test_controls_held_by_a_bound_do_not_move(seed, size):
    """J = −½ uᵀHu, concave, with u in a corner of its box: a minimum; inside the box: not."""
    rng = np.random.default_rng(seed)
    H, corner = positive_definite(rng, size), np.where(rng.random(size) < 0.5, -1.0, 1.0)
    H = H + np.diag(2 * np.abs(H).sum(axis=0))  # diagonally dominant: ∇J points out of the box in every corner
    problem = of_control(lambda u: -0.5 * m.dot(u, times(H, u)), corner, (-1.0, 1.0))
    assert hidden_at(problem, [corner]) == 0
    assert GradientDescent().solve(problem).success
    inside = corner.copy()
    inside[0] = 0.0
    assert hidden_at(problem, [inside]) > 1e-6 * H[0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("solver", [MSA(), GradientDescent()], ids=["msa", "gd"])
def test_on_growth_success_means_the_optimum(solver):
    """MSA runs to log-odds of −20, where a country that saves nothing gains nothing by a little more."""
    problem = growth.build(horizon=30)
    solution, best = solver.solve(problem), DDP().solve(problem)
    assert solution.cost >= best.cost - 1e-9
    assert solution.success or isinstance(solver, MSA)
    if solution.success:
        assert_close(solution.cost, best.cost, 1e-6)
    else:
        assert solution.status in (Status.STALLED, Status.DIVERGED)


@pytest.mark.slow
@pytest.mark.parametrize("patience", [3, 20])
def test_out_of_patience_or_not_saturation_is_what_is_said(patience):
    """On growth MSA saturates again wherever it goes on from, for the last of many times."""
    solution = MSA(patience=patience).solve(growth.build(horizon=30))
    assert solution.status is Status.STALLED
    assert solution.details.reason.failure is Failure.SATURATED
    assert solution.iterations == 43


class CurvatureUnknown(Cost):
    """½u², whose second derivatives a user has not got right."""

    state_size = control_size = 1

    def value(self, x, u, p):
        return 0.5 * float(u @ u)

    def gradient(self, x, u, p):
        return 0 * x, u

    def hessian(self, x, u, p):
        return np.zeros((1, 1)), np.zeros((1, 1)), np.full((1, 1), np.nan)


def test_where_second_derivatives_are_not_finite_the_gradient_decides():
    problem = of_control(lambda u: 0.5 * u[0] ** 2, 1.0)
    stage = replace(problem.stages[0], cost=CurvatureUnknown())
    assert GradientDescent().solve(problem.replace(stages=(stage,))).success


class OnlyBeyond(CurvatureUnknown):
    """½u², whose gradient a user has not got right below u = ½."""

    def gradient(self, x, u, p):
        return 0 * x, np.where(u < 0.5, np.nan, u)


def test_derivatives_that_are_not_finite_are_input_at_the_start_and_divergence_later():
    problem = of_control(lambda u: 0.5 * u[0] ** 2, 1.0)
    problem = problem.replace(stages=(replace(problem.stages[0], cost=OnlyBeyond()),))
    for start, status in ((1.0, Status.DIVERGED), (0.0, Status.INVALID_INPUT)):
        solution = GradientDescent(learning_rate=0.8).solve(problem, controls=[[start]])
        assert solution.status is status
        assert solution.details.reason == Reason(failure=Failure.NOT_FINITE, stage=0)


def test_states_that_are_not_finite_are_invalid_input():
    problem = of_control(lambda u: m.exp(1000 * u[0]), 1.0)
    solution = GradientDescent().solve(problem)
    assert solution.status is Status.INVALID_INPUT
    assert solution.iterations == 0


@pytest.mark.parametrize(("bend", "height"), [(-1.0, 0.0), (-1.0, 1e6), (-1e-3, 0.0)])
def test_a_maximum_is_left_in_whatever_unit_its_cost_is(bend, height):
    solution = GradientDescent().solve(of_control(lambda u: height + 0.5 * bend * u[0] ** 2, 0.0, (-2.0, 1.0)))
    assert solution.success
    assert_close(solution.controls, [[-2.0]] if solution.controls[0, 0] < 0 else [[1.0]])


def test_without_controls_there_is_nothing_to_optimize():
    problem = Problem.from_functions(
        dynamics=lambda x, u: 0.5 * x,
        cost=lambda x, u: x[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        x0=[1.0],
        horizon=2,
        control_size=0,
    )
    for solver in SOLVERS:
        solution = solver.solve(problem)
        assert solution.success
        assert solution.history[-1].gradient_norm == 0
