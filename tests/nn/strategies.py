"""Random small networks: every kind of stage, weights and data from a seed, in float64.

15 examples for each property; 200 with HYPOTHESIS_PROFILE=thorough.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ocpkit_nn.training.architectures import Residual

torch.set_num_threads(1)  # the tensors are tiny

few_examples = settings(max_examples=200 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 15, deadline=None)
seeds = st.integers(0, 2**32 - 1)
NORM_EPS = 0.1  # two or three samples may be nearly alike, or all dropped: 1/σ then is 300 with torch's own ε
ACTIVATIONS = [nn.Tanh, nn.Sigmoid, nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.Identity]


@dataclass(frozen=True)
class Case:
    """A network and a batch for it."""

    model: nn.Sequential
    inputs: Tensor
    targets: Tensor

    def __repr__(self) -> str:
        mode = "train" if self.model.training else "eval"
        return f"{self.model} in {mode} mode on {tuple(self.inputs.shape)}"


@dataclass(frozen=True)
class LayerCase:
    """One module with parameters, inputs (B, …) and cotangents (R, B, …) for it."""

    module: nn.Module
    inputs: Tensor
    cotangents: Tensor

    def __repr__(self) -> str:
        return f"{self.module} on {tuple(self.inputs.shape)}, R = {len(self.cotangents)}"


def randomize(module: nn.Module, seed: int) -> torch.Generator:
    """Give all parameters and statistics generic values in float64 (norms otherwise start at γ = 1, β = 0)."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(parameter[0].numel(), 1) if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.5 / fan_in**0.5)
        for inner in module.modules():
            if isinstance(inner, nn.modules.batchnorm._BatchNorm) and inner.track_running_stats:
                inner.running_mean.copy_(torch.randn(inner.num_features, generator=generator))
                inner.running_var.copy_(torch.rand(inner.num_features, generator=generator) + 0.5)
    return generator


def randn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def output_shape(modules: list[nn.Module], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one sample's output."""
    model = nn.Sequential(*modules).double().eval()
    with torch.no_grad():
        return tuple(model(torch.zeros(2, *shape, dtype=torch.float64)).shape[1:])


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


@st.composite
def convolutions(draw: st.DrawFn, shape: tuple[int, ...]) -> nn.Module:
    """Conv1d or Conv2d on one sample's shape (C, L) or (C, H, W): stride, padding, dilation, groups, bias."""
    channels, sizes = shape[0], shape[1:]
    padding = [draw(st.integers(0, 1)) for _ in sizes]
    kernel = [draw(st.integers(1, min(3, size + 2 * p))) for size, p in zip(sizes, padding)]
    dilation = [
        draw(st.integers(1, 2)) if 2 * (k - 1) < size + 2 * p else 1 for size, p, k in zip(sizes, padding, kernel)
    ]
    stride = [draw(st.integers(1, 2)) for _ in sizes]
    groups = draw(st.sampled_from(divisors(channels)))
    outputs = groups * draw(st.integers(1, 2))
    kind: Any = nn.Conv1d if len(sizes) == 1 else nn.Conv2d
    return kind(
        channels,
        outputs,
        tuple(kernel),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
        bias=draw(st.booleans()),
    )


@st.composite
def flat_layers(draw: st.DrawFn, features: int, *, batch_norm: bool = True) -> nn.Module:
    """A layer with parameters on vectors (B, n): by its own products, or by torch.func."""
    kinds = ["linear", "linear", "residual"] + ["batch norm"] * batch_norm
    kinds += ["layer norm"] * (features > 2)  # of one or two numbers it leaves nothing but signs
    kind = draw(st.sampled_from(kinds))
    if kind == "linear":
        return nn.Linear(features, draw(st.integers(1, 5)), bias=draw(st.booleans()))
    if kind == "layer norm":
        return nn.LayerNorm(features)
    if kind == "batch norm":
        return nn.BatchNorm1d(features, eps=NORM_EPS)
    width = draw(st.integers(1, 3))
    return Residual(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, features, bias=draw(st.booleans())))


@st.composite
def image_layers(draw: st.DrawFn, shape: tuple[int, ...], *, batch_norm: bool = True) -> nn.Module:
    """A layer with parameters on sequences or images."""
    kinds = ["convolution", "convolution", "residual"] + ["batch norm"] * batch_norm
    groups = [d for d in divisors(shape[0]) if math.prod(shape) // d > 2]
    kinds += ["group norm"] * (len(groups) > 0)
    kind = draw(st.sampled_from(kinds))
    if kind == "convolution":
        return draw(convolutions(shape))
    if kind == "group norm":
        return nn.GroupNorm(draw(st.sampled_from(groups)), shape[0])
    if kind == "batch norm":
        return (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(shape[0], eps=NORM_EPS)
    conv: Any = nn.Conv1d if len(shape) == 2 else nn.Conv2d
    return Residual(conv(shape[0], shape[0], 3, padding=1), nn.Tanh())


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, ...]:
    """One sample's shape: (n,), (C, L) or (C, H, W)."""
    dimensions = draw(st.integers(0, 2))
    if dimensions == 0:
        return (draw(st.integers(1, 5)),)
    return (draw(st.integers(1, 3)), *(draw(st.integers(3, 4)) for _ in range(dimensions)))


@st.composite
def layers(draw: st.DrawFn) -> LayerCase:
    """One layer in training or evaluation, with R = 1 … 3 cotangents for each of B samples."""
    shape = draw(shapes())
    module = draw(flat_layers(shape[0]) if len(shape) == 1 else image_layers(shape))
    generator, outputs = randomize(module, draw(seeds)), output_shape([module], shape)
    module.train(draw(st.booleans()))
    batch, columns = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    inputs = randn(generator, batch, *shape)
    return LayerCase(module, inputs, randn(generator, columns, batch, *outputs))


@st.composite
def tails(draw: st.DrawFn, shape: tuple[int, ...], *, dropout: bool, distinct: bool = True) -> list[nn.Module]:
    """Modules without parameters: an activation, then perhaps pooling and dropout.

    Where values need not be distinct, as what an earlier ReLU or dropout has set to zero, no maximum is taken: which
    of equal ones it is would be decided by rounding.
    """
    modules: list[nn.Module] = [draw(st.sampled_from(ACTIVATIONS))()]
    if len(shape) > 1 and min(shape[1:]) >= 2 and draw(st.booleans()):
        pools = [nn.MaxPool1d, nn.AvgPool1d] if len(shape) == 2 else [nn.MaxPool2d, nn.AvgPool2d]
        modules.append(draw(st.sampled_from(pools if distinct else pools[1:]))(2))
    if dropout and draw(st.booleans()):
        modules.append(nn.Dropout(0.3))
    return modules


@st.composite
def networks(draw: st.DrawFn, *, batch_norm: bool = True, dropout: bool = True, max_batch: int = 4) -> Case:
    """Classifiers on vectors, sequences or images, with every kind of stage.

    Without batch norm and dropout, training equals what `torch.autograd` sees.
    """
    shape = start = draw(shapes())
    modules: list[nn.Module] = []
    if len(shape) > 1:
        for _ in range(draw(st.integers(1, 2))):
            modules.append(draw(image_layers(shape, batch_norm=batch_norm)))
            modules += draw(tails(output_shape(modules, start), dropout=dropout, distinct=len(modules) == 1))
            shape = output_shape(modules, start)
        modules.append(nn.Flatten())
    features = output_shape(modules, start)[0]
    for _ in range(draw(st.integers(0 if modules else 1, 2))):
        modules.append(draw(flat_layers(features, batch_norm=batch_norm)))
        modules += draw(tails((features,), dropout=dropout))
        features = output_shape(modules, start)[0]
    classes = draw(st.integers(2, 4))
    model = nn.Sequential(*modules, nn.Linear(features, classes, bias=draw(st.booleans())))
    generator = randomize(model, draw(seeds))
    model.train(draw(st.booleans()))
    batch = draw(st.integers(2, max_batch))
    targets = torch.randint(classes, (batch,), generator=generator)
    return Case(model, randn(generator, batch, *start), targets)


@st.composite
def perceptrons(draw: st.DrawFn) -> Case:
    """Linear layers with biases and smooth activations, all of which have Kronecker factors."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=3, max_size=4))
    modules: list[nn.Module] = []
    for n, following in pairwise(sizes):
        modules += [nn.Linear(n, following), draw(st.sampled_from([nn.Tanh, nn.Sigmoid, nn.GELU]))()]
    model = nn.Sequential(*modules[:-1])
    generator = randomize(model, draw(seeds))
    batch = draw(st.integers(1, 4))
    targets = torch.randint(sizes[-1], (batch,), generator=generator)
    return Case(model, randn(generator, batch, sizes[0]), targets)
