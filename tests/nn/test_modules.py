"""Modules of one's own as stages: without feedback the step is SGD's, with ε → 0 that without ε, whatever they hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nn.dense import assert_near
from nn.strategies import Residual, randn
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.optim.pmp import EMSA
from ocpkit_nn.optim.vanishing import SGDVGR

pytestmark = pytest.mark.filterwarnings(
    "ignore::ocpkit_nn.layers.lost_options.TrainingWarning"
)  # blocks have no factors

TARGETS = torch.tensor([0, 1, 2, 0, 1, 2])


class OneLayerTwice(nn.Module):
    """W tanh(W x): a module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(torch.tanh(self.first(x)))
        return result


class OneWeightTwice(OneLayerTwice):
    """One parameter in two modules, each with a bias of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight


class Gain(nn.Module):
    """g x with a number g."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x


class Mean(nn.Module):
    """The mean of a sample's tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def between(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), *middle, nn.Linear(6, 3))


def attention() -> nn.Module:
    """A block whose fused kernel autograd cannot differentiate twice, nor `vmap` without a warning."""
    return nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "a module under two names": lambda: between(OneLayerTwice()),
    "a weight in two modules": lambda: between(OneWeightTwice()),
    "a number": lambda: between(Gain(), nn.Tanh()),
    "PReLU, one slope": lambda: between(nn.PReLU()),
    "PReLU in a residual block": lambda: between(Residual(nn.Linear(6, 6), nn.PReLU(6))),
    "tokens": lambda: nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 6), nn.Tanh(), Mean(), nn.Linear(6, 3)),
    "torch's attention": lambda: nn.Sequential(nn.Embedding(7, 6), attention(), Mean(), nn.Linear(6, 3)),
}
OF_TOKENS = ("tokens", "torch's attention")


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    model = NETWORKS[request.param]().double()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(7, (6, 4), generator=generator)
    return model, tokens if request.param in OF_TOKENS else randn(generator, 6, 4)


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("gains", ["exact", "separable"])
def test_without_feedback_it_is_sgd(case: tuple[nn.Sequential, Tensor], gains: str) -> None:
    model, inputs = case
    twin = copy.deepcopy(model)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.1)
    optimizer = DDPNOpt(model, lr=0.1, curvature="identity", feedback="none", gains=gains)
    for _ in range(3):
        sgd.zero_grad()
        nn.functional.cross_entropy(twin(inputs), TARGETS).backward()
        sgd.step()
        optimizer.step(inputs, TARGETS)
    assert_near(weights(model), weights(twin), 1e-12)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in model.parameters())
    assert optimizer.policies() == [None] * len(optimizer.stages)


@pytest.mark.parametrize("curvature", ["identity", "adam", "kronecker", "exact"])
def test_a_tiny_epsilon_changes_next_to_nothing(case: tuple[nn.Sequential, Tensor], curvature: str) -> None:
    """Dense V_xx + ε I and columns of V_xx are different code; many columns go back where one did above."""
    model, inputs = case
    twin = copy.deepcopy(model)
    for each, tikhonov in ((model, 1e-12), (twin, 0.0)):
        DDPNOpt(each, lr=0.1, curvature=curvature, terminal="ggn", tikhonov=tikhonov).step(inputs, TARGETS)
    assert_near(weights(model), weights(twin), 1e-7)


class Idle(nn.Module):
    """W x, with a parameter that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(6, 6), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.used(x)
        return result


@pytest.mark.slow
@pytest.mark.parametrize("build", [DDPNOpt, EMSA, SGDVGR])
@pytest.mark.parametrize("what", [*OF_TOKENS, "idle parameters"])
def test_all_optimizers_take_tokens_and_idle_parameters(build: Callable[..., Any], what: str) -> None:
    torch.manual_seed(0)
    model = (NETWORKS[what]() if what in OF_TOKENS else between(Idle())).double()
    inputs = torch.randint(7, (6, 4)) if what in OF_TOKENS else torch.randn(6, 4, dtype=torch.float64)
    optimizer = build(model)
    losses = [optimizer.step(inputs, TARGETS) for _ in range(20)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("build", [DDPNOpt, EMSA, SGDVGR])
def test_all_optimizers_refuse_an_empty_batch_and_move_nothing(build: Callable[..., Any]) -> None:
    model = between(nn.Tanh()).double()
    before = weights(model)
    with pytest.raises(ValueError, match="the batch is empty"):
        build(model).step(torch.zeros(0, 4, dtype=torch.float64), TARGETS[:0])
    assert torch.equal(weights(model), before)


def test_tokens_can_be_clipped() -> None:
    torch.manual_seed(0)
    model, inputs = NETWORKS["tokens"]().double(), torch.randint(7, (6, 4))
    before = weights(model)
    DDPNOpt(model, lr=1.0, curvature="identity", feedback="none", max_grad_norm=1e-3).step(inputs, TARGETS)
    assert float((weights(model) - before).norm()) == pytest.approx(1e-3, rel=1e-2)


def test_a_module_that_returns_more_than_a_tensor_is_named() -> None:
    model = nn.Sequential(nn.LSTM(4, 3, batch_first=True), nn.Flatten(), nn.Linear(6, 3))
    with pytest.raises(TypeError, match=r"stage 0 \(LSTM\): its forward returns a tuple, expected one tensor; wrap it"):
        DDPNOpt(model).step(torch.randn(6, 2, 4), TARGETS)


def test_columns_through_prelu_are_those_of_autograd() -> None:
    """As many samples as columns, where a wrong order of both would have the right shape."""
    torch.manual_seed(0)
    block = Residual(nn.Linear(3, 3), nn.PReLU(3)).double()
    stage = DDPNOpt(nn.Sequential(block)).stages[0]
    x, v = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, 3, 3, dtype=torch.float64)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda z: block(z[None])[0], row) for row in x])
    assert_near(stage.layer.state_vjp(x, v), torch.einsum("rbi,bij->rbj", v, jacobian), 1e-12)
