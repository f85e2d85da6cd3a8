"""The contract of `torch.optim.Optimizer` as a table: every curvature, form of the gains and kind of feedback."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim import lr_scheduler

from nn.dense import assert_near
from nn.strategies import Residual, randn
from ocpkit_nn.layers.losses import CrossEntropy
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.optim.pmp import EMSA
from ocpkit_nn.optim.vanishing import SGDVGR
from ocpkit_nn.passes.curvature import RULES
from ocpkit_nn.passes.fused import CURVATURES
from ocpkit_nn.training.optimizers import Backpropagation

pytestmark = pytest.mark.filterwarnings(
    "ignore::ocpkit_nn.layers.lost_options.TrainingWarning"
)  # see test_lost_options.py

FEEDBACKS = ("full", "value", "none")
FORMS = [
    *({"curvature": curvature, "gains": "exact", "feedback": each} for curvature in RULES for each in FEEDBACKS),
    *(
        {"curvature": curvature, "gains": "separable", "feedback": each}
        for curvature in CURVATURES
        for each in FEEDBACKS
    ),
]
MORE = [
    {"tikhonov": 0.1},
    {"terminal": "ggn"},
    {"terminal": "rank", "rank": 2},
    {"control_hessian": "literal"},
    {"line_search": True},
    {"max_grad_norm": 0.1},
    {"micro_batch": 4},
    {"weight_decay": 0.1, "curvature": "adam"},
    {"curvature": "ekfac", "eigenbasis_interval": 2},
]
every_form = pytest.mark.parametrize(
    "options", [*FORMS, *MORE], ids=lambda options: "-".join(map(str, options.values()))
)
TARGETS = torch.arange(6) % 3


def build(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    hidden = Residual(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 5))
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), hidden, nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double()


def batch(seed: int) -> Tensor:
    return randn(torch.Generator().manual_seed(seed), 6, 4)


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def train(optimizer: Any, *seeds: int) -> list[float]:
    return [optimizer.step(batch(seed), TARGETS) for seed in seeds]


# ---- learning rates --------------------------------------------------------------------------------------------


@every_form
def test_at_rate_zero_nothing_moves_and_training_goes_on_from_there(options: dict[str, Any]) -> None:
    """The first steps of a warm-up; and those after it are finite and move something."""
    model = build()
    optimizer, before = DDPNOpt(model, lr=0.1, **options), weights(model)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: max(0, step - 1) / 3)
    for step in range(2):
        train(optimizer, step)
        scheduler.step()
        assert torch.equal(weights(model), before)
    train(optimizer, 2, 3)
    assert weights(model).isfinite().all()
    assert not torch.equal(weights(model), before)


@every_form
def test_a_rate_may_be_a_tensor(options: dict[str, Any]) -> None:
    model, twin = build(), build()
    rate = torch.tensor(0.05, dtype=torch.float64)
    optimizer, other = DDPNOpt(model, lr=rate, **options), DDPNOpt(twin, lr=0.05, **options)  # type: ignore[arg-type]
    for step in range(3):
        train(optimizer, step)
        train(other, step)
        rate.mul_(0.5)
        other.param_groups[0]["lr"] *= 0.5
    assert torch.equal(weights(model), weights(twin))


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=12),
    "one cycle, momentum kept": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=12, cycle_momentum=False),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=3),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "warm-up from zero": lambda o: lr_scheduler.LambdaLR(o, lambda step: min(1.0, step / 4)),
    "chain": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
}
TWINS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "identity": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "diagonal": lambda p: torch.optim.RMSprop(p, lr=0.05, momentum=0.9, eps=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, eps=1e-3),
}


@pytest.mark.parametrize("gains", ["exact", "separable"])
@pytest.mark.parametrize("curvature", TWINS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_do_what_they_do_to_torchs_optimizers(name: str, curvature: str, gains: str) -> None:
    """Rates, and what is cycled: the momentum of SGD and RMSprop, the betas of Adam."""
    model, twin = build(), build()
    optimizer = DDPNOpt(model, lr=0.05, curvature=curvature, gains=gains, feedback="none", momentum=0.9, eps=1e-3)
    torchs = TWINS[curvature](twin.parameters())
    schedulers = SCHEDULERS[name](optimizer), SCHEDULERS[name](torchs)
    for step in range(10):
        train(optimizer, step)
        torchs.zero_grad()
        nn.functional.cross_entropy(twin(batch(step)), TARGETS).backward()
        torchs.step()
        for scheduler in schedulers:
            scheduler.step()
        for key in ("lr", "momentum", "betas"):
            assert optimizer.param_groups[0].get(key) == torchs.param_groups[0].get(key)
    assert_near(weights(model), weights(twin), 1e-9)


@pytest.mark.parametrize("curvature", ["kronecker", "ekfac", "exact"])
def test_a_momentum_that_is_not_there_cannot_be_cycled(curvature: str) -> None:
    optimizer = DDPNOpt(build(), curvature=curvature)
    with pytest.raises(ValueError, match="cycle_momentum"):
        SCHEDULERS["one cycle"](optimizer)
    SCHEDULERS["one cycle, momentum kept"](optimizer)


# ---- groups and frozen parameters ------------------------------------------------------------------------------


@pytest.mark.slow
@every_form
def test_what_is_frozen_stays_and_what_is_freed_moves(options: dict[str, Any]) -> None:
    """By requires_grad alone, at any time; the rest goes on."""
    model = build()
    optimizer = DDPNOpt(model, lr=0.05, **options)
    train(optimizer, 0)
    for index in (0, 2, 5):
        model[index].requires_grad_(False)
        before = weights(model[index]), weights(model)
        train(optimizer, 1, 2)
        assert torch.equal(weights(model[index]), before[0])
        assert not torch.equal(weights(model), before[1])
        model[index].requires_grad_(True)
        train(optimizer, 3, 4)
        assert (weights(model[index]) != before[0]).any()
    assert weights(model).isfinite().all()


@every_form
@pytest.mark.parametrize("by_group", [False, True])
def test_what_is_frozen_from_the_start_can_be_freed(options: dict[str, Any], by_group: bool) -> None:
    model = build()
    model[0].requires_grad_(False)
    optimizer, before = DDPNOpt(model, lr=0.05, **options), weights(model[0])
    train(optimizer, 0)
    assert torch.equal(weights(model[0]), before)
    model[0].requires_grad_(True)
    if by_group:
        optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
        assert [(group["lr"], len(group["params"])) for group in optimizer.param_groups] == [(0.05, 8), (0.01, 2)]
    train(optimizer, 1)
    assert all((p != q).any() for p, q in zip(model[0].parameters(), build()[0].parameters()))


@pytest.mark.parametrize("gains", ["exact", "separable"])
@pytest.mark.parametrize("curvature", TWINS)
def test_freezing_and_groups_later_are_torchs(curvature: str, gains: str) -> None:
    """With moments kept through the freeze, for a bias alone too, and a group of its own for what was freed."""
    model, twin = build(), build()
    for each in (model, twin):
        each[0].requires_grad_(False)
    optimizer = DDPNOpt(model, lr=0.05, curvature=curvature, gains=gains, feedback="none", momentum=0.9, eps=1e-3)
    torchs = TWINS[curvature]([p for p in twin.parameters() if p.requires_grad])
    for step in range(12):
        for each, own in ((model, optimizer), (twin, torchs)):
            if step in (2, 4):
                each[2].requires_grad_(step == 4)
            if step in (6, 8):
                each[5].bias.requires_grad_(step == 8)
            if step == 10:
                each[0].requires_grad_(True)
                own.add_param_group({"params": list(each[0].parameters()), "lr": 0.02})
        train(optimizer, step)
        torchs.zero_grad()
        nn.functional.cross_entropy(twin(batch(step)), TARGETS).backward()
        torchs.step()
    assert_near(weights(model), weights(twin), 1e-9)


def test_groups_are_checked_whenever_they_are_made() -> None:
    model = build()
    optimizer = DDPNOpt(model)
    with pytest.raises(ValueError, match="do not belong to the model's stages"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": model[0].parameters()})
    model[0].requires_grad_(False)
    with pytest.raises(ValueError, match="lr must be positive"):
        DDPNOpt(model).add_param_group({"params": model[0].parameters(), "lr": -1.0})
    assert len(optimizer.param_groups) == 1


def test_a_new_layer_needs_a_group() -> None:
    model = build()
    optimizer = DDPNOpt(model, lr=0.05)
    model[5] = nn.Linear(5, 3).double()
    with pytest.raises(ValueError, match=r"stage 5 \(Linear\) are in no group.*add_param_group.*requires_grad_"):
        train(optimizer, 0)
    before = weights(model[5])
    optimizer.add_param_group({"params": model[5].parameters()})
    train(optimizer, 0)
    assert not torch.equal(weights(model[5]), before)


def test_groups_edited_by_hand_count() -> None:
    """New dictionaries in the place of old ones, and other lists of parameters."""
    model, twin = build(), build()
    optimizer = DDPNOpt(model, lr=0.5, curvature="adam")
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "lr": 0.05}
    last = list(model[5].parameters())
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": last, "lr": 0.01})
    optimizer.param_groups[0]["params"] = [p for p in model.parameters() if all(p is not q for q in last)]
    other = DDPNOpt(twin, lr=0.05, curvature="adam", groups=[{"params": twin[5].parameters(), "lr": 0.01}])
    assert train(optimizer, 0, 1, 2) == train(other, 0, 1, 2)
    assert torch.equal(weights(model), weights(twin))


def test_groups_may_have_names() -> None:
    model = build()
    optimizer = DDPNOpt(model, groups=[{"params": list(model.named_parameters())}])
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in model.named_parameters()]
    train(optimizer, 0)


@pytest.mark.parametrize("gains", ["exact", "separable"])
def test_policies_are_those_of_the_last_step(gains: str) -> None:
    """Whatever a scheduler has done to the rate since."""
    optimizer = DDPNOpt(build(), lr=0.1, gains=gains)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.1)
    train(optimizer, 0, 1)
    before = [None if gain is None else gain.metric.inverse for gain in optimizer.policies()]
    scheduler.step()
    after = [None if gain is None else gain.metric.inverse for gain in optimizer.policies()]
    for gain, old in zip(after[1:], before[1:], strict=True):
        assert torch.equal(torch.as_tensor(gain), torch.as_tensor(old))


# ---- copies ----------------------------------------------------------------------------------------------------


def by_torch(pair: Any) -> Any:
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda pair: pickle.loads(pickle.dumps(pair)), "torch": by_torch}


@pytest.mark.slow
@every_form
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_both_goes_on_bit_for_bit(options: dict[str, Any], how: str) -> None:
    """Of (model, optimizer) together, with a scheduler around; neither disturbs the other."""
    model = build()
    optimizer = DDPNOpt(model, lr=0.05, generator=torch.Generator().manual_seed(0), **options)
    lr_scheduler.CosineAnnealingLR(optimizer, 5)
    train(optimizer, 0, 1)
    (twin, other), before = COPIES[how]((model, optimizer)), weights(model)
    assert [type(stage) for stage in other.stages] == [type(stage) for stage in optimizer.stages]
    losses = train(other, 2, 3, 4)
    assert torch.equal(weights(model), before)
    assert train(optimizer, 2, 3, 4) == losses
    assert torch.equal(weights(model), weights(twin))


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", [DDPNOpt, EMSA, SGDVGR])
def test_every_optimizer_can_be_copied(kind: Any, how: str) -> None:
    model = build()
    optimizer = kind(model)
    train(optimizer, 0)
    twin, other = COPIES[how]((model, optimizer))
    assert train(optimizer, 1, 2) == train(other, 1, 2)
    assert torch.equal(weights(model), weights(twin))
    alone = COPIES[how](optimizer)  # trains a model of its own
    before = weights(model)
    train(alone, 3)
    assert torch.equal(weights(model), before)


def test_a_copy_that_is_frozen_meanwhile_keeps_its_moments() -> None:
    model, twin = build(), build()
    results = []
    for each, how in ((model, copy.deepcopy), (twin, lambda pair: pair)):
        optimizer = DDPNOpt(each, lr=0.05, curvature="adam")
        train(optimizer, 0, 1)
        each[0].requires_grad_(False)
        train(optimizer, 2)
        each, optimizer = how((each, optimizer))
        each[0].requires_grad_(True)
        train(optimizer, 3, 4)
        results.append(weights(each))
    assert torch.equal(*results)


@pytest.mark.slow
@every_form
def test_a_loaded_state_is_nobody_elses(options: dict[str, Any]) -> None:
    """Two optimizers, one with the state of the other, train as if each were alone."""
    results = []
    for together in (True, False):
        model, twin = build(), build(1)
        first, second = DDPNOpt(model, lr=0.05, **options), DDPNOpt(twin, lr=0.05, **options)
        train(first, 0, 1)
        state = first.state_dict()
        second.load_state_dict(state if together else copy.deepcopy(state))
        if together:
            own, others = tensors(first.state), tensors(second.state)
            assert len(own) == len(others)
            assert not {t.data_ptr() for t in own if t.numel()} & {t.data_ptr() for t in others if t.numel()}
        results.append((train(first, 2, 3), train(second, 2, 3), weights(model), weights(twin)))
    for alone, shared in zip(*results):
        assert torch.equal(torch.as_tensor(alone), torch.as_tensor(shared))


def tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return [tensor for each in inner for tensor in tensors(each)]


def test_a_state_saved_frozen_can_be_loaded_free() -> None:
    """What a frozen layer's parameters had learnt waits in the state."""
    models = build(), build()
    optimizer = DDPNOpt(models[0], lr=0.05, curvature="adam")
    train(optimizer, 0, 1)
    models[0][0].requires_grad_(False)
    train(optimizer, 2)
    other = DDPNOpt(models[1], lr=0.05, curvature="adam")
    models[1].load_state_dict(models[0].state_dict())
    other.load_state_dict(optimizer.state_dict())
    models[0][0].requires_grad_(True)
    assert train(optimizer, 3, 4) == train(other, 3, 4)
    assert torch.equal(weights(models[0]), weights(models[1]))


# ---- copies of weights that others keep ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"feedback": "full"}, {"line_search": True}, {"gains": "separable"}, {"micro_batch": 4}]
)
def test_autocast_casts_the_weights_as_they_are(options: dict[str, Any]) -> None:
    """A step inside a context that remembers casts is that of one that does not, also for what follows it."""
    results = []
    for remembers in (True, False):
        model = build().float()
        optimizer = DDPNOpt(model, lr=0.5, curvature="identity", **options)
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=remembers):
            model(batch(0).float())  # here the casts are remembered
            losses = [optimizer.step(batch(seed).float(), TARGETS) for seed in range(3)]
            outputs = model(batch(0).float())
        results.append((losses, outputs, weights(model)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(results[0][2], results[1][2])


def test_feedback_acts_under_autocast() -> None:
    moved = []
    for feedback in ("full", "value"):
        model = build().float()
        optimizer = DDPNOpt(model, lr=0.5, curvature="identity", feedback=feedback)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            optimizer.step(batch(0).float(), TARGETS)
        moved.append(weights(model))
    assert float((moved[0] - moved[1]).abs().max()) > 1e-4


@pytest.mark.parametrize("kind", [EMSA, SGDVGR])
def test_the_other_optimizers_do_not_see_old_casts_either(kind: Any) -> None:
    results = []
    for remembers in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        optimizer = kind(model)
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=remembers):
            results.append([optimizer.step(batch(0).float(), TARGETS) for _ in range(3)])
    assert results[0] == results[1]


def test_a_cache_of_parametrized_weights_is_not_used_within_a_step() -> None:
    results = []
    for cached in (True, False):
        model = build()
        parametrizations.weight_norm(model[5])
        optimizer = DDPNOpt(model, lr=0.5, curvature="identity")
        with parametrize.cached() if cached else torch.enable_grad():
            results.append((train(optimizer, 0, 1), model(batch(0)).detach(), weights(model)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(results[0][2], results[1][2])


def test_torchs_optimizers_in_a_training_run_share_no_state_either() -> None:
    model, twin = build(), build(1)
    first, second = (
        Backpropagation(each, CrossEntropy(), torch.optim.Adam(each.parameters(), lr=0.05)) for each in (model, twin)
    )
    train(first, 0)
    second.load_state_dict(first.state_dict())
    before = copy.deepcopy(first.state_dict()["state"])
    train(second, 1)
    for own, old in zip(tensors(first.state_dict()["state"]), tensors(before), strict=True):
        assert torch.equal(own, old)
