"""Prop. 2 with Q_uu = M/η, and Lemma 5: gradient descent is back-propagation is Pontryagin's adjoint.

The reference is torch: autograd on the unrolled J, and torch.optim.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocpkit import DDP, MSA, GradientDescent
from ocpkit.curvature import Identity
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.solvers.driver import Guess
from ocpkit.solvers.pmp import MSARun, hamiltonian
from properties.oracle import Unrolled, assert_close, tensor, unrolled_cost
from properties.strategies import any_problem, networks, problems

ITERATIONS = 20
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
    """The same from torch.optim."""
    weights = [tensor(u).requires_grad_() for u in problem.controls]
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


@given(any_problem, st.floats(0.1, 1.0))
def test_identity_curvature_is_sgd(problem, fraction):
    """Q_uu = I/η, Q_ux dropped: the iterates are u ← u − η ∇J, whichever solver is asked."""
    eta = stable_rate(problem, fraction)
    sgd = torch_iterates(lambda weights: torch.optim.SGD(weights, lr=eta), problem)
    first_order = {"gradient_tolerance": NEVER, "learning_rate": eta}
    assert_same_path(iterates(GradientDescent(line_search=False, **first_order), problem), sgd)
    assert_same_path(iterates(MSA(minimisation="gradient", patience=10**6, **first_order), problem), sgd)
    ddp = DDP(curvature=Identity(eta), feedback=False, line_search=False, gradient_tolerance=NEVER)
    assert_same_path(iterates(ddp, problem), sgd)


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


@given(any_problem, st.floats(0.1, 1.0), st.sampled_from([0.5, 0.9]))
def test_momentum_belongs_to_the_curvature(problem, fraction, momentum):
    """Q_u replaced by the velocity v ← μ v + Q_u: torch's SGD with momentum."""
    eta = (1 - momentum) * stable_rate(problem, fraction)
    sgd = torch_iterates(lambda weights: torch.optim.SGD(weights, lr=eta, momentum=momentum), problem)
    curvature = Identity(eta, momentum)
    ddp = DDP(curvature=curvature, feedback=False, line_search=False, gradient_tolerance=NEVER)
    assert_same_path(iterates(ddp, problem), sgd)


OPTIMIZERS = {
    "rmsprop": lambda weights, eta: torch.optim.RMSprop(weights, lr=eta, alpha=0.99, eps=1e-8),
    "adam": lambda weights, eta: torch.optim.Adam(weights, lr=eta, betas=(0.9, 0.999), eps=1e-8),
}


@pytest.mark.parametrize("rule", OPTIMIZERS)
@given(problem=st.one_of(networks(), problems(max_horizon=3)), eta=st.sampled_from([1e-3, 1e-2]))
def test_adaptive_curvatures_are_the_optimizers_of_that_name(rule, problem, eta):
    """Table 2: the adaptive diagonal is torch.optim.RMSprop, Adam's is torch.optim.Adam, iterate by iterate."""
    expected = torch_iterates(lambda weights: OPTIMIZERS[rule](weights, eta), problem)
    solver = GradientDescent(rule=rule, line_search=False, learning_rate=eta, gradient_tolerance=NEVER)
    assert_same_path(iterates(solver, problem), expected)


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
