"""SGD-VGR: the regularizer of Pascanu et al. (2013), differentiated here layer by layer with `torch.func`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from nn.dense import assert_near
from nn.strategies import randn, randomize
from ocpkit_nn.layers.losses import CrossEntropy
from ocpkit_nn.optim.vanishing import SGDVGR


def parts_of(seed: int) -> tuple[list[nn.Sequential], Tensor, Tensor]:
    parts = [
        nn.Sequential(nn.Conv1d(1, 2, 2), nn.Tanh(), nn.Flatten()),
        nn.Sequential(nn.Linear(6, 4, bias=False), nn.Sigmoid()),
        nn.Sequential(nn.Linear(4, 3)),
    ]
    generator = randomize(nn.Sequential(*parts), seed)
    return parts, randn(generator, 5, 1, 4), torch.randint(3, (5,), generator=generator)


def omega(part: nn.Module, u: dict[str, Tensor], x: Tensor, costate: Tensor) -> Tensor:
    """Ω_t = mean_i (‖f_xᵀ p'‖/‖p'‖ − 1)², with x and p' as constants."""
    ratios = []
    for x_i, p in zip(x, costate):
        pull = vjp(lambda z: functional_call(part, u, (z[None],))[0], x_i)[1]
        ratios.append(pull(p)[0].norm() / p.norm())
    return ((torch.stack(ratios) - 1) ** 2).mean()


def test_a_step_is_the_gradient_of_loss_and_regularizer() -> None:
    """Ω_0 is left out: nothing trainable lies before the first layer."""
    parts, inputs, targets = parts_of(0)
    model = nn.Sequential(*[module for part in parts for module in part])
    states = [inputs.clone().requires_grad_()]
    for part in parts:
        states.append(part(states[-1]))
        states[-1].retain_grad()
    losses = CrossEntropy().value(states[-1], targets)
    losses.sum().backward()
    expected = []
    for t, part in enumerate(parts):
        costate = states[t + 1].grad
        assert costate is not None
        u = {name: p.detach() for name, p in part.named_parameters()}
        extra = torch.func.grad(lambda u, t=t, part=part, p=costate: omega(part, u, states[t].detach(), p))(u)
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None
            regularizer = 0.7 * extra[name] if t > 0 else torch.zeros_like(parameter)
            expected.append(parameter.detach() - 0.1 * (parameter.grad / len(inputs) + regularizer))
            assert t == 0 or name == "0.bias" or float(regularizer.abs().max()) > 1e-4
    value = SGDVGR(model, lr=0.1, strength=0.7).step(inputs, targets)
    assert value == pytest.approx(float(losses.detach().mean()), rel=1e-12)
    for parameter, other in zip(model.parameters(), expected, strict=True):
        assert_near(parameter.detach(), other, 1e-10)


def test_without_strength_it_is_sgd() -> None:
    parts, inputs, targets = parts_of(1)
    model = nn.Sequential(*[module for part in parts for module in part])
    twin = copy.deepcopy(model)
    optimizer = SGDVGR(model, lr=0.1, strength=0.0, momentum=0.9, weight_decay=0.01)
    torchs = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        torchs.zero_grad()
        CrossEntropy().value(twin(inputs), targets).mean().backward()
        torchs.step()
        optimizer.step(inputs, targets)
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_near(parameter.detach(), other.detach(), 1e-12)


def test_the_gradient_vanishes_less() -> None:
    """Σ_t Ω_t of a deep sigmoid network falls, and by more than SGD alone makes it fall."""
    results = {}
    for strength in (0.0, 1.0):
        parts = [nn.Sequential(nn.Linear(6, 6), nn.Sigmoid()) for _ in range(5)] + [nn.Sequential(nn.Linear(6, 3))]
        model = nn.Sequential(*parts)
        generator = randomize(model, 2)
        inputs, targets = randn(generator, 16, 6), torch.randint(3, (16,), generator=generator)

        def total(parts: list[nn.Sequential] = parts, x: Tensor = inputs, targets: Tensor = targets) -> float:
            states = [x.clone().requires_grad_()]
            for part in parts:
                states.append(part(states[-1]))
                states[-1].retain_grad()
            CrossEntropy().value(states[-1], targets).sum().backward()
            values = []
            for t, part in enumerate(parts[1:], start=1):
                costate = states[t + 1].grad
                assert costate is not None
                u = {name: p.detach() for name, p in part.named_parameters()}
                values.append(float(omega(part, u, states[t].detach(), costate)))
            return sum(values)

        before, optimizer = total(), SGDVGR(model, lr=0.1, strength=strength)
        for _ in range(30):
            optimizer.step(inputs, targets)
        results[strength] = total() / before
    assert results[1.0] < 0.8
    assert results[1.0] < 0.8 * results[0.0]
