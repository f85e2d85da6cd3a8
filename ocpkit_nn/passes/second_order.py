"""DDPNOpt with layer dynamics to second order (Eq. 26, 27; "DDPNOpt2nd"), for Linear layers and activations.

    V_hh = σ_hᵀ V_xx' σ_h + V_x'·σ_hh,     Q_ux = g_uᵀ V_hh g_x + V_h·g_ux,     [V_h·g_ux] δx = V_h ⊗ δx

V_xx is dense. The activation's curvature V_x'·σ_hh can make V_hh indefinite; its negative eigenvalues are
clipped, so that Q_uu = M/η + g_uᵀ V_hh g_u stays positive definite. Everything after Q is the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ocpkit.recursion.bellman import ActionValue, minimize
from ocpkit.recursion.linalg import psd_root
from ocpkit.recursion.value import OuterProduct, Value
from ocpkit_nn.layers.layers import Layer, LinearLayer
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Stage
from ocpkit_nn.layers.structure import is_plain
from ocpkit_nn.layers.vectors import Combination, DenseBase, UnitBase
from ocpkit_nn.passes.backward_pass import BackwardPass, LayerPolicy, LayerRule, TerminalValue, Trajectory
from ocpkit_nn.passes.curvature import LayerGradients, SampleHessian
from ocpkit_nn.passes.gains import FeedbackGain

# y = σ(h) ↦ (σ', σ'')
_DERIVATIVES: dict[type[nn.Module], Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    nn.Tanh: lambda y: (1 - y * y, -2 * y * (1 - y * y)),
    nn.Sigmoid: lambda y: (y * (1 - y), y * (1 - y) * (1 - 2 * y)),
    nn.ReLU: lambda y: ((y > 0).to(y.dtype), torch.zeros_like(y)),
}


def check_second_order(stages: Sequence[Stage]) -> None:
    """Check that the second derivatives of all stages are known.

    Raises
    ------
    ValueError
        Naming the stage that is not a Linear layer with at most one of Tanh, Sigmoid, ReLU after it.
    """
    for stage in stages:
        known = all(is_plain(module, *_DERIVATIVES) for module in stage.tail) and len(stage.tail) <= 1
        if not (isinstance(stage.layer, LinearLayer) and known):
            raise ValueError(
                f"stage {stage.name}: second-order dynamics are for Linear layers followed by Tanh, Sigmoid, ReLU or "
                "nothing, without hooks; use dynamics='first'"
            )


@dataclass(frozen=True)
class SecondOrderPass(BackwardPass):
    """Backward pass with dense V_xx (B, n, n), all second derivatives with the sample's share of the curvature.

    Attributes
    ----------
    proximal
        True: Q_uu^i = M/η + g_uᵀ V_hh g_u. False: M/η.
    tikhonov
        ε added to V_xx at every layer, the output included.
    """

    proximal: bool = True
    tikhonov: float = 0.0

    def __call__(self, trajectory: Trajectory, terminal: TerminalValue, rule: LayerRule) -> list[LayerPolicy]:
        policies: list[LayerPolicy] = []
        V, y = Value(terminal.gradient, terminal.hessian()), trajectory.outputs
        for t in reversed(range(len(trajectory.stages))):
            stage, linearization = trajectory.stages[t], trajectory.linearizations[t]
            x, layer = linearization.x, stage.layer
            Vh, Vhh = _before_activation(stage, V.regularized(self.tikhonov), y, terminal.layer_scale)
            # nothing precedes stage 0, so nothing multiplies its V_h·g_ux
            Q = _action_value(x, layer.matrix(), Vh, Vhh, terminal.layer_scale if t > 0 else None)
            Q.u.base.average = linearization.average
            curvature = _Curvature(layer, x, Vh, rule, self.proximal)
            step, gain = minimize(t, Q, curvature), None
            if t > 0:
                core = step.K.left.coefficients @ step.K.right.transpose(1, 2)
                gain = FeedbackGain(step.K.left.base, UnitBase(x[None]), core, curvature.metric)
            policies.append(LayerPolicy(curvature.direction, curvature.metric, gain))
            V, y = step.value, x
        return policies[::-1]


def _before_activation(stage: Stage, V: Value, y: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """V_h (B, o) and V_hh (B, o, o) of Eq. 26 from V at the output y."""
    if not stage.tail:
        return V.x, V.xx
    slope, second = _DERIVATIVES[type(stage.tail[0])](y)
    return slope * V.x, slope[:, :, None] * V.xx * slope[:, None, :] + torch.diag_embed(scale * V.x * second)


def _action_value(x: Tensor, control: Tensor, Vh: Tensor, Vhh: Tensor, scale: float | None) -> ActionValue:
    """Eq. 26 at g = W x + b; the control's base vectors are [V_h ⊗ x̄ (1), L_r ⊗ x̄ (o), V_h ⊗ e_j (n)], V_hh = L Lᵀ."""
    (batch, n), (o, i) = x.shape, control.shape
    weight, root = control[:, :n], psd_root(Vhh)
    bar = torch.cat([x, x.new_ones(batch, i - n)], dim=1)
    cotangents = torch.cat([Vh[None], root.permute(2, 0, 1)])
    vectors = cotangents[..., None] * bar[:, None, :]
    product = (weight.T @ root).contiguous()
    right = product
    if scale is not None:
        axes = torch.eye(n, i, dtype=x.dtype, device=x.device)
        vectors = torch.cat([vectors, scale * Vh[..., None] * axes[:, None, None, :]])
        right = torch.cat([product, axes[:, :n].expand(batch, n, n)], dim=2)
    base, unit = DenseBase(vectors), torch.eye(len(vectors), dtype=x.dtype, device=x.device).expand(batch, -1, -1)
    Quu = OuterProduct(Combination(base, unit[:, :, 1 : o + 1]), None)
    Qux = OuterProduct(Combination(base, unit[:, :, 1:]), right)
    return ActionValue(Vh @ weight, Combination(base, unit[:, :, 0]), product @ product.transpose(1, 2), Qux, Quu)


class _Curvature:
    """Curvature of the Bellman step: Q_uu^i = M/η + g_uᵀ V_hh g_u."""

    metric: Metric
    direction: Tensor

    def __init__(self, layer: Layer, x: Tensor, Vh: Tensor, rule: LayerRule, proximal: bool) -> None:
        self.layer, self.x, self.Vh, self.rule, self.proximal = layer, x, Vh, rule, proximal

    def __call__(self, t: int, Q: ActionValue) -> tuple[SampleHessian, Combination]:
        columns = Q.uu.left
        factors = lambda: self.layer.factors(self.x, self.Vh)  # noqa: E731
        mean = Q.u.base.expectation(Q.u.coefficients)
        gradients = LayerGradients(mean, Q.u.base, Q.u.coefficients, factors, lambda: columns.coefficients)
        self.metric, self.direction = self.rule(t, gradients)
        return SampleHessian(self.metric, columns, self.proximal), Q.u
