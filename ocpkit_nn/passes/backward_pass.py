"""The interface of DDPNOpt's backward passes: nominal trajectory and terminal value in, one policy per layer out.

A pass is chosen once, when the optimizer is made (see `options`), and keeps nothing between two steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Linearization, Stage
from ocpkit_nn.layers.vectors import Combination
from ocpkit_nn.passes.curvature import LayerGradients
from ocpkit_nn.passes.gains import FeedbackGain
from ocpkit_nn.passes.workspace import Workspace

LayerRule = Callable[[int, LayerGradients], tuple[Metric, Tensor]]
"""Maps (stage, gradients) to M/η and the direction g that takes the place of E[Q_u]."""


@dataclass(eq=False)
class Trajectory:
    """Nominal trajectory of a mini-batch of B samples (Alg. 3, line 5).

    Attributes
    ----------
    stages, linearizations
        f_t, and its Jacobian products at X_t.
    states, outputs
        X_0 … X_{T-1} and X_T, each (B, …).
    workspaces
        Memory of every layer that a pass may use; its policies are then valid until the next pass.
    """

    stages: Sequence[Stage]
    linearizations: Sequence[Linearization]
    states: Sequence[Tensor]
    outputs: Tensor
    workspaces: Sequence[Workspace] | None = None


@dataclass(eq=False)
class TerminalValue:
    """V_x = ∇φ and V_xx = s Z Zᵀ of every sample at the network's output.

    Attributes
    ----------
    gradient
        ∇φ (B, …).
    scale
        s.
    factors
        Returns Z (B, r, …).
    layer_scale
        Factor of the second derivatives of the layers, where a pass uses them.
    """

    gradient: Tensor
    scale: float
    factors: Callable[[], Tensor]
    layer_scale: float = 1.0

    def columns(self) -> Tensor:
        """Return √s Z, (r, B, …)."""
        return self.scale**0.5 * self.factors().transpose(0, 1)

    def hessian(self) -> Tensor:
        """Return s Z Zᵀ, (B, n, n), for outputs (B, n)."""
        Z = self.factors()
        return self.scale * Z.transpose(1, 2) @ Z


class Policy(Protocol):
    """δu = k + (1/B) Σ_i K_i δx_i of one layer."""

    @property
    def gain(self) -> FeedbackGain | None:
        """K_i, or None: Q_ux was dropped, or nothing precedes the layer."""

    def apply(self, layer: Layer, deviation: Tensor | None = None, step_size: float = 1.0) -> None:
        """Add α k + E[K_i δx_i] to the layer's control, for deviations δX (B, …)."""


class BackwardPass(ABC):
    """Bellman recursion over the layers (Alg. 3, lines 6-13)."""

    @abstractmethod
    def __call__(self, trajectory: Trajectory, terminal: TerminalValue, rule: Any) -> list[Any]:
        """Return the policies of all layers.

        Parameters
        ----------
        rule
            The baseline's `LayerRule`, in a training step a `baseline.Baseline`.
        """

    def apply_feedforward(self, trajectory: Trajectory, policies: Sequence[Any], step_size: float = 1.0) -> None:
        """Add α k to the controls of all layers."""
        for stage, policy in zip(trajectory.stages, policies):
            policy.apply(stage.layer, None, step_size)


@dataclass(frozen=True)
class LayerPolicy:
    """δu = k + (1/B) Σ_i K_i δx_i of one layer, with k = −M⁻¹ g.

    Attributes
    ----------
    direction
        g (o, i), the baseline's direction in place of E[Q_u].
    metric
        M/η.
    gain
        K_i, or None: Q_ux was dropped, or nothing precedes the layer.
    """

    direction: Tensor
    metric: Metric
    gain: FeedbackGain | None = None

    @property
    def feedforward(self) -> Tensor:
        """k (o, i)."""
        return -self.metric.solve(self.direction)

    def apply(self, layer: Layer, deviation: Tensor | None = None, step_size: float = 1.0) -> None:
        """Add α k + E[K_i δx_i] to the layer's control, for deviations δX (B, …); one M⁻¹ serves both terms."""
        gradient = self.direction if step_size == 1.0 else step_size * self.direction
        if self.gain is not None and deviation is not None:
            gradient = self.gain.control.average(self.gain.unscaled(deviation)).neg_().add_(gradient)
        self.metric.descend(layer, gradient)


def layer_gradients(
    linearization: Linearization,
    Qu: Combination,
    columns: Callable[[], Tensor] | None = None,
    workspace: Workspace | None = None,
) -> LayerGradients:
    """Return the gradients of one layer that the baseline's rule sees.

    Parameters
    ----------
    Qu
        Q_u^i of every sample.
    columns
        Returns coefficients (B, R, r) of q_u^i, with f_uᵀ V_xx f_u = q_u q_uᵀ.
    workspace
        Memory for E[Q_u] and the rule's results.
    """
    factors = (lambda: linearization.factors(Qu.coefficients)) if linearization.layer.factored else None
    memory = None if workspace is None else workspace.array("gradient", Qu.base.shape, Qu.coefficients)
    mean = Qu.base.expectation(Qu.coefficients, memory)
    return LayerGradients(mean, Qu.base, Qu.coefficients, factors, columns, workspace)
