"""Prop. 3 on networks: the implicit recursions of `passes` against dense matrices at every stage."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nn.dense import assert_near, flat
from nn.recursion import METRICS, TERMINALS, Net, RandomMetrics, Recorder, assert_policies_equal, by_outputs, implicit
from nn.strategies import Case, few_examples, networks, randn, randomize, seeds
from ocpkit.recursion.bellman import backward_pass
from ocpkit.recursion.value import Value
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.curvature import LayerGradients
from ocpkit_nn.passes.rank_one import RankOnePass

pytestmark = pytest.mark.filterwarnings(
    "ignore::ocpkit_nn.layers.lost_options.TrainingWarning"
)  # blocks have no factors


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("terminal", TERMINALS)
@few_examples
@given(case=networks(max_batch=3), seed=seeds)
def test_implicit_recursion_is_the_dense_one(metric: str, terminal: str, case: Case, seed: int) -> None:
    """Q, V_x, V_xx, k and K at every stage with Q_uu = M/η + f_uᵀ V_xx f_u."""
    net, metrics = Net(case, terminal), RandomMetrics(metric, seed, proximal=True)
    expected = backward_pass(net.expansions, net.terminal, metrics.curvature(net), between_stages=net.through_batch)
    policies, steps = implicit(net, metrics)
    for step, reference in zip(steps, expected, strict=True):
        assert_near(flat(step.Q.x), reference.Q.x)
        assert_near(flat(step.Q.u), reference.Q.u)
        q_u, q_x = flat(step.Q.ux.left), flat(step.Q.ux.right)
        assert_near(q_u @ q_x.transpose(1, 2), reference.Q.ux)
        assert_near(flat(step.value.x), reference.value.x)
        Z = flat(step.value.xx.left)
        assert_near(Z @ Z.transpose(1, 2), reference.value.xx)
    assert_policies_equal(net, policies, expected, metrics)


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("terminal", TERMINALS)
@few_examples
@given(case=networks(max_batch=3), seed=seeds, tikhonov=st.sampled_from([0.0, 1e-3, 0.3]))
def test_recursion_by_outputs_is_that_by_controls(
    metric: str, terminal: str, case: Case, seed: int, tikhonov: float
) -> None:
    """Q_x, V_x, V_xx, k and K with the change of a layer's output for the control, ε included."""
    net, metrics = Net(case, terminal), RandomMetrics(metric, seed, proximal=True)
    expected = backward_pass(
        net.expansions, net.terminal, metrics.curvature(net), tikhonov=tikhonov, between_stages=net.through_batch
    )
    policies, steps = by_outputs(net, metrics, tikhonov)
    for step, reference in zip(steps[1:], expected[1:], strict=True):
        assert_near(step.Q.x, reference.Q.x)
        assert_near(step.value.x, reference.value.x)
        assert_near(step.value.xx, reference.value.xx)
    assert_policies_equal(net, policies, expected, metrics)


def test_a_batch_may_be_one_sample() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    net = Net(Case(model, randn(randomize(model, 0), 1, 3), torch.tensor([1])), "ggn")
    metrics = RandomMetrics("diagonal", 0, proximal=True)
    expected = backward_pass(net.expansions, net.terminal, metrics.curvature(net), tikhonov=0.1)
    assert_policies_equal(net, by_outputs(net, metrics, 0.1)[0], expected, metrics)


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS[:4])
@few_examples
@given(case=networks(max_batch=3), seed=seeds)
def test_literal_recursion_by_outputs_is_that_by_controls(metric: str, case: Case, seed: int) -> None:
    """Q_uu = M/η as printed, with ε, while c stays below one."""
    net, metrics = Net(case, "ggn"), RandomMetrics(metric, seed, proximal=False, share=0.5)
    expected = backward_pass(
        net.expansions, net.terminal, metrics.curvature(net), tikhonov=1e-3, between_stages=net.through_batch
    )
    policies, _ = by_outputs(net, metrics, 1e-3)
    assert_policies_equal(net, policies, expected, metrics)


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS[:-1])
@few_examples
@given(case=networks(max_batch=3), seed=seeds)
def test_one_scalar_per_sample_is_the_dense_recursion(metric: str, case: Case, seed: int) -> None:
    """`RankOnePass` with z ∥ V_x against the dense route, and `FactoredPass` unless batch norm couples samples."""
    net, metrics = Net(case, "empirical"), RandomMetrics(metric, seed, proximal=True)
    expected = backward_pass(
        net.expansions, net.terminal, metrics.curvature(net), between_stages=net.through_batch_in_parallel
    )
    with torch.no_grad():
        policies = RankOnePass()(net.trajectory, net.value, metrics.rule)
    assert_policies_equal(net, policies, expected, metrics)
    if any(linearization.couples_samples for linearization in net.linearizations):
        return
    for policy, other in zip(policies, implicit(net, metrics)[0], strict=True):
        assert_near(policy.feedforward, other.feedforward)
        if policy.gain is not None and other.gain is not None:
            x = randn(torch.Generator().manual_seed(seed % 2**31), *policy.gain.state.vectors.shape[1:])
            assert_near(policy.gain.matvec(x), other.gain.matvec(x))


def test_a_sample_that_is_dropped_out_keeps_its_multiple_through_batch_norm() -> None:
    """Its V_x is zero, and then not: the other samples' costs reach it through the statistics."""
    model = nn.Sequential(
        nn.Linear(4, 4),
        nn.Linear(4, 9),
        nn.BatchNorm1d(9, eps=0.1),
        nn.Linear(9, 1, bias=False),
        nn.Dropout(0.5),
        nn.Linear(1, 2, bias=False),
    ).double()
    inputs = randn(randomize(model, 0), 12, 4)
    net = Net(Case(model, inputs, torch.tensor([0, 1, 0] * 4)), "empirical")
    metrics = RandomMetrics("diagonal", 0, proximal=True)
    expected = backward_pass(
        net.expansions, net.terminal, metrics.curvature(net), between_stages=net.through_batch_in_parallel
    )
    dropped = [bool((V == 0).all()) for V in expected[3].value.x]
    assert any(dropped)  # which ones differs from one torch to the next
    assert not all(dropped)
    assert (expected[1].value.x != 0).all()
    with torch.no_grad():
        policies = RankOnePass()(net.trajectory, net.value, metrics.rule)
    assert_policies_equal(net, policies, expected, metrics)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["identity", "rotated"])
@pytest.mark.parametrize("terminal", ["empirical", "ggn"])
@few_examples
@given(case=networks(max_batch=3), seed=seeds, share=st.floats(0.05, 0.9))
def test_literal_formulas_are_the_dense_ones_below_one(
    metric: str, terminal: str, case: Case, seed: int, share: float
) -> None:
    """Q_uu = M/η as printed, while c = q_uᵀ M⁻¹η q_u ≤ 1."""
    net, metrics = Net(case, terminal), RandomMetrics(metric, seed, proximal=False, share=share)
    expected = backward_pass(net.expansions, net.terminal, metrics.curvature(net), between_stages=net.through_batch)
    policies, steps = implicit(net, metrics)
    for step, reference in zip(steps, expected, strict=True):
        Z = flat(step.value.xx.left)
        assert_near(Z @ Z.transpose(1, 2), reference.value.xx)
        assert_near(flat(step.value.x), reference.value.x)
    assert_policies_equal(net, policies, expected, metrics)


@pytest.mark.parametrize("terminal", ["empirical", "ggn"])
@few_examples
@given(case=networks(max_batch=3), rate=st.sampled_from([0.1, 1.0, 10.0, 100.0]))
def test_literal_formulas_beyond_one_keep_the_positive_part(terminal: str, case: Case, rate: float) -> None:
    """V_xx = q_x P₊(I − c) q_xᵀ, real and semidefinite; V_x = Q_x − Q_uxᵀ M⁻¹η Q_u is not clipped."""
    net, metrics = Net(case, terminal), RandomMetrics("identity", 0, proximal=False)
    metrics._parts = lambda *_: (rate, None, None)  # type: ignore[method-assign]
    _, steps = implicit(net, metrics)
    Z, Vx = net.columns.permute(1, 2, 0), net.gradient
    for t, step in reversed(list(enumerate(steps))):
        expansion = net.expansions[t]
        q_u, q_x = expansion.fu.transpose(1, 2) @ Z, expansion.fx.transpose(1, 2) @ Z
        c = rate * q_u.transpose(1, 2) @ q_u
        values, vectors = torch.linalg.eigh(torch.eye(c.shape[1], dtype=c.dtype) - c)
        Z = q_x @ vectors * values.clamp_min(0).sqrt()[:, None]
        Qx, Qu = ((f.transpose(1, 2) @ Vx[..., None])[..., 0] for f in (expansion.fx, expansion.fu))
        Vx = Qx - rate * (q_x @ (q_u.transpose(1, 2) @ Qu[..., None]))[..., 0]
        own = flat(step.value.xx.left)
        assert torch.isfinite(own).all()
        tolerance = 1e-7  # the root of what lies next to zero
        assert_near(own @ own.transpose(1, 2), Z @ Z.transpose(1, 2), tolerance)
        assert_near(flat(step.value.x), Vx, tolerance)
        Vx = net.through_batch(t, Value(Vx)).x


def test_a_direction_beyond_one_carries_no_curvature_upstream() -> None:
    """c > 1 really happens, and then the stage's V_xx is zero instead of negative."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    generator = randomize(model, 0)
    case = Case(model, 3 * randn(generator, 1, 2), torch.tensor([0]))
    net, metrics = Net(case, "empirical"), RandomMetrics("identity", 0, proximal=False)
    metrics._parts = lambda *_: (1e3, None, None)  # type: ignore[method-assign]
    _, steps = implicit(net, metrics)
    q_u = flat(steps[-1].Q.ux.left)
    assert 1e3 * (q_u**2).sum() > 1
    assert (flat(steps[-1].value.xx.left) == 0).all()


@few_examples
@given(case=networks(), curvature=st.sampled_from(["identity", "diagonal", "ekfac", "exact"]))
def test_without_feedback_nothing_of_the_mixed_term_is_left(case: Case, curvature: str) -> None:
    """No gains, and Q_u^i is the back-propagated gradient of the sample (Prop. 2)."""
    seen: dict[int, LayerGradients] = {}
    net = Net(case, "empirical")
    with torch.no_grad():
        policies = RankOnePass(feedback=False)(
            net.trajectory,
            net.value,
            lambda t, gradients: (seen.setdefault(t, gradients), (Metric(0.1), gradients.mean))[1],
        )
    V = net.gradient
    for t in reversed(range(len(policies))):
        expansion = net.expansions[t]
        assert policies[t].gain is None
        assert seen[t].columns is None
        Qu = torch.einsum("bnm,bn->bm", expansion.fu, V)
        own = torch.einsum("rbm,br->bm", seen[t].base.dense().flatten(2), seen[t].coefficients)
        assert_near(own, Qu, 1e-10)
        V = net.through_batch(t, Value(torch.einsum("bnm,bn->bm", expansion.fx, V))).x
    optimizer = DDPNOpt(case.model, curvature=curvature, feedback="none", lr=1e-3)
    optimizer.step(case.inputs, case.targets)
    assert optimizer.policies() == [None] * len(net.stages)


def test_epsilon_is_not_lost_in_single_precision() -> None:
    """V_xx + ε I of a float32 network, across the one column of V_xx, is ε however small."""
    model = nn.Linear(3, 24)
    generator = torch.Generator().manual_seed(0)
    optimizer = DDPNOpt(model, lr=0.1, curvature="identity", tikhonov=1e-9)
    recorder = Recorder()
    with patch("ocpkit_nn.passes.dense.backward_pass", recorder):
        optimizer.step(torch.randn(3, 3, generator=generator), torch.tensor([0, 1, 23]))
    for V in recorder.steps[0].Q.uu:
        values = torch.linalg.eigvalsh(V)
        assert values[-1] > 1e-3
        torch.testing.assert_close(values[:-1], torch.full_like(values[:-1], 1e-9), rtol=1e-4, atol=0.0)
