"""DDP of the whole mini-batch: a trajectory whose state stacks the samples, X = (x_1, …, x_B), and V_xx over all of X.

Alg. 3 takes every sample for an optimal control problem of its own and averages what it wants of the control.
But the control is shared: what is minimised is J(u) = (1/B) Σ_i φ_i(x_i), one problem with the state X, block-diagonal
f_x and the f_u^i below each other. Its Bellman recursion, with the twins' Q_uu, has a short form.

**The value.** The terminal Hessian of J is Z Zᵀ with columns z_c that each begin in one sample alone, r in each:
√s ∇φ_i (Prop. 3, r = 1) or those of the loss's own Hessian; s is 1/B for a mean. Let g_i and z_c also be the vectors
that plain back-propagation makes of ∇φ_i and of a column at the layers before. Then V keeps the form

    V_x = (1/B) Σ_i g_i + Σ_c β_c z_c,      V_xx = Σ_cc' z_c H_cc' z_c'ᵀ,      β (rB,), H (rB, rB) positive definite,

β = 0 and H = I at the output.

**One step.** With d_c = f_uᵀ z_c and z_c ← f_xᵀ z_c, Eq. 3 is

    Q_u = (1/B) Σ_i f_uᵀ g_i + Σ_c β_c d_c
    Q_xx = Σ z_c H_cc' z_c'ᵀ,      Q_ux = Σ d_c H_cc' z_c'ᵀ,      Q_uu = M/η + Σ d_c H_cc' d_c'ᵀ

Let C_cc' = η d_cᵀ M⁻¹ d_c', (rB, rB). By Woodbury Q_uu⁻¹ Σ_c d_c H_cc' = η M⁻¹ Σ_c d_c H⁺_cc', where

    H⁺ = H − H C (I + H C)⁻¹ H = (H⁻¹ + C)⁻¹.

Put into Eq. 4 and 5, that is V_xx = Σ z_c H⁺_cc' z_c'ᵀ again, and

    K = −η M⁻¹ Σ d_c H⁺_cc' z_c'ᵀ,      β⁺_c = β_c − Σ_c' H⁺_cc' η d_c'ᵀ M⁻¹ Q_u.

So H_t⁻¹ = I + Σ_{τ ≥ t} C_τ: a sum, over the layers behind, of kernels of the samples' gradients (for r = 1, of the
tangent kernel of the loss in the metric M/η). Nothing of the size of X or u is inverted.

**Beside Alg. 3.** With r = 1 it follows that V_x^i = (1/B) w_i g_i with w = (I + Σ C_τ)⁻¹ 1. The same derivation for
one sample leaves 1/w_i = 1 + Σ (C_τ)_ii: in the values Alg. 3 is that matrix without what is off its diagonal.
Orthogonal gradients are damped as there, by 1/B of what a batch of the one sample would do; gradients of one direction
damp together, B copies of a sample as much as the sample alone. And the change of the shared control is here the sum
over the samples of K δx, where Alg. 3 averages: its feedback is B times smaller, since to the 1/B in V_xx comes that of
the mean. For B = 1 both are the same, and with s = 0 both are the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Linearisation
from ocpkit_nn.layers.vectors import Combination, ControlBase, StateBase
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.backward_pass import LayerPolicy, LayerRule, TerminalValue, Trajectory, layer_gradients
from ocpkit_nn.passes.baseline import Baseline

OPEN_LOOP = ("baseline", "levenberg")


class Stacked(DDPNOpt):
    """DDPNOpt with the batch as one stacked state.

    Parameters
    ----------
    model, loss, lr, options
        As in `DDPNOpt`; with the proximal Q_uu, ε = 0 and in one process.
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
        own = self.policy
        plain = own.proximal and not own.tikhonov and own.gains == "exact" and own.dynamics == "first"
        if not plain or self.curvature == "exact" or self.processes.count > 1:
            raise ValueError(
                "the stacked problem needs control_hessian='proximal', tikhonov=0, gains='exact', dynamics='first', "
                "one process, and another curvature than 'exact'"
            )
        self.open_loop = open_loop

    def _backward_pass(self, trajectory: Trajectory, terminal: TerminalValue, baseline: Baseline) -> list[LayerPolicy]:
        linearisations = trajectory.linearisations
        if self.feedback == "none":
            return super()._backward_pass(trajectory, terminal, baseline)
        if any(each.couples_samples for each in linearisations):
            raise ValueError("the stacked problem has no batch norm: f_x would not be block-diagonal")
        return stacked_pass(linearisations, terminal.gradient, terminal.columns(), baseline, open_loop=self.open_loop)


@dataclass(frozen=True)
class Coupling:
    """B Σ d_c H_cc' z_c'ᵀ of one layer as coefficients: what is between a control, or states, and a change of control.

    Attributes
    ----------
    control, state
        What back-propagation made of ∇φ_i and the columns: R = 1 + r vectors for each sample.
    mixing
        B H (B R, B R), zero for ∇φ_i.
    """

    control: ControlBase
    state: StateBase
    mixing: Tensor

    def of_control(self, control: Tensor) -> Tensor:
        """Return B Σ H_cc' d_c'ᵀ u (B, R) for a control u (o, i)."""
        return self._mixed(self.control.inner(control))

    def of_state(self, deviation: Tensor) -> Tensor:
        """Return B Σ H_cc' z_c'ᵀ δX (B, R) for deviations δX (B, …)."""
        return self._mixed(self.state.inner(deviation))

    def _mixed(self, inner: Tensor) -> Tensor:
        return (self.mixing @ inner.reshape(-1)).reshape(inner.shape)


@dataclass(frozen=True)
class StackedPolicy(LayerPolicy):
    """δu = k − η M⁻¹ Σ d_c H_cc' z_c'ᵀ δX."""

    coupling: Coupling | None = None

    def apply(self, layer: Layer, deviation: Tensor | None = None, step_size: float = 1.0) -> None:
        """Add α k + K δX to the layer's control, for deviations δX (B, …)."""
        gradient = step_size * self.direction
        if self.coupling is not None and deviation is not None:
            gradient = gradient + self.coupling.control.mean(self.coupling.of_state(deviation))
        self.metric.descend(layer, gradient)


def stacked_pass(
    linearisations: Sequence[Linearisation], gradient: Tensor, columns: Tensor, rule: LayerRule, *, open_loop: str
) -> list[LayerPolicy]:
    """Back-propagate 1 + r vectors of each sample; at each layer O((rB)² dim u + (rB)³) in time beside.

    Parameters
    ----------
    gradient, columns
        ∇φ of every sample (B, …), and the columns (r, B, …) of a root of its share of the Hessian of J.
    """
    batch, base = len(gradient), StateBase(torch.cat([gradient[None], columns]))
    coefficients = F.pad(gradient.new_ones(batch, 1), (0, len(columns)))  # 1 and B β_c
    P = torch.eye(batch * len(columns), dtype=torch.float64, device=gradient.device)  # H⁻¹
    policies: list[LayerPolicy] = []
    for t in reversed(range(len(linearisations))):
        control, state = linearisations[t].pull_control(base), linearisations[t].pull_state(base)
        gradients = layer_gradients(linearisations[t], Combination(control, coefficients))
        metric, direction = rule(t, gradients)
        if t == 0 and open_loop == "baseline":  # nothing precedes stage 0
            policies.append(LayerPolicy(direction, metric))
            break
        P = P + kernel(control, metric)
        coupling = Coupling(control, state, _mixing(P, batch).to(gradient))
        coefficients = coefficients - coupling.of_control(metric.solve(gradients.mean))
        if open_loop == "levenberg":  # Q_uu⁻¹ g = η M⁻¹ (g − Σ d_c H_cc' d_c'ᵀ η M⁻¹ g)
            direction = direction - control.mean(coupling.of_control(metric.solve(direction)))
        policies.append(StackedPolicy(direction, metric, coupling=coupling))
        base = state
    return policies[::-1]


def kernel(control: ControlBase, metric: Metric) -> Tensor:
    """Return C_cc' = η d_cᵀ M⁻¹ d_c' (rB, rB) as a square in double precision, so that H stays positive definite."""
    root = Metric(metric.inverse**0.5, metric.input_basis, metric.output_basis)
    scaled = root.solve(control.dense()[1:].transpose(0, 1)).flatten(0, 1).flatten(1).double()
    return scaled @ scaled.T


def _mixing(P: Tensor, batch: int) -> Tensor:
    """Return B H, with zeros for ∇φ_i."""
    H, r = torch.cholesky_inverse(torch.linalg.cholesky(P)), len(P) // batch
    padded = F.pad(batch * H.reshape(batch, r, batch, r), (1, 0, 0, 0, 1, 0))
    return padded.reshape(batch * (1 + r), -1)
