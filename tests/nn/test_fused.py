"""Fused steps: those of the rules in `curvature`, whose moments and metric they share in another form."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near
from nn.strategies import Case, few_examples, networks, randn
from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.modules import as_layer
from ocpkit_nn.layers.vectors import DenseBase
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes import fused
from ocpkit_nn.passes.curvature import RULES, LayerGradients
from ocpkit_nn.passes.moments import Memory

OPTIONS = {"lr": 0.1, "eps": 1e-3, "decay": 0.9, "betas": (0.8, 0.9), "momentum": 0.0, "weight_decay": 0.0}


def step_of_the_rule(name: str, layer: Layer, gradient: Tensor, memory: Memory, options: dict[str, Any]) -> Metric:
    """Take one step as `curvature` does it, weight decay included."""
    mean = gradient + options["weight_decay"] * layer.matrix()
    samples = DenseBase(mean[None, None])
    metric, direction = RULES[name](LayerGradients(mean, samples, torch.ones(1, 1), None), memory, options)
    metric.descend(layer, direction)
    return metric


def assert_same_steps(name: str, layer: Layer, options: dict[str, Any], steps: int = 3) -> None:
    expected, generator = copy.deepcopy(layer), torch.Generator().manual_seed(0)
    memory: Memory = {}
    expected_memory: Memory = {}
    for _ in range(steps):
        gradient = randn(generator, *layer.matrix().shape)
        with torch.no_grad():
            metric = step_of_the_rule(name, expected, gradient, expected_memory, options)
            fused.descend(name, [layer], [[part.contiguous() for part in layer.split(gradient)]], [memory], options)
            own = fused.metric(name, layer, memory, options)
        assert_near(layer.matrix(), expected.matrix())
        assert own is not None
        if name != "identity" or not options["momentum"]:
            assert_near(own.solve(gradient), metric.solve(gradient))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "no kernel"])
@pytest.mark.parametrize("name", fused.CURVATURES)
@few_examples
@given(case=networks(), momentum=st.sampled_from([0.0, 0.9]), weight_decay=st.sampled_from([0.0, 0.1]))
def test_the_steps_are_those_of_the_rules(
    name: str, kernel: bool, case: Case, momentum: float, weight_decay: float
) -> None:
    options = {**OPTIONS, "momentum": momentum, "weight_decay": weight_decay}
    with pytest.MonkeyPatch.context() as patch:
        if not kernel:
            patch.setattr(fused, "WITH_KERNEL", ())
        for stage in DDPNOpt(case.model, curvature=name).stages:
            assert_same_steps(name, stage.layer, options)


@pytest.mark.parametrize("name", fused.CURVATURES)
def test_weights_may_lie_in_memory_in_another_order(name: str) -> None:
    """With ``channels_last`` the kernel would otherwise pair weights with gradients of others."""
    module = nn.Conv2d(3, 2, 2, dtype=torch.float64).to(memory_format=torch.channels_last)
    assert not module.weight.is_contiguous()
    assert_same_steps(name, as_layer(module, "conv"), OPTIONS)


@pytest.mark.parametrize("gains", ["exact", "separable"])
def test_moments_of_the_other_gains_are_refused(gains: str) -> None:
    model, other = nn.Sequential(nn.Linear(2, 2)), {"exact": "separable", "separable": "exact"}[gains]
    saved = DDPNOpt(model, curvature="diagonal", gains=other)
    saved.step(torch.ones(1, 2), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match=f'gains="{gains}"'):
        DDPNOpt(model, curvature="diagonal", gains=gains).load_state_dict(saved.state_dict())
