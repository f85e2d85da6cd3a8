"""Jacobian products of layers against plain autograd, sample by sample, at 1e-10."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from nn.dense import assert_near, control_of, layer_function
from nn.strategies import LayerCase, Residual, few_examples, layers, randn, randomize
from ocpkit_nn.layers.convolution import ConvLayer
from ocpkit_nn.layers.layers import BatchNormLayer, LinearLayer
from ocpkit_nn.layers.modules import ModuleLayer, as_layer

TOLERANCE = 1e-10


def pulled_by_autograd(case: LayerCase) -> tuple[Tensor, Tensor]:
    """g_xᵀ v (R, B, *x) and g_uᵀ v (R, B, m) by one backward pass for each vector of each sample."""
    function, control = layer_function(case.module, case.inputs), control_of(case.module).requires_grad_()
    states, controls = [], []
    for columns in case.cotangents:
        pairs = []
        for x_i, v_i in zip(case.inputs, columns):
            x = x_i.clone().requires_grad_()
            pairs.append(torch.autograd.grad((function(x, control) * v_i).sum(), (x, control)))
        states.append(torch.stack([pair[0] for pair in pairs]))
        controls.append(torch.stack([pair[1] for pair in pairs]))
    return torch.stack(states), torch.stack(controls)


@few_examples
@given(case=layers())
def test_pulled_vectors_are_autograds(case: LayerCase) -> None:
    expected_state, expected_control = pulled_by_autograd(case)
    layer = as_layer(case.module, "layer")
    with torch.no_grad():
        layer.forward(case.inputs)
        base = layer.control_vjp(case.inputs, case.cotangents)
        assert_near(layer.state_vjp(case.inputs, case.cotangents), expected_state, TOLERANCE)
        assert_near(base.dense().flatten(2), expected_control, TOLERANCE)
        assert base.shape == base.dense().shape[2:]


@few_examples
@given(case=layers())
def test_forward_is_the_modules(case: LayerCase) -> None:
    """In training as in evaluation, running statistics included."""
    before = {name: buffer.clone() for name, buffer in case.module.named_buffers()}
    with torch.no_grad():
        expected = case.module(case.inputs)
        after = {name: buffer.clone() for name, buffer in case.module.named_buffers()}
        for name, buffer in case.module.named_buffers():
            buffer.copy_(before[name])
        assert_near(as_layer(case.module, "layer").forward(case.inputs), expected, 1e-14)
    for name, buffer in case.module.named_buffers():
        assert torch.equal(buffer, after[name])


@few_examples
@given(case=layers())
def test_a_change_is_added_where_the_matrix_reads(case: LayerCase) -> None:
    layer = as_layer(case.module, "layer")
    before = layer.matrix().clone()
    assert_near(before.flatten(), control_of(case.module), 0.0)
    change = randn(torch.Generator().manual_seed(0), *before.shape)
    function = layer_function(case.module, case.inputs)
    with torch.no_grad():
        expected = torch.stack([function(x, (before + change).flatten()) for x in case.inputs])
        layer.forward(case.inputs)
        layer.add_(change)
        assert_near(layer.matrix(), before + change, 1e-15)
        again = layer.second_forward if isinstance(layer, BatchNormLayer) else layer.forward
        assert_near(again(case.inputs), expected, 1e-12)


@few_examples
@given(case=layers())
def test_torch_func_agrees_with_a_layers_own_products(case: LayerCase) -> None:
    """The general route, for modules that have a special one."""
    layer = as_layer(case.module, "layer")
    if not isinstance(layer, (LinearLayer, ConvLayer)):
        return
    with torch.no_grad():
        general = ModuleLayer(case.module, "layer")
        assert_near(
            general.state_vjp(case.inputs, case.cotangents),
            layer.state_vjp(case.inputs, case.cotangents),
            TOLERANCE,
        )
        own = layer.control_vjp(case.inputs, case.cotangents).dense().flatten(2)
        rows = general.control_vjp(case.inputs, case.cotangents).dense().flatten(2)
        places = copy.deepcopy(case.module)  # its parameters count the entries of the general control
        nn.utils.vector_to_parameters(torch.arange(rows.shape[2], dtype=torch.float64), places.parameters())
        where = control_of(places).long()
        assert_near(rows[:, :, where], own, TOLERANCE)


@few_examples
@given(case=layers())
def test_kronecker_factors_are_second_moments(case: LayerCase) -> None:
    """A ⊗ S exists for Linear and for convolutions of one group; for one position it is exact sample by sample."""
    layer = as_layer(case.module, "layer")
    one_group = isinstance(layer, ConvLayer) and case.module.groups == 1
    assert layer.factored == (isinstance(layer, LinearLayer) or one_group)
    if isinstance(layer, (ModuleLayer, BatchNormLayer)):
        with pytest.raises(NotImplementedError, match="no Kronecker factors"):
            layer.factors(case.inputs, case.cotangents)
    if not layer.factored:
        return
    rows, v = seen(case.module, case.inputs), case.cotangents[0]
    v = v.reshape(len(v), 1, -1) if isinstance(layer, LinearLayer) else v.flatten(2).mT
    with torch.no_grad():
        A, S = layer.factors(case.inputs, case.cotangents[0])
        gradients = layer.control_vjp(case.inputs, case.cotangents[:1]).dense()[0]
    assert_near(v.mT @ rows, gradients, TOLERANCE)  # Σ over positions of V_h x̄ᵀ is the sample's gradient
    assert_near(A, (rows.mT @ rows).mean(0) / rows.shape[1], TOLERANCE)
    assert_near(S, (v.mT @ v).mean(0), TOLERANCE)


def seen(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What each output sees of the inputs (B, positions, i), with a one for the bias, by torch's unfold."""
    if isinstance(module, nn.Linear):
        rows = inputs[:, None]
    else:
        assert isinstance(module, (nn.Conv1d, nn.Conv2d))
        shapes = [module.kernel_size, module.dilation, module.padding, module.stride]
        if isinstance(module, nn.Conv1d):
            inputs, shapes = inputs[:, :, None], [(fill, *shape) for fill, shape in zip((1, 1, 0, 1), shapes)]
        rows = nn.functional.unfold(inputs, *shapes).mT
    return rows if module.bias is None else nn.functional.pad(rows, (0, 1), value=1.0)


def test_mean_of_a_convolution_does_not_form_the_samples() -> None:
    module = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
    generator = randomize(module, 0)
    inputs, weights = randn(generator, 3, 2, 5, 4), randn(generator, 3, 2)
    layer = ConvLayer(module, "conv")
    with torch.no_grad():
        v = randn(generator, 2, 3, *layer.forward(inputs).shape[1:])
        base = layer.control_vjp(inputs, v)
        implicit = base.mean(weights)
        assert base._formed is None
        expected = torch.einsum("rboi,br->oi", base.dense(), weights) / 3
        assert base._formed is not None
    assert_near(implicit, expected, TOLERANCE)
    assert_near(base.mean(weights), expected, TOLERANCE)


@pytest.mark.parametrize("module", [nn.BatchNorm1d(3), nn.BatchNorm2d(3)])
def test_batch_norm_keeps_its_statistics_in_the_second_pass(module: nn.Module) -> None:
    generator = randomize(module, 1)
    shape = (4, 3) if isinstance(module, nn.BatchNorm1d) else (4, 3, 2, 2)
    nominal, moved = randn(generator, *shape), 3 + 2 * randn(generator, *shape)
    layer = BatchNormLayer(module, "norm")
    with torch.no_grad():
        first = layer.forward(nominal)
        mean, variance = module.running_mean.clone(), module.running_var.clone()
        assert_near(layer.second_forward(nominal), first, 1e-12)
        function = layer_function(module, nominal)
        expected = torch.stack([function(x, control_of(module)) for x in moved])
        assert_near(layer.second_forward(moved), expected, 1e-12)
    assert torch.equal(module.running_mean, mean)
    assert torch.equal(module.running_var, variance)


def test_frozen_parameters_are_no_controls() -> None:
    module = nn.Linear(3, 2)
    generator = randomize(module, 2)
    module.weight.requires_grad_(False)
    layer = as_layer(module, "layer")
    weight = module.weight.clone()
    with torch.no_grad():
        assert layer.matrix().shape == (1, 2)
        v = randn(generator, 1, 4, 2)
        assert_near(layer.control_vjp(randn(generator, 4, 3), v).dense()[0, :, 0], v[0], TOLERANCE)
        layer.add_(torch.ones(1, 2, dtype=torch.float64))
    assert torch.equal(module.weight, weight)


def test_tied_weights_inside_one_block_are_one_control() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    block = Residual(first, nn.Tanh(), second)
    generator = randomize(block, 3)
    inputs, v = randn(generator, 2, 3), randn(generator, 1, 2, 3)
    layer = as_layer(block, "block")
    assert layer.matrix().numel() == 9 + 3 + 3
    with torch.no_grad():
        pulled = layer.control_vjp(inputs, v).dense()[0, :, 0]
    for i in range(2):
        gradients = torch.autograd.grad((block(inputs[i : i + 1]) * v[0, i]).sum(), list(block.parameters()))
        assert_near(pulled[i], torch.cat([g.flatten() for g in gradients]), TOLERANCE)
