"""Separable gains: equal to the exact ones where M⁻¹ is separable, and otherwise the approximation that they claim."""

from __future__ import annotations

import copy
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near
from nn.strategies import Case, few_examples, networks, perceptrons, randn, randomize, seeds
from ocpkit_nn.layers.convolution import ConvLayer
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.vectors import OuterBase
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.separable import REFRESH_INTERVAL, separated


def controls(optimizer: DDPNOpt) -> list[Tensor]:
    return [stage.layer.matrix() for stage in optimizer.stages]


@few_examples
@given(case=perceptrons(), feedback=st.sampled_from(["full", "value"]))
def test_gains_of_the_identity_are_exact(case: Case, feedback: str) -> None:
    """M = I/η is separable, so ten steps of both kinds of gains are the same, clipped or not."""
    for limit in (None, 0.1):
        pair = [
            DDPNOpt(
                copy.deepcopy(case.model),
                lr=0.05,
                curvature="identity",
                feedback=feedback,
                gains=gains,
                max_grad_norm=limit,
            )
            for gains in ("exact", "separable")
        ]
        for _ in range(10):
            losses = [optimizer.step(case.inputs, case.targets) for optimizer in pair]
            assert losses[0] == pytest.approx(losses[1], rel=1e-9)
        for exact, separable in zip(*(controls(optimizer) for optimizer in pair)):
            assert_near(separable, exact)
        for exact_gain, gain in zip(*(optimizer.policies() for optimizer in pair)):
            assert (exact_gain is None) == (gain is None)
            if gain is not None and exact_gain is not None:
                x = randn(torch.Generator().manual_seed(0), *gain.state.vectors.shape[1:])
                assert_near(gain.matvec(x), exact_gain.matvec(x))


@pytest.mark.parametrize(("curvature", "rule"), [("diagonal", torch.optim.RMSprop), ("adam", torch.optim.Adam)])
@few_examples
@given(case=networks(batch_norm=False, dropout=False))
def test_without_feedback_it_is_the_baseline(curvature: str, rule: type[torch.optim.Optimizer], case: Case) -> None:
    """Prop. 2: with Q_ux ≡ 0 separable gains change nothing."""
    model = copy.deepcopy(case.model)
    optimizer = DDPNOpt(
        case.model, lr=1e-2, curvature=curvature, feedback="value", gains="separable", curvature_scale=0.0
    )
    baseline = rule(model.parameters(), lr=1e-2)
    for _ in range(4):
        optimizer.step(case.inputs, case.targets)
        baseline.zero_grad()
        nn.functional.cross_entropy(model(case.inputs), case.targets).backward()
        baseline.step()
    for own, expected in zip(case.model.parameters(), model.parameters()):
        assert_near(own.detach(), expected.detach(), 1e-8)


@few_examples
@given(seed=seeds, batch=st.integers(1, 4), o=st.integers(1, 4), n=st.integers(1, 4), bias=st.booleans())
def test_norms_of_a_linear_layer_are_those_of_the_separable_metric(
    seed: int, batch: int, o: int, n: int, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = OuterBase(randn(generator, batch, n), randn(generator, 1, batch, o), bias)
    a, b = (torch.exp(randn(generator, size)) for size in base.shape)
    assert_near(base.separable_norms(a, b), base.gram(Metric(torch.outer(a, b)))[..., 0])
    found = torch.outer(*separated(Metric(torch.outer(a, b)), base))
    assert_near(found, torch.outer(a, b))  # a separable metric is found again, without η = 3


@few_examples
@given(seed=seeds, bias=st.booleans(), groups=st.sampled_from([1, 2]))
def test_norms_of_a_convolution_at_one_position_are_exact(seed: int, bias: bool, groups: int) -> None:
    module = nn.Conv2d(2, 4, (2, 3), groups=groups, bias=bias)
    generator = randomize(module, seed)
    layer = ConvLayer(module, "conv")
    base = layer.control_vjp(randn(generator, 3, 2, 2, 3), randn(generator, 1, 3, 4, 1, 1))
    o, i = base.shape
    rows, channels, offsets = (torch.exp(randn(generator, size)) for size in (o, 2 // groups, 6))
    columns = torch.cat([torch.outer(channels, offsets).flatten(), torch.ones(i - 12 // groups, dtype=torch.float64)])
    assert_near(base.separable_norms(rows, columns), base.gram(Metric(torch.outer(rows, columns)))[..., 0])


def test_the_approximation_is_renewed_every_so_many_steps() -> None:
    """At the first step that of the first gradient, at every layer that something precedes."""
    model, generator = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), torch.Generator().manual_seed(0)
    optimizer, counts = DDPNOpt(model, lr=1e-2, gains="separable"), list[int]()
    inputs, targets = torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator)
    for _ in range(2 * REFRESH_INTERVAL + 1):
        with patch("ocpkit_nn.passes.separable.separated", wraps=separated) as renewed:
            optimizer.step(inputs, targets)
        counts.append(renewed.call_count)
    layers = len(optimizer.stages) - 1
    assert counts == [layers if step % REFRESH_INTERVAL == 0 else 0 for step in range(len(counts))]


def test_gains_of_the_identity_are_exact_through_batch_norm() -> None:
    """Behind it V_x is that of the batch's total cost, in whose units V_xx is counted from there on."""
    before, behind = [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 5)], [nn.Tanh(), nn.Linear(5, 3)]
    model = nn.Sequential(*before, nn.BatchNorm1d(5, eps=0.1), *behind).double()
    generator = randomize(model, 0)
    inputs, targets = randn(generator, 6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    options = {"lr": 2.0, "curvature": "identity"}
    pair = [DDPNOpt(copy.deepcopy(model), gains=gains, **options) for gains in ("exact", "separable")]
    for _ in range(2):
        for optimizer in pair:
            optimizer.step(inputs, targets)
    for exact, separable in zip(*(controls(optimizer) for optimizer in pair)):
        assert_near(separable, exact)


@pytest.mark.parametrize("feedback", ["full", "value"])
def test_one_layer_alone_takes_the_exact_step(feedback: str) -> None:
    """Nothing precedes it, so there is nothing to feed back."""
    model = nn.Sequential(nn.Linear(4, 3)).double()
    generator = randomize(model, 0)
    inputs, targets = randn(generator, 5, 4), torch.tensor([0, 1, 2, 0, 1])
    pair = [DDPNOpt(copy.deepcopy(model), gains=gains, feedback=feedback) for gains in ("exact", "separable")]
    for optimizer in pair:
        optimizer.step(inputs, targets)
    assert_near(*(controls(optimizer)[0] for optimizer in pair))


def test_resumed_steps_are_bit_for_bit_those_of_an_uninterrupted_run() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = randn(generator, 8, 4), torch.randint(3, (8,), generator=generator)

    def new() -> DDPNOpt:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        return DDPNOpt(model, lr=1e-2, gains="separable")

    whole, first, second = new(), new(), new()
    for _ in range(REFRESH_INTERVAL + 5):
        whole.step(inputs, targets)
    for _ in range(REFRESH_INTERVAL // 2):
        first.step(inputs, targets)
    for own, saved in zip(second.stages, first.stages):
        own.layer.module.load_state_dict(saved.layer.module.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(REFRESH_INTERVAL + 5 - REFRESH_INTERVAL // 2):
        second.step(inputs, targets)
    for expected, own in zip(controls(whole), controls(second)):
        assert torch.equal(expected, own)


@pytest.mark.parametrize(
    "options",
    [
        {"curvature": "kronecker"},
        {"terminal": "ggn"},
        {"control_hessian": "literal"},
        {"tikhonov": 0.1},
        {"dynamics": "second"},
    ],
    ids=str,
)
def test_what_has_no_separable_gains_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="separable gains"):
        DDPNOpt(nn.Sequential(nn.Linear(2, 2)), gains="separable", **options)  # type: ignore[arg-type]
