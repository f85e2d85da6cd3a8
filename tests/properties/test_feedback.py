"""Eq. 18 and 28: the feedback K δx re-aims the gradient at the new state.

    ∇_u Q(x + δx, u + K δx) − ∇_u Q(x, u) = O(‖δx‖²)

With Q_ux dropped in all later stages Q_t is the cost-to-go J_t (A.5), whose gradient torch gives.
"""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ocpkit.recursion.bellman import bellman_step
from ocpkit.recursion.curvature import Exact, Identity
from properties.oracle import Unrolled, assert_close, backward, tensor, unrolled_cost
from properties.strategies import any_problem, problems, seeds

STEPS = [1e-2, 5e-3, 2.5e-3]
"""Lengths of δx; rounding (1e-16) stays far below their squares."""


def gradient_of_cost_to_go(problem, t, x, u):
    """∇_{u_t} J_t at another state and control of stage t, the later controls as they are."""
    tail = problem.replace(stages=problem.stages[t:], x0=x, controls=problem.controls[t:])
    controls = [tensor(v) for v in (u, *problem.controls[t + 1 :])]
    controls[0].requires_grad_()
    return torch.autograd.grad(unrolled_cost(tail, controls), controls[0])[0].numpy()


def last_policies(problem, oracle):
    """K_t of every stage for the cost-to-go J_t, which all later stages expand in u only."""
    engine, nominal, policy = backward(problem, Identity(1.0), feedback=False)
    stages, _ = engine.expand(nominal, second_order=True)
    following = [*(step.value for step in policy.steps[1:]), policy.terminal]
    lowest = [np.linalg.eigvalsh(oracle.hessian[u, u])[0] for u in oracle.u]
    gains = [
        bellman_step(t, stages[t], following[t], Exact()).K if lowest[t] > 0.1 else None for t in range(problem.horizon)
    ]
    return nominal, gains


def residuals(problem, nominal, t, gain, direction):
    """‖∇_u J(x + δx, u + K δx) − ∇_u J(x, u)‖ for the lengths of δx above."""
    x, u = nominal.states[t], nominal.controls[t]
    here = gradient_of_cost_to_go(problem, t, x, u)
    moved = [gradient_of_cost_to_go(problem, t, x + h * direction, u + h * gain @ direction) for h in STEPS]
    return [float(np.linalg.norm(there - here)) for there in moved]


@pytest.mark.slow
@given(any_problem, seeds)
def test_feedback_cancels_the_change_of_the_gradient_to_first_order(problem, seed):
    """Eq. 18: halving δx quarters the error, but for its next term, O(‖δx‖³), which may cancel most of the first."""
    rng, oracle = np.random.default_rng(seed), Unrolled(problem)
    nominal, gains = last_policies(problem, oracle)
    for t, gain in enumerate(gains):
        if gain is None:
            continue
        assert_close(oracle.hessian[oracle.u[t], oracle.u[t]] @ gain, -oracle.hessian[oracle.u[t], oracle.x[t]])
        direction = rng.normal(size=gain.shape[1])
        direction /= np.linalg.norm(direction) * (1 + np.linalg.norm(gain, 2))
        errors = residuals(problem, nominal, t, gain, direction)
        scale = 1 + np.abs(oracle.gradient).max() + np.abs(oracle.hessian).max()
        for h, (whole, half) in zip(STEPS, itertools.pairwise(errors)):
            assert half <= 0.25 * whole + scale * h**3


@pytest.mark.slow
@given(problems(), seeds)
def test_any_other_gain_leaves_an_error_of_first_order(problem, seed):
    """K is the minimizer of Eq. 28: without it, or with another gain, halving δx only halves the error."""
    rng, oracle = np.random.default_rng(seed), Unrolled(problem)
    nominal, gains = last_policies(problem, oracle)
    assume(gains[-1] is not None)
    t, gain = problem.horizon - 1, gains[-1]
    other = gain + rng.normal(size=gain.shape)
    direction = (other - gain).T @ rng.normal(size=len(gain))
    direction /= np.linalg.norm(direction) * (1 + np.linalg.norm(other, 2) + np.linalg.norm(gain, 2)) ** 2
    direction /= 100  # so that second-order terms stay far below
    for wrong in (other, np.zeros_like(gain)):
        slope = oracle.hessian[oracle.u[t], oracle.u[t]] @ (wrong - gain) @ direction
        if np.linalg.norm(slope) < 1e-2 * np.abs(oracle.hessian[oracle.u[t], oracle.u[t]]).max():
            continue
        errors = residuals(problem, nominal, t, wrong, direction)
        for whole, half in itertools.pairwise(errors):
            assert 0.45 * whole <= half <= 0.55 * whole


@given(any_problem, st.floats(0.0, 1.0))
def test_the_forward_pass_applies_the_affine_policy_along_the_new_states(problem, alpha):
    """Alg. 1, lines 7-11: û_t = u_t + α k_t + K_t (x̂_t − x_t), x̂_{t+1} = f_t(x̂_t, û_t)."""
    engine, nominal, policy = backward(problem, lambda t, Q: Exact(1.0 + 2 * np.abs(Q.uu).sum())(t, Q))
    new = engine.forward_pass(nominal, policy, alpha)
    x = tensor(problem.x0)
    for t, (stage, step) in enumerate(zip(problem.stages, policy.steps)):
        u = tensor(nominal.controls[t]) + alpha * tensor(step.k) + tensor(step.K) @ (x - tensor(nominal.states[t]))
        assert_close(new.controls[t], u)
        x = stage.dynamics.function(x, u)
        assert_close(new.states[t + 1], x)
    assert_close(new.cost, unrolled_cost(problem, [tensor(u) for u in new.controls]))
