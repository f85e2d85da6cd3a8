"""DDPNOpt with two other backward passes: the whole mini-batch as one stacked state, and a trust region."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit_nn import Baseline, DDPNOpt, Layer, LayerPolicy, Loss, TerminalValue, Trajectory, stacked_pass

OPEN_LOOP = ("baseline", "levenberg")


class Stacked(DDPNOpt):
    """DDPNOpt with the batch as one stacked state.

    `model`, `loss`, `lr` and `options` are those of `DDPNOpt`, with the proximal Q_uu, ε = 0 and in one process.
    ``open_loop="baseline"`` is k = −η M⁻¹ g, as Alg. 3's twins have it; ``"levenberg"`` is k = −Q_uu⁻¹ g with the
    stacked Q_uu, the minimizer of the model.

    Raises
    ------
    ValueError
        For options that have no stacked form; and at a step, for layers that couple samples (batch norm).
    """

    def __init__(self, model: nn.Module, loss: Loss, lr: float, *, open_loop: str = "baseline", **options: Any) -> None:
        super().__init__(model, loss, lr, **options)
        if open_loop not in OPEN_LOOP:
            raise ValueError(f"open_loop must be one of {', '.join(OPEN_LOOP)}, got {open_loop!r}")
        own = self.policy
        plain = own.proximal and not own.tikhonov and own.gains == "exact" and own.dynamics == "first"
        if not plain or self.curvature == "exact" or self.processes.count > 1:
            raise ValueError(
                "the stacked problem needs control_hessian='proximal', tikhonov=0, gains='exact', dynamics='first', "
                "one process, and another curvature than 'exact'"
            )
        self.open_loop = open_loop

    def _backward_pass(self, trajectory: Trajectory, terminal: TerminalValue, baseline: Baseline) -> list[LayerPolicy]:
        linearizations = trajectory.linearizations
        if self.feedback == "none":
            return super()._backward_pass(trajectory, terminal, baseline)
        if any(each.couples_samples for each in linearizations):
            raise ValueError("the stacked problem has no batch norm: f_x would not be block-diagonal")
        return stacked_pass(linearizations, terminal.gradient, terminal.columns(), baseline, open_loop=self.open_loop)


class TrustRegion(DDPNOpt):
    """DDPNOpt whose feedback moves no layer by more than ρ times what its feedforward does: ‖E[K δx]‖ ≤ ρ ‖k‖.

    `radius` is ρ: 0 is ``feedback="value"``, ∞ is ``feedback="full"``. `ValueError` for separable gains, of which
    nobody knows the feedback alone.
    """

    def __init__(self, model: nn.Module, loss: Loss, lr: float, *, radius: float = 1.0, **options: Any) -> None:
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
