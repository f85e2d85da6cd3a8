"""The losses of torch.nn: mean, gradient and Hessian are torch's, with weights, ignored targets and reductions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near
from nn.strategies import few_examples, seeds
from ocpkit.errors import ProblemError
from ocpkit_nn.distributed import Processes
from ocpkit_nn.layers.losses import CrossEntropy, FunctionLoss
from ocpkit_nn.layers.torch_losses import as_loss
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.optim.pmp import EMSA
from ocpkit_nn.optim.vanishing import SGDVGR

B, C = 6, 4
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 0.0], dtype=torch.float64)
Targets = Callable[[torch.Generator], Tensor]


def classes(generator: torch.Generator) -> Tensor:
    """One class at least that has a weight."""
    return torch.cat([torch.tensor([1]), torch.randint(C, (B - 1,), generator=generator)])


def some_ignored(generator: torch.Generator) -> Tensor:
    targets = classes(generator)
    targets[1::2] = -100
    return targets


def real(generator: torch.Generator) -> Tensor:
    return torch.randn(B, C, generator=generator, dtype=torch.float64)


def shares(generator: torch.Generator) -> Tensor:
    return real(generator).softmax(1)


def yes_or_no(generator: torch.Generator) -> Tensor:
    return torch.randint(2, (B, C), generator=generator).double()


def signs(generator: torch.Generator) -> Tensor:
    return 2 * yes_or_no(generator) - 1


def several(generator: torch.Generator) -> Tensor:
    """One, two or no classes, then −1."""
    return torch.tensor([[0, 2, -1, -1], [1, -1, -1, -1], [3, 1, 0, -1]]).repeat(2, 1)


def logarithms(x: Tensor) -> Tensor:
    return x.log_softmax(1)


def identity(x: Tensor) -> Tensor:
    return x


CASES: dict[str, tuple[Callable[..., nn.Module], dict[str, Any], Targets, Callable[[Tensor], Tensor]]] = {
    "cross-entropy": (nn.CrossEntropyLoss, {}, classes, identity),
    "with weights": (nn.CrossEntropyLoss, {"weight": WEIGHT}, classes, identity),
    "with ignored targets": (nn.CrossEntropyLoss, {}, some_ignored, identity),
    "with another ignored target": (nn.CrossEntropyLoss, {"ignore_index": 0}, classes, identity),
    "smoothed": (nn.CrossEntropyLoss, {"label_smoothing": 0.1}, classes, identity),
    "all of it": (nn.CrossEntropyLoss, {"label_smoothing": 0.3, "weight": WEIGHT}, some_ignored, identity),
    "probabilities": (nn.CrossEntropyLoss, {"label_smoothing": 0.3, "weight": WEIGHT}, shares, identity),
    "NLL": (nn.NLLLoss, {}, some_ignored, logarithms),
    "weighted NLL": (nn.NLLLoss, {"weight": WEIGHT}, some_ignored, logarithms),
    "squares": (nn.MSELoss, {}, real, identity),
    "L1": (nn.L1Loss, {}, real, identity),
    "smooth L1": (nn.SmoothL1Loss, {"beta": 0.5}, real, identity),
    "Huber": (nn.HuberLoss, {}, real, identity),
    "BCE": (nn.BCELoss, {}, yes_or_no, torch.sigmoid),
    "BCE of logits": (nn.BCEWithLogitsLoss, {"pos_weight": WEIGHT + 1}, yes_or_no, identity),
    "KL": (nn.KLDivLoss, {}, shares, logarithms),
    "Poisson": (nn.PoissonNLLLoss, {}, yes_or_no, identity),
    "soft margin": (nn.SoftMarginLoss, {}, signs, identity),
    "hinge": (nn.HingeEmbeddingLoss, {}, signs, identity),
    "margin": (nn.MultiMarginLoss, {"weight": WEIGHT}, classes, identity),
    "margins of several": (nn.MultiLabelMarginLoss, {}, several, identity),
    "soft margins of several": (nn.MultiLabelSoftMarginLoss, {}, yes_or_no, identity),
}
LOSSES = [
    *((name, reduction) for name in CASES for reduction in ("mean", "sum") if name != "KL"),
    *(("KL", reduction) for reduction in ("batchmean", "sum")),
]
WITHOUT_HESSIAN = ("margin", "margins of several")  # torch has no second derivative of them
Drawn = tuple[nn.Module, Tensor, Tensor]


def drawn(name: str, reduction: str, seed: int) -> Drawn:
    kind, options, targets, outputs = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    return kind(reduction=reduction, **options), outputs(2 * real(generator)), targets(generator)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reduction"), LOSSES)
@few_examples
@given(seed=seeds)
def test_the_mean_over_the_batch_is_torchs_number(name: str, reduction: str, seed: int) -> None:
    """And the samples' gradients and Hessians are blocks of its own."""
    module, outputs, targets = drawn(name, reduction, seed)
    loss = as_loss(module)

    def torchs(x: Tensor) -> Tensor:
        value: Tensor = module(x, targets)
        return value * B

    assert_near(loss.value(outputs, targets).mean() * B, torchs(outputs), 1e-12)
    value, gradient = loss.value_and_gradient(outputs, targets)
    assert value.shape == (B,)
    assert_near(gradient, torch.autograd.functional.jacobian(torchs, outputs), 1e-12)
    if name in WITHOUT_HESSIAN:
        return
    own = loss.hessian(outputs, targets)
    whole = torch.autograd.functional.hessian(torchs, outputs)
    for i in range(B):
        assert_near(own[i], whole[i, :, i], 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (kind, *_) in CASES.items() if kind is nn.CrossEntropyLoss])
@few_examples
@given(seed=seeds)
def test_factors_of_cross_entropy_are_of_its_hessian(name: str, seed: int) -> None:
    module, outputs, targets = drawn(name, "mean", seed)
    loss = as_loss(module)
    Z, hessian = loss.factors(outputs, targets), loss.hessian(outputs, targets)
    assert_near(Z.transpose(1, 2) @ Z, hessian, 1e-10)
    draws = loss.factors(outputs, targets, "montecarlo", torch.Generator().manual_seed(seed), 20_000)
    assert_near(draws.transpose(1, 2) @ draws, hessian, 0.1)


def test_plain_cross_entropy_is_the_librarys() -> None:
    module, outputs, targets = drawn("smoothed", "mean", 0)
    ours, torchs = CrossEntropy(0.1), as_loss(module)
    for name in ("value", "gradient", "hessian", "factors"):
        assert_near(getattr(torchs, name)(outputs, targets), getattr(ours, name)(outputs, targets), 1e-12)


@pytest.mark.parametrize(("name", "reduction"), [case for case in LOSSES if CASES[case[0]][3] is identity])
def test_without_feedback_the_step_is_sgds(name: str, reduction: str) -> None:
    module, _, targets = drawn(name, reduction, 1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, C)).double()
    twin, inputs = copy.deepcopy(model), torch.randn(B, 3, dtype=torch.float64)
    optimizer = DDPNOpt(model, module, lr=0.05, curvature="identity", feedback="none")
    sgd = torch.optim.SGD(twin.parameters(), lr=0.05)
    for _ in range(3):
        sgd.zero_grad()
        expected = module(twin(inputs), targets)
        expected.backward()
        sgd.step()
        assert optimizer.step(inputs, targets) == pytest.approx(expected.item(), rel=1e-9)
    for p, q in zip(model.parameters(), twin.parameters()):
        assert_near(p.detach(), q.detach(), 1e-12)


@pytest.mark.parametrize("optimizer", [DDPNOpt, EMSA, SGDVGR])
def test_every_optimizer_takes_them(optimizer: Callable[..., Any]) -> None:
    module, _, targets = drawn("with weights", "mean", 1)
    torch.manual_seed(0)
    trained = optimizer(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, C)).double(), module)
    inputs = torch.randn(B, 3, dtype=torch.float64)
    losses = [trained.step(inputs, targets) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_they_are_pickled() -> None:
    module, outputs, targets = drawn("squares", "sum", 1)
    again = pickle.loads(pickle.dumps(as_loss(module)))
    assert torch.equal(again.value(outputs, targets), as_loss(module).value(outputs, targets))


class Own(nn.CrossEntropyLoss):
    """Its forward may do anything."""


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (F.cross_entropy, "cross_entropy"),
        (lambda x, y: x.sum(), "<lambda>"),
        ("mse", "str"),
        (nn.CrossEntropyLoss, "CrossEntropyLoss"),
        (nn.CTCLoss(), "CTCLoss"),
        (nn.TripletMarginLoss(), "TripletMarginLoss"),
        (nn.GaussianNLLLoss(), "GaussianNLLLoss"),
        (Own(), "Own"),
        (nn.MSELoss(reduction="none"), "MSELoss(reduction='none')"),
    ],
)
@pytest.mark.parametrize("optimizer", [DDPNOpt, EMSA, SGDVGR])
def test_other_losses_are_refused_at_once_and_by_name(optimizer: Callable[..., Any], loss: Any, named: str) -> None:
    with pytest.raises(ProblemError) as error:
        optimizer(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), loss)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("module", "targets"),
    [
        (nn.MSELoss(), torch.zeros(B)),
        (nn.MSELoss(), torch.zeros(B, 1)),
        (nn.CrossEntropyLoss(), torch.full((B,), C)),
        (nn.CrossEntropyLoss(), torch.zeros(B, C - 1)),
        (nn.CrossEntropyLoss(), -torch.ones(B, C)),
    ],
)
def test_targets_that_do_not_fit_are_refused(module: nn.Module, targets: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be|must not be|is not in 0"):
        as_loss(module).value(torch.zeros(B, C), targets)


def test_processes_refuse_what_only_a_whole_batch_knows() -> None:
    with pytest.raises(ValueError, match="a process has its share only"):
        DDPNOpt(nn.Linear(3, C), nn.CrossEntropyLoss(weight=WEIGHT), feedback="none", processes=Processes(0, 2))


def test_a_function_of_ones_own_is_told_what_to_return() -> None:
    with pytest.raises(ValueError, match=r"must return \(6,\), got \(6, 4\): a value for each"):
        FunctionLoss(nn.MSELoss(reduction="none")).value(torch.zeros(B, C), torch.zeros(B, C))


@given(st.sampled_from([torch.float32, torch.bfloat16]))
def test_masked_classes_leave_the_loss_finite(dtype: torch.dtype) -> None:
    """A logit of −∞ is the usual mask; where nobody asks for that class, nothing is infinite."""
    outputs = torch.zeros(B, C, dtype=dtype)
    outputs[:, 3] = -torch.inf
    value = as_loss(nn.CrossEntropyLoss()).value(outputs, torch.zeros(B, dtype=torch.int64))
    assert value.isfinite().all()
