"""N micro-batches are one batch: the expectations, M and the feedback are of the whole."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nn.dense import assert_near
from nn.strategies import Case, few_examples, networks, perceptrons, randn, randomize
from ocpkit_nn.layers.convolution import ConvLayer
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.curvature import RULES

pytestmark = pytest.mark.filterwarnings(
    "ignore::ocpkit_nn.layers.lost_options.TrainingWarning"
)  # blocks have no factors


def assert_same_step(case: Case, micro_batch: int, options: dict[str, Any], tolerance: float = 1e-9) -> None:
    """Two steps with micro-batches and without end in the same parameters, losses and gains."""
    twin = copy.deepcopy(case.model)
    options = {"lr": 0.05, "eps": 1e-2, **options}
    optimizer, other = DDPNOpt(case.model, micro_batch=micro_batch, **options), DDPNOpt(twin, **options)
    for _ in range(2):
        loss = optimizer.step(case.inputs, case.targets)
        assert loss == pytest.approx(other.step(case.inputs, case.targets), rel=1e-9)
        for parameter, expected in zip(case.model.parameters(), twin.parameters(), strict=True):
            assert_near(parameter.detach(), expected.detach(), tolerance)
    for gain, expected in zip(optimizer.policies(), other.policies(), strict=True):
        assert (gain is None) == (expected is None)
        if gain is not None and expected is not None:
            x = torch.ones_like(expected.state.vectors[0])
            assert_near(gain.matvec(x), expected.matvec(x), tolerance)
            u = torch.ones(expected.control.shape, dtype=x.dtype)
            assert_near(gain.rmatvec(u), expected.rmatvec(u), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("curvature", RULES)
@few_examples
@given(
    data=st.data(),
    micro_batch=st.integers(1, 4),
    feedback=st.sampled_from(["full", "value", "none"]),
    terminal=st.sampled_from(["empirical", "ggn"]),
    clip=st.sampled_from([None, 0.01]),
)
def test_micro_batches_take_the_step_of_the_batch(
    curvature: str, data: st.DataObject, micro_batch: int, feedback: str, terminal: str, clip: float | None
) -> None:
    # EKFAC's basis is unique only where the eigenvalues are apart
    case = data.draw(perceptrons() if curvature == "ekfac" else networks(batch_norm=False, dropout=False))
    options = {"curvature": curvature, "feedback": feedback, "terminal": terminal, "max_grad_norm": clip}
    assert_same_step(case, micro_batch, options)


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_with_second_order_dynamics_too(micro_batch: int) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2))
    generator = randomize(model, 0)
    case = Case(model, randn(generator, 5, 3), torch.randint(2, (5,), generator=generator))
    assert_same_step(case, micro_batch, {"curvature": "kronecker", "dynamics": "second"})


@few_examples
@given(
    case=networks(batch_norm=False, dropout=False),
    micro_batch=st.integers(1, 3),
    curvature=st.sampled_from(["identity", "diagonal", "adam"]),
)
def test_with_separable_gains_too(case: Case, micro_batch: int, curvature: str) -> None:
    assert_same_step(case, micro_batch, {"curvature": curvature, "gains": "separable"})


def test_separable_gains_of_a_layer_without_input_are_finite() -> None:
    """x = 0 and no bias: p = E[x̄²] = 0, where the rank-one approximation of M⁻¹ is 0/0."""
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False)).double()
    nn.init.constant_(model[0].weight, -1.0)
    optimizer = DDPNOpt(model, gains="separable")
    for _ in range(3):
        optimizer.step(torch.ones(4, 2, dtype=torch.float64), torch.tensor([0, 1, 0, 1]))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_layer_sees_no_more_than_a_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches of a convolution, what takes the memory, are those of two samples at a time in both passes."""
    model = nn.Sequential(nn.Conv1d(1, 2, 2), nn.Tanh(), nn.Conv1d(2, 2, 2), nn.Flatten(), nn.Linear(4, 2))
    generator, seen = randomize(model, 0), []
    for name in ("forward", "sample_gradients", "sum_of_gradients"):
        original = getattr(ConvLayer, name)

        def spy(self: ConvLayer, x: torch.Tensor, *rest: Any, original: Any = original) -> Any:
            seen.append(len(x))
            return original(self, x, *rest)

        monkeypatch.setattr(ConvLayer, name, spy)
    targets = torch.randint(2, (5,), generator=generator)
    DDPNOpt(model, micro_batch=2).step(randn(generator, 5, 1, 4), targets)
    assert set(seen) == {1, 2}


def test_dropout_keeps_a_mask_for_every_micro_batch() -> None:
    """Both passes of every micro-batch see its own mask: a zero learning rate's limit leaves no deviation."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2))
    generator = randomize(model, 0)
    optimizer = DDPNOpt(model, micro_batch=3)
    stage = optimizer.stages[0]
    x = randn(generator, 8, 4)
    with torch.no_grad():
        y = stage.linearize(x)[0]
        assert_near(stage.second_forward(x), y, 1e-14)
        zero = y == 0
        assert 0 < zero.double().mean() < 1
        assert not torch.equal(zero[:3], zero[3:6])


def test_batch_norm_measures_every_micro_batch() -> None:
    """As torch does when gradients of micro-batches are accumulated."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    generator = randomize(model, 0)
    twin = copy.deepcopy(model)
    inputs, targets = randn(generator, 6, 3), torch.randint(2, (6,), generator=generator)
    DDPNOpt(model, micro_batch=3, feedback="full").step(inputs, targets)
    with torch.no_grad():
        for part in (inputs[:3], inputs[3:]):
            twin(part)
    for buffer, expected in zip(model.buffers(), twin.buffers(), strict=True):
        assert_near(buffer.double(), expected.double(), 1e-12)


def test_a_micro_batch_has_a_sample() -> None:
    with pytest.raises(ValueError, match="micro_batch must be at least 1, got 0"):
        DDPNOpt(nn.Linear(2, 2), micro_batch=0)
