"""Q_ux ≡ 0 is the baseline (Prop. 2): SGD, RMSprop and Adam of torch over 100 steps, KFAC and EKFAC of curvlinops."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near
from nn.strategies import Case, few_examples, networks, randn, randomize
from ocpkit_nn.layers.losses import CrossEntropy, Loss, MeanSquaredError
from ocpkit_nn.optim.ddpnopt import DDPNOpt

# RMSprop's and Adam's first step is ±lr for any gradient above ε = 1e-8, be it rounding in float32: with this seed
# the smallest entry of all first gradients is 5e-4.
SEED = 1

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5, bias=False), nn.Sigmoid(), nn.Linear(5, 3))


def convolutional() -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2))
    return nn.Sequential(*block, nn.Conv2d(3, 2, 2), nn.GELU(), nn.Flatten(), nn.Linear(8, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "perceptron": (perceptron, (6,)),
    "convolutional": (convolutional, (1, 6, 6)),
}

# options of DDPNOpt, and the optimizer of torch that they make
BASELINES: dict[str, tuple[dict[str, Any], Optimizer]] = {
    "sgd": ({"curvature": "identity", "lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd with momentum and decay": (
        {"curvature": "identity", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    ),
    "rmsprop": ({"curvature": "diagonal", "lr": 1e-2}, lambda p: torch.optim.RMSprop(p, lr=1e-2)),
    "rmsprop with options": (
        {"curvature": "diagonal", "lr": 3e-3, "decay": 0.9, "eps": 1e-4, "weight_decay": 1e-2},
        lambda p: torch.optim.RMSprop(p, lr=3e-3, alpha=0.9, eps=1e-4, weight_decay=1e-2),
    ),
    "adam": ({"curvature": "adam", "lr": 1e-2}, lambda p: torch.optim.Adam(p, lr=1e-2)),
    "adam with options": (
        {"curvature": "adam", "lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 1e-2},
        lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.8, 0.95), eps=1e-4, weight_decay=1e-2),
    ),
}


def backpropagate(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> float:
    """Leave the gradient of the batch's mean loss in the parameters."""
    model.zero_grad()
    value = loss.value(model(inputs), targets).mean()
    value.backward()
    return float(value.detach())


def assert_same_parameters(model: nn.Module, twin: nn.Module, tolerance: float) -> None:
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_near(parameter.detach(), other.detach(), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_without_feedback_it_is_torchs_optimizer(
    baseline: str, network: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Parameters, losses and batch statistics after each of 100 steps on changing batches."""
    (build, shape), (options, make) = NETWORKS[network], BASELINES[baseline]
    model, loss = build(), CrossEntropy(label_smoothing=0.1)
    generator = randomize(model, SEED)
    model.to(dtype)
    twin = copy.deepcopy(model)
    start = [p.detach().clone() for p in model.parameters()]
    optimizer, torchs = DDPNOpt(model, loss, feedback="none", **options), make(list(twin.parameters()))
    for _ in range(100):
        inputs, targets = randn(generator, 8, *shape).to(dtype), torch.randint(3, (8,), generator=generator)
        value = backpropagate(twin, loss, inputs, targets)
        torchs.step()
        assert optimizer.step(inputs, targets) == pytest.approx(value, rel=10 * tolerance)
        assert_same_parameters(model, twin, tolerance)
    for buffer, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert_near(buffer.double(), other.double(), tolerance)
    moved = [float((p.detach() - q).abs().max()) for p, q in zip(model.parameters(), start)]
    assert min(moved) > 100 * tolerance


@pytest.mark.parametrize("curvature", ["identity", "diagonal", "adam"])
@few_examples
@given(case=networks(dropout=False), weight_decay=st.sampled_from([0.0, 0.1]))
def test_on_any_network_it_takes_the_steps_of_the_baseline(curvature: str, case: Case, weight_decay: float) -> None:
    """Three steps on networks with every kind of stage; ε is large enough that rounding is not normalized."""
    twin, loss, eps = copy.deepcopy(case.model), MeanSquaredError(), 1e-3
    optimizer = DDPNOpt(
        case.model, loss, lr=0.01, curvature=curvature, feedback="none", eps=eps, weight_decay=weight_decay
    )
    torchs: dict[str, Optimizer] = {
        "identity": lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=weight_decay),
        "diagonal": lambda p: torch.optim.RMSprop(p, lr=0.01, eps=eps, weight_decay=weight_decay),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, eps=eps, weight_decay=weight_decay),
    }
    other = torchs[curvature](list(twin.parameters()))
    for _ in range(3):
        backpropagate(twin, loss, case.inputs, case.targets)
        other.step()
        optimizer.step(case.inputs, case.targets)
    assert_same_parameters(case.model, twin, 1e-10)


def test_a_gradient_step_on_the_hamiltonian_is_sgd() -> None:
    """Lemma 5: V_x is the co-state, and Q_u = ∇_u H the gradient of back-propagation; momentum is torch's."""
    model = perceptron()
    generator = randomize(model, 1)
    twin, loss = copy.deepcopy(model), CrossEntropy()
    options: dict[str, Any] = {"curvature": "identity", "feedback": "none", "momentum": 0.5, "weight_decay": 1e-3}
    optimizer = DDPNOpt(model, loss, lr=0.1, **options)
    torchs = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.5, weight_decay=1e-3)
    for _ in range(10):
        inputs, targets = randn(generator, 4, 6), torch.randint(3, (4,), generator=generator)
        backpropagate(twin, loss, inputs, targets)
        torchs.step()
        optimizer.step(inputs, targets)
        assert_same_parameters(model, twin, 1e-12)


# ---- Kronecker-factored curvature against the package curvlinops ------------------------------------------------


def curvlinops_step(
    model: nn.Module, curvature: str, inputs: Tensor, targets: Tensor, lr: float, damping: float
) -> None:
    """Take −lr (F + γ I)⁻¹ ∇J with F of the empirical Fisher's (E)KFAC, formed as a matrix."""
    curvlinops = pytest.importorskip("curvlinops", reason="the oracle is installed with the extra 'dev'")
    operators = {"kronecker": curvlinops.KFACLinearOperator, "ekfac": curvlinops.EKFACLinearOperator}
    parameters = list(model.parameters())
    operator = operators[curvature](
        model,
        nn.CrossEntropyLoss(),
        parameters,
        [(inputs, targets)],
        fisher_type="empirical",
        kfac_approx="expand",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    size = sum(p.numel() for p in parameters)
    F = operator @ torch.eye(size, dtype=torch.float64)
    backpropagate(model, CrossEntropy(), inputs, targets)
    gradient = nn.utils.parameters_to_vector([p.grad for p in parameters])
    step = torch.linalg.solve(F + damping * torch.eye(size, dtype=torch.float64), gradient)
    with torch.no_grad():
        nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(parameters) - lr * step, parameters)


def plain_convolutional() -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, stride=2), nn.Tanh(), nn.Conv2d(2, 2, 2, bias=False))
    return nn.Sequential(*block, nn.Sigmoid(), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("curvature", ["kronecker", "ekfac"])
@pytest.mark.parametrize("network", [perceptron, plain_convolutional])
def test_without_feedback_it_is_the_kfac_and_ekfac_of_curvlinops(
    curvature: str, network: Callable[[], nn.Sequential]
) -> None:
    model = network()
    generator = randomize(model, 2)
    twin, shape = copy.deepcopy(model), (6,) if network is perceptron else (1, 6, 6)
    # no averaging over steps: the oracle knows one batch
    optimizer = DDPNOpt(model, lr=0.1, curvature=curvature, feedback="none", decay=0.0, damping=0.05)
    for _ in range(5):
        inputs, targets = randn(generator, 16, *shape), torch.randint(3, (16,), generator=generator)
        curvlinops_step(twin, curvature, inputs, targets, lr=0.1, damping=0.05)
        optimizer.step(inputs, targets)
        assert_same_parameters(model, twin, 1e-9)
