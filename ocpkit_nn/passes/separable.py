"""DDPNOpt near the price of its baseline: gains from a separable M, gradient and feedback in one product.

With an outer product for V_xx, what Alg. 3 costs beyond its baseline is a second forward pass and, at every
layer, a matrix product for c_i = q_uᵀ M⁻¹ q_u and one for the feedback. Two changes save both products:

1. M⁻¹ in c is the rank-one (separable) approximation a bᵀ of the M⁻¹ = W some steps before (of the first gradient's, in
   the first steps), with
   a = W p and b = Wᵀ q/(qᵀ W p), p = E[x̄²] and q = E[V_h²]: exact where W is separable, or where the x̄² or the
   V_h² of all samples are alike. For a Linear layer c_i = (aᵀ v_i²)(bᵀ x̄_i²). For a convolution the positions
   are taken as uncorrelated, as in KFAC for convolutions (Grosse & Martens 2016).
2. The baseline's rule sees the gradient with its feedback, E[Q_u^i + Q_ux^i δx_i/(1 + c_i)], at once: the sum over
   samples is then one product with re-weighted V_h, and moments and step are one pass over memory (`fused`).

With Q_ux ≡ 0 this is the baseline exactly (Prop. 2); with M = I/η it is `passes.parallel_pass` exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Linearisation, Stage, without_autocast
from ocpkit_nn.layers.vectors import ControlBase, StateBase
from ocpkit_nn.passes.curvature import Memory
from ocpkit_nn.passes.factored import through_batch
from ocpkit_nn.passes.gains import FeedbackGain

EVERY = 10
"""Steps between two separable approximations of a layer's M⁻¹."""

LayerMetric = Callable[[int, ControlBase, Tensor], Metric]
"""Maps (stage, vectors of its control, their weights in Q_u) to the M of the steps so far, as for η = 1."""


@dataclass
class AimedGradient:
    """E[Q_u^i + Q_ux^i δx_i/(1 + c_i)] of one layer, for deviations δx known later.

    Attributes
    ----------
    control, state
        f_uᵀ and f_xᵀ times the back-propagated ∇φ of every sample.
    weight
        (B, 1): V_x' = weight · ∇φ back-propagated.
    gain
        (B, 1): Q_ux/(1 + c) = gain · control stateᵀ; None where nothing precedes the layer.
    """

    control: ControlBase
    state: StateBase
    weight: Tensor
    gain: Tensor | None

    def at(self, deviation: Tensor | None, layer: Layer) -> list[Tensor]:
        """Return the gradient for the layer's parameters, for δX (B, …) or without feedback."""
        weight = self.weight
        if self.gain is not None and deviation is not None:
            weight = torch.addcmul(weight, self.gain, self.state.inner(deviation))
        return [self.control.average(part) for part in self.control.parts(weight, layer)]

    def feedback(self, metric: Metric) -> FeedbackGain | None:
        """Return K_i for M/η."""
        return None if self.gain is None else FeedbackGain(self.control, self.state, -self.gain[..., None], metric)


def backward_pass(
    linearisations: Sequence[Linearisation],
    gradient: Tensor,
    memories: Sequence[Memory],
    rates: Sequence[float],
    scale: float,
    metric: LayerMetric,
) -> list[AimedGradient]:
    """One ordinary back-propagation, and c from norms.

    Parameters
    ----------
    gradient
        ∇φ of every sample, (B, …).
    memories
        Of every layer: the factors of its M⁻¹, renewed once in `EVERY` steps.
    rates
        η of every layer.
    scale
        Factor of ∇φ ∇φᵀ in the terminal Hessian.
    metric
        M without η, which may be zero.
    """
    memories[0]["age"] = age = (memories[0].get("age", -1) + 1) % EVERY
    base, ones = StateBase(gradient[None]), gradient.new_ones(len(gradient), 1)
    weight, bend = ones, ones * scale  # V_x = weight · base, V_xx = bend · base baseᵀ
    aimed: list[AimedGradient] = []
    for t in reversed(range(len(linearisations))):
        linearisation, memory, above, gain = linearisations[t], memories[t], weight, None
        control, state = linearisation.pull_control(base), linearisation.pull_state(base)
        if t > 0:
            if age == 0 or "rows" not in memory:
                memory["rows"], memory["columns"] = separated(metric(t, control, weight), control)
            norms = control.separable_norms(memory["rows"], memory["columns"])
            growth = torch.addcmul(ones, norms, bend, value=rates[t])  # 1 + c
            weight, bend = weight / growth, bend / growth
            gain = bend
        aimed.append(AimedGradient(control, state, above, gain))
        base = state
        if t > 0 and linearisation.couples_samples:
            base, weight, bend = through_batch(linearisation, base, weight, bend / weight)
    return aimed[::-1]


def forward_pass(
    stages: Sequence[Stage],
    states: Sequence[Tensor],
    aimed: Sequence[AimedGradient],
    descend: Callable[[dict[int, list[Tensor]]], None],
    *,
    feedback: bool,
) -> None:
    """Take the baseline's step at every layer, in order, on its gradient with the feedback from those before.

    Parameters
    ----------
    states
        Nominal X_t.
    descend
        Takes the baseline's step at some stages, on the gradients for their parameters.
    feedback
        False: no second trajectory, δx = 0, and nothing to wait for: one step for all layers.
    """
    if not feedback:
        with without_autocast(states[0]):
            descend({t: gradient.at(None, stages[t].layer) for t, gradient in enumerate(aimed)})
        return
    x = states[0]
    for t, (stage, gradient) in enumerate(zip(stages, aimed)):
        with without_autocast(x):
            descend({t: gradient.at(x - states[t] if t > 0 else None, stage.layer)})
        if t < len(stages) - 1:
            x = stage.forward_again(x)


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
