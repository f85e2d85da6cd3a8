"""Options that a model leaves without effect are said once, with the way to keep them; lazy layers keep all of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from nn.dense import assert_near
from nn.strategies import Residual
from ocpkit_nn.layers.lost_options import TrainingWarning
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.curvature import RULES

X, Y = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class Own(nn.Module):
    """Two layers and a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(torch.tanh(self.first(x)))
        return result


class Around(nn.Module):
    """A chain under a name."""

    def __init__(self) -> None:
        super().__init__()
        self.net = chain()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


class Recurrent(nn.Module):
    """The last output of a recurrent layer on five numbers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x[..., None])[0][:, -1]
        return result


class Loop(nn.Module):
    """A recurrent cell in a loop."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for number in x.unbind(1):
            h = self.cell(number[:, None], h)
        result: Tensor = h[0] if isinstance(h, tuple) else h
        return result


class Branch(nn.Module):
    """Has a branch on each sample's values, which torch's vmap has not."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.inner(row) if row.sum().item() > 0 else row for row in x])


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def altered(change: Callable[[nn.Module], object]) -> Callable[[], nn.Module]:
    """A chain whose first layer is no longer what torch makes it."""

    def build() -> nn.Sequential:
        model = chain()
        change(model[0])
        return model

    return build


def watched(layer: nn.Module) -> None:
    layer.register_forward_hook(lambda *_: None)


def own_forward(layer: nn.Module) -> None:
    layer.forward = lambda x: 2 * nn.functional.linear(x, layer.weight, layer.bias)  # type: ignore[method-assign]


ALTERED: dict[str, Callable[[nn.Module], object]] = {
    "hook": watched,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "forward": own_forward,
}


LOST: dict[str, tuple[Callable[[], nn.Module], dict[str, str], list[str]]] = {
    "feedback": (Own, {}, ["feedback='full'", "Own is the only stage", "layers inside (Linear)"]),
    "feedback, value": (Own, {"feedback": "value"}, ["feedback='value'"]),
    "both": (Own, {"curvature": "kronecker"}, ["curvature='kronecker'", "in Own", "feedback='full'"]),
    "ekfac": (Own, {"curvature": "ekfac", "feedback": "none"}, ["curvature='ekfac'", "layers inside (Linear)"]),
    "a chain inside": (Around, {"curvature": "ekfac"}, ["layers inside Around", "'net' is a chain"]),
    "compiled": (lambda: torch.compile(chain()), {}, ["OptimizedModule", "'_orig_mod' is a chain"]),
    "a compiled part": (
        lambda: nn.Sequential(torch.compile(nn.Linear(5, 8)), nn.Linear(8, 3)),
        {"curvature": "kronecker"},
        ["0 (OptimizedModule)", "layers inside (Linear)"],
    ),
    "a layer without factors": (
        lambda: nn.Sequential(nn.Conv3d(1, 1, 1), nn.Flatten(), nn.Linear(8, 2)),
        {"curvature": "kronecker"},
        ["in 0 (Conv3d):", "nn.Linear, nn.Conv1d and nn.Conv2d"],
    ),
    **{
        name: (altered(change), {"curvature": "kronecker"}, ["in 0 (", "remove hooks and parametrizations"])
        for name, change in ALTERED.items()
    },
    "a block": (
        lambda: nn.Sequential(nn.Linear(5, 5), Residual(nn.Linear(5, 5)), nn.Linear(5, 3)),
        {"curvature": "ekfac"},
        ["in 1 (Residual):", "layers inside (Linear)"],
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # what torch.compile imports
@pytest.mark.parametrize("name", LOST)
def test_what_a_model_loses_is_said_once(name: str) -> None:
    build, options, said = LOST[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrainingWarning)
        DDPNOpt(build(), **options)  # type: ignore[arg-type]
    (message,) = [str(each.message) for each in caught if each.category is TrainingWarning]
    assert all(words in message for words in said)


@pytest.mark.parametrize("name", [name for name in ALTERED if name != "weight norm"])  # which has new parameters
def test_what_a_change_takes_away_is_said_at_the_next_step_once(name: str) -> None:
    """And again only if it is something else that is lost; a copy of the optimizer does not repeat it."""
    model = chain().double()
    optimizer = DDPNOpt(model, curvature="kronecker")
    optimizer.step(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ALTERED[name](model[0])
    with pytest.warns(TrainingWarning, match=r"sampled squares in 0 \("):
        optimizer.step(X, Y)
    model[2].bias.requires_grad_(False)
    optimizer.step(X, Y)
    copy.deepcopy((model, optimizer))[1].step(X, Y)
    watched(model[2])
    with pytest.warns(TrainingWarning, match=r"sampled squares in 0 \(.*, 2 \("):
        optimizer.step(X, Y)


@pytest.mark.parametrize(
    ("name", "curvatures"), [("momentum", {"identity", "diagonal"}), ("decay", {"diagonal", "kronecker", "ekfac"})]
)
def test_averages_that_a_curvature_has_not_are_named(name: str, curvatures: set[str]) -> None:
    for curvature in RULES:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TrainingWarning)
            DDPNOpt(chain(), curvature=curvature, **{name: 0.5})  # type: ignore[arg-type]
        assert [name in str(each.message) for each in caught] == [True] * (curvature not in curvatures)


@pytest.mark.parametrize("curvature", ["diagonal", "kronecker", "ekfac"])
@pytest.mark.parametrize(
    "build",
    [
        chain,
        lambda: nn.Linear(5, 3),
        lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.PReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)),
        lambda: nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(3)),
        altered(lambda layer: layer.bias.requires_grad_(False)),
        altered(lambda layer: layer.requires_grad_(False)),
    ],
)
def test_where_nothing_is_lost_nothing_is_said(build: Callable[[], nn.Module], curvature: str) -> None:
    DDPNOpt(build(), curvature=curvature)


def test_one_layer_has_no_feedback_to_lose_parametrized_or_not() -> None:
    DDPNOpt(parametrizations.weight_norm(nn.Linear(5, 3)), curvature="adam")


@pytest.mark.parametrize("curvature", ["identity", "diagonal", "kronecker", "ekfac"])
@pytest.mark.parametrize("run_before", [False, True])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_lazy_layers_are_the_layers_they_become(curvature: str, run_before: bool, micro_batch: int | None) -> None:
    """Whether that is before the first step or in it."""
    torch.manual_seed(0)
    usual = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    lazy = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(3)).double()
    optimizer, other = (DDPNOpt(model, lr=0.1, curvature=curvature, micro_batch=micro_batch) for model in (lazy, usual))
    if not run_before:
        optimizer.step(X, Y)
    with torch.no_grad():
        lazy(X)
    assert [type(module) for module in lazy] == [type(module) for module in usual]
    if not run_before:
        return
    lazy.load_state_dict(copy.deepcopy(usual.state_dict()))
    for _ in range(3):
        assert optimizer.step(X, Y) == pytest.approx(other.step(X, Y), rel=1e-12)
    for one, same in zip(lazy.parameters(), usual.parameters()):
        assert_near(one.detach(), same.detach(), 1e-12)
    kinds = [[type(stage.layer) for stage in each.stages] for each in (optimizer, other)]
    assert kinds[0] == kinds[1]


SLOW: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "LSTM": (lambda: Recurrent(nn.LSTM(1, 4, batch_first=True)), "LSTM"),
    "GRU": (lambda: Recurrent(nn.GRU(1, 4, batch_first=True)), "GRU"),
    "RNN": (lambda: Recurrent(nn.RNN(1, 4, batch_first=True)), "RNN"),
    "LSTM cell": (lambda: Loop(nn.LSTMCell(1, 4)), "LSTMCell"),
    "GRU cell": (lambda: Loop(nn.GRUCell(1, 4)), "GRUCell"),
    "a branch": (Branch, "vmap"),
}


@pytest.mark.parametrize("name", SLOW)
def test_what_vmap_cannot_is_done_sample_by_sample_and_said_once(name: str) -> None:
    """The step is SGD's; the warning names torch's reason."""
    build, reason = SLOW[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), build(), nn.Tanh(), nn.Linear(5 if name == "a branch" else 4, 3)).double()
    twin = copy.deepcopy(model)
    optimizer = DDPNOpt(model, lr=0.1, curvature="identity", feedback="none")
    sgd = torch.optim.SGD(twin.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrainingWarning)
        for _ in range(3):
            optimizer.step(X, Y)
            sgd.zero_grad()
            nn.functional.cross_entropy(twin(X), Y).backward()
            sgd.step()
    for one, other in zip(model.parameters(), twin.parameters()):
        assert_near(one.detach(), other.detach(), 1e-12)
    (message,) = [str(each.message) for each in caught if each.category is TrainingWarning]
    assert f"stage 1 ({type(model[1]).__name__})" in message
    assert reason in message


@pytest.mark.filterwarnings("ignore::ocpkit_nn.layers.lost_options.TrainingWarning")
@pytest.mark.parametrize("terminal", ["empirical", "ggn"])
def test_sample_by_sample_the_products_are_those_of_vmap(terminal: str) -> None:
    """Feedback included: a residual block, with and without vmap."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), Residual(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3)).double()
    twin = copy.deepcopy(model)
    optimizer, other = (DDPNOpt(m, lr=0.1, curvature="identity", terminal=terminal) for m in (model, twin))
    other.stages[1].layer._one_by_one = True  # type: ignore[attr-defined]
    for _ in range(3):
        optimizer.step(X, Y)
        other.step(X, Y)
    for one, same in zip(model.parameters(), twin.parameters()):
        assert_near(one.detach(), same.detach(), 1e-12)
