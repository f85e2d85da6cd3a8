"""E-MSA on networks (Eq. 23, 24): each layer minimizes the augmented Hamiltonian, here sample by sample."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nn.dense import assert_near
from nn.strategies import Residual, randn, randomize
from ocpkit_nn.layers.losses import CrossEntropy, MeanSquaredError
from ocpkit_nn.optim.pmp import EMSA

DECAY = 0.01


def build(kind: str) -> tuple[nn.Sequential, list[nn.Sequential], Tensor, Tensor]:
    """A network, its layers with their tails, and a batch."""
    if kind == "perceptron":
        parts = [nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.Sequential(nn.Linear(5, 3))]
    else:
        parts = [
            nn.Sequential(nn.Conv1d(1, 2, 2), nn.Sigmoid(), nn.Flatten()),
            nn.Sequential(Residual(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6)), nn.Tanh()),
            nn.Sequential(nn.Linear(6, 3)),
        ]
    model = nn.Sequential(*[module for part in parts for module in part])
    generator = randomize(model, 0)
    inputs = randn(generator, 6, 4) if kind == "perceptron" else randn(generator, 6, 1, 4)
    return model, parts, inputs, torch.randint(3, (6,), generator=generator)


def trajectory(parts: list[nn.Sequential], inputs: Tensor, targets: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """x_0 … x_T, and p_0 … p_T with p_T = ∇φ and p_t = ∇_x H, by one backward pass."""
    states = [inputs.clone().requires_grad_()]
    for part in parts:
        states.append(part(states[-1]))
        states[-1].retain_grad()
    CrossEntropy().value(states[-1], targets).sum().backward()
    return [x.detach() for x in states], [x.grad for x in states if x.grad is not None]


def augmented_hamiltonian(
    part: nn.Module,
    u: dict[str, Tensor],
    pair: tuple[Tensor, Tensor],
    costates: tuple[Tensor, Tensor],
    rho: float,
    squared: bool,
) -> Tensor:
    """mean_i p'·f(x, u) + ρ/2 ‖x' − f‖² + ρ/2 ‖p − f_xᵀ p'‖² (or the norms themselves) + λ/2 ‖u‖²."""
    total = 0.5 * DECAY * torch.stack([(p**2).sum() for p in u.values()]).sum()
    for x, following, p, p_next in zip(*pair, *costates):
        y, pull = torch.func.vjp(lambda z: functional_call(part, u, (z[None],))[0], x)
        for error in (following - y, p - pull(p_next)[0]):
            squares = (error**2).sum()
            total = total + 0.5 * rho * (squares if squared else (squares + 1e-24).sqrt()) / len(pair[0])
        total = total + (p_next * y).sum() / len(pair[0])
    return total


def objectives(kind: str, rho: float, iterations: int, squared: bool) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """H̃ and ‖∇_u H̃‖ of every layer at its old and its new control, all with the old states and co-states."""
    model, parts, inputs, targets = build(kind)
    states, costates = trajectory(parts, inputs, targets)
    old = copy.deepcopy(parts)
    EMSA(model, penalty=rho, stage_iterations=iterations, squared=squared, weight_decay=DECAY).step(inputs, targets)
    results = []
    for t, part in enumerate(parts):
        row = []
        for source in (old[t], part):
            u = {name: p.detach() for name, p in source.named_parameters()}
            arguments: Any = ((states[t], states[t + 1]), (costates[t], costates[t + 1]), rho, squared)
            value = lambda u, part=part, arguments=arguments: augmented_hamiltonian(part, u, *arguments)  # noqa: E731
            gradient = torch.func.grad(value)(u)
            row += [value(u), torch.stack([g.norm() for g in gradient.values()]).norm()]
        results.append(tuple(row))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.3, 3.0])
@pytest.mark.parametrize("kind", ["perceptron", "convolution and residual block"])
def test_every_layer_reaches_a_minimum_of_its_augmented_hamiltonian(kind: str, rho: float) -> None:
    for before, slope_before, after, slope_after in objectives(kind, rho, 500, squared=True):
        assert after < before
        assert slope_after < 1e-3 * slope_before


@pytest.mark.parametrize("squared", [True, False])
def test_few_iterations_lower_it(squared: bool) -> None:
    """Also with the norms as printed in Eq. 23, which have a kink at the old control."""
    for before, _, after, _ in objectives("perceptron", 0.1, 5, squared):
        assert after < before


def test_a_large_penalty_holds_the_controls() -> None:
    """ρ → ∞ leaves no room: the step shrinks as 1/ρ."""
    steps = []
    for rho in (1e2, 1e4):
        model, _, inputs, targets = build("perceptron")
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        EMSA(model, penalty=rho, stage_iterations=200).step(inputs, targets)
        steps.append(float((nn.utils.parameters_to_vector(model.parameters()) - before).detach().norm()))
    assert steps[1] < 0.05 * steps[0]


def test_training_lowers_the_loss_and_returns_it() -> None:
    model, _, inputs, targets = build("perceptron")
    optimizer, loss = EMSA(model, penalty=1.0), CrossEntropy()
    losses = []
    for _ in range(15):
        with torch.no_grad():
            expected = float(loss.value(model(inputs), targets).mean())
        losses.append(optimizer.step(inputs, targets))
        assert losses[-1] == pytest.approx(expected, rel=1e-12)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.requires_grad for p in model.parameters())


def test_modules_before_the_first_layer_prepare_the_inputs() -> None:
    inputs, targets = torch.randn(4, 1, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    flat, images = nn.Sequential(nn.Linear(3, 2)).double(), nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).double()
    images[1].load_state_dict(flat[0].state_dict())
    for model, x in ((flat, inputs[:, 0]), (images, inputs)):
        EMSA(model, MeanSquaredError()).step(x, targets)
    assert_near(images[1].weight.detach(), flat[0].weight.detach(), 1e-12)


def test_a_step_draws_the_masks_of_dropout_once() -> None:
    """All evaluations of one step are of one function: the nominal trajectory's, with its mask."""
    dropout, draws = nn.Dropout(0.5), []
    dropout.register_forward_hook(lambda *_: draws.append(1))
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), dropout, nn.Linear(6, 3)).double()
    optimizer = EMSA(model)
    for count in (1, 2):
        optimizer.step(torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0]))
        assert len(draws) == count


def test_a_layer_whose_minimization_fails_keeps_its_control(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, inputs, targets = build("perceptron")
    before = [p.detach().clone() for p in model.parameters()]

    def spoil(solver: torch.optim.LBFGS, closure: Any) -> None:
        closure()
        with torch.no_grad():
            for parameter in solver.param_groups[0]["params"]:
                parameter.fill_(torch.nan)

    monkeypatch.setattr(torch.optim.LBFGS, "step", spoil)
    with pytest.raises(FloatingPointError, match=r"stage 0 \(Linear\): .* change penalty"):
        EMSA(model).step(inputs, targets)
    assert all(torch.equal(p, old) and p.grad is None for p, old in zip(model.parameters(), before))


@pytest.mark.parametrize("options", [{"penalty": 0.0}, {"stage_iterations": 0}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="penalty must be positive and stage_iterations at least 1"):
        EMSA(nn.Sequential(nn.Linear(2, 2)), **options)


def test_emsa_minimizes_convolutions_too() -> None:
    """Their gradients are not contiguous, which L-BFGS must not mind."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)).double()
    inputs, targets = torch.randn(6, 1, 5, 5, dtype=torch.float64), torch.randint(2, (6,))
    optimizer = EMSA(model, penalty=10.0)
    losses = [optimizer.step(inputs, targets) for _ in range(5)]
    assert losses[-1] < losses[0]
