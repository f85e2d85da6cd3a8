"""Other forms of the feedback than Alg. 3's, as trainers: the gradient taken anew at the new state, a trust region."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.layers.stages import as_stages
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.backward_pass import LayerPolicy, TerminalValue, Trajectory
from ocpkit_nn.passes.baseline import Baseline


class GaussSeidel:
    """Layer after layer takes its own step, each with the gradient at the layers before it as they are by then.

    That is the limit of Eq. 18, Q_u + Q_ux δx ≈ Q_u(x + δx), without the linearisation, and without what the value
    recursion does: the layers behind count as they are. It takes a back-propagation for each layer.

    Parameters
    ----------
    model, loss
        What is trained.
    optimizer
        From the parameters of one layer to what makes its steps.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer]
    ) -> None:
        self.model, self.loss = model, loss
        self.optimizers = [optimizer(stage.layer.parameters) for stage in as_stages(model)[1]]

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Train on one mini-batch and return its mean loss before the step."""
        losses = []
        for optimizer in self.optimizers:
            self.model.zero_grad()
            mean_loss = self.loss.value(self.model(inputs), targets).mean()
            mean_loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(mean_loss.detach()))
        return losses[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the layers' optimisers."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved."""
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"]):
            optimizer.load_state_dict(state)


class TrustRegion(DDPNOpt):
    """DDPNOpt whose feedback moves no layer by more than a multiple of what its feedforward does: ‖E[K δx]‖ ≤ ρ ‖k‖.

    ρ = 0 is ``feedback="value"``, ρ = ∞ is ``feedback="full"``.

    Parameters
    ----------
    model, loss, lr, options
        As in `DDPNOpt`.
    radius
        ρ.

    Raises
    ------
    ValueError
        For separable gains, of which nobody knows the feedback alone.
    """

    def __init__(self, model: nn.Module, loss: Loss, lr: float, *, radius: float, **options: Any) -> None:
        super().__init__(model, loss, lr, **options)
        if self.gains == "separable":
            raise ValueError("a trust region needs gains='exact': it bounds the feedback, apart from the feedforward")
        self.radius = radius

    def _backward_pass(self, trajectory: Trajectory, terminal: TerminalValue, baseline: Baseline) -> list[LayerPolicy]:
        policies = super()._backward_pass(trajectory, terminal, baseline)
        return [BoundedPolicy(each.direction, each.metric, each.gain, self.radius) for each in policies]


@dataclass(frozen=True)
class BoundedPolicy(LayerPolicy):
    """δu = k + s (1/B) Σ_i K_i δx_i with the largest s ≤ 1 for which the second term is at most ρ ‖k‖ long."""

    radius: float = math.inf

    def apply(self, layer: Layer, deviation: Tensor | None = None, step_size: float = 1.0) -> None:
        """Add α k + s E[K_i δx_i] to the layer's control."""
        forward = step_size * self.feedforward
        if self.gain is not None and deviation is not None:
            feedback = self.gain.matvec(deviation)
            length = torch.linalg.vector_norm(feedback)
            limit = self.radius * torch.linalg.vector_norm(forward)
            forward = forward + feedback * (limit / length.clamp_min(torch.finfo(length.dtype).tiny)).clamp_max(1.0)
        layer.add_(forward)
