"""SGD with the vanishing-gradient regularizer of Pascanu, Mikolov & Bengio (2013): "SGD-VGR" in the experiments.

    Ω = Σ_t (1/B) Σ_i (‖f_xᵀ p_{t+1}‖ / ‖p_{t+1}‖ − 1)²

penalizes layers that change the norm of the back-propagated gradient. As in the original, only the immediate
derivative of Ω_t with respect to the layer's own weights is used; x_t and p_{t+1} count as constants. The
original writes the ratio of squared norms; both have their minimum where the norm is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.layers.torch_losses import as_loss
from ocpkit_nn.optim.stage_optimizer import StageOptimizer, changes_weights, hamiltonian


class SGDVGR(StageOptimizer, torch.optim.SGD):
    """SGD on loss + `strength` · Ω.

    Parameters
    ----------
    model, loss
        As in `DDPNOpt`.
    lr, momentum, weight_decay
        As in `torch.optim.SGD`.
    strength
        Weight of Ω.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[nn.Module],
        loss: Loss | nn.Module | None = None,
        lr: float = 0.1,
        *,
        strength: float = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.loss, self.strength = as_loss(loss), strength
        super().__init__(self._attach(model), lr=lr, momentum=momentum, weight_decay=weight_decay)

    @changes_weights
    def step(self, inputs: Tensor, targets: Tensor) -> float:  # type: ignore[override]
        """Train on one mini-batch; return its mean loss before the step."""
        self._begin_step()
        self.zero_grad()  # what is frozen by now has no gradient, and so stays
        states, outputs = self._differentiable_trajectory(inputs)
        value = float(self.loss.value(outputs[-1].detach(), targets).mean())
        costate = self.loss.gradient(outputs[-1].detach(), targets)
        for t in reversed(range(len(self.stages))):
            costate = self._layer_gradients(t, states[t], outputs[t], costate)
        super().step()
        return value

    def _layer_gradients(self, t: int, state: Tensor, output: Tensor, costate: Tensor) -> Tensor:
        """Set p.grad of stage t to the gradient of loss + Ω_t; return p_t for t > 0."""
        parameters, batch, before = self.stages[t].layer.parameters, len(state), costate
        with torch.enable_grad():
            product = hamiltonian(costate, output).sum()
            gradients = list(
                torch.autograd.grad(product / batch, parameters, retain_graph=True, materialize_grads=True)
            )
            if t > 0:
                before = torch.autograd.grad(product, state, create_graph=True)[0]
                norm, next_norm = before.flatten(1).norm(dim=1), costate.flatten(1).norm(dim=1)
                ratio = norm / next_norm.clamp_min(torch.finfo(norm.dtype).tiny)
                omega = self.strength * ((ratio - 1) ** 2).mean()
                extra = torch.autograd.grad(omega, parameters, allow_unused=True)
                gradients = [g if e is None else g + e for g, e in zip(gradients, extra)]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient.detach()
        return before.detach()
