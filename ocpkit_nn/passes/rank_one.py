"""The backward pass of DDPNOpt for the paper's rank-one V_xx ∥ V_x V_xᵀ with the proximal Q_uu.

One scalar per sample and layer is all that is left of the recursion (Prop. 3 with Sherman-Morrison):

    c = q_uᵀ M⁻¹ q_u,   V_x ← Q_x/(1 + c),   z ← q_x/√(1 + c),   K δx = −M⁻¹ q_u (q_xᵀ δx)/(1 + c).

The tests hold it to `factored.FactoredPass`. Without feedback c = 0, and it is back-propagation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocpkit_nn.layers.stages import Linearization
from ocpkit_nn.layers.vectors import Combination, ControlBase, StateBase
from ocpkit_nn.passes.backward_pass import (
    BackwardPass,
    LayerPolicy,
    LayerRule,
    TerminalValue,
    Trajectory,
    layer_gradients,
)
from ocpkit_nn.passes.gains import FeedbackGain


class RankOneValue:
    """V_x^i = w_i b_i and V_xx^i = κ_i b_i b_iᵀ of every sample, with b_i the back-propagated ∇φ_i.

    Parameters
    ----------
    gradient
        ∇φ of every sample, (B, …).
    scale
        Factor of ∇φ ∇φᵀ in the terminal Hessian.

    Attributes
    ----------
    base
        b (1, B, …).
    weight
        w (B, 1).
    ratio
        κ/w, () or (B, 1): the same at all layers between two that couple samples.
    """

    def __init__(self, gradient: Tensor, scale: float = 0.0) -> None:
        self.base, self.ratio = StateBase(gradient.unsqueeze(0)), gradient.new_full((), scale)
        self.weight = gradient.new_ones(len(gradient), 1)

    def vjp(self, linearization: Linearization) -> tuple[ControlBase, StateBase]:
        """Return f_uᵀ b and f_xᵀ b."""
        return linearization.control_vjp(self.base), linearization.state_vjp(self.base)

    def reduce(self, growth: Tensor) -> None:
        """Divide V_x and V_xx by 1 + c (B, 1): Eq. 5."""
        self.weight = self.weight / growth

    def propagate(self, linearization: Linearization, state: StateBase) -> None:
        """Take f_xᵀ b for b.

        Where the layer couples samples, b becomes V_x of the batch's total cost, with V_xx still ∥ V_x V_xᵀ.
        """
        self.base = state
        if linearization.couples_samples:
            w, Vx = self.weight, linearization.through_batch(state.combine(self.weight))
            self.base, self.weight = StateBase(Vx.unsqueeze(0)), torch.ones_like(w)
            self.ratio = self.ratio / w


@dataclass(frozen=True)
class RankOnePass(BackwardPass):
    """One ordinary back-propagation, and one scalar per sample and layer.

    Attributes
    ----------
    feedback
        False: Q_ux ≡ 0, the baseline.
    """

    feedback: bool = True

    def __call__(self, trajectory: Trajectory, terminal: TerminalValue, rule: LayerRule) -> list[LayerPolicy]:
        V, policies = RankOneValue(terminal.gradient, terminal.scale), list[LayerPolicy]()
        for t in reversed(range(len(trajectory.linearizations))):
            linearization = trajectory.linearizations[t]
            control, state = V.vjp(linearization)
            with_gain = self.feedback and t > 0  # nothing precedes stage 0
            if with_gain:
                control.prepare()
            workspace = None if trajectory.workspaces is None else trajectory.workspaces[t]
            Qu = Combination(control, V.weight)
            metric, direction = rule(t, layer_gradients(linearization, Qu, workspace=workspace))
            gain = None
            if with_gain:
                c = (V.weight * control.gram(metric).select(2, 0)).mul_(V.ratio)
                V.reduce(c.add_(1))
                gain = FeedbackGain(control, state, (V.weight * -V.ratio).unsqueeze(2), metric)
            policies.append(LayerPolicy(direction, metric, gain))
            if t > 0:
                V.propagate(linearization, state)
        return policies[::-1]


def gradient_norm(linearizations: Sequence[Linearization], gradient: Tensor) -> float:
    """Return the norm of the batch's gradient E[Q_u] over all layers, by back-propagation of ∇φ (B, …)."""
    V, total = RankOneValue(gradient), 0.0
    for t in reversed(range(len(linearizations))):
        control, state = V.vjp(linearizations[t])
        total += float((control.expectation(V.weight) ** 2).sum())
        if t > 0:
            V.propagate(linearizations[t], state)
    return total**0.5
