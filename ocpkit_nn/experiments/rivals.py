"""What a practitioner does about a learning rate that is too large, to compare the feedback with.

`clip` and `normalise` change the gradient and `warm_up` the learning rate of an optimiser; `ClippedSamples` and
`ImplicitSGD` are trainers of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.training.optimizers import Backpropagation


def clip(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Scale the gradient of all weights down to the norm `max_norm` before every step (Pascanu et al. 2013)."""
    weights = _weights(optimizer)
    optimizer.register_step_pre_hook(lambda *_: _discard(nn.utils.clip_grad_norm_(weights, max_norm)))


def normalise(optimizer: torch.optim.Optimizer) -> None:
    """Scale the gradient of all weights to norm 1 before every step: the learning rate is the length of the step."""
    weights = _weights(optimizer)

    def scale(*_: Any) -> None:
        norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in weights if p.grad is not None]))
        for p in weights:
            if p.grad is not None:
                p.grad.div_(norm.clamp_min(torch.finfo(norm.dtype).tiny))

    optimizer.register_step_pre_hook(scale)


def warm_up(optimizer: torch.optim.Optimizer, updates: int) -> None:
    """Let the learning rate grow linearly from lr/updates to lr within so many updates."""
    target, done = [group["lr"] for group in optimizer.param_groups], 0

    def set_rate(*_: Any) -> None:
        nonlocal done
        done += 1
        for group, lr in zip(optimizer.param_groups, target):
            group["lr"] = lr * min(1.0, done / updates)

    optimizer.register_step_pre_hook(set_rate)


class ClippedSamples(Backpropagation):
    """The gradient of every sample scaled down to a norm, then averaged (Abadi et al. 2016, without their noise).

    Parameters
    ----------
    model, loss, optimizer
        As in `Backpropagation`; the samples must not interact in the model, as they do in batch norm.
    max_norm
        Largest norm of a sample's gradient.
    """

    def __init__(self, model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        super().__init__(model, loss, optimizer)
        self.max_norm = max_norm

        def sample_loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            # the checks of `loss.value` look at the data, which vmap does not allow
            value = loss._value(functional_call(model, weights, (x[None],)), y[None])[0]
            return value, value

        self._gradients = vmap(grad(sample_loss, has_aux=True), in_dims=(None, 0, 0))

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Train on one mini-batch and return its mean loss before the step."""
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        gradients, losses = self._gradients(weights, inputs, targets)
        norms = torch.cat([g.flatten(1) for g in gradients.values()], dim=1).norm(dim=1)
        factors = (self.max_norm / norms.clamp_min(self.max_norm)) / len(inputs)
        for name, p in self.model.named_parameters():
            p.grad = torch.tensordot(factors, gradients[name], dims=1)
        self.optimizer.step()
        return float(losses.mean())


class ImplicitSGD:
    """u ← argmin_u L(u) + ‖u − u_t‖²/(2η) on every mini-batch, by L-BFGS from u_t (Toulis & Airoldi 2017).

    Parameters
    ----------
    model, loss
        What is trained.
    lr
        η.
    iterations
        Of L-BFGS at each update; each takes one or two evaluations of the gradient.
    """

    def __init__(self, model: nn.Module, loss: Loss, lr: float, iterations: int = 10) -> None:
        self.model, self.loss, self.lr, self.iterations = model, loss, lr, iterations
        self.weights = [p for p in model.parameters() if p.requires_grad]

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Train on one mini-batch and return its mean loss before the step."""
        before = [p.detach().clone() for p in self.weights]
        solver = torch.optim.LBFGS(self.weights, max_iter=self.iterations, line_search_fn="strong_wolfe")
        losses: list[float] = []

        def closure() -> Tensor:
            solver.zero_grad()
            mean_loss = self.loss.value(self.model(inputs), targets).mean()
            distance = torch.stack([(p - q).square().sum() for p, q in zip(self.weights, before)]).sum()
            total = mean_loss + distance / (2 * self.lr)
            total.backward()  # type: ignore[no-untyped-call]
            losses.append(float(mean_loss.detach()))
            return total

        solver.step(closure)  # type: ignore[no-untyped-call]
        return losses[0]

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: every update starts anew."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore nothing."""


def _weights(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _discard(value: object) -> None:
    """Let a hook return None, as torch asks."""
