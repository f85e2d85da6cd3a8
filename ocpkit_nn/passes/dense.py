"""The backward pass of DDPNOpt with dense V_xx^i, for V_xx + ε I: its rank is a layer's width, so factors save nothing.

A layer's control acts on what follows only by its change of the output, w = f_u δu (n entries). With the cost of
the cheapest δu for it, ½ wᵀ C⁻¹ w with C = f_u M⁻¹ f_uᵀ, the Bellman step is one in n controls w:

    Q_ww = C⁻¹ + V_xx',   Q_wx = V_xx' f_x,   Q_ww⁻¹ = (I + C V_xx')⁻¹ C,   K δx = −M⁻¹ f_uᵀ V_xx' (f_x + K_w) δx,

and the core's recursion runs on plain arrays. As printed in Alg. 3, Q_ww = C⁻¹ and K δx = −M⁻¹ f_uᵀ V_xx' f_x δx.
The arrays are in double precision: a small ε would be lost in float32, and with it the positive definite V_xx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocpkit.recursion.bellman import ActionValue, backward_pass
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.linalg import identity_like, matvec, psd_root
from ocpkit.recursion.value import Value
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Linearization
from ocpkit_nn.layers.vectors import Combination, ControlBase, StateBase, UnitBase
from ocpkit_nn.passes.backward_pass import (
    BackwardPass,
    LayerPolicy,
    LayerRule,
    TerminalValue,
    Trajectory,
    layer_gradients,
)
from ocpkit_nn.passes.gains import FeedbackGain


@dataclass(frozen=True)
class DensePass(BackwardPass):
    """The core's backward pass on dense V_x (B, n) and V_xx (B, n, n), n entries in a layer's output.

    Attributes
    ----------
    proximal
        True: Q_uu^i = M/η + f_uᵀ V_xx f_u. False: M/η.
    tikhonov
        ε added to V_xx at every layer, the output included.
    """

    proximal: bool = True
    tikhonov: float = 0.0

    def __call__(self, trajectory: Trajectory, terminal: TerminalValue, rule: LayerRule) -> list[LayerPolicy]:
        linearizations, gradient = trajectory.linearizations, terminal.gradient
        curvature = _OutputCurvature(linearizations, rule, self.proximal, gradient.dtype)
        outputs = [*(linearization.x for linearization in linearizations[1:]), gradient]
        stages = [curvature.expand(t, output) for t, output in enumerate(outputs)]
        Z = terminal.columns().flatten(2).permute(1, 2, 0).double()
        value = Value(gradient.flatten(1).double(), Z @ Z.transpose(1, 2))
        steps = backward_pass(stages, value, curvature, tikhonov=self.tikhonov, between_stages=curvature.through_batch)
        policies = []
        for t, (stage, step) in enumerate(zip(stages, steps)):
            gain, metric = None, curvature.metrics[t]
            if t > 0:
                after = stage.fx + step.K if self.proximal else stage.fx
                core = -(step.Q.uu @ after).to(gradient.dtype)
                gain = FeedbackGain(curvature.controls[t], UnitBase(linearizations[t].x[None]), core, metric)
            policies.append(LayerPolicy(curvature.directions[t], metric, gain))
        return policies


class _Identity:
    """f_w = I."""

    def swapaxes(self, first: int, second: int) -> _Identity:
        return self

    def matvec(self, vector: Tensor) -> Tensor:
        return vector

    def __matmul__(self, right: Tensor) -> Tensor:
        return right

    __rmatmul__ = __matmul__


class _OutputHessian:
    """Q_ww by its inverse T (B, n, n)."""

    def __init__(self, inverse: Tensor) -> None:
        self._inverse = inverse

    def solve(self, right: Tensor) -> Tensor:
        return matvec(self._inverse, right) if right.ndim == 2 else self._inverse @ right

    def dense(self) -> Tensor:
        """Return the matrices (B, n, n)."""
        return torch.linalg.inv(self._inverse)


class _OutputCurvature:
    """Curvature of the Bellman step: Q_ww^i from the shared M/η of the baseline's rule."""

    def __init__(
        self, linearizations: Sequence[Linearization], rule: LayerRule, proximal: bool, dtype: torch.dtype
    ) -> None:
        self.linearizations, self.rule, self.proximal = linearizations, rule, proximal
        self.dtype = dtype  # of the baseline's moments; that of x_0 may be an integer's
        self.controls: list[ControlBase] = []  # f_uᵀ, by columns
        self.directions: dict[int, Tensor] = {}
        self.metrics: dict[int, Metric] = {}

    def expand(self, t: int, output: Tensor) -> Expansion:
        """Return f_x (B, n, p) of stage t, and f_w = I."""
        count, linearization = output[0].numel(), self.linearizations[t]
        unit = torch.eye(count, dtype=output.dtype, device=output.device)
        base = StateBase(unit.reshape(count, 1, *output.shape[1:]).expand(-1, *output.shape))
        self.controls.append(linearization.control_vjp(base))
        if t > 0:
            fx = linearization.state_vjp(base).vectors.flatten(2).transpose(0, 1).double()
        else:  # nothing precedes the stage: its state has no direction to deviate in
            fx = output.new_empty(len(output), count, 0, dtype=torch.float64)
        return Expansion(fx, _Identity(), 0.0, 0.0)

    def through_batch(self, t: int, V: Value) -> Value:
        """Return V with V_x of the batch's total cost at the input of stage t."""
        linearization = self.linearizations[t]
        if t == 0 or not linearization.couples_samples:
            return V
        Vx = linearization.through_batch(V.x.reshape(linearization.x.shape).to(linearization.x.dtype))
        return Value(Vx.flatten(1).to(V.x.dtype), V.xx)

    def __call__(self, t: int, Q: ActionValue) -> tuple[_OutputHessian, Tensor]:
        base, linearization, dtype = self.controls[t], self.linearizations[t], self.dtype
        base.prepare()
        gradients = layer_gradients(linearization, Combination(base, Q.u.to(dtype)), lambda: psd_root(Q.uu).to(dtype))
        metric, direction = self.rule(t, gradients)
        self.metrics[t], self.directions[t] = metric, direction
        C = base.gram(metric).to(Q.uu.dtype)
        if not self.proximal:
            return _OutputHessian(C), Q.u
        return _OutputHessian(torch.linalg.solve(identity_like(C) + C @ Q.uu, C)), Q.u
