"""Number types and devices: float32 and float64, autocast, CUDA."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nn.dense import assert_near
from nn.strategies import Residual, randn, randomize
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.curvature import RULES

pytestmark = pytest.mark.filterwarnings(
    "ignore::ocpkit_nn.layers.lost_options.TrainingWarning"
)  # blocks have no factors


def build() -> nn.Sequential:
    """Every kind of layer but convolutions, which not every processor has in bfloat16."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(6, 8),
        nn.LayerNorm(8),
        nn.Tanh(),
        Residual(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 8)),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


def images() -> nn.Sequential:
    pool = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*pool, nn.Flatten(), nn.Linear(4, 3))


def batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return randn(generator, 16, 1, 2, 3), torch.randint(3, (16,), generator=generator)


def parameters_after(
    model: nn.Sequential, options: dict[str, Any], dtype: torch.dtype, device: str = "cpu", steps: int = 3
) -> Tensor:
    model = copy.deepcopy(model).to(device, dtype)
    optimizer, (inputs, targets) = DDPNOpt(model, lr=0.02, eps=1e-2, **options), batch()
    for _ in range(steps):
        optimizer.step(inputs.to(device, dtype), targets.to(device))
    assert all(p.dtype == dtype and p.device.type == device for p in model.parameters())
    return nn.utils.parameters_to_vector(model.parameters()).detach().cpu().double()


@pytest.mark.slow
@pytest.mark.parametrize("feedback", ["full", "value", "none"])
@pytest.mark.parametrize("curvature", RULES)
def test_single_precision_rounds_the_same_steps(curvature: str, feedback: str) -> None:
    for model in (build(), images()):
        randomize(model, 0)
        options = {"curvature": curvature, "feedback": feedback, "terminal": "ggn"}
        single, double = (parameters_after(model, options, dtype) for dtype in (torch.float32, torch.float64))
        assert_near(single, double, 1e-4)
        assert not torch.equal(single, double)


def test_single_precision_second_order_rounds_the_same_steps() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    randomize(model, 0)
    options = {"curvature": "kronecker", "dynamics": "second"}
    single, double = (parameters_after(model, options, dtype) for dtype in (torch.float32, torch.float64))
    assert_near(single, double, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("feedback", ["full", "value", "none"])
@pytest.mark.parametrize("curvature", RULES)
def test_autocast_is_for_the_layers_only(curvature: str, feedback: str) -> None:
    """In bfloat16 (8 bits) a few steps stay near those in float32, and nothing that is remembered is in bfloat16."""
    model = build()
    randomize(model, 0)
    model.float()
    start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    twin, (inputs, targets) = copy.deepcopy(model), batch()
    options: dict[str, Any] = {"lr": 0.02, "eps": 1e-2, "curvature": curvature, "feedback": feedback}
    optimizer, other = DDPNOpt(model, **options), DDPNOpt(twin, **options)
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = optimizer.step(inputs.float(), targets)
        high = other.step(inputs.float(), targets)
        assert low == pytest.approx(high, rel=0.03)
        assert low != high
    remembered = [v for memory in optimizer.state.values() for v in memory.values() if isinstance(v, Tensor)]
    assert {v.dtype for v in [*model.parameters(), *remembered]} == {torch.float32}
    moves = [nn.utils.parameters_to_vector(m.parameters()).detach() - start for m in (model, twin)]
    assert float((moves[0] - moves[1]).norm()) < 0.15 * float(moves[1].norm())


def test_tokens_may_be_integers() -> None:
    """The first stage is an embedding: it has a control and no state to differentiate."""
    model = nn.Sequential(nn.Embedding(5, 4), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))
    generator = randomize(model, 0)
    twin = copy.deepcopy(model)
    tokens, targets = torch.randint(5, (6, 3), generator=generator), torch.randint(2, (6,), generator=generator)
    DDPNOpt(model, lr=0.1, curvature="identity", feedback="none").step(tokens, targets)
    nn.functional.cross_entropy(twin(tokens), targets).backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    for parameter, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert_near(parameter.detach(), expected.detach(), 1e-12)
    assert DDPNOpt(model, lr=0.1).step(tokens, targets) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_takes_the_steps_of_the_cpu() -> None:
    for curvature, feedback in product(RULES, ("full", "value", "none")):
        for model in (build(), images()):
            randomize(model, 0)
            options = {"curvature": curvature, "feedback": feedback, "terminal": "ggn"}
            cpu, gpu = (parameters_after(model, options, torch.float64, device) for device in ("cpu", "cuda"))
            assert_near(gpu, cpu, 1e-8)
