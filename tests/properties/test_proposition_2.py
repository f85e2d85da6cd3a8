"""Prop. 2 and Lemma 6: without Q_ux, Bellman's recursion is the chain rule.

    Q_ux ≡ 0  ⇒  V_x = ∇_x J,  V_xx = ∇²_x J,  Q_u = ∇_u J,  Q_uu = ∇²_u J,  k + K δx = −(∇²_u J)⁻¹ ∇_u J.

J is unrolled and differentiated by torch. Q_ux vanishes because the recursion drops it, or by structure.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocpkit.recursion.curvature import Exact, Identity
from ocpkit.recursion.linalg import Cholesky
from properties.oracle import Unrolled, assert_close, backward
from properties.strategies import any_problem, problems_without_coupling


def shift_to_convex(problem, oracle):
    """μ with ∇²_{u_t} J + μ I positive definite at every stage."""
    lowest = min(np.linalg.eigvalsh(oracle.hessian[u, u])[0] for u in oracle.u)
    return max(0.0, 1.0 - lowest)


def assert_is_chain_rule(policy, oracle):
    for step, x, u in zip(policy.steps, oracle.x, oracle.u):
        assert_close(step.value.x, oracle.gradient[x])
        assert_close(step.value.xx, oracle.hessian[x, x])
        assert_close(step.Q.x, oracle.gradient[x])
        assert_close(step.Q.xx, oracle.hessian[x, x])
        assert_close(step.Q.u, oracle.gradient[u])
        assert_close(step.Q.uu, oracle.hessian[u, u])
    assert_close(policy.terminal.x, oracle.gradient[oracle.x[-1]])
    assert_close(policy.terminal.xx, oracle.hessian[oracle.x[-1], oracle.x[-1]])


@given(any_problem)
def test_without_feedback_the_value_derivatives_are_those_of_the_cost(problem):
    """Lemma 6, Eq. 25 and Eq. 10; what was dropped is the mixed derivative of J in (u_t, x_t)."""
    oracle = Unrolled(problem)
    _, _, policy = backward(problem, Identity(1.0), feedback=False)
    assert_is_chain_rule(policy, oracle)
    for step, x, u in zip(policy.steps, oracle.x, oracle.u):
        assert step.K is None
        assert_close(step.Q.ux, oracle.hessian[u, x])


@given(any_problem)
def test_without_feedback_the_policy_is_the_stage_wise_newton_step(problem):
    """Eq. 11: k_t = −(∇²_{u_t} J + μ I)⁻¹ ∇_{u_t} J, which is stage-wise Newton where μ = 0 will do."""
    oracle = Unrolled(problem)
    mu = shift_to_convex(problem, oracle)
    _, _, policy = backward(problem, Exact(mu), feedback=False)
    for step, u in zip(policy.steps, oracle.u):
        newton = -np.linalg.solve(oracle.hessian[u, u] + mu * np.eye(len(step.k)), oracle.gradient[u])
        assert_close(step.k, newton)
        assert_close(step.expected_change, oracle.gradient[u] @ newton / 2)


@pytest.mark.slow
@given(problems_without_coupling())
def test_where_the_structure_makes_qux_vanish_feedback_changes_nothing(problem):
    """The premise of Prop. 2 met by the problem itself: the full recursion of DDP is the chain rule, and K = 0."""
    oracle = Unrolled(problem)
    _, _, policy = backward(problem, Exact(shift_to_convex(problem, oracle)), feedback=True)
    assert_is_chain_rule(policy, oracle)
    for step in policy.steps:
        assert_close(step.Q.ux, np.zeros(step.Q.ux.shape))
        assert_close(step.K, np.zeros(step.K.shape))


@given(any_problem, st.floats(0.1, 10.0))
def test_with_feedback_the_value_is_that_of_the_remaining_choice(problem, mu):
    """Eq. 4, 5 against one dense solve: k = −M⁻¹ Q_u, K = −M⁻¹ Q_ux, V = min over δu of the quadratic of Eq. 2."""
    standin = {}

    def damped(t, Q):
        size = 1 + np.abs(Q.uu).max()  # keeps the condition of M, and so both ways' rounding, small
        standin[t] = Q.uu @ Q.uu / size + mu * size * np.eye(len(Q.u))
        return Cholesky(standin[t]), Q.u

    _, _, policy = backward(problem, damped)
    for t, step in enumerate(policy.steps):
        Q, n = step.Q, len(step.Q.x)
        assert_close(standin[t] @ step.k, -Q.u)
        assert_close(standin[t] @ step.K, -Q.ux)
        whole = np.block([[0, Q.x[None], Q.u[None]], [Q.x[:, None], Q.xx, Q.ux.T], [Q.u[:, None], Q.ux, standin[t]]])
        schur = whole[: n + 1, : n + 1] - whole[: n + 1, n + 1 :] @ np.linalg.solve(standin[t], whole[n + 1 :, : n + 1])
        assert_close(step.value.x, schur[0, 1:])
        assert_close(step.value.xx, schur[1:, 1:])
        assert_close(step.expected_change, schur[0, 0] / 2)
