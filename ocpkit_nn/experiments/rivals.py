"""Rivals of the feedback: remedies for a large learning rate, today's optimizers, a Gauss-Seidel sweep.

`clip`, `normalize`, `warm_up` and `cosine` change the gradient or the learning rate of an optimizer before its steps;
the classes are trainers of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.optim import Optimizer

from ocpkit.errors import ProblemError
from ocpkit_nn import Backpropagation, Loss, as_stages


def clip(optimizer: Optimizer, max_norm: float) -> None:
    """Scale the gradient of all weights down to the norm `max_norm` before every step (Pascanu et al. 2013)."""
    _before_steps(optimizer, lambda weights: nn.utils.clip_grad_norm_(weights, max_norm))


def normalize(optimizer: Optimizer) -> None:
    """Scale the gradient of all weights to norm 1 before every step: the learning rate is the length of the step."""

    def scale(weights: Sequence[nn.Parameter]) -> None:
        gradients = [p.grad for p in weights if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient in gradients:
            gradient.div_(norm.clamp_min(torch.finfo(norm.dtype).tiny))

    _before_steps(optimizer, scale)


def _before_steps(optimizer: Optimizer, change: Callable[[Sequence[nn.Parameter]], object]) -> None:
    """Before every step change the gradients of all weights."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]

    def hook(*_: Any) -> None:
        change(weights)

    optimizer.register_step_pre_hook(hook)


def warm_up(optimizer: Optimizer, updates: int = 200) -> None:
    """Let the learning rate grow linearly from lr/updates to lr within so many updates."""
    _schedule(optimizer, lambda done: min(1.0, (done + 1) / updates))


def cosine(optimizer: Optimizer, updates: int = 1000) -> None:
    """Let the learning rate fall from lr to zero by half a cosine within so many updates (Loshchilov & Hutter 2017)."""
    _schedule(optimizer, lambda done: 0.5 * (1 + math.cos(math.pi * min(1.0, done / updates))))


def _schedule(optimizer: Optimizer, factor: Callable[[int], float]) -> None:
    """Before every step multiply the learning rates by a factor of the number of steps done."""
    rates, done = [group["lr"] for group in optimizer.param_groups], 0

    def set_rate(*_: Any) -> None:
        nonlocal done
        for group, lr in zip(optimizer.param_groups, rates):
            group["lr"] = lr * factor(done)
        done += 1

    optimizer.register_step_pre_hook(set_rate)


class ClippedSamples(Backpropagation):
    """The gradient of every sample scaled down to a norm, then averaged (Abadi et al. 2016, without their noise).

    The samples must not interact in the model, as they do in batch norm.
    """

    def __init__(self, model: nn.Module, loss: Loss, optimizer: Optimizer, max_norm: float) -> None:
        super().__init__(model, loss, optimizer)
        self.max_norm = max_norm

        def sample_loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            # the checks of `loss.value` look at the data, which vmap does not allow
            value = loss._value(functional_call(model, weights, (x[None],)), y[None])[0]
            return value, value

        self._gradients = vmap(grad(sample_loss, has_aux=True), in_dims=(None, 0, 0))

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        gradients, losses = self._gradients(weights, inputs, targets)
        norms = torch.cat([g.flatten(1) for g in gradients.values()], dim=1).norm(dim=1)
        factors = (self.max_norm / norms.clamp_min(self.max_norm)) / len(inputs)
        for name, p in self.model.named_parameters():
            p.grad = torch.tensordot(factors, gradients[name], dims=1)
        self.optimizer.step()
        return float(losses.mean())


class _Trainer:
    def __init__(self, model: nn.Module, loss: Loss, optimizers: Sequence[Optimizer | Backpropagation] = ()) -> None:
        self.model, self.loss, self.optimizers = model, loss, optimizers

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"]):
            optimizer.load_state_dict(state)


class ImplicitSGD(_Trainer):
    """u ← argmin_u L(u) + ‖u − u_t‖²/(2η) on every mini-batch, by L-BFGS from u_t (Toulis & Airoldi 2017).

    Each of the `iterations` of L-BFGS takes one or two evaluations of the gradient. Every update starts anew.
    """

    def __init__(self, model: nn.Module, loss: Loss, lr: float, iterations: int = 10) -> None:
        super().__init__(model, loss)
        self.lr, self.iterations = lr, iterations
        self.weights = [p for p in model.parameters() if p.requires_grad]

    def step(self, inputs: Tensor, targets: Tensor) -> float:
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


class Muon(_Trainer):
    """Muon for the hidden layers, AdamW for the first and last one and for what is no matrix (Jordan et al. 2024).

    Muon's step is scaled to the length that AdamW's has, so that both have one learning rate (Liu et al. 2025,
    arXiv:2502.16982). torch's Muon takes matrices alone: a convolution's kernel is shown to it as one, (o, i·k·k).
    `ProblemError` if torch is older than Muon.
    """

    def __init__(self, model: nn.Module, loss: Loss, lr: float) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ProblemError(f"Muon came with torch 2.9; this is {torch.__version__}: pip install -U torch")
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
        self._hidden = [(m.weight, nn.Parameter(m.weight.detach().flatten(1))) for m in layers[1:-1]]
        taken = {id(weight) for weight, _ in self._hidden}
        rest = [p for p in model.parameters() if id(p) not in taken]
        self._rest = Backpropagation(model, loss, torch.optim.AdamW(rest, lr=lr))
        matrices = [matrix for _, matrix in self._hidden]
        self._muon = [torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw")] if matrices else []
        super().__init__(model, loss, [self._rest, *self._muon])

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        self.model.zero_grad()
        mean_loss = self._rest.step(inputs, targets)
        for weight, matrix in self._hidden:
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        for optimizer in self._muon:
            optimizer.step()
        return mean_loss


class GaussSeidel(_Trainer):
    """Layer after layer takes its own step, each with the gradient at the layers before it as they are by then.

    That is the limit of Eq. 18, Q_u + Q_ux δx ≈ Q_u(x + δx), without the linearization, and without what the value
    recursion does: the layers behind count as they are. It takes a back-propagation for each layer. `optimizer` makes
    of the parameters of one layer what makes its steps.
    """

    def __init__(self, model: nn.Module, loss: Loss, optimizer: Callable[[Sequence[Tensor]], Optimizer]) -> None:
        weights = [stage.layer.parameters for stage in as_stages(model)[1]]
        self.layers = [Backpropagation(model, loss, optimizer(own)) for own in weights]
        super().__init__(model, loss, self.layers)

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        losses = [layer.step(inputs, targets) for layer in self.layers]
        return losses[0]
