"""With Q_ux kept: what DDP shares with Newton's method on the whole control sequence, and what not."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import ocpkit.math as m
from ocpkit import Problem
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.errors import NotPositiveDefinite
from ocpkit.recursion.curvature import Exact
from properties.oracle import Unrolled, assert_close, backward
from properties.strategies import problems, seeds


def ddp_step(problem):
    """δū of one full DDP step, stacked."""
    engine, nominal, policy = backward(problem, Exact())
    new = engine.forward_pass(nominal, policy, 1.0)
    return np.concatenate(new.controls) - np.concatenate(nominal.controls)


@given(problems(dynamics_bend=0.0))
def test_for_linear_dynamics_the_ddp_step_is_newtons(problem):
    """f linear, ℓ and φ any smooth convex functions: δū = −(∇²_ū J)⁻¹ ∇_ū J with the dense Hessian."""
    assert_close(ddp_step(problem), Unrolled(problem).newton_step())


@given(problems(dynamics_bend=0.0))
def test_value_hessians_are_symmetric_to_the_last_bit(problem):
    """So that rounding cannot make it lopsided, more and more over the stages where f_x is large."""
    _, _, policy = backward(problem, Exact())
    for step in policy.steps:
        assert np.array_equal(step.value.xx, step.value.xx.T)


@pytest.mark.slow
@given(problems(dynamics_bend=0.8, min_horizon=2, conditioning=st.just(1.0)))
def test_for_nonlinear_dynamics_it_differs(problem):
    """V_x·f_ux uses the gradient after the later stages have moved, Newton's method the one before."""
    try:
        step = ddp_step(problem)
    except NotPositiveDefinite:
        assume(False)
    newton = Unrolled(problem).newton_step()
    assert np.linalg.norm(step - newton) > 1e-11 * np.linalg.norm(newton)  # a hundred times their rounding


@given(st.floats(0.2, 0.95), st.floats(0.2, 0.95))
def test_for_nonlinear_dynamics_the_step_is_coupled_through_the_stages(bend, target):
    """x' = x + u + ½ bend u², φ = ½(x − target)², ℓ = ½u², T = 2, u = 0, x_0 = 0: both steps by hand.

    Here p = −target at both stages; after the last stage has moved V_x = p/2, hence DDP's Q_uu at stage 0 holds
    bend · V_x where Newton's Hessian holds bend · p; and stage 1 answers the x̂_1 that stage 0 really reached.
    Newton's Hessian has the determinant (1 + bend · p)(3 + bend · p): at bend · target = 1 there is no Newton step.
    """
    problem = Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + u[0] + 0.5 * bend * u[0] ** 2]),
        cost=lambda x, u: 0.5 * u[0] ** 2,
        terminal_cost=lambda x: 0.5 * (x[0] - target) ** 2,
        x0=[0.0],
        horizon=2,
        control_size=1,
    )
    p = -target
    last = 2 + bend * p  # Q_uu of stage 1: ℓ_uu + f_uᵀ φ_xx f_u + p f_uu, with Q_ux = 1
    Vx, Vxx = p - p / last, 1 - 1 / last
    first = -Vx / (1 + Vxx + bend * Vx)
    reached = first + 0.5 * bend * first**2
    assert_close(ddp_step(problem), [first, -(p + reached) / last])
    newton = Unrolled(problem).newton_step()
    assert_close(newton, np.full(2, -p / (3 + bend * p)))
    assert np.linalg.norm(ddp_step(problem) - newton) > 1e-3 * np.linalg.norm(newton)


@pytest.mark.slow
@given(problems(dynamics_bend=0.0, cost_bend=0.0))
def test_linear_quadratic_problems_end_after_one_step(problem):
    """The gradient of J at the new controls vanishes, and J fell by what was promised."""
    engine, nominal, policy = backward(problem, Exact())
    new = engine.forward_pass(nominal, policy, 1.0)
    oracle = Unrolled(problem, new.controls)
    scale = max(1.0, np.abs(Unrolled(problem).gradient).max())
    assert np.abs(oracle.gradient[oracle.controls]).max() <= 1e-9 * scale
    assert_close(new.cost - nominal.cost, policy.expected_change)
    assert policy.expected_change <= 0


@pytest.mark.slow
@given(problems(dynamics_bend=0.0, cost_bend=0.0), seeds)
def test_gaps_are_part_of_the_quadratic_model(problem, seed):
    """From any state guess the full step closes the gaps, lands on the optimum and predicts the change of J."""
    rng, engine = np.random.default_rng(seed), NumpyEngine(problem)
    start = engine.with_gaps([rng.normal(size=n) for n in problem.state_sizes], problem.controls)
    stages, terminal = engine.expand(start, second_order=True)
    policy = engine.backward_pass(stages, terminal, Exact(), feedback=True, tikhonov=0.0)
    new = engine.forward_pass(start, policy, 1.0)
    every = Unrolled(problem)
    optimum = np.concatenate(problem.controls) + every.newton_step()
    assert_close(np.concatenate(new.controls), optimum)
    assert_close(new.cost, engine.rollout(new.controls).cost)
    assert_close(new.cost - start.cost, policy.expected_change)


@pytest.mark.slow
@given(problems(), st.floats(1e-3, 10.0))
def test_tikhonov_is_a_quadratic_in_every_following_state(problem, epsilon):
    """V_xx + ε I (Alg. 3, line 12) is the recursion of a cost with ½ ε ‖δx_t‖² added for t = 1 … T."""
    oracle = Unrolled(problem)
    _, _, policy = backward(problem, lambda t, Q: Exact(1e6)(t, Q), feedback=False, tikhonov=epsilon)
    hessian = oracle.hessian[oracle.x[-1], oracle.x[-1]]
    engine = NumpyEngine(problem)
    stages, _ = engine.expand(engine.rollout(problem.controls), second_order=True)
    for t in reversed(range(problem.horizon)):
        fx, fu, x, u = stages[t].fx, stages[t].fu, oracle.x[t], oracle.u[t]
        extra = hessian + epsilon * np.eye(len(hessian)) - oracle.hessian[oracle.x[t + 1], oracle.x[t + 1]]
        assert_close(policy.steps[t].Q.uu, oracle.hessian[u, u] + fu.T @ extra @ fu)
        assert_close(policy.steps[t].Q.ux, oracle.hessian[u, x] + fu.T @ extra @ fx)
        hessian = oracle.hessian[x, x] + fx.T @ extra @ fx
        assert_close(policy.steps[t].value.xx, hessian)
