"""The network that is trained is `module(x)`, as it is at each step: hooks, subclasses, parametrizations, freezing."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize, prune

from nn.dense import assert_near
from nn.strategies import Case, few_examples, networks, randn
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.optim.pmp import EMSA
from ocpkit_nn.optim.vanishing import SGDVGR

pytestmark = pytest.mark.filterwarnings(
    "ignore::ocpkit_nn.layers.lost_options.TrainingWarning"
)  # see test_lost_options.py

Change = Callable[[nn.Sequential], object]
TARGETS = torch.arange(6) % 3


def build() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv1d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    return nn.Sequential(*layers).double()


def batch(seed: int = 1) -> Tensor:
    return randn(torch.Generator().manual_seed(seed), 6, 1, 5)


class Doubled(nn.Linear):
    """2 (W x + b)."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Skip(nn.Sequential):
    """x + body(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Twice(nn.Identity):
    """2 x, under a name that promises nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Exponential(nn.Module):
    """A parametrization of positive weights."""

    def forward(self, raw: Tensor) -> Tensor:
        return raw.exp()


def doubles(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


def doubles_in_place(module: nn.Module, inputs: Any, output: Tensor) -> None:
    output.mul_(2)


def shifts(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] + 0.5,)


def as_subclass(model: nn.Sequential) -> None:
    model[3].__class__ = Doubled


def own_forward(model: nn.Sequential) -> None:
    linear = model[3]
    linear.forward = lambda x: torch.sin(x @ linear.weight.T) + linear.bias  # type: ignore[method-assign]


def own_activation(model: nn.Sequential) -> None:
    model[1].forward = torch.sin  # type: ignore[method-assign]


CHANGES: dict[str, Change] = {
    "nothing": lambda model: None,
    "hook on a linear layer": lambda model: model[3].register_forward_hook(doubles),
    "hook in place": lambda model: model[3].register_forward_hook(doubles_in_place),
    "hook before a convolution": lambda model: model[0].register_forward_pre_hook(shifts),
    "hook on an activation": lambda model: model[1].register_forward_hook(doubles),
    "hook on the whole": lambda model: model.register_forward_hook(doubles),
    "pruned": lambda model: prune.l1_unstructured(model[3], "weight", amount=0.3),
    "pruned convolution": lambda model: prune.l1_unstructured(model[0], "weight", amount=0.3),
    "pruned bias": lambda model: prune.random_unstructured(model[5], "bias", amount=1),
    "parametrized": lambda model: parametrize.register_parametrization(model[3], "weight", Exponential()),
    "spectral norm": lambda model: parametrizations.spectral_norm(model[3]),
    "spectral norm by a hook": lambda model: nn.utils.spectral_norm(model[3]),
    "subclass": as_subclass,
    "forward of the instance": own_forward,
    "activation of the instance": own_activation,
    "subclass of the identity": lambda model: model.insert(4, Twice()),
    "another dilation": lambda model: setattr(model[0], "padding", (1,)) or setattr(model[0], "dilation", (2,)),
    "overwriting activation": lambda model: setattr(model[4], "inplace", True),
    "frozen bias": lambda model: model[3].bias.requires_grad_(False),
    "frozen weight": lambda model: model[3].weight.requires_grad_(False),
    "frozen layer": lambda model: model[3].requires_grad_(False),
    "frozen first layer": lambda model: model[0].requires_grad_(False),
    "frozen last layer": lambda model: model[5].requires_grad_(False),
}
WEIGHT_NORMS: dict[str, Change] = {  # new parameters, so from the start
    "weight norm": lambda model: parametrizations.weight_norm(model[3]),
    "weight norm by a hook": lambda model: nn.utils.weight_norm(model[3]),
}


def changed(change: Change, model: nn.Sequential) -> nn.Sequential:
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's word that there are newer norms
        change(model)
    return model


TWINS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "identity": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.5),
    "diagonal": lambda p: torch.optim.RMSprop(p, lr=0.05, momentum=0.5, eps=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, eps=1e-3),
}
OPTIONS: dict[str, Any] = {"lr": 0.05, "momentum": 0.5, "eps": 1e-3, "feedback": "none"}


def torch_step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor) -> float:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs), TARGETS)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def loss_of(model: nn.Module, inputs: Tensor) -> float:
    """Loss of a copy's `model(x)`: norms go on iterating at each call."""
    model(inputs)  # a weight that a hook computes with a gradient could not be copied
    return nn.functional.cross_entropy(copy.deepcopy(model)(inputs), TARGETS).item()


def assert_same_weights(model: nn.Module, twin: nn.Module, tolerance: float = 1e-9) -> None:
    own, expected = dict(model.named_parameters()), dict(twin.named_parameters())
    assert own.keys() == expected.keys()
    for name, parameter in own.items():
        assert_near(parameter.detach(), expected[name].detach(), tolerance)


# ---- module(x), from the start and later -----------------------------------------------------------------------


@pytest.mark.parametrize("gains", ["exact", "separable"])
@pytest.mark.parametrize("curvature", TWINS)
@pytest.mark.parametrize("name", [*CHANGES, *WEIGHT_NORMS])
def test_it_trains_what_module_x_is(name: str, curvature: str, gains: str) -> None:
    """Without feedback, torch's optimizer on `model(x)` takes the same steps and sees the same losses."""
    model, twin = (changed({**CHANGES, **WEIGHT_NORMS}[name], build()) for _ in range(2))
    optimizer, torchs = DDPNOpt(model, curvature=curvature, gains=gains, **OPTIONS), TWINS[curvature](twin.parameters())
    for step in range(4):
        inputs = batch(step)
        assert optimizer.step(inputs, TARGETS) == pytest.approx(torch_step(twin, torchs, inputs), rel=1e-9)
    assert_same_weights(model, twin)


@pytest.mark.parametrize("gains", ["exact", "separable"])
@pytest.mark.parametrize("curvature", TWINS)
@pytest.mark.parametrize("name", CHANGES)
def test_it_sees_what_changes_between_two_steps(name: str, curvature: str, gains: str) -> None:
    """And keeps the moments of each parameter, as torch's optimizers do."""
    model, twin = build(), build()
    optimizer, torchs = DDPNOpt(model, curvature=curvature, gains=gains, **OPTIONS), TWINS[curvature](twin.parameters())
    for step in range(6):
        if step == 3:
            changed(CHANGES[name], model)
            changed(CHANGES[name], twin)
        inputs = batch(step)
        assert optimizer.step(inputs, TARGETS) == pytest.approx(torch_step(twin, torchs, inputs), rel=1e-9)
    assert_same_weights(model, twin)


@pytest.mark.parametrize("curvature", ["identity", "adam", "kronecker", "ekfac", "exact"])
@pytest.mark.parametrize("feedback", ["full", "value"])
@pytest.mark.parametrize("name", CHANGES)
def test_with_feedback_too_the_loss_is_that_of_module_x(name: str, feedback: str, curvature: str) -> None:
    model = build()
    optimizer = DDPNOpt(model, lr=0.02, curvature=curvature, feedback=feedback)
    optimizer.step(batch(), TARGETS)
    changed(CHANGES[name], model)
    frozen = [p.clone() for p in model.parameters() if not p.requires_grad]
    for step in range(2):
        expected = loss_of(model, batch(step))
        assert optimizer.step(batch(step), TARGETS) == pytest.approx(expected, rel=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(frozen, (p for p in model.parameters() if not p.requires_grad)))


@pytest.mark.parametrize("kind", [EMSA, SGDVGR])
@pytest.mark.parametrize("name", CHANGES)
def test_the_other_optimizers_see_it_too(name: str, kind: Any) -> None:
    model = build()
    optimizer = kind(model)
    optimizer.step(batch(), TARGETS)
    changed(CHANGES[name], model)
    frozen = [p.clone() for p in model.parameters() if not p.requires_grad]
    expected = loss_of(model, batch())
    assert optimizer.step(batch(), TARGETS) == pytest.approx(expected, rel=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(frozen, (p for p in model.parameters() if not p.requires_grad)))


def test_what_is_taken_back_is_as_if_it_had_never_been() -> None:
    model, twin = build(), build()
    optimizer, other = DDPNOpt(model, curvature="adam"), DDPNOpt(twin, curvature="adam")
    handle = model[3].register_forward_hook(doubles)
    parametrize.register_parametrization(model[5], "weight", Exponential())
    handle.remove()
    parametrize.remove_parametrizations(model[5], "weight", leave_parametrized=False)
    for step in range(3):
        optimizer.step(batch(step), TARGETS)
        other.step(batch(step), TARGETS)
    assert [type(stage.layer) for stage in optimizer.stages] == [type(stage.layer) for stage in other.stages]
    assert_same_weights(model, twin, 0.0)


def test_a_sequential_with_a_skip_is_one_stage_and_a_mere_subclass_is_opened() -> None:
    class Block(nn.Sequential):
        """Says only how it is made."""

    torch.manual_seed(0)
    skip = nn.Sequential(nn.Linear(5, 6), Skip(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 3)).double()
    twin, inputs = copy.deepcopy(skip), batch()[:, 0]
    optimizer = DDPNOpt(skip, lr=0.1, curvature="identity", feedback="none")
    torchs = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        assert optimizer.step(inputs, TARGETS) == pytest.approx(torch_step(twin, torchs, inputs), rel=1e-12)
    assert_same_weights(skip, twin, 1e-12)
    assert [stage.name for stage in optimizer.stages] == ["0 (Linear)", "1 (Skip)", "2 (Linear)"]
    opened = DDPNOpt(nn.Sequential(Block(nn.Linear(5, 6), nn.Tanh()), nn.Linear(6, 3))).stages
    assert [stage.name for stage in opened] == ["0.0 (Linear)", "1 (Linear)"]


@pytest.fixture
def doubled_everywhere() -> Iterator[None]:
    def on_linear(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return 2 * output if isinstance(module, (nn.Linear, nn.Dropout)) else None

    handle = register_module_forward_hook(on_linear)
    yield
    handle.remove()


@pytest.mark.usefixtures("doubled_everywhere")
def test_hooks_on_all_modules_count() -> None:
    model, twin = build().append(nn.Dropout(0.0)), build().append(nn.Dropout(0.0))
    optimizer = DDPNOpt(model, lr=0.1, curvature="identity", feedback="none")
    torchs = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in range(3):
        loss = optimizer.step(batch(step), TARGETS)
        assert loss == pytest.approx(torch_step(twin, torchs, batch(step)), rel=1e-9)
    assert_same_weights(model, twin)


def test_weights_without_a_parameter_of_that_name_are_no_plain_layer() -> None:
    """A weight computed elsewhere is a plain tensor: only the bias is a control."""
    model = nn.Sequential(nn.Linear(5, 3)).double()
    fixed = model[0].weight.detach().clone()
    del model[0].weight
    model[0].weight = fixed
    twin = copy.deepcopy(model)
    DDPNOpt(model, lr=0.1, curvature="identity").step(batch()[:, 0], TARGETS)
    torch_step(twin, torch.optim.SGD(twin.parameters(), lr=0.1), batch()[:, 0])
    assert_same_weights(model, twin, 1e-12)


@few_examples
@given(case=networks(batch_norm=False, dropout=False), data=st.data(), later=st.booleans())
def test_hooks_anywhere_in_any_network_count(case: Case, data: st.DataObject, later: bool) -> None:
    """On layers, activations, blocks, what is inside of these, and the network itself."""
    twin = copy.deepcopy(case.model)
    modules = [list(model.modules()) for model in (case.model, twin)]
    index, before = data.draw(st.integers(0, len(modules[0]) - 1)), data.draw(st.booleans())

    def register() -> None:
        for module in (each[index] for each in modules):
            module.register_forward_pre_hook(shifts) if before else module.register_forward_hook(doubles)

    if not later:
        register()
    optimizer = DDPNOpt(case.model, lr=0.01, curvature="identity", feedback="none")
    torchs = torch.optim.SGD(twin.parameters(), lr=0.01)
    for _ in range(2):
        if later:
            register()
        torchs.zero_grad()
        loss = nn.functional.cross_entropy(twin(case.inputs), case.targets)
        loss.backward()
        torchs.step()
        assert optimizer.step(case.inputs, case.targets) == pytest.approx(loss.item(), rel=1e-9)
    assert_same_weights(case.model, twin)


# ---- once per step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("options", [{}, {"line_search": True}, {"terminal": "ggn"}, {"gains": "separable"}])
def test_a_hook_that_only_watches_sees_one_call_and_changes_nothing(index: int, options: dict[str, Any]) -> None:
    """Even if it could not be differentiated (`.item()`), and on the tensors of the forward pass themselves."""
    results = []
    for watched in (False, True):
        model, seen = build().insert(5, nn.Dropout(0.3)), list[float]()
        if watched:
            model[index].register_forward_hook(lambda module, x, y, seen=seen: seen.append(y.mean().item()))
        torch.manual_seed(1)
        optimizer = DDPNOpt(model, lr=0.05, curvature="identity", **options)
        optimizer.step(batch(), TARGETS)
        results.append([p.detach().clone() for p in model.parameters()])
    assert len(seen) == 1
    for own, expected in zip(*results):
        assert_near(own, expected, 1e-10)


@pytest.mark.parametrize("feedback", ["full", "none"])
def test_nothing_of_a_derivative_stays_in_the_model(feedback: str) -> None:
    """Pruning computes `weight` anew at each call; what it leaves is that of the forward pass, and can be copied."""
    model = changed(CHANGES["pruned"], build())
    DDPNOpt(model, feedback=feedback).step(batch(), TARGETS)
    assert torch.equal(copy.deepcopy(model)[3].weight == 0, model[3].weight_mask == 0)


def test_parameters_in_a_closure_are_refused_where_they_would_not_be_trained() -> None:
    model = build()
    weight = model[3].weight
    model[3].forward = lambda x: x @ weight.T  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"stage 3 \(Linear\): .*module.weight instead of a weight in a closure"):
        DDPNOpt(model).step(batch(), TARGETS)


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda model: model[3].register_full_backward_hook(lambda *_: None), r"backward hooks of 3 \(Linear\)"),
        (lambda model: model[3].register_full_backward_pre_hook(lambda *_: None), r"backward hooks of 3 \(Linear\)"),
        (lambda model: model[3].weight.register_hook(lambda gradient: 0 * gradient), "gradient of 3.weight"),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_hooks_that_would_never_run_are_refused(register: Change, message: str, later: bool) -> None:
    model = build()
    if later:
        optimizer = DDPNOpt(model)
        register(model)
        with pytest.raises(ValueError, match=message):
            optimizer.step(batch(), TARGETS)
    else:
        register(model)
        with pytest.raises(ValueError, match=message):
            DDPNOpt(model)


@pytest.mark.parametrize("module", [nn.BatchNorm1d(4), Skip(nn.Linear(4, 4), nn.BatchNorm1d(4))])
def test_what_cannot_be_taken_as_a_whole_says_why_it_is(module: nn.Module) -> None:
    module.register_forward_hook(doubles)
    with pytest.raises(ValueError, match="has hooks or a forward of its own and so is taken as a whole"):
        DDPNOpt(nn.Sequential(nn.Linear(3, 4), module))


def test_a_watched_module_whose_parameters_are_idle_is_trained_with_the_rest() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    model = nn.Sequential(nn.Linear(5, 4), Idle(), nn.Linear(4, 3)).double()
    model[1].register_forward_hook(lambda *_: None)
    optimizer = DDPNOpt(model, lr=0.1)
    losses = [optimizer.step(batch()[:, 0], TARGETS) for _ in range(5)]
    assert losses[-1] < losses[0]
