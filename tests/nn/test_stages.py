"""Networks as chains of stages: the same function, and clear words where it cannot be one."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from nn.dense import DenseStage, assert_near
from nn.strategies import Case, Residual, few_examples, networks, randn, randomize
from ocpkit_nn.layers.convolution import ConvLayer
from ocpkit_nn.layers.layers import BatchNormLayer, LinearLayer
from ocpkit_nn.layers.modules import ModuleLayer
from ocpkit_nn.layers.stages import Stage, as_stages
from ocpkit_nn.layers.vectors import StateBase


@torch.no_grad()
def simulate(preparation: list[nn.Module], stages: list[Stage], x: Tensor) -> list[Tensor]:
    """States x_0 … x_T."""
    for module in preparation:
        x = module(x)
    states = [x]
    for stage in stages:
        states.append(stage.linearize(states[-1])[0])
    return states


@few_examples
@given(case=networks())
def test_stages_compose_to_the_model(case: Case) -> None:
    twin = copy.deepcopy(case.model)
    torch.manual_seed(5)  # of dropout: as many masks of the same sizes are drawn, in the same order
    with torch.no_grad():
        expected = twin(case.inputs)
    torch.manual_seed(5)
    preparation, stages = as_stages(case.model)
    states = simulate(preparation, stages, case.inputs)
    assert_near(states[-1], expected, 1e-12)
    for buffer, other in zip(case.model.buffers(), twin.buffers()):
        assert torch.equal(buffer, other)
    parameters = [p for stage in stages for p in stage.layer.parameters]
    assert {id(p) for p in parameters} == {id(p) for p in case.model.parameters()}


@few_examples
@given(case=networks())
def test_the_second_pass_at_the_same_states_changes_nothing(case: Case) -> None:
    """Masks and statistics are kept, the running statistics are left alone."""
    preparation, stages = as_stages(case.model)
    states = simulate(preparation, stages, case.inputs)
    buffers = [buffer.clone() for buffer in case.model.buffers()]
    with torch.no_grad():
        for stage, x, following in zip(stages, states, states[1:]):
            assert_near(stage.second_forward(x), following, 1e-12)
    assert all(torch.equal(a, b) for a, b in zip(buffers, case.model.buffers()))


@few_examples
@given(case=networks())
def test_linearization_through_the_tail_is_autograds(case: Case) -> None:
    """f_xᵀ v and f_uᵀ v of every stage, tail included, for two columns."""
    preparation, stages = as_stages(case.model)
    x, generator = case.inputs, torch.Generator().manual_seed(0)
    for module in preparation:
        x = module(x)
    for stage in stages:
        with torch.no_grad():
            y, linearization = stage.linearize(x)
        expansion = DenseStage(stage, x).expansion()
        base = StateBase(randn(generator, 2, *y.shape))
        v = base.vectors.flatten(2)
        with torch.no_grad():
            state = linearization.state_vjp(base).vectors.flatten(2)
            control = linearization.control_vjp(base).dense().flatten(2)
        assert_near(state, torch.einsum("rbn,bnm->rbm", v, expansion.fx), 1e-10)
        assert_near(control, torch.einsum("rbn,bnm->rbm", v, expansion.fu), 1e-10)
        x = y


def test_what_has_no_parameters_joins_the_layer_before_it() -> None:
    convolution, norm, linear = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3)
    pool, dropout, block = nn.AdaptiveAvgPool2d(1), nn.Dropout(), Residual(nn.Linear(3, 3), nn.ReLU())
    first = nn.Upsample(scale_factor=2)
    model = nn.Sequential(
        first, nn.Sequential(convolution, norm, nn.ReLU()), pool, nn.Flatten(), linear, dropout, nn.Identity(), block
    )
    preparation, stages = as_stages(model)
    assert preparation == [first]
    assert [type(stage.layer) for stage in stages] == [ConvLayer, BatchNormLayer, LinearLayer, ModuleLayer]
    assert [len(stage.tail) for stage in stages] == [0, 3, 1, 0]
    assert stages[1].tail[1] is pool
    assert [stage.name for stage in stages] == ["1.0 (Conv2d)", "1.1 (BatchNorm2d)", "4 (Linear)", "7 (Residual)"]


def test_a_module_of_ones_own_is_one_stage_and_a_list_is_a_chain() -> None:
    block = Residual(nn.Linear(3, 3))
    assert [stage.layer.module for stage in as_stages(block)[1]] == [block]
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    preparation, stages = as_stages(iter([nn.Flatten(), first, nn.Tanh(), second]))
    assert len(preparation) == 1
    assert [stage.layer.module for stage in stages] == [first, second]
    assert [s.layer.module for s in as_stages(nn.ModuleList([first, second]))[1]] == [first, second]


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d])
def test_dropouts_mask_is_shared_by_both_passes(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    shape = (64, 5) if kind is nn.Dropout else (64, 5, 3)
    model = nn.Sequential(nn.Conv1d(5, 5, 1) if len(shape) == 3 else nn.Linear(5, 5), kind(0.5)).double()
    randomize(model, 0)
    (stage,) = as_stages(model)[1]
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        first = stage.linearize(x)[0]
        dropped = first == 0
        assert 0.3 < dropped.double().mean() < 0.7
        assert torch.equal(stage.second_forward(2 * x) == 0, dropped)
        assert_near(stage.second_forward(x), first, 0.0)
        assert not torch.equal(stage.linearize(x)[0] == 0, dropped)  # the next step draws anew
        model.eval()
        assert not (stage.linearize(x)[0] == 0).any()


@pytest.mark.parametrize("tail", [[], [nn.Dropout(0.2)], [nn.Flatten(), nn.Tanh()]])
def test_in_place_activations_work(tail: list[nn.Module]) -> None:
    def build(inplace: bool) -> nn.Sequential:
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=inplace), *tail, nn.Linear(4, 2))

    results = []
    for inplace in (True, False):
        model = build(inplace)
        generator = randomize(model, 4)
        x, v = randn(generator, 5, 3), StateBase(randn(generator, 1, 5, 4))
        torch.manual_seed(0)
        with torch.no_grad():
            stage = as_stages(model)[1][0]
            y, linearization = stage.linearize(x)
            results.append((y, linearization.state_vjp(v).vectors, linearization.control_vjp(v).dense()))
    for a, b in zip(*results):
        assert_near(a, b, 1e-14)


def test_linear_layers_on_sequences_keep_their_positions() -> None:
    """(B, L, n): the weights are shared by the positions, so the sample's gradient is their sum."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2))
    generator = randomize(model, 5)
    x = randn(generator, 5, 4, 3)
    stage = as_stages(model)[1][0]
    with torch.no_grad():
        y, linearization = stage.linearize(x)
        base = StateBase(randn(generator, 2, *y.shape))
        state, control = linearization.state_vjp(base).vectors, linearization.control_vjp(base).dense()
    expansion = DenseStage(stage, x).expansion()
    v = base.vectors.flatten(2)
    assert_near(state.flatten(2), torch.einsum("rbn,bnm->rbm", v, expansion.fx), 1e-10)
    assert_near(control.flatten(2), torch.einsum("rbn,bnm->rbm", v, expansion.fu), 1e-10)


SHARED = nn.Linear(3, 3)


class Complex(nn.Module):
    """Has a complex weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("model", "messages"),
    [
        (
            nn.Sequential(SHARED, nn.Tanh(), SHARED),
            ["'weight' of stage 2 (Linear) is shared with stage 0 (Linear)", "one module"],
        ),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), ["no trainable parameters", "nothing to control"]),
        (nn.Sequential(), ["no trainable parameters"]),
        (
            nn.Sequential(Residual(nn.Linear(3, 3), nn.BatchNorm1d(3))),
            ["0 (Residual): BatchNorm1d couples", "top level", ".eval()", "layer normalization"],
        ),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)), ["1 (BatchNorm1d)", "affine=True"]),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).requires_grad_(False)), ["1 (BatchNorm1d)", "not frozen"]),
        (
            nn.Sequential(nn.Conv2d(1, 1, 3, padding="same")),
            ["0 (Conv2d): padding 'same'", "give zero padding as numbers"],
        ),
        (nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")), ["mode 'circular'", "as numbers"]),
        (
            nn.Sequential(Residual(nn.Linear(3, 3), nn.Dropout(0.1))),
            ["0 (Residual): Dropout inside Residual", "top level"],
        ),
        (nn.Sequential(nn.Linear(3, 3), nn.RReLU()), ["1 (RReLU)", "nn.LeakyReLU"]),
        (nn.Sequential(nn.Linear(3, 3), Complex()), ["1 (Complex): a control is real", "complex parameters"]),
    ],
)
def test_what_cannot_be_a_stage_says_why_and_what_to_do(model: nn.Module, messages: list[str]) -> None:
    with pytest.raises(ValueError, match=".*".join(re.escape(message) for message in messages)):
        as_stages(model)


def test_a_block_that_is_no_module_is_named() -> None:
    with pytest.raises(TypeError, match=r"block 1 is a type, expected an nn\.Module"):
        as_stages([nn.Linear(3, 3), str])


def test_control_flow_over_the_batch_is_refused_by_name() -> None:
    class Gate(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) if x.sum() > 0 else x

    model = nn.Sequential(nn.Linear(3, 3), Gate(nn.Linear(3, 3))).double()
    stage = as_stages(model)[1][1]
    x = torch.tensor([[2.0, 2.0, 2.0], [-1.0, -1.0, -1.0]], dtype=torch.float64)
    with torch.no_grad():
        _, linearization = stage.linearize(x)
        for product in (linearization.layer.state_vjp, linearization.layer.control_vjp):
            with pytest.raises(ValueError, match=r"stage 1 \(Gate\): its samples depend on each other"):
                product(x, x[None])
