"""The backward pass of DDPNOpt (Alg. 3, lines 6-13) with V_xx^i in factors, for any number of columns.

It is the core's recursion on implicit batch arrays. `rank_one` has a shorter form for one column ∥ V_x, `dense` the
form for V_xx + ε I, which has no short factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocpkit.recursion.bellman import ActionValue, backward_pass
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.value import OuterProduct, Value
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Jacobian, Linearization
from ocpkit_nn.layers.vectors import Combination, StateBase
from ocpkit_nn.passes.backward_pass import (
    BackwardPass,
    LayerPolicy,
    LayerRule,
    TerminalValue,
    Trajectory,
    layer_gradients,
)
from ocpkit_nn.passes.curvature import SampleHessian
from ocpkit_nn.passes.gains import FeedbackGain


@dataclass(frozen=True)
class FactoredPass(BackwardPass):
    """The core's backward pass on a batch of trajectories that share their controls.

    Attributes
    ----------
    proximal
        True: Q_uu^i = M/η + f_uᵀ V_xx f_u. False: M/η.
    """

    proximal: bool = True

    def __call__(self, trajectory: Trajectory, terminal: TerminalValue, rule: LayerRule) -> list[LayerPolicy]:
        linearizations = trajectory.linearizations

        def through_batch(t: int, V: Value) -> Value:
            if not linearizations[t].couples_samples:
                return V
            base, coefficients = V.x.base, V.xx.left.coefficients
            columns = torch.stack([base.combine(column) for column in coefficients.unbind(2)])
            return _implicit(linearizations[t].through_batch(base.combine(V.x.coefficients)), columns)

        curvature = _BatchCurvature(linearizations, rule, self.proximal)
        stages = [Expansion(Jacobian(lin.state_vjp), Jacobian(lin.control_vjp), 0.0, 0.0) for lin in linearizations]
        value = _implicit(terminal.gradient, terminal.columns())
        policies = []
        for t, step in enumerate(backward_pass(stages, value, curvature, between_stages=through_batch)):
            left, right, gain = step.K.left, step.K.right, None
            if t > 0:
                core = left.coefficients @ right.coefficients.transpose(1, 2)
                gain = FeedbackGain(left.base, right.base, core, curvature.metrics[t])
            policies.append(LayerPolicy(curvature.directions[t], curvature.metrics[t], gain))
        return policies


def _implicit(gradient: Tensor, columns: Tensor) -> Value:
    """Return V with V_x (B, …) and the columns (r, B, …) of a root of V_xx as the base."""
    base = StateBase(torch.cat([gradient[None], columns]))
    unit = torch.eye(len(columns) + 1, dtype=gradient.dtype, device=gradient.device)
    factor = Combination(base, unit[:, 1:].expand(len(gradient), -1, -1))
    return Value(Combination(base, unit[0].expand(len(gradient), -1)), OuterProduct(factor, factor))


class _BatchCurvature:
    """Curvature of the Bellman step: Q_uu^i with the shared M/η of the baseline's rule."""

    def __init__(self, linearizations: Sequence[Linearization], rule: LayerRule, proximal: bool) -> None:
        self.linearizations, self.rule, self.proximal = linearizations, rule, proximal
        self.directions: dict[int, Tensor] = {}
        self.metrics: dict[int, Metric] = {}

    def __call__(self, t: int, Q: ActionValue) -> tuple[SampleHessian, Combination]:
        columns = Q.ux.left
        Q.u.base.prepare()
        metric, direction = self.rule(t, layer_gradients(self.linearizations[t], Q.u, lambda: columns.coefficients))
        self.metrics[t], self.directions[t] = metric, direction
        return SampleHessian(metric, columns, self.proximal), Q.u
