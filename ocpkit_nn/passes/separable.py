"""DDPNOpt near the price of its baseline: gains from a separable M, gradient and feedback in one product.

With an outer product for V_xx, what Alg. 3 costs beyond its baseline is a second forward pass and, at every
layer, a matrix product for c_i = q_uᵀ M⁻¹ q_u and one for the feedback. Two changes save both products:

1. M⁻¹ in c is the rank-one (separable) approximation a bᵀ of the M⁻¹ = W some steps before (of the first gradient's, in
   the first steps), with a = W p and b = Wᵀ q/(qᵀ W p), p = E[x̄²] and q = E[V_h²]: exact where W is separable, or
   where the x̄² or the V_h² of all samples are alike. For a Linear layer c_i = (aᵀ v_i²)(bᵀ x̄_i²). For a convolution
   the positions are taken as uncorrelated, as in KFAC for convolutions (Grosse & Martens 2016).
2. The baseline's rule sees the gradient with its feedback, E[Q_u^i + Q_ux^i δx_i/(1 + c_i)], at once: the sum over
   samples is then one product with re-weighted V_h, and moments and step are one pass over memory (`fused`).

With Q_ux ≡ 0 this is the baseline exactly (Prop. 2); with M = I/η it is `rank_one.RankOnePass` exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Linearization
from ocpkit_nn.layers.vectors import ControlBase, StateBase
from ocpkit_nn.passes.backward_pass import BackwardPass, TerminalValue, Trajectory
from ocpkit_nn.passes.baseline import Baseline
from ocpkit_nn.passes.gains import FeedbackGain
from ocpkit_nn.passes.rank_one import RankOneValue

REFRESH_INTERVAL = 10
"""Steps between two separable approximations of a layer's M⁻¹."""


@dataclass(eq=False)
class SeparablePolicy:
    """The baseline's step on E[Q_u^i + Q_ux^i δx_i/(1 + c_i)] of one layer, for deviations δx known later.

    Attributes
    ----------
    stage
        t.
    baseline
        Takes the step.
    control, state
        f_uᵀ and f_xᵀ times the back-propagated ∇φ of every sample.
    weight
        (B, 1): V_x' = weight · ∇φ back-propagated.
    mixed_weight
        (B, 1): Q_ux/(1 + c) = mixed_weight · control stateᵀ; None without feedback, or where nothing precedes the
        layer.
    """

    stage: int
    baseline: Baseline
    control: ControlBase
    state: StateBase
    weight: Tensor
    mixed_weight: Tensor | None

    @property
    def gain(self) -> FeedbackGain | None:
        """K_i, with M/η after the step."""
        metric = self.baseline.metric(self.stage)
        if self.mixed_weight is None or metric is None:
            return None
        return FeedbackGain(self.control, self.state, -self.mixed_weight[..., None], metric)

    def gradient(self, layer: Layer, deviation: Tensor | None) -> list[Tensor]:
        """Return the gradient for the layer's parameters, for δX (B, …) or without feedback."""
        weight = self.weight
        if self.mixed_weight is not None and deviation is not None:
            weight = torch.addcmul(weight, self.mixed_weight, self.state.inner(deviation))
        return [self.control.average(part) for part in self.control.parts(weight, layer)]

    def apply(self, layer: Layer, deviation: Tensor | None = None, step_size: float = 1.0) -> None:
        """Take the baseline's step at the layer, for deviations δX (B, …); its moments allow no other step size."""
        assert step_size == 1.0
        self.baseline.step(self.stage, self.gradient(layer, deviation))


class SeparableValue(RankOneValue):
    """V_x = w b and V_xx = κ b bᵀ with κ itself, by which c is computed here.

    Attributes
    ----------
    curvature
        κ (B, 1).
    """

    def __init__(self, gradient: Tensor, scale: float) -> None:
        super().__init__(gradient, scale)
        self.curvature = gradient.new_full((len(gradient), 1), scale)

    def reduce(self, growth: Tensor) -> None:
        super().reduce(growth)
        self.curvature = self.curvature / growth

    def propagate(self, linearization: Linearization, state: StateBase) -> None:
        weight = self.weight
        super().propagate(linearization, state)
        if linearization.couples_samples:
            self.curvature = self.curvature / weight / weight


@dataclass(frozen=True)
class SeparablePass(BackwardPass):
    """One ordinary back-propagation, and c from norms.

    Attributes
    ----------
    feedback
        False: Q_ux ≡ 0, the baseline.
    """

    feedback: bool = True

    def __call__(self, trajectory: Trajectory, terminal: TerminalValue, rule: Baseline) -> list[SeparablePolicy]:
        memories, linearizations = rule.memories, trajectory.linearizations
        memories[0]["age"] = age = (memories[0].get("age", -1) + 1) % REFRESH_INTERVAL
        V, policies = SeparableValue(terminal.gradient, terminal.scale), list[SeparablePolicy]()
        ones = V.weight
        for t in reversed(range(len(linearizations))):
            memory, weight, mixed_weight = memories[t], V.weight, None
            control, state = V.vjp(linearizations[t])
            if self.feedback and t > 0:
                if age == 0 or "rows" not in memory:
                    memory["rows"], memory["columns"] = separated(rule.metric_without_rate(t, control, weight), control)
                norms = control.separable_norms(memory["rows"], memory["columns"])
                V.reduce(torch.addcmul(ones, norms, V.curvature, value=rule.options[t]["lr"]))
                mixed_weight = V.curvature
            policies.append(SeparablePolicy(t, rule, control, state, weight, mixed_weight))
            if t > 0:
                V.propagate(linearizations[t], state)
        return policies[::-1]

    def apply_feedforward(self, trajectory: Trajectory, policies: Sequence[Any], step_size: float = 1.0) -> None:
        """Take one step for all layers, none of which waits for a deviation."""
        gradients = [policy.gradient(stage.layer, None) for policy, stage in zip(policies, trajectory.stages)]
        policies[0].baseline.descend(range(len(policies)), gradients)


def separated(metric: Metric, control: ControlBase) -> tuple[Tensor, Tensor]:
    """Return a (o) and b (i) with M⁻¹ ≈ a bᵀ."""
    q, p = (control.average(squares) for squares in control.mean_squares())
    weights = metric.weights
    if weights is None:
        return torch.ones_like(q), torch.ones_like(p)
    a, least = weights @ p, torch.finfo(q.dtype).tiny
    total = q @ a
    b = q @ weights / total.clamp_min(least)
    return a, torch.where(total > least, b, torch.zeros_like(b))  # a dead layer has c = 0
