"""Pontryagin's methods: the augmented Hamiltonian, descent, bounds, and honest divergence."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ocpkit.math as m
from ocpkit import DDP, EMSA, MSA, Failure, FunctionTerminalCost, GradientDescent, Problem, Reason, Status
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.solvers.first_order.pmp import augmented_hamiltonian, hamiltonian, minimize_control
from ocpkit.solvers.guess import Guess
from properties.oracle import Unrolled, assert_close, tensor, unrolled_cost
from properties.strategies import positive_definite, problems, seeds, times

NONE = np.zeros(0)


def central(function, u, h=1e-5):
    """Central differences of the value that comes first; error O(h²) + O(1e-16/h)."""
    units = h * np.eye(len(u))
    return np.array([(function(u + unit)[0] - function(u - unit)[0]) / (2 * h) for unit in units])


PLAIN = (1.0, 1.0, 1.0)  # units of J, x_t and x_{t+1}


@pytest.mark.slow
@pytest.mark.parametrize("squared", [True, False])
@given(problem=problems(), seed=seeds, rho=st.sampled_from([0.0, 0.1, 3.0]))
def test_the_augmented_hamiltonian_is_eq_23_and_its_gradient_is_right(squared, problem, seed, rho):
    """H + ½ρ‖x_{t+1} − f‖² + ½ρ‖p_t − ∇_x H‖² (or the norms themselves), away from the kink at the nominal u."""
    rng, oracle = np.random.default_rng(seed), Unrolled(problem)
    nominal = NumpyEngine(problem).rollout(problem.controls)
    for t, stage in enumerate(problem.stages):
        x, u = nominal.states[t], nominal.controls[t]
        after, own = oracle.gradient[oracle.x[t + 1]], oracle.gradient[oracle.x[t]]
        objective = augmented_hamiltonian(
            stage, x, after, NONE, nominal.states[t + 1], own, rho, squared, (1.0, 1.0, 1.0)
        )
        assert_close(objective(u)[0], hamiltonian(stage, x, after, u, NONE)[0])
        v = u + rng.normal(size=u.shape)
        H, Hx, _ = hamiltonian(stage, x, after, v, NONE)
        errors = [np.linalg.norm(nominal.states[t + 1] - stage.dynamics.step(x, v, NONE)), np.linalg.norm(own - Hx)]
        value, gradient = objective(v)
        assert_close(value, H + 0.5 * rho * sum(e**2 if squared else e for e in errors))
        scale = 1 + np.abs(gradient).max() + abs(value)
        if squared or min(errors) > 1e-2:
            assert np.abs(gradient - central(objective, v)).max() <= 1e-5 * scale


@given(problems(dynamics_bend=0.3, max_horizon=3), st.booleans())
@settings(max_examples=10)
def test_every_emsa_iterate_lowers_the_cost(problem, squared):
    """From wherever it starts; the history's numbers are those of the trajectory it returns."""
    costs = []
    solver = EMSA(max_iterations=5, squared=squared)
    solution = solver.solve(problem, callback=lambda iteration: costs.append(iteration.cost))
    accepted = [i for i in solution.history[1:] if i.step_size]
    for before, after in pairwise(costs):
        assert after < before or solution.status is Status.STALLED
    for iteration, before in zip(accepted, solution.history):
        assert_close(iteration.actual_decrease, before.cost - iteration.cost)
        assert iteration.penalty > 0
    assert_close(solution.cost, unrolled_cost(problem, [tensor(u) for u in solution.controls]))


def quadratic_of_control(rng, n, m_, coupling=1.0, shift=0.0):
    """A linear-quadratic problem of two stages with blocks that a test can read: x' = A x + B u."""
    A, B, b = rng.normal(size=(n, n)), coupling * rng.normal(size=(n, m_)), rng.normal(size=m_)
    B += shift * np.eye(n, m_)
    Qx, R, P = positive_definite(rng, n), positive_definite(rng, m_), positive_definite(rng, n)
    problem = Problem.from_functions(
        dynamics=lambda x, u: times(A, x) + times(B, u),
        cost=lambda x, u: 0.5 * m.dot(x, times(Qx, x)) + 0.5 * m.dot(u, times(R, u)) + times(b, u),
        terminal_cost=lambda x: 0.5 * m.dot(x, times(P, x)),
        x0=rng.normal(size=n),
        horizon=2,
        controls=rng.normal(size=(2, m_)),
    )
    return problem, B, R, b


def first_iterate(solver, problem):
    """The controls after one MSA iteration, better or worse."""
    run = solver.begin(problem, Guess.choose(problem, None, None, None))
    run.start()
    run.step()
    return run.current[0].controls


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.sampled_from([1.0, 0.3]))
def test_an_msa_step_minimizes_the_hamiltonian_stage_by_stage(seed, n, m_, relaxation):
    """Eq. 19c: argmin_v ½vᵀRv + bᵀv + p_{t+1}ᵀBv = −R⁻¹(b + Bᵀp_{t+1}), approached by the relaxation."""
    problem, B, R, b = quadratic_of_control(np.random.default_rng(seed), n, m_)
    oracle, controls = Unrolled(problem), first_iterate(MSA(relaxation=relaxation), problem)
    for t, u in enumerate(problem.controls):
        minimizer = -np.linalg.solve(R, b + B.T @ oracle.gradient[oracle.x[t + 1]])
        assert_close(controls[t], u + relaxation * (minimizer - u), 1e-7)


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.5, 20.0]))
def test_an_emsa_step_minimizes_the_augmented_hamiltonian(seed, n, m_, rho):
    """Eq. 24 on a linear-quadratic problem: (R + ρ BᵀB)(v − u) = −∇_u H, since ∇_x H does not depend on v."""
    problem, B, R, _ = quadratic_of_control(np.random.default_rng(seed), n, m_)
    oracle, solution = Unrolled(problem), EMSA(penalty=rho, max_iterations=1, scaling=False).solve(problem)
    accepted = solution.history[1].penalty
    assert accepted >= rho
    assert solution.history[1].step_size == 1
    for t, u in enumerate(problem.controls):
        step = -np.linalg.solve(R + accepted * B.T @ B, oracle.gradient[oracle.u[t]])
        assert_close(solution.controls[t], u + step, 1e-6)


def coupled(seed, rate):
    """A linear-quadratic problem on which MSA multiplies its error by `rate` along the slowest direction.

    MSA takes u ← −R⁻¹(b + Bᵀp(u)), and p is linear in u: the errors are multiplied by −R⁻¹(∇²_ū J − R), which
    grows with the square of B.
    """
    problem, _, R, _ = quadratic_of_control(np.random.default_rng(seed), 2, 2)
    oracle, both = Unrolled(problem), np.kron(np.eye(2), R)
    every = np.ix_(oracle.controls, oracle.controls)
    growth = np.abs(np.linalg.eigvals(np.linalg.solve(both, oracle.hessian[every] - both))).max()
    return quadratic_of_control(np.random.default_rng(seed), 2, 2, coupling=np.sqrt(rate / growth))[0]


TOLERANCES = [(False, 1.0), (True, 0.01)]  # scaling, and what of a tolerance in the user's units serves in natural ones


@pytest.mark.slow
@pytest.mark.parametrize(("scaling", "share"), TOLERANCES)
@given(seed=seeds, rate=st.floats(0.05, 0.8))
@settings(max_examples=10)
def test_where_the_stages_are_weakly_coupled_msa_finds_the_optimum(scaling, share, seed, rate):
    """The fixed point of MSA satisfies Pontryagin's conditions; on a convex problem that is DDP's solution."""
    problem, optimal = coupled(seed, rate), DDP().solve(coupled(seed, rate))
    solution = MSA(gradient_tolerance=1e-5 * share, scaling=scaling).solve(problem)
    assert solution.success
    scale = 1 / (1 - rate)  # of the distance to a fixed point, by the last step
    assert_close(solution.controls, optimal.controls, 1e-5 * scale)
    assert_close(solution.value_gradients[0], optimal.value_gradients[0], 1e-4 * scale)


@given(seeds, st.floats(1.5, 10.0))
@settings(max_examples=4)
def test_where_they_are_strongly_coupled_msa_diverges(seed, rate):
    assert MSA().solve(coupled(seed, rate)).status is Status.DIVERGED


@given(problems(dynamics_bend=0.3, max_horizon=3), st.integers(0, 4))
@settings(max_examples=10)
def test_msa_returns_the_best_iterate_also_when_it_is_stopped(problem, limit):
    """Whatever ended the run: the cost is the least of the history, and belongs to the controls returned."""
    solution = MSA(max_iterations=limit).solve(problem)
    assert solution.cost == min(i.cost for i in solution.history)
    taken = solution.history[:-1] if solution.status is Status.DIVERGED else solution.history
    for before, after in pairwise(taken):
        assert_close(after.actual_decrease, before.cost - after.cost)
        assert after.step_size == 1
    assert_close(problem.rollout(solution.controls)[1], solution.cost)
    oracle = Unrolled(problem, solution.controls)
    for costate, x in zip(solution.value_gradients, oracle.x):
        assert_close(costate, oracle.gradient[x])


def test_msa_at_rest_is_stalled_not_diverged():
    """The controls rest, but L-BFGS cannot bring the gradient below 1e-300."""
    solution = MSA(gradient_tolerance=1e-300).solve(coupled(0, 0.5))
    assert solution.status is Status.STALLED
    assert solution.details.reason is None


@given(seeds, st.integers(1, 3), st.floats(0.05, 0.5))
def test_small_literal_norms_shorten_the_step(seed, size, share):
    """Eq. 23 as printed: the minimizer solves ∇_u H(v) + ½ρ Bᵀe/‖e‖ = 0 with e = B(v − u), where ρ is small enough."""
    objective, u, gradient, R, B, rho = literal_augmentation(seed, size, share)
    v = minimize_control(objective, u, *unbounded(size), 200, (1.0, np.ones(size)))
    error = B @ (v - u)
    pull = rho / 2 * B.T @ error / np.linalg.norm(error)
    assert_close(R @ (v - u) + pull, -gradient, 1e-6)


@given(seeds, st.integers(1, 3), st.floats(1.5, 10.0))
def test_large_literal_norms_forbid_the_step(seed, size, share):
    """A norm is an exact penalty: from ½ρ ≥ ‖B⁻ᵀ ∇_u H‖ on, the old control is the minimizer."""
    objective, u, gradient, *_ = literal_augmentation(seed, size, share)
    v = minimize_control(objective, u, *unbounded(size), 200, (1.0, np.ones(size)))
    assert objective(v)[0] >= objective(u)[0] - 1e-12 * (1 + abs(objective(u)[0]))
    assert_close(v, u, 1e-6)
    assert gradient.any()


def literal_augmentation(seed, size, share):
    """H̃ with unsquared norms at the first stage of a linear-quadratic problem, ½ρ = share · ‖B⁻ᵀ ∇_u H‖."""
    problem, B, R, _ = quadratic_of_control(np.random.default_rng(seed), size, size, coupling=0.3, shift=2.0)
    oracle, u = Unrolled(problem), problem.controls[0]
    x, following, after, own = problem.x0, problem.rollout()[0][1], *(oracle.gradient[oracle.x[t]] for t in (1, 0))
    gradient = oracle.gradient[oracle.u[0]]
    rho = 2 * share * float(np.linalg.norm(np.linalg.solve(B.T, gradient)))
    return (
        augmented_hamiltonian(problem.stages[0], x, after, NONE, following, own, rho, False, (1.0, 1.0, 1.0)),
        u,
        gradient,
        R,
        B,
        rho,
    )


def unbounded(size):
    return np.full(size, -np.inf), np.full(size, np.inf)


@given(problems(dynamics_bend=0.3, max_horizon=3), st.sampled_from([2.0, 9.0]), st.sampled_from([1e-8, 0.5]))
@settings(max_examples=5)
def test_the_penalty_grows_until_the_cost_falls_and_shrinks_by_a_root(problem, factor, least):
    """After a success with ρ the next one tries max(ρ/√factor, least); every failure multiplies by the factor."""
    solver = EMSA(penalty=1.0, penalty_factor=factor, min_penalty=least, max_iterations=5)
    tried = 1.0
    for iteration in solver.solve(problem).history[1:]:
        failures = np.log(iteration.penalty / tried) / np.log(factor)
        assert failures >= -1e-9
        assert abs(failures - round(failures)) <= 1e-9
        tried = max(iteration.penalty / np.sqrt(factor), least)


def test_emsa_gives_up_when_no_penalty_helps():
    """At max_penalty: the last cost is kept, the status is stalled, and ρ says so."""
    solution = EMSA(max_penalty=10.0, gradient_tolerance=1e-300, max_iterations=10**4).solve(coupled(0, 0.5))
    assert solution.status is Status.STALLED
    assert 10.0 < solution.history[-1].penalty <= 40.0
    assert solution.history[-1].cost == solution.cost


@given(seeds)
@settings(max_examples=5)
def test_emsa_finds_the_optimum_of_strongly_coupled_problems_too(seed):
    problem, *_ = quadratic_of_control(np.random.default_rng(seed), 2, 1, coupling=1.0)
    solution = EMSA(gradient_tolerance=1e-4, max_iterations=3000).solve(problem)
    assert solution.success
    assert_close(solution.cost, DDP().solve(problem).cost, 1e-6)


STIFF = Problem.from_functions(
    dynamics=lambda x, u: m.stack([x[0] + 3.0 * u[0]]),
    cost=lambda x, u: 0.5 * x[0] ** 2 + 0.5 * u[0] ** 2,
    terminal_cost=lambda x: 0.5 * x[0] ** 2,
    x0=[1.0],
    horizon=4,
    control_size=1,
)
"""u = −3 p overshoots: every MSA iteration multiplies the controls by about −9."""


def test_msa_says_that_it_diverged_and_what_to_use():
    """Stiff couplings: the best iterate is returned, with the reason and the way out."""
    solution = MSA().solve(STIFF)
    assert solution.status is Status.DIVERGED
    assert solution.details.reason.failure in (Failure.CONTROLS_BLEW_UP, Failure.COST_BLEW_UP)
    assert "'emsa'" in str(solution.details.reason)
    assert solution.cost == min(i.cost for i in solution.history)
    assert_close(solution.cost, STIFF.rollout(solution.controls)[1])
    assert_close(solution.value_gradients[-1], solution.states[-1])
    assert EMSA().solve(STIFF).success


def test_msa_ends_where_its_step_is_no_number():
    """The gradient is 2e200, and its step beyond the largest float."""
    steep = STIFF.replace(terminal_cost=FunctionTerminalCost(lambda x: 1e200 * x[0] ** 2, 1))
    solution = MSA(minimization="gradient", learning_rate=1e200).solve(steep)
    assert solution.status is Status.DIVERGED
    assert solution.details.reason.failure is Failure.CONTROLS_BLEW_UP


def test_msa_reports_a_cycle_by_its_patience():
    """x' = x + u from x0 = 1 with φ = ½x²: u ↦ −(1 + u) never settles, and never blows up."""

    def oscillating(constant=0.0, bounds=None):
        return Problem.from_functions(
            dynamics=lambda x, u: m.stack([x[0] + u[0]]),
            cost=lambda x, u: 0.5 * u[0] ** 2 + constant,
            terminal_cost=lambda x: 0.5 * x[0] ** 2,
            x0=[1.0],
            horizon=1,
            control_size=1,
            control_bounds=bounds,
        )

    solution = MSA(patience=7).solve(oscillating())
    assert solution.status is Status.DIVERGED
    assert solution.details.reason == Reason(failure=Failure.NO_BETTER_COST, iterations=7)
    assert solution.iterations == 7
    later = MSA(patience=7).solve(oscillating(bounds=(-1.2, 5.0)), controls=[[3.0]])
    assert later.iterations == 8  # cut at the bound, the first step is an improvement
    for constant in (0.0, -0.5, 1e10):  # −0.5: the guess costs nothing
        assert MSA(relaxation=0.5).solve(oscillating(constant)).success


def linear_in_the_control(rng, bounds):
    """x' = A x + B u with costs linear in x and u: H is linear in u, the optimum sits in a corner."""
    A, B, a, b, c = rng.normal(size=(2, 2)), rng.normal(size=(2, 2)), *rng.normal(size=(3, 2))
    return Problem.from_functions(
        dynamics=lambda x, u: times(A, x) + times(B, u),
        cost=lambda x, u: times(a, x) + times(b, u),
        terminal_cost=lambda x: times(c, x),
        x0=rng.normal(size=2),
        horizon=2,
        control_size=2,
        control_bounds=bounds,
    )


@pytest.mark.parametrize("solver", [MSA(), EMSA(penalty=1e-8)], ids=["msa", "emsa"])
@given(seed=seeds)
@settings(max_examples=10)
def test_bang_bang_problems_end_on_the_best_corner(solver, seed):
    """The minimum over all 2^(mT) corners, found by trying them."""
    lower, upper = np.array([-1.0, -0.5]), np.array([2.0, 0.25])
    problem = linear_in_the_control(np.random.default_rng(seed), (lower, upper))
    best = min(problem.rollout(np.reshape(c, (2, 2)))[1] for c in product(*zip(lower, upper), repeat=2))
    solution = solver.solve(problem)
    assert solution.success
    assert_close(solution.cost, best, 1e-6 if isinstance(solver, EMSA) else 1e-12)


def test_a_linear_hamiltonian_without_bounds_has_no_minimum():
    problem = linear_in_the_control(np.random.default_rng(0), (-np.inf, np.inf))
    solution = MSA().solve(problem)
    assert solution.status is Status.DIVERGED
    assert solution.details.reason.failure is Failure.LINEAR_HAMILTONIAN
    assert_close(solution.controls, np.zeros((2, 2)))


@pytest.mark.parametrize("solver", [MSA(max_iterations=5), EMSA(max_iterations=5)], ids=["msa", "emsa"])
@given(problem=problems(dynamics_bend=0.3, max_horizon=3))
@settings(max_examples=10)
def test_bounds_are_honoured_and_matter(solver, problem):
    """Every control of every solution lies in its box; the guess is moved into it first."""
    stages = tuple(replace(stage, control_lower=-0.1, control_upper=0.2) for stage in problem.stages)
    boxed = problem.replace(stages=stages)
    for limit in (0, solver.max_iterations):
        solution = replace(solver, max_iterations=limit).solve(boxed)
        for u in solution.controls:
            assert (u >= -0.1).all()
            assert (u <= 0.2).all()
    start = boxed.rollout([np.clip(u, -0.1, 0.2) for u in problem.controls])[1]
    assert solution.cost <= start


def test_a_linear_objective_ends_on_the_bound_that_its_slope_points_to():
    """Per control: the lower bound, the upper one, or, without a slope, where it is."""
    slope, u = np.array([0.5, -0.5, 0.0]), np.array([0.3, 0.3, 0.3])
    v = minimize_control(lambda v: (slope @ v, slope), u, np.full(3, -1.0), np.full(3, 2.0), 100, (1.0, np.ones(3)))
    assert v.tolist() == [-1.0, 2.0, 0.3]


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_an_objective_that_bends_only_on_the_unbounded_side_is_not_linear(side):
    """J falls with slope −1 towards `side`, and bends up half a unit away; the other side is bounded. Minimum at 1."""

    def objective(v):
        beyond = max(side * (v[0] - 1) - 0.5, 0.0)
        return -side * (v[0] - 1) + 0.5 * beyond**2, np.array([side * (beyond - 1)])

    bounds = sorted([side * np.inf, 1 - side * 0.25])
    v = minimize_control(objective, np.ones(1), np.array(bounds[:1]), np.array(bounds[1:]), 100, (1.0, np.ones(1)))
    assert_close(v, [1 + side * 1.5], 1e-7)


def test_a_minimization_that_leaves_the_finite_numbers_is_reported():
    """L-BFGS has no number to return: the objective has none anywhere but for its gradient at the start."""
    with pytest.raises(FloatingPointError, match="finite numbers"), np.errstate(all="ignore"):
        minimize_control(
            lambda v: (float("nan"), np.full(1, np.nan)), np.full(1, np.nan), *unbounded(1), 100, (1.0, np.ones(1))
        )


BOXED = [MSA(), MSA(minimization="gradient", learning_rate=0.05), EMSA(), GradientDescent()]


@pytest.mark.slow
@pytest.mark.parametrize(("scaling", "share"), TOLERANCES)
@pytest.mark.parametrize("solver", BOXED, ids=["msa", "msa-gradient", "emsa", "gd"])
@given(seed=seeds)
@settings(max_examples=5)
def test_the_optimum_in_a_box_is_found(solver, scaling, share, seed):
    """Convex, so that the projected gradient of the unrolled J tells the optimum; some bounds hold, and matter."""
    problem = coupled(seed, 0.4)
    lower, upper = np.array([-0.2, -np.inf]), np.array([0.1, 0.3])
    stages = tuple(replace(stage, control_lower=lower, control_upper=upper) for stage in problem.stages)
    solver = replace(solver, gradient_tolerance=1e-4 * share, max_iterations=30000, scaling=scaling)
    solution = solver.solve(problem.replace(stages=stages))
    assert solution.success
    oracle = Unrolled(problem, list(solution.controls))
    for u, block in zip(solution.controls, oracle.u):
        assert np.abs(u - np.clip(u - oracle.gradient[block], lower, upper)).max() <= 2e-4


@given(seeds, st.integers(1, 3))
def test_minimize_control_solves_boxed_quadratics(seed, size):
    """The projected gradient vanishes at the minimizer of ½vᵀRv + bᵀv in a box, half open or not."""
    rng = np.random.default_rng(seed)
    R, b = positive_definite(rng, size), 3 * rng.normal(size=size)
    lower, upper = np.where(rng.random(size) < 0.5, -1.0, -np.inf), np.where(rng.random(size) < 0.5, 0.5, np.inf)
    u = minimize_control(
        lambda v: (0.5 * v @ R @ v + b @ v, R @ v + b), np.zeros(size), lower, upper, 100, (1.0, np.ones(size))
    )
    assert np.abs(u - np.clip(u - (R @ u + b), lower, upper)).max() <= 1e-6
