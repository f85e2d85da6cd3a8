"""Second evaluations in a step are of the function that the first one was, and leave no trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near
from nn.strategies import few_examples, randn, randomize
from ocpkit_nn.layers.stages import as_stages
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.optim.pmp import EMSA

TARGETS = torch.arange(8) % 3


class Average(nn.Module):
    """Counts its samples and averages them, in place or by assignment."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.detach().flatten(2).mean((0, 2)) if x.ndim > 2 else x.detach().mean(0)
        if self.in_place:
            self.seen += len(x)
            self.mean.mul_(0.9).add_(0.1 * mean)
        else:
            self.seen = self.seen + len(x)
            self.mean = 0.9 * self.mean + 0.1 * mean
        return x


class Scaled(Average):
    """Has a parameter too."""

    def __init__(self) -> None:
        super().__init__(in_place=True)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


def linear(middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), middle, nn.Tanh(), nn.Linear(4, 3))


def image(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "batch norm": lambda: image(nn.BatchNorm1d(4)),
    "instance norm": lambda: image(nn.InstanceNorm1d(4, track_running_stats=True)),
    "a counter": lambda: linear(Average(in_place=True)),
    "a counter by assignment": lambda: linear(Average(in_place=False)),
    "a counter on images": lambda: image(Average(in_place=True)),
    "power iteration": lambda: nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3)
    ),
}
ONE_BY_ONE = {
    "instance norm with parameters": lambda: image(nn.InstanceNorm1d(4, affine=True, track_running_stats=True)),
    "a counter with parameters": lambda: linear(Scaled()),
}


def built(make: Callable[[], nn.Sequential]) -> nn.Sequential:
    torch.manual_seed(0)
    return make().double()


def assert_buffers_are_sgds(make: Callable[[], nn.Sequential], micro_batch: int | None) -> None:
    model, twin, inputs = built(make), built(make), randn(torch.Generator().manual_seed(1), 8, 5)
    optimizer = DDPNOpt(model, lr=0.1, curvature="identity", feedback="none", micro_batch=micro_batch)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.step(inputs, TARGETS)
        sgd.zero_grad()
        parts = zip(inputs.split(micro_batch or 8), TARGETS.split(micro_batch or 8))
        sum(nn.functional.cross_entropy(twin(x), y) * len(x) / 8 for x, y in parts).backward()  # type: ignore[union-attr]
        sgd.step()
    for (name, one), (_, other) in zip(model.state_dict().items(), twin.state_dict().items()):
        assert_near(one.double(), other.double(), 1e-10), name


@pytest.mark.parametrize("micro_batch", [None, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_buffers_change_as_in_the_baseline(name: str, micro_batch: int | None) -> None:
    if name == "power iteration" and micro_batch:
        pytest.skip("every micro-batch is another function")
    assert_buffers_are_sgds(NETWORKS[name], micro_batch)


@pytest.mark.filterwarnings("ignore::ocpkit_nn.layers.lost_options.TrainingWarning")
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_so_they_do_in_layers_with_parameters(name: str) -> None:
    assert_buffers_are_sgds(ONE_BY_ONE[name], None)


@pytest.mark.parametrize("options", [{"feedback": "full"}, {"line_search": True}, {"gains": "separable"}])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_changes_buffers_once_whatever_its_passes(name: str, options: dict[str, Any]) -> None:
    model, inputs = built(NETWORKS[name]), randn(torch.Generator().manual_seed(1), 8, 5)
    twin = copy.deepcopy(model)
    DDPNOpt(model, lr=0.1, **options).step(inputs, TARGETS)
    with torch.no_grad():
        twin(inputs)
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert_near(one.double(), other.double(), 1e-12)


class Noise(nn.Module):
    """Adds noise from one of the sources that there are."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.own = torch.Generator().manual_seed(3)
        self.numpys, self.pythons = np.random.default_rng(3), random.Random(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.source == "torch":
            return x + torch.randn_like(x)
        if self.source == "generator":
            return x + torch.randn(x.shape, generator=self.own, dtype=x.dtype)
        if self.source == "numpy":
            return x + torch.from_numpy(np.random.standard_normal(tuple(x.shape)))  # noqa: NPY002
        if self.source == "numpy's generator":
            return x + torch.from_numpy(self.numpys.standard_normal(tuple(x.shape)))
        if self.source == "python's generator":
            return x * self.pythons.uniform(0.5, 2.0)
        return x * (random.random() + 0.5)


class DropPath(nn.Module):
    """Stochastic depth: leaves out tanh for some samples."""

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.rand(len(x), *[1] * (x.ndim - 1)) < 0.5
        return torch.where(kept, x + x.tanh(), x)


RANDOM: dict[str, Callable[[], nn.Module]] = {
    **{source: (lambda source=source: Noise(source)) for source in ("torch", "generator", "numpy", "python")},
    "numpy's generator": lambda: Noise("numpy's generator"),
    "python's generator": lambda: Noise("python's generator"),
    "stochastic depth": DropPath,
    "dropout": lambda: nn.Dropout(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.5),
    "dropout within a module": lambda: nn.Sequential(nn.Sequential(nn.Dropout(0.5)), Noise("torch")),
}


@pytest.mark.parametrize("name", RANDOM)
def test_noise_is_drawn_once_in_a_step(name: str) -> None:
    model = linear(RANDOM[name]()).double()
    stage, x = as_stages(model)[1][0], randn(torch.Generator().manual_seed(1), 8, 5)

    def draws() -> tuple[float, ...]:
        return float(torch.rand(1)), random.random(), float(np.random.random_sample())  # noqa: NPY002

    with torch.no_grad():
        first = stage.linearize(x)[0]
        following = draws()
        assert_near(stage.second_forward(x), first, 0.0)
        assert_near(stage.second_forward(x), first, 0.0)
        stage.check_samples_do_not_mix(x, first)
        second = stage.linearize(x)[0]
        assert not torch.equal(second, first)
        assert_near(stage.second_forward(x), second, 0.0)
        assert not any(a == b for a, b in zip(draws(), following))


@pytest.mark.parametrize("optimizer", [DDPNOpt, EMSA])
@pytest.mark.parametrize("name", RANDOM)
def test_networks_with_noise_are_trained(name: str, optimizer: Callable[..., Any]) -> None:
    model, inputs = linear(RANDOM[name]()).double(), randn(torch.Generator().manual_seed(1), 8, 5)
    randomize(model, 0)
    trained = optimizer(model)
    assert all(trained.step(inputs, TARGETS) > 0 for _ in range(3))


@pytest.mark.parametrize("source", ["torch", "numpy", "python", "generator"])
def test_a_layer_with_parameters_that_draws_is_refused_for_that(source: str) -> None:
    class Noisy(Noise):
        def __init__(self) -> None:
            super().__init__(source)
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.inner(super().forward(x))
            return result

    model = linear(Noisy()).double()
    with pytest.raises(ValueError, match=r"stage 1 \(Noisy\): Noisy draws random numbers in its forward"):
        DDPNOpt(model).step(torch.ones(8, 5, dtype=torch.float64), TARGETS)


@few_examples
@given(size=st.integers(2, 5), batch=st.integers(2, 12))
def test_batch_norm_never_measures_a_single_sample(size: int, batch: int) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    generator, seen = randomize(model, 0), []
    model[2].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    DDPNOpt(model, micro_batch=size).step(randn(generator, batch, 3), torch.arange(batch) % 2)
    assert sum(seen) == batch
    assert min(seen) >= 2
    assert max(seen) <= max(size, 3)


BACKBONE_INPUTS = torch.randn(8, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def backbone() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()


@pytest.mark.parametrize("trained", [False, True])
def test_frozen_batch_norm_is_taken_as_it_is(trained: bool) -> None:
    """Before the first trainable layer in any mode, after it with its running statistics."""
    model = nn.Sequential(*backbone(), nn.Linear(4, 3).double())
    model[1].requires_grad_(False).eval()
    model[0].requires_grad_(trained)
    twin = copy.deepcopy(model)
    optimizer = DDPNOpt(model, lr=0.1, curvature="identity", feedback="none")
    sgd = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.step(BACKBONE_INPUTS, TARGETS)
        sgd.zero_grad()
        nn.functional.cross_entropy(twin(BACKBONE_INPUTS), TARGETS).backward()
        sgd.step()
    for one, other in zip(model.state_dict().values(), twin.state_dict().values()):
        assert_near(one.double(), other.double(), 1e-12)


def test_frozen_batch_norm_that_measures_the_batch_is_refused_when_it_does() -> None:
    model = nn.Sequential(*backbone(), nn.Linear(4, 3).double())
    model[1].requires_grad_(False).eval()
    optimizer = DDPNOpt(model)
    optimizer.step(BACKBONE_INPUTS, TARGETS)
    model.train()
    with pytest.raises(ValueError, match=r"0 \(Conv2d\): BatchNorm2d couples the samples .*\.eval\(\)"):
        optimizer.step(BACKBONE_INPUTS, TARGETS)
