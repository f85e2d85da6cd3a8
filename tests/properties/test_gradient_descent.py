"""Prop. 2 with Q_uu = M/η, and Lemma 5: gradient descent is back-propagation is Pontryagin's adjoint.

The reference is torch: autograd on the unrolled J, and torch.optim.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ocpkit import DDP, MSA, FunctionTerminalCost, GradientDescent, Problem, Status
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.recursion.curvature import Identity
from ocpkit.solvers.first_order.pmp import MSARun, hamiltonian
from ocpkit.solvers.guess import Guess
from properties.oracle import Unrolled, assert_close, tensor, unrolled_cost
from properties.strategies import any_problem, networks, problems

ITERATIONS = 20
PUSH, AMPLIFICATION = 1e-9, 1e3
"""Where a push of the guess grows by more, the rate is too large for the problem, and rounding grows as much."""
NEVER = 1e-300
"""A gradient tolerance that no run reaches."""


def iterates(solver, problem, count=ITERATIONS):
    """The first controls that a solver visits, each stacked into one vector."""
    run = solver.begin(problem, Guess.choose(problem, None, None, None))
    run.start()
    visited = []
    for _ in range(count):
        run.step()
        trajectory = run.current[0] if isinstance(run, MSARun) else run.trajectory
        visited.append(np.concatenate(trajectory.controls))
    return visited


def torch_iterates(make_optimizer, problem, count=ITERATIONS):
    """The same from torch.optim, on problems whose path does not amplify rounding."""
    visited, nearby = (torch_path(make_optimizer, problem, count, push) for push in (0.0, PUSH))
    apart = np.linalg.norm(np.subtract(nearby, visited), axis=1)
    assume(apart.max() <= AMPLIFICATION * PUSH * (1 + np.linalg.norm(visited[0])))
    return visited


def torch_path(make_optimizer, problem, count, push):
    weights = [(tensor(u) + push).requires_grad_() for u in problem.controls]
    optimizer, visited = make_optimizer(weights), []
    for _ in range(count):
        optimizer.zero_grad()
        unrolled_cost(problem, weights).backward()
        optimizer.step()
        visited.append(torch.cat([u.detach() for u in weights]).numpy())
    return visited


def stable_rate(problem, fraction):
    """A learning rate that is a fraction of 1/λ_max of the Hessian of J at the guess."""
    oracle = Unrolled(problem)
    every = oracle.controls
    return fraction / (1 + np.linalg.norm(oracle.hessian[np.ix_(every, every)], 2))


def assert_same_path(actual, expected):
    assert len(actual) == len(expected) > 0
    for a, b in zip(actual, expected):
        assert_close(a, b)


@pytest.mark.slow
@given(any_problem, st.floats(0.1, 1.0))
def test_identity_curvature_is_sgd(problem, fraction):
    """Q_uu = I/η, Q_ux dropped: the iterates are u ← u − η ∇J, whichever solver is asked."""
    eta = stable_rate(problem, fraction)
    sgd = torch_iterates(lambda weights: torch.optim.SGD(weights, lr=eta), problem)
    first_order = {"gradient_tolerance": NEVER, "learning_rate": eta}
    assert_same_path(iterates(GradientDescent(line_search=False, **first_order), problem), sgd)
    assert_same_path(iterates(MSA(minimization="gradient", patience=10**6, **first_order), problem), sgd)
    ddp = DDP(curvature=Identity(eta), feedback=False, line_search=None, gradient_tolerance=NEVER)
    assert_same_path(iterates(ddp, problem), sgd)


@pytest.mark.slow
@given(any_problem, st.floats(0.1, 1.0))
def test_sgd_is_plain_gradient_descent(problem, fraction):
    """The same, spelt out: u_{i+1} = u_i − η ∇J(u_i) with the gradient of the unrolled cost."""
    eta = stable_rate(problem, fraction)
    solver = GradientDescent(line_search=False, learning_rate=eta, gradient_tolerance=NEVER)
    u = np.concatenate(problem.controls)
    cuts = np.cumsum([len(v) for v in problem.controls])[:-1]
    for visited in iterates(solver, problem, count=3):
        oracle = Unrolled(problem, np.split(u, cuts))
        u = u - eta * oracle.gradient[oracle.controls]
        assert_close(visited, u)


@pytest.mark.slow
@given(any_problem, st.floats(0.1, 1.0), st.sampled_from([0.5, 0.9]))
def test_momentum_belongs_to_the_curvature(problem, fraction, momentum):
    """Q_u replaced by the velocity v ← μ v + Q_u: torch's SGD with momentum."""
    eta = (1 - momentum) * stable_rate(problem, fraction)
    sgd = torch_iterates(lambda weights: torch.optim.SGD(weights, lr=eta, momentum=momentum), problem)
    curvature = Identity(eta, momentum)
    ddp = DDP(curvature=curvature, feedback=False, line_search=None, gradient_tolerance=NEVER)
    assert_same_path(iterates(ddp, problem), sgd)


OPTIMIZERS = {
    "rmsprop": lambda weights, eta: torch.optim.RMSprop(weights, lr=eta, alpha=0.99, eps=1e-8),
    "adam": lambda weights, eta: torch.optim.Adam(weights, lr=eta, betas=(0.9, 0.999), eps=1e-8),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", OPTIMIZERS)
@given(problem=st.one_of(networks(), problems(max_horizon=3)), eta=st.sampled_from([1e-3, 1e-2]))
def test_adaptive_curvatures_are_the_optimizers_of_that_name(rule, problem, eta):
    """Table 2: the adaptive diagonal is torch.optim.RMSprop, Adam's is torch.optim.Adam, iterate by iterate."""
    expected = torch_iterates(lambda weights: OPTIMIZERS[rule](weights, eta), problem)
    solver = GradientDescent(rule=rule, line_search=False, learning_rate=eta, gradient_tolerance=NEVER)
    assert_same_path(iterates(solver, problem), expected)


@pytest.mark.slow
@given(any_problem, st.sampled_from([1e-4, 0.3]))
def test_every_step_of_the_line_search_meets_armijo(problem, armijo):
    """J falls by at least armijo · ∇Jᵀ(u − û), the step is η α with α = 2^j, and α doubles after a success."""
    solver = GradientDescent(armijo=armijo, learning_rate=0.5, max_iterations=15, gradient_tolerance=1e-9)
    run = solver.begin(problem, Guess.choose(problem, None, None, None))
    run.start()
    tried = 1.0
    for _ in range(15):
        before = run.trajectory
        gradient = np.concatenate(run.gradients())
        iteration = run.step()
        if run.status is not None and not iteration.step_size:
            break
        change = np.concatenate(run.trajectory.controls) - np.concatenate(before.controls)
        assert_close(change, -0.5 * iteration.step_size * gradient)
        assert_close(iteration.expected_decrease, -gradient @ change)
        assert_close(iteration.actual_decrease, before.cost - run.trajectory.cost)
        assert iteration.actual_decrease >= armijo * iteration.expected_decrease
        assert iteration.step_size <= tried
        assert np.log2(tried / iteration.step_size) % 1 == 0
        tried = 2 * iteration.step_size


def valley(steepness):
    """J = ½ steepness · u² + ½ v², one stage."""
    return Problem.from_functions(
        dynamics=lambda x, u: x + 0.0 * u,
        cost=lambda x, u: 0.5 * (steepness * u[0] ** 2 + u[1] ** 2),
        terminal_cost=lambda x: 0.0 * x[0],
        x0=[0.0, 0.0],
        horizon=1,
        controls=[[1.0, 1.0]],
    )


def test_a_constant_rate_that_is_too_large_diverges_and_the_line_search_saves_it():
    """u ← (1 − 10) u for ever: the last finite iterate is returned with the status that says so."""
    constant = GradientDescent(line_search=False, learning_rate=1.0, max_iterations=2000)
    solution = constant.solve(valley(10.0))
    assert solution.status is Status.DIVERGED
    assert np.isfinite(solution.controls).all()
    assert GradientDescent(learning_rate=1.0).solve(valley(10.0)).success
    assert replace(constant, learning_rate=0.1).solve(valley(10.0)).success


def test_where_rounding_hides_every_decrease_descent_has_stalled():
    """J = 1e12 + …: its last digits are gone, the gradient is not."""
    problem = valley(1e3)
    high = problem.replace(terminal_cost=FunctionTerminalCost(lambda x: 1e12 + 0.0 * x[0], 2))
    solution = GradientDescent(gradient_tolerance=1e-9).solve(high)
    assert solution.status is Status.STALLED
    assert solution.history[-1].step_size == 0


@given(any_problem)
def test_the_costate_is_the_back_propagated_gradient(problem):
    """Lemma 5: p_t of Eq. 19b is ∇_{x_t} J, for every first-order method, the end included."""
    oracle = Unrolled(problem)
    gradients = [oracle.gradient[x] for x in oracle.x]
    for solver in (MSA(max_iterations=0), GradientDescent(max_iterations=0)):
        solution = solver.solve(problem)
        for costate, gradient in zip(solution.value_gradients, gradients, strict=True):
            assert_close(costate, gradient)
        norm = max(np.abs(oracle.gradient[u]).max() for u in oracle.u)
        assert_close(solution.history[0].gradient_norm, norm)


@given(any_problem)
def test_the_gradients_of_the_hamiltonian_are_those_of_the_cost(problem):
    """Eq. 19a, 21, 22: ∇_p H = f, ∇_x H = ∇_x J, ∇_u H = ∇_u J, with H = ℓ + pᵀ f."""
    oracle, empty = Unrolled(problem), np.zeros(0)
    nominal = NumpyEngine(problem).rollout(problem.controls)
    for t, stage in enumerate(problem.stages):
        x, u, costate = nominal.states[t], nominal.controls[t], oracle.gradient[oracle.x[t + 1]]
        value, Hx, Hu = hamiltonian(stage, x, costate, u, empty)
        assert_close(Hx, oracle.gradient[oracle.x[t]])
        assert_close(Hu, oracle.gradient[oracle.u[t]])
        assert_close(value, stage.cost.value(x, u, empty) + costate @ nominal.states[t + 1])
        units = np.eye(len(costate))
        along = [hamiltonian(stage, x, costate + unit, u, empty)[0] - value for unit in units]
        assert_close(np.array(along), nominal.states[t + 1])
