"""Backward pass over a mini-batch as one problem, whose state is the samples' states below each other.

The trajectory's state is X = (x_1, …, x_B): what is minimized is J(u) = (1/B) Σ_i φ_i(x_i), one problem with
block-diagonal f_x and the f_u^i below each other, where Alg. 3 takes every sample for a problem of its own. The
recursion and its derivation are in docs/whole-batch.md; z_c, d_c, H, C and β below are those of that page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Linearization
from ocpkit_nn.layers.vectors import Combination, ControlBase, StateBase
from ocpkit_nn.passes.backward_pass import LayerPolicy, LayerRule, layer_gradients


@dataclass(frozen=True)
class Coupling:
    """B Σ d_c H_cc' z_c'ᵀ of one layer as coefficients: what is between a control, or states, and a change of control.

    What back-propagation made of ∇φ_i and the columns are R = 1 + r vectors for each sample.
    """

    control: ControlBase
    state: StateBase
    mixing: Tensor  # B H (B R, B R), zero for ∇φ_i

    def mixed(self, inner: Tensor) -> Tensor:
        """Return B Σ H_cc' d_c'ᵀ u, or B Σ H_cc' z_c'ᵀ δX (B, R), for the inner products with u, or δX."""
        return (self.mixing @ inner.reshape(-1)).reshape(inner.shape)


@dataclass(frozen=True)
class StackedPolicy(LayerPolicy):
    """δu = k − η M⁻¹ Σ d_c H_cc' z_c'ᵀ δX."""

    coupling: Coupling | None = None

    def apply(self, layer: Layer, deviation: Tensor | None = None, step_size: float = 1.0) -> None:
        """Add α k + K δX to the layer's control, for deviations δX (B, …)."""
        gradient = step_size * self.direction
        if self.coupling is not None and deviation is not None:
            gradient = gradient + self.coupling.control.mean(self.coupling.mixed(self.coupling.state.inner(deviation)))
        self.metric.descend(layer, gradient)


def stacked_pass(
    linearizations: Sequence[Linearization], gradient: Tensor, columns: Tensor, rule: LayerRule, *, open_loop: str
) -> list[LayerPolicy]:
    """Back-propagate 1 + r vectors of each sample; at each layer O((rB)² dim u + (rB)³) in time beside.

    `gradient` is ∇φ of every sample (B, …), `columns` (r, B, …) of a root of its share of the Hessian of J.
    """
    batch, base = len(gradient), StateBase(torch.cat([gradient[None], columns]))
    coefficients = F.pad(gradient.new_ones(batch, 1), (0, len(columns)))  # 1 and B β_c
    P = torch.eye(batch * len(columns), dtype=torch.float64, device=gradient.device)  # H⁻¹
    policies: list[LayerPolicy] = []
    for t in reversed(range(len(linearizations))):
        control, state = linearizations[t].control_vjp(base), linearizations[t].state_vjp(base)
        gradients = layer_gradients(linearizations[t], Combination(control, coefficients))
        metric, direction = rule(t, gradients)
        if t == 0 and open_loop == "baseline":  # nothing precedes stage 0
            policies.append(LayerPolicy(direction, metric))
            break
        P = P + kernel(control, metric)
        coupling = Coupling(control, state, _mixing(P, batch).to(gradient))
        coefficients = coefficients - coupling.mixed(control.inner(metric.solve(gradients.mean)))
        if open_loop == "levenberg":  # Q_uu⁻¹ g = η M⁻¹ (g − Σ d_c H_cc' d_c'ᵀ η M⁻¹ g)
            direction = direction - control.mean(coupling.mixed(control.inner(metric.solve(direction))))
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
