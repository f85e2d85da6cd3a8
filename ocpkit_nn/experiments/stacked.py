"""DDP of the whole mini-batch: a trajectory whose state stacks the samples, X = (x_1, …, x_B), and V_xx over all of X.

Alg. 3 takes every sample for an optimal control problem of its own and averages what it wants of the control.
But the control is shared: what is minimised is J(u) = (1/B) Σ_i φ_i(x_i), one problem with the state X, block-diagonal
f_x and the f_u^i below each other. Its Bellman recursion, with the paper's terminal outer products (Prop. 3) and the
twins' Q_uu, has a short form.

**The value.** With g_i the vector that plain back-propagation brings to sample i, V of the stacked state stays

    V_x^i = (1/B) w_i g_i,      V_xx^{il} = g_i H_il g_lᵀ,      w (B,), H (B, B) positive definite,

at the output with g = ∇φ, w = 1 and H = s I; s is the curvature's scale, 1/B for the mean loss. There V_xx = Z Zᵀ with
the columns √s ∇φ_j, each in its own sample alone; any root H = W Wᵀ gives those of a layer before, Z_i = g_i W_i.

**One step.** With d_i = f_uᵀ g_i, sample i's gradient of the layer, and g_i ← f_xᵀ g_i,

    Q_u = (1/B) Σ_i w_i d_i     Q_x^i = (1/B) w_i g_i     Q_xx^{il} = g_i H_il g_lᵀ
    Q_ux^l = Σ_i d_i H_il g_lᵀ  Q_uu = M/η + Σ_il d_i H_il d_lᵀ

Let C_il = η d_iᵀ M⁻¹ d_l, (B, B). By Woodbury Q_uu⁻¹ Σ_i d_i H_il = η M⁻¹ Σ_i d_i H⁺_il, where

    H⁺ = H − H C (I + H C)⁻¹ H = (H⁻¹ + C)⁻¹.

Put into Eq. 4 and 5, that is V_xx^{il} = g_i H⁺_il g_lᵀ again, K^l = −η M⁻¹ Σ_i d_i H⁺_il g_lᵀ, and
w⁺ = (I + H C)⁻¹ w = H⁺ H⁻¹ w. So H⁻¹ w is the same at every layer, and nothing is left of the recursion but a sum,

    P_t = I + s Σ_{τ ≥ t} C_τ,      H_t = s P_t⁻¹,      w_t = P_t⁻¹ 1,

over the kernels of the samples' gradients: C is the (empirical) tangent kernel of the loss in the metric M/η.

**Beside Alg. 3.** The same derivation for one sample leaves 1/w_i = 1 + s Σ_τ C_ii: in the values Alg. 3 is P without
what is off its diagonal. Orthogonal gradients, C_il = 0, are damped as there, by C_ii/B; gradients of one direction
damp together, B copies of a sample as much as the sample in a batch of its own. And the change of the shared control
is here the sum over the samples of K^l δx_l, where Alg. 3 averages: its feedback is B times smaller, to V_xx^i / B of
each sample comes the 1/B of the mean. For B = 1 both are the same; with s = 0 both are the baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit_nn.curvature import RULES
from ocpkit_nn.layers import Layer
from ocpkit_nn.losses import Loss
from ocpkit_nn.metric import Metric
from ocpkit_nn.optim import DDPNOpt
from ocpkit_nn.passes import LayerPolicy, LayerRule, layer_gradients
from ocpkit_nn.stages import Linearisation
from ocpkit_nn.vectors import Combination, ControlBase, StateBase

OPEN_LOOP = ("baseline", "levenberg")


class Stacked(DDPNOpt):
    """DDPNOpt with the batch as one stacked state.

    Parameters
    ----------
    model, loss, lr, options
        As in `DDPNOpt`; with the empirical terminal curvature, the proximal Q_uu, ε = 0 and in one process.
    open_loop
        ``"baseline"``: k = −η M⁻¹ g, as Alg. 3's twins have it. ``"levenberg"``: k = −Q_uu⁻¹ g with the stacked Q_uu,
        the minimiser of the model.

    Raises
    ------
    ValueError
        For options that have no stacked form; and at a step, for layers that couple samples (batch norm).
    """

    def __init__(self, model: nn.Module, loss: Loss, lr: float, *, open_loop: str = "baseline", **options: Any) -> None:
        super().__init__(model, loss, lr, **options)
        if open_loop not in OPEN_LOOP:
            raise ValueError(f"open_loop must be one of {', '.join(OPEN_LOOP)}, got {open_loop!r}")
        plain = self.terminal == "empirical" and self.proximal and not self.tikhonov and self.gains == "exact"
        if not plain or self.dynamics == "second" or self.rule is RULES["exact"] or self.processes.count > 1:
            raise ValueError(
                "the stacked problem needs terminal='empirical', control_hessian='proximal', tikhonov=0, "
                "gains='exact', dynamics='first', one process, and another curvature than 'exact'"
            )
        self.open_loop = open_loop

    def _backward_pass(
        self, linearisations: list[Linearisation], outputs: Tensor, targets: Tensor, gradient: Tensor
    ) -> list[LayerPolicy]:
        if self.feedback == "none":
            return super()._backward_pass(linearisations, outputs, targets, gradient)
        if any(each.couples_samples for each in linearisations):
            raise ValueError("the stacked problem has no batch norm: f_x would not be block-diagonal")
        gradient, scale = self._clipped(gradient, linearisations)
        return stacked_pass(linearisations, gradient, self._rule, scale=scale, open_loop=self.open_loop)


@dataclass(frozen=True)
class StackedPolicy(LayerPolicy):
    """δu = k − η M⁻¹ Σ_il d_i H_il g_lᵀ δx_l.

    Attributes
    ----------
    control, state
        d_i and g_i.
    mixing
        B H (B, B).
    """

    control: ControlBase | None = None
    state: StateBase | None = None
    mixing: Tensor | None = None

    def apply(self, layer: Layer, deviation: Tensor | None = None, step_size: float = 1.0) -> None:
        """Add α k + K δX to the layer's control, for deviations δX (B, …)."""
        gradient = step_size * self.direction
        if deviation is not None and self.control is not None and self.state is not None and self.mixing is not None:
            gradient = gradient + self.control.mean(self.mixing @ self.state.inner(deviation))
        self.metric.descend(layer, gradient)


def stacked_pass(
    linearisations: list[Linearisation],
    gradient: Tensor,
    rule: LayerRule,
    *,
    scale: float,
    open_loop: str = "baseline",
) -> list[LayerPolicy]:
    """One ordinary back-propagation, and one inverse (B, B) at each layer; O(B² dim u + B³) in time.

    Parameters
    ----------
    gradient
        ∇φ of every sample (B, …).
    scale
        s, the factor of ∇φ ∇φᵀ in the terminal Hessian.
    """
    batch, base = len(gradient), StateBase(gradient[None])
    weight = gradient.new_ones(batch, 1)
    P = torch.eye(batch, dtype=torch.float64, device=gradient.device)
    policies: list[LayerPolicy] = []
    for t in reversed(range(len(linearisations))):
        control, state = linearisations[t].pull_control(base), linearisations[t].pull_state(base)
        metric, direction = rule(t, layer_gradients(linearisations[t], Combination(control, weight)))
        if t == 0 and open_loop == "baseline":  # nothing precedes stage 0
            policies.append(LayerPolicy(direction, metric))
            break
        P = P + scale * kernel(control, metric)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(P))
        weight = inverse.sum(1, keepdim=True).to(gradient)
        mixing = (scale * batch * inverse).to(gradient)
        if open_loop == "levenberg":  # Q_uu⁻¹ g = η M⁻¹ (g − Σ_il d_i H_il d_lᵀ η M⁻¹ g)
            direction = direction - control.mean(mixing @ control.inner(metric.solve(direction)))
        policies.append(StackedPolicy(direction, metric, None, control, state, mixing))
        base = state
    return policies[::-1]


def kernel(control: ControlBase, metric: Metric) -> Tensor:
    """Return C_il = η d_iᵀ M⁻¹ d_l (B, B) as a square in double precision, so that P stays positive definite."""
    root = Metric(metric.inverse**0.5, metric.input_basis, metric.output_basis)
    scaled = root.solve(control.dense()[0]).flatten(1).double()
    return scaled @ scaled.T
