"""A step on what is not finite is refused by an error, and leaves weights, moments and buffers as they were."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from nn.dense import assert_near
from nn.strategies import Residual, few_examples
from ocpkit_nn.layers.losses import FunctionLoss, MeanSquaredError
from ocpkit_nn.optim.ddpnopt import DDPNOpt

pytestmark = pytest.mark.filterwarnings(
    "ignore::ocpkit_nn.layers.lost_options.TrainingWarning"
)  # blocks have no factors
CURVATURES = ["identity", "diagonal", "adam", "kronecker", "ekfac", "exact"]


class Distance(nn.Module):
    """‖x − u‖ of every sample: the root of a square is infinitely steep at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.center).square().sum(-1, keepdim=True).sqrt()


class Steep(nn.Module):
    """A root without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x).abs().sqrt() + x


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()


def with_block() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Residual(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2)).double()


def everything(optimizer: DDPNOpt, model: nn.Module) -> list[Any]:
    """Copies of parameters, buffers and moments."""
    moments = [memory for memory in optimizer.state_dict()["state"].values() if memory]
    return copy.deepcopy([list(model.state_dict().values()), moments])


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])


def assert_refused(optimizer: DDPNOpt, model: nn.Module, inputs: Tensor, targets: Tensor, message: str) -> None:
    before = everything(optimizer, model)
    with pytest.raises(FloatingPointError, match=message):
        optimizer.step(inputs, targets)
    assert same(everything(optimizer, model), before)
    assert not any(optimizer.policies())


@pytest.mark.slow
@pytest.mark.parametrize("build", [plain, with_block])
@pytest.mark.parametrize("curvature", CURVATURES)
@few_examples
@given(
    sample=st.integers(0, 5),
    feature=st.integers(0, 2),
    value=st.sampled_from([torch.nan, torch.inf, -torch.inf]),
    feedback=st.sampled_from(["full", "value", "none"]),
    terminal=st.sampled_from(["empirical", "ggn", "montecarlo"]),
    micro_batch=st.sampled_from([None, 2]),
    steps=st.integers(0, 2),
)
def test_one_sample_that_is_not_finite_changes_nothing(
    build: Callable[[], nn.Sequential],
    curvature: str,
    sample: int,
    feature: int,
    value: float,
    steps: int,
    **options: Any,
) -> None:
    """Not even where the network saturates, so that the loss stays finite."""
    model = build()
    optimizer = DDPNOpt(model, lr=0.01, curvature=curvature, **options)
    for step in range(steps):
        optimizer.step(*batch(step))
    inputs, targets = batch(9)
    inputs[sample, feature] = value
    assert_refused(optimizer, model, inputs, targets, f"sample {sample} of the inputs is not finite")


@pytest.mark.parametrize("gains", ["exact", "separable"])
@pytest.mark.parametrize("curvature", ["identity", "diagonal", "adam"])
@pytest.mark.parametrize("build", [plain, with_block])
def test_training_goes_on_as_if_the_sample_had_not_been(
    build: Callable[[], nn.Sequential], curvature: str, gains: str
) -> None:
    model, twin = build(), build()
    optimizer, other = (DDPNOpt(m, lr=0.01, curvature=curvature, gains=gains, momentum=0.9) for m in (model, twin))
    for step in range(4):
        spoiled, targets = batch(step)
        spoiled[2, 1] = torch.nan
        with pytest.raises(FloatingPointError, match="sample 2"):
            optimizer.step(spoiled, targets)
        assert optimizer.step(*batch(step)) == other.step(*batch(step))
    assert same(everything(optimizer, model), everything(other, twin))


@pytest.mark.parametrize("gains", ["exact", "separable"])
def test_counts_of_steps_that_differ_within_a_layer_are_taken_back_too(gains: str) -> None:
    """Those of a bias that was frozen for a while."""
    model = with_block()
    optimizer = DDPNOpt(model, lr=0.01, curvature="adam", gains=gains)
    for trained in (True, False, True):
        model[0].bias.requires_grad_(trained)
        optimizer.step(*batch())
    inputs, targets = batch()
    inputs[1, 0] = torch.nan
    assert_refused(optimizer, model, inputs, targets, "sample 1 of the inputs is not finite")


@pytest.mark.parametrize("name", ["spectral norm", "pruned"])
def test_what_a_norm_or_a_mask_computes_is_taken_back_too(name: str) -> None:
    model = plain()
    (parametrizations.spectral_norm if name == "spectral norm" else prune.random_unstructured)(
        model[3], "weight", **({} if name == "spectral norm" else {"amount": 0.3})
    )
    optimizer = DDPNOpt(model, lr=0.01)
    optimizer.step(*batch())
    inputs, targets = batch()
    inputs[1, 0] = torch.nan
    assert_refused(optimizer, model, inputs, targets, "sample 1 of the inputs is not finite")


def test_a_target_that_is_not_finite_is_named() -> None:
    model = plain()
    targets = torch.zeros(6, 2, dtype=torch.float64)
    targets[4, 1] = torch.nan
    assert_refused(DDPNOpt(model, MeanSquaredError()), model, batch()[0], targets, "loss of sample 4 is nan")


def test_a_loss_that_is_infinitely_steep_is_refused() -> None:
    model = plain()
    steep = FunctionLoss(lambda x, y: (x - x).abs().sum(1).sqrt())
    assert_refused(DDPNOpt(model, steep), model, *batch(), "not its derivatives")


@pytest.mark.parametrize("feedback", ["full", "none"])
def test_a_layer_that_is_infinitely_steep_is_refused(feedback: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Distance(), nn.Linear(1, 2)).double()
    optimizer = DDPNOpt(model, feedback=feedback)
    optimizer.step(*batch())
    with torch.no_grad():
        inputs, targets = batch()
        model[2].center.copy_(model[1](model[0](inputs))[3])  # of the batch: alone it may round otherwise
    assert_refused(optimizer, model, inputs, targets, "its loss is finite, but not its derivatives")


def test_so_is_an_activation_of_ones_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), Steep(), nn.Linear(4, 2)).double()
    optimizer = DDPNOpt(model)
    assert_refused(optimizer, model, *batch(), "its loss is finite, but not its derivatives")


def test_half_precision_that_overflows_is_refused() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).half()
    inputs, targets = batch()
    loss = FunctionLoss(lambda x, y: 6e4 * x.sum(1).tanh())
    with torch.no_grad():
        model[2].weight.fill_(30.0)
    assert_refused(DDPNOpt(model, loss, curvature="identity"), model, inputs.half(), targets, "the step is refused")


def test_a_step_that_breaks_off_leaves_buffers_alone() -> None:
    """Batch norm has measured the batch when a target turns out to be none."""
    model = plain()
    optimizer = DDPNOpt(model)
    inputs, _ = batch()
    before = everything(optimizer, model)
    with pytest.raises(ValueError, match="target 2 of sample 0"):
        optimizer.step(inputs, torch.full((6,), 2))
    assert same(everything(optimizer, model), before)


def test_large_numbers_are_no_infinite_ones() -> None:
    """Sums and norms of them overflow."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.fill_(0.0)
    inputs = torch.full((4, 2), 3e38)
    assert DDPNOpt(model, lr=1e-3).step(inputs, torch.tensor([0, 1, 0, 1])) > 0


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_inputs_in_several_parts_are_refused_by_kind(kind: type) -> None:
    parts = kind([("a", torch.ones(2, 3)), ("b", torch.ones(2, 3))])
    with pytest.raises(TypeError, match=rf"inputs must be one tensor \(B, …\), got a {kind.__name__}"):
        DDPNOpt(plain()).step(parts, torch.tensor([0, 1]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=rf"targets must be one tensor .* got a {kind.__name__}"):
        DDPNOpt(plain()).step(torch.ones(2, 3), parts)  # type: ignore[arg-type]


def test_the_line_search_weighs_the_decay_of_the_weights() -> None:
    """loss + ½ λ‖u‖² is what falls: from the best fit the weight shrinks to the regularized one."""
    x = torch.linspace(-1, 1, 16, dtype=torch.float64)[:, None]
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    nn.init.constant_(model[0].weight, 3.0)
    options: dict[str, Any] = {"curvature": "identity", "feedback": "none", "weight_decay": 0.5}
    optimizer = DDPNOpt(model, MeanSquaredError(), lr=0.3, line_search=True, **options)
    for _ in range(100):
        optimizer.step(x, 3 * x)
    power = float(x.square().mean())
    assert_near(model[0].weight.detach(), torch.full((1, 1), 3 * power / (power + 0.5), dtype=torch.float64), 1e-6)


@pytest.mark.parametrize("feedback", ["full", "none"])
@pytest.mark.parametrize("place", ["input", "target"])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_finite_numbers_whose_products_overflow_spoil_neither_weights_nor_moments(
    curvature: str, place: str, feedback: str
) -> None:
    """A factor with an infinite entry made every later step fail; "exact" overwrote the weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = DDPNOpt(model, MeanSquaredError(), lr=0.01, curvature=curvature, feedback=feedback)
    inputs, targets = batch()[0].float(), batch(1)[0][:, :2].float()
    optimizer.step(inputs, targets)
    for size in (1e12, 1e17, 1e25):
        before = everything(optimizer, model)
        spoiled = {"input": inputs.clone(), "target": targets.clone()}
        spoiled[place][0] *= size
        taken = False
        with contextlib.suppress(FloatingPointError):
            optimizer.step(*spoiled.values())
            taken = True
        weights, moments = everything(optimizer, model)
        assert taken or same([weights, moments], before)
        assert all(weight.isfinite().all() for weight in weights)
        if curvature in ("kronecker", "ekfac"):  # an element that is infinite only holds its own weight
            assert all(
                part.isfinite().all() for memory in moments for part in memory.values() if isinstance(part, Tensor)
            )
        model.load_state_dict(dict(zip(model.state_dict(), before[0])))
        optimizer.step(inputs, targets)
