"""DDPNOpt near the price of its baseline: gains from a separable M, gradient and feedback in one product.

With an outer product for V_xx, what Alg. 3 costs beyond its baseline is a second forward pass and, at every
layer, a matrix product for c_i = q_uᵀ M⁻¹ q_u and one for the feedback. Two changes save both products:

1. M⁻¹ in c is the rank-one (separable) approximation a bᵀ of the M⁻¹ = W some steps before, with
   a = W p and b = Wᵀ q/(qᵀ W p), p = E[x̄²] and q = E[V_h²]: exact where W is separable, or where the x̄² or the
   V_h² of all samples are alike. For a Linear layer c_i = (aᵀ v_i²)(bᵀ x̄_i²). For a convolution the positions
   are taken as uncorrelated, as in KFAC for convolutions (Grosse & Martens 2016).
2. The baseline's rule sees the gradient with its feedback, E[Q_u^i + Q_ux^i δx_i/(1 + c_i)], at once:
   the sum over samples is then one product with re-weighted V_h.

With Q_ux ≡ 0 this is the baseline exactly (Prop. 2); with M = I/η it is `passes.parallel_pass` exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocpkit_nn.curvature import LayerGradients, Memory
from ocpkit_nn.gains import FeedbackGain
from ocpkit_nn.metric import Metric
from ocpkit_nn.passes import LayerPolicy, LayerRule, through_batch
from ocpkit_nn.stages import Linearisation, Stage, without_autocast
from ocpkit_nn.vectors import ControlBase, StateBase
from ocpkit_nn.workspace import Workspace

CURVATURES = ("identity", "diagonal", "adam")
"""Those that are diagonal in the control as it is."""
EVERY = 10
"""Steps between two separable approximations of a layer's M⁻¹."""


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

    def at(self, deviation: Tensor | None, out: Tensor) -> Tensor:
        """Return the gradient (o, i) for δX (B, …), or without feedback; `out` is memory for it."""
        if self.gain is None or deviation is None:
            return self.control.expectation(self.weight, out)
        aimed = torch.addcmul(self.weight, self.gain, self.state.inner(deviation))
        return self.control.expectation(aimed, out)


def backward_pass(
    linearisations: Sequence[Linearisation],
    gradient: Tensor,
    memories: Sequence[Memory],
    rates: Sequence[float],
    scale: float,
) -> list[AimedGradient]:
    """One ordinary back-propagation, and c from norms.

    Parameters
    ----------
    gradient
        ∇φ of every sample, (B, …).
    memories
        Of every layer, filled by `remember`.
    rates
        η of every layer.
    scale
        Factor of ∇φ ∇φᵀ in the terminal Hessian.
    """
    base, weight = StateBase(gradient[None]), gradient.new_ones(len(gradient), 1)
    ratio = gradient.new_full((), scale)
    aimed: list[AimedGradient] = []
    for t in reversed(range(len(linearisations))):
        control, state, gain = linearisations[t].pull_control(base), linearisations[t].pull_state(base), None
        above = weight
        if t > 0:
            c = control.separable_norms(memories[t]["rows"], memories[t]["columns"])
            weight = above / (c * above).mul_(ratio * rates[t]).add_(1)
            gain = ratio * weight
        aimed.append(AimedGradient(control, state, above, gain))
        base = state
        if t > 0 and linearisations[t].couples_samples:
            base, weight, ratio = through_batch(linearisations[t], base, weight, ratio)
    return aimed[::-1]


def forward_pass(
    stages: Sequence[Stage],
    states: Sequence[Tensor],
    aimed: Sequence[AimedGradient],
    rule: LayerRule,
    workspaces: Sequence[Workspace],
    *,
    feedback: bool,
) -> list[LayerPolicy]:
    """Take the baseline's step at every layer, in order, on its gradient with the feedback from those before.

    Parameters
    ----------
    states
        Nominal X_t.
    feedback
        False: no second trajectory, δx = 0.
    """
    x, policies = states[0], []
    for t, (stage, gradient, workspace) in enumerate(zip(stages, aimed, workspaces)):
        control = gradient.control
        with without_autocast(x):
            memory = workspace.array("gradient", control.shape, gradient.weight)
            mean = gradient.at(x - states[t] if feedback and t > 0 else None, memory)
            metric, direction = rule(t, LayerGradients(mean, control, gradient.weight, None, workspace=workspace))
            metric.descend(stage.layer, direction)
        gain = None
        if gradient.gain is not None:
            gain = FeedbackGain(control, gradient.state, -gradient.gain[..., None], metric)
        policies.append(LayerPolicy(direction, metric, gain))
        if feedback and t < len(stages) - 1:
            x = stage.forward_again(x)
    return policies


def known(memories: Sequence[Memory]) -> bool:
    """Whether every layer has its approximation: not before the first step."""
    return all("rows" in memory for memory in memories)


def remember_all(
    linearisations: Sequence[Linearisation],
    policies: Sequence[LayerPolicy],
    memories: Sequence[Memory],
    rates: Sequence[float],
) -> None:
    """Renew the approximations of all layers once in `EVERY` steps."""
    memories[0]["steps"] = step = memories[0].get("steps", -1) + 1
    if step % EVERY == 0:
        for linearisation, policy, memory, rate in zip(linearisations, policies, memories, rates):
            memory["rows"], memory["columns"] = separated(policy.metric, linearisation.control, rate)


def separated(metric: Metric, control: ControlBase, rate: float) -> tuple[Tensor, Tensor]:
    """Return a (o) and b (i) with M⁻¹ ≈ a bᵀ, without η."""
    q, p = (control.average(squares) for squares in control.mean_squares())
    weights = metric.weights
    if weights is None:
        return torch.ones_like(q), torch.ones_like(p)
    a, least = weights @ p, torch.finfo(q.dtype).tiny
    total = q @ a
    b = q @ weights / total.clamp_min(least)
    return a / rate, torch.where(total > least, b, torch.zeros_like(b))  # a dead layer has c = 0
