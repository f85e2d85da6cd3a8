"""The contract of `torch.optim.Optimizer`: groups, state, schedulers, clipping; and what a step depends on."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near
from nn.strategies import Case, few_examples, networks, perceptrons, randn, randomize
from ocpkit_nn.layers.losses import CrossEntropy, FunctionLoss
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.optim.options import GAINS
from ocpkit_nn.passes.curvature import RULES
from ocpkit_nn.training.options import TrainOptions

pytestmark = pytest.mark.filterwarnings(
    "ignore::ocpkit_nn.layers.lost_options.TrainingWarning"
)  # blocks have no factors

FEEDBACKS = ["full", "value", "none"]


def build(seed: int = 0) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 4), nn.Sigmoid(), nn.Linear(4, 3))
    randomize(model, seed)
    return model


def batches(count: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(randn(generator, 6, 1, 4, 4), torch.randint(3, (6,), generator=generator)) for _ in range(count)]


def parameters_of(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


# ---- what a step depends on ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("curvature", RULES)
@few_examples
@given(
    data=st.data(),
    feedback=st.sampled_from(FEEDBACKS),
    terminal=st.sampled_from(["empirical", "ggn"]),
    seed=st.integers(0, 1000),
)
def test_the_order_of_a_batch_does_not_matter(
    curvature: str, data: st.DataObject, feedback: str, terminal: str, seed: int
) -> None:
    # Small convolutions make A with equal eigenvalues, where EKFAC's basis, and with it EKFAC, is not unique.
    case: Case = data.draw(perceptrons() if curvature == "ekfac" else networks(dropout=False))
    order = torch.randperm(len(case.inputs), generator=torch.Generator().manual_seed(seed))
    twin = copy.deepcopy(case.model)
    options: dict[str, Any] = {"curvature": curvature, "feedback": feedback, "terminal": terminal, "eps": 1e-2}
    DDPNOpt(case.model, lr=0.05, **options).step(case.inputs, case.targets)
    DDPNOpt(twin, lr=0.05, **options).step(case.inputs[order], case.targets[order])
    assert_near(parameters_of(case.model), parameters_of(twin), 1e-9)


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("curvature", RULES)
def test_a_sample_twice_counts_twice(curvature: str, feedback: str) -> None:
    """E[·] is a mean: repeating the whole batch changes nothing, once the terminal Hessian's 1/B is fixed."""
    (inputs, targets) = batches(1)[0]
    results = []
    for repeats in (1, 2):
        model = build()
        optimizer = DDPNOpt(model, lr=0.1, curvature=curvature, feedback=feedback, curvature_scale=0.2)
        loss = optimizer.step(inputs.repeat(repeats, 1, 1, 1), targets.repeat(repeats))
        results.append((loss, parameters_of(model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    assert_near(results[0][1], results[1][1], 1e-9)


def test_the_three_feedbacks_differ_and_all_descend() -> None:
    (inputs, targets), start = batches(1)[0], parameters_of(build())
    results = []
    for feedback in FEEDBACKS:
        model = build()
        optimizer = DDPNOpt(model, lr=0.3, curvature="identity", feedback=feedback, curvature_scale=1.0)
        before = optimizer.step(inputs, targets)
        with torch.no_grad():
            assert float(CrossEntropy().value(model(inputs), targets).mean()) < before
        results.append(parameters_of(model) - start)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert float((results[i] - results[j]).abs().max()) > 1e-3 * float(results[i].abs().max())


@pytest.mark.parametrize(("feedback", "expected"), [("full", [2, 2, 1]), ("value", [1, 1, 1]), ("none", [1, 1, 1])])
def test_only_full_feedback_needs_a_second_forward_pass(feedback: str, expected: list[int]) -> None:
    """And its last stage is not run again: nobody asks for the new outputs."""
    model, calls = build(), []
    optimizer = DDPNOpt(model, feedback=feedback)
    optimizer.step(*batches(1)[0])
    for stage in optimizer.stages:
        original = stage.layer.forward
        count: list[int] = []
        calls.append(count)
        stage.layer.forward = lambda x, f=original, c=count: (c.append(1), f(x))[1]  # type: ignore[method-assign]
    optimizer.step(*batches(2)[1])
    assert [len(count) for count in calls] == expected


def test_the_default_keeps_the_proximal_term() -> None:
    """Q_uu = M/η + f_uᵀ V_xx f_u unless the literal formulas are asked for."""
    results = {}
    for options in ({}, {"control_hessian": "proximal"}, {"control_hessian": "literal"}):
        model = build()
        DDPNOpt(model, lr=0.5, curvature="identity", curvature_scale=1.0, **options).step(*batches(1)[0])
        results[options.get("control_hessian")] = parameters_of(model)
    assert torch.equal(results[None], results["proximal"])
    assert float((results[None] - results["literal"]).abs().max()) > 1e-4


@few_examples
@given(case=networks(dropout=False))
def test_step_returns_the_mean_loss_before_it(case: Case) -> None:
    with torch.no_grad():
        expected = CrossEntropy().value(copy.deepcopy(case.model)(case.inputs), case.targets).mean()
    assert DDPNOpt(case.model).step(case.inputs, case.targets) == pytest.approx(float(expected), rel=1e-12)


def test_a_loss_of_ones_own_trains_like_the_one_that_it_is() -> None:
    own = FunctionLoss(lambda x, y: nn.functional.cross_entropy(x, y, reduction="none"))
    first, second = build(), build()
    for terminal in ("empirical", "ggn"):
        a, b = (DDPNOpt(m, loss, terminal=terminal) for m, loss in ((first, own), (second, CrossEntropy())))
        for batch in batches(3):
            a.step(*batch)
            b.step(*batch)
    assert_near(parameters_of(first), parameters_of(second), 1e-9)


def test_rank_r_is_exact_at_as_many_columns_as_classes() -> None:
    """The Hessian of cross-entropy has rank C − 1, so C − 1 columns already are the whole of it."""
    results = {}
    for options in ({"terminal": "ggn"}, {"terminal": "rank", "rank": 3}, {"terminal": "rank", "rank": 2}):
        model = build()
        optimizer = DDPNOpt(model, lr=0.3, curvature="identity", curvature_scale=1.0, **options)  # type: ignore[arg-type]
        optimizer.step(*batches(1)[0])
        results[tuple(options.values())] = parameters_of(model)
    assert_near(results["rank", 3], results[("ggn",)], 1e-12)
    assert_near(results["rank", 2], results[("ggn",)], 1e-12)


# ---- groups, state, schedulers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("gains", GAINS)
def test_groups_have_options_of_their_own(gains: str) -> None:
    """With lr, weight decay and momentum per group it is torch's SGD with the same groups."""
    model, loss = build(), CrossEntropy()
    twin = copy.deepcopy(model)

    def groups(m: nn.Sequential) -> list[dict[str, Any]]:
        return [
            {"params": list(m[0].parameters()), "lr": 0.01, "momentum": 0.9},
            {"params": m[5].parameters(), "weight_decay": 0.1},
        ]

    options: dict[str, Any] = {"curvature": "identity", "feedback": "none", "gains": gains}
    optimizer = DDPNOpt(model, loss, lr=0.2, groups=groups(model), **options)
    torchs = torch.optim.SGD([*groups(twin), {"params": twin[3].parameters()}], lr=0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.2, 0.2]
    for inputs, targets in batches(10):
        torchs.zero_grad()
        loss.value(twin(inputs), targets).mean().backward()
        torchs.step()
        optimizer.step(inputs, targets)
    assert_near(parameters_of(model), parameters_of(twin), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("curvature", RULES)
def test_training_resumes_bit_for_bit(curvature: str, feedback: str) -> None:
    """Through a file, into a new model and a new optimizer with other options."""
    options: dict[str, Any] = {
        "feedback": feedback,
        "curvature": curvature,
        "eigenbasis_interval": 3,
        "terminal": "ggn",
    }
    model, data = build(), batches(10)
    optimizer = DDPNOpt(model, lr=0.02, momentum=0.9, **options)
    for batch in data[:4]:
        optimizer.step(*batch)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    for batch in data[4:]:
        optimizer.step(*batch)

    file.seek(0)
    saved, other = torch.load(file, weights_only=True), build(seed=7)
    resumed = DDPNOpt(other, lr=0.5, **options)
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    for batch in data[4:]:
        resumed.step(*batch)
    assert torch.equal(parameters_of(model), parameters_of(other))


def test_random_columns_resume_with_their_generator() -> None:
    model, data, generator = build(), batches(6), torch.Generator().manual_seed(3)
    optimizer = DDPNOpt(model, terminal="montecarlo", generator=generator)
    for batch in data[:3]:
        optimizer.step(*batch)
    twin, again = copy.deepcopy(model), torch.Generator()
    again.set_state(generator.get_state())
    other = DDPNOpt(twin, terminal="montecarlo", generator=again)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for batch in data[3:]:
        optimizer.step(*batch)
        other.step(*batch)
    assert torch.equal(parameters_of(model), parameters_of(twin))


@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_a_scheduler_drives_the_learning_rate(feedback: str) -> None:
    """A cosine of torch's gives the steps of a rate set by hand."""
    scheduled, by_hand = build(), build()
    optimizer, other = (DDPNOpt(m, lr=0.1, curvature="adam", feedback=feedback) for m in (scheduled, by_hand))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5, eta_min=0.01)
    rates = []
    for batch in batches(5):
        other.param_groups[0]["lr"] = scheduler.get_last_lr()[0]
        rates.append(scheduler.get_last_lr()[0])
        other.step(*batch)
        optimizer.step(*batch)
        scheduler.step()
    assert len(set(rates)) == 5
    assert torch.equal(parameters_of(scheduled), parameters_of(by_hand))


def test_gradients_of_the_parameters_are_neither_used_nor_left() -> None:
    models = build(), build()
    for model, noise in zip(models, (False, True)):
        optimizer = DDPNOpt(model)
        for batch in batches(2):
            if noise:
                for parameter in model.parameters():
                    parameter.grad = torch.ones_like(parameter)
            optimizer.zero_grad()
            assert all(parameter.grad is None for parameter in model.parameters())
            optimizer.step(*batch)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(parameters_of(models[0]), parameters_of(models[1]))


# ---- clipping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1e-3, 0.1, 1e3])
@pytest.mark.parametrize("curvature", ["identity", "adam"])
def test_clipping_without_feedback_is_torchs(curvature: str, limit: float) -> None:
    model, loss = build(), CrossEntropy()
    twin = copy.deepcopy(model)
    optimizer = DDPNOpt(model, loss, lr=0.1, curvature=curvature, feedback="none", max_grad_norm=limit)
    torchs = {"identity": torch.optim.SGD, "adam": torch.optim.Adam}[curvature](twin.parameters(), lr=0.1)
    for inputs, targets in batches(5):
        torchs.zero_grad()
        loss.value(twin(inputs), targets).mean().backward()
        nn.utils.clip_grad_norm_(twin.parameters(), limit)
        torchs.step()
        optimizer.step(inputs, targets)
    assert_near(parameters_of(model), parameters_of(twin), 1e-10)


@pytest.mark.parametrize("feedback", ["none", "full", "value"])
def test_a_gradient_whose_norm_overflows_is_clipped_to_nothing(feedback: str) -> None:
    """As torch clips it: ‖g‖ = ∞ leaves the weights where they are."""
    inputs, targets = batches(1)[0]
    model = build().float()
    before = parameters_of(model)
    steep = FunctionLoss(lambda x, y: 1e30 * x[:, 0])
    DDPNOpt(model, steep, curvature="identity", feedback=feedback, max_grad_norm=1.0).step(inputs.float(), targets)
    assert torch.equal(parameters_of(model), before)


@pytest.mark.parametrize("terminal", ["empirical", "ggn"])
@pytest.mark.parametrize("feedback", ["full", "value"])
def test_clipping_scales_the_whole_cost(terminal: str, feedback: str) -> None:
    """∇φ and ∇²φ shrink by one factor, as those of the cost c·φ do."""
    inputs, targets = batches(1)[0]
    model = build()
    loss = CrossEntropy()
    loss.value(model(inputs), targets).mean().backward()
    norm = float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm())
    limit = 0.3 * norm
    clip = limit / (norm + 1e-6)
    scaled = FunctionLoss(lambda x, y: clip * nn.functional.cross_entropy(x, y, reduction="none"))
    models = build(), build()
    options: dict[str, Any] = {"lr": 0.5, "curvature": "identity", "feedback": feedback, "terminal": terminal}
    DDPNOpt(models[0], loss, max_grad_norm=limit, curvature_scale=1.0, **options).step(inputs, targets)
    # the outer product of c ∇φ has the factor c² where the Hessian of c φ has c
    scale = 1 / clip if terminal == "empirical" else 1.0
    DDPNOpt(models[1], scaled, curvature_scale=scale, **options).step(inputs, targets)
    assert_near(parameters_of(models[0]), parameters_of(models[1]), 1e-10)


# ---- words for mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curvature": "kroneker"}, "did you mean 'kronecker'"),
        ({"feedback": "ful"}, "did you mean 'full'"),
        ({"terminal": "empirial"}, "did you mean 'empirical'"),
        ({"control_hessian": "litteral"}, "did you mean 'literal'"),
        ({"dynamics": "secnd"}, "did you mean 'second'"),
        ({"lr": 0.0}, "lr must be positive and finite, got 0.0"),
        ({"lr": float("inf")}, "lr must be positive and finite, got inf"),
        ({"damping": -1.0}, "damping must be positive and finite, got -1.0"),
        ({"eps": float("nan")}, "eps must be positive and finite, got nan"),
        ({"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\), got \(0.9, 1.0\)"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"decay": -0.1}, r"decay must lie in \[0, 1\), got -0.1"),
        ({"weight_decay": -0.1}, "weight_decay must be finite and not negative, got -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay must be finite and not negative, got nan"),
        ({"eigenbasis_interval": 0}, "eigenbasis_interval must be at least 1, got 0"),
        ({"tikhonov": -1e-3}, "tikhonov must be finite and not negative, got -0.001"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be positive, got -1.0"),
        ({"curvature_scale": -1.0}, "curvature_scale must be finite and not negative, got -1.0"),
        ({"terminal": "rank"}, "terminal='rank' needs a rank"),
        ({"rank": 2}, "rank is a number of columns for terminal='rank' or 'montecarlo', got 2 for 'empirical'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DDPNOpt(build(), **options)


def test_options_of_a_group_are_checked_too() -> None:
    model = build()
    with pytest.raises(ValueError, match="lr must be positive and finite, got -1"):
        DDPNOpt(model, groups=[{"params": model[0].parameters(), "lr": -1}])


def test_a_control_is_in_one_group() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"stage 0 \(Conv2d\) are in different groups; a control has one group"):
        DDPNOpt(model, groups=[{"params": [model[0].weight], "lr": 0.1}])


def test_foreign_parameters_in_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="1 parameters in groups do not belong to the model's stages"):
        DDPNOpt(build(), groups=[{"params": [nn.Parameter(torch.zeros(2))]}])


@pytest.mark.parametrize("gains", ["exact", "separable"])
def test_an_empty_batch_is_refused_by_name(gains: str) -> None:
    inputs, targets = batches(1)[0]
    with pytest.raises(ValueError, match=r"the batch is empty: inputs have shape \(0, 1, 4, 4\)"):
        DDPNOpt(build(), gains=gains).step(inputs[:0], targets[:0])


def test_targets_that_do_not_fit_are_refused_before_anything_changes() -> None:
    model = build()
    before = parameters_of(model)
    with pytest.raises(ValueError, match="target 3 of sample 1"):
        DDPNOpt(model).step(batches(1)[0][0][:2], torch.tensor([0, 3]))
    assert torch.equal(parameters_of(model), before)


# ---- names of earlier versions ---------------------------------------------------------------------------------


def test_the_old_name_of_the_eigenbasis_interval_works_and_warns() -> None:
    model, named = build(), {"curvature": "kronecker"}
    with pytest.warns(DeprecationWarning, match="basis_every is called eigenbasis_interval now"):
        optimizer = DDPNOpt(model, basis_every=4, **named)
    assert [group["eigenbasis_interval"] for group in optimizer.param_groups] == [4]
    with pytest.warns(DeprecationWarning, match="eigenbasis_interval"):
        grouped = DDPNOpt(model, groups=[{"params": list(model.parameters()), "basis_every": 5}], **named)
    assert [group["eigenbasis_interval"] for group in grouped.param_groups] == [5]
    with pytest.warns(DeprecationWarning, match="eigenbasis_interval"):
        assert TrainOptions(data="wine", optimizer="kfac", basis_every=6).eigenbasis_interval == 6
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["basis_every"] = group.pop("eigenbasis_interval") + 3
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["eigenbasis_interval"] == 7
    run = TrainOptions(data="wine").resolved("wine")
    record = run.record()
    record["basis_every"] = record.pop("eigenbasis_interval")
    run.check_continues(record, 0)
