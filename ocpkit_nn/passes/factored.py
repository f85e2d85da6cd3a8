"""The backward pass of DDPNOpt (Alg. 3, lines 6-13) with V_xx^i in factors, in two forms.

`bellman_pass` is the core's recursion on implicit batch arrays, for any number of columns. `parallel_pass` is
the same mathematics for the paper's rank-one case z ∥ V_x with the proximal Q_uu, where one scalar per sample
is all that is left of the recursion:

    c = q_uᵀ M⁻¹ q_u,   V_x ← Q_x/(1 + c),   z ← q_x/√(1 + c),   K δx = −M⁻¹ q_u (q_xᵀ δx)/(1 + c).

The tests hold the second to the first. `dense_pass` is for V_xx + ε I, which has no short factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocpkit.recursion.bellman import ActionValue, backward_pass
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.value import OuterProduct, Value
from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.stages import Jacobian, Linearisation
from ocpkit_nn.layers.vectors import Combination, StateBase
from ocpkit_nn.passes.curvature import LayerGradients, SampleHessian
from ocpkit_nn.passes.gains import FeedbackGain
from ocpkit_nn.passes.workspace import Workspace

LayerRule = Callable[[int, LayerGradients], tuple[Metric, Tensor]]
"""Maps (stage, gradients) to M/η and the direction g that stands for E[Q_u]."""


@dataclass(frozen=True)
class LayerPolicy:
    """δu = k + (1/B) Σ_i K_i δx_i of one layer, with k = −M⁻¹ g.

    Attributes
    ----------
    direction
        g (o, i), the baseline's stand-in for E[Q_u].
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


def bellman_pass(
    linearisations: list[Linearisation],
    gradient: Tensor,
    columns: Tensor,
    rule: LayerRule,
    *,
    proximal: bool,
) -> list[LayerPolicy]:
    """Run the core's backward pass on a batch of trajectories that share their controls.

    Parameters
    ----------
    gradient, columns
        ∇φ of every sample (B, …), and the columns (r, B, …) of a root of its Hessian.
    """

    def through_batch(t: int, V: Value) -> Value:
        if not linearisations[t].couples_samples:
            return V
        base, coefficients = V.x.base, V.xx.left.coefficients
        columns = torch.stack([base.combine(column) for column in coefficients.unbind(2)])
        return _implicit(linearisations[t].through_batch(base.combine(V.x.coefficients)), columns)

    curvature = _BatchCurvature(linearisations, rule, proximal)
    stages = [Expansion(Jacobian(lin.pull_state), Jacobian(lin.pull_control), 0.0, 0.0) for lin in linearisations]
    steps = backward_pass(stages, _implicit(gradient, columns), curvature, passed_on=through_batch)
    policies = []
    for t, step in enumerate(steps):
        left, right = step.K.left, step.K.right
        core = left.coefficients @ right.coefficients.transpose(1, 2)
        gain = FeedbackGain(left.base, right.base, core, curvature.metrics[t]) if t > 0 else None
        policies.append(LayerPolicy(curvature.directions[t], curvature.metrics[t], gain))
    return policies


def _implicit(gradient: Tensor, columns: Tensor) -> Value:
    """Return V with V_x (B, …) and the columns (r, B, …) of a root of V_xx as the base."""
    base = StateBase(torch.cat([gradient[None], columns]))
    unit = torch.eye(len(columns) + 1, dtype=gradient.dtype, device=gradient.device)
    factor = Combination(base, unit[:, 1:].expand(len(gradient), -1, -1))
    return Value(Combination(base, unit[0].expand(len(gradient), -1)), OuterProduct(factor, factor))


class _BatchCurvature:
    """Asks the baseline's rule for the shared M/η and hands Q_uu^i to the Bellman step."""

    def __init__(self, linearisations: list[Linearisation], rule: LayerRule, proximal: bool) -> None:
        self.linearisations, self.rule, self.proximal = linearisations, rule, proximal
        self.directions: dict[int, Tensor] = {}
        self.metrics: dict[int, Metric] = {}

    def __call__(self, t: int, Q: ActionValue) -> tuple[SampleHessian, Combination]:
        columns = Q.ux.left
        Q.u.base.prepare()
        metric, direction = self.rule(t, layer_gradients(self.linearisations[t], Q.u, lambda: columns.coefficients))
        self.metrics[t], self.directions[t] = metric, direction
        return SampleHessian(metric, columns, self.proximal), Q.u


def layer_gradients(
    linearisation: Linearisation,
    Qu: Combination,
    columns: Callable[[], Tensor] | None = None,
    workspace: Workspace | None = None,
) -> LayerGradients:
    """What the baseline's rule may look at."""
    factors = (lambda: linearisation.factors(Qu.coefficients)) if linearisation.layer.factored else None
    memory = None if workspace is None else workspace.array("gradient", Qu.base.shape, Qu.coefficients)
    mean = Qu.base.expectation(Qu.coefficients, memory)
    return LayerGradients(mean, Qu.base, Qu.coefficients, factors, columns, workspace)


def parallel_pass(
    linearisations: list[Linearisation],
    gradient: Tensor,
    rule: LayerRule,
    *,
    feedback: bool,
    scale: float,
    workspaces: Sequence[Workspace] | None = None,
) -> list[LayerPolicy]:
    """One ordinary back-propagation, and one scalar per sample and layer.

    Parameters
    ----------
    gradient
        ∇φ of every sample, (B, …).
    scale
        Factor of ∇φ ∇φᵀ in the terminal Hessian.
    workspaces
        Memory of every layer; the policies then hold until the next pass with it.
    """
    base, ratio = StateBase(gradient[None]), gradient.new_full((), scale)
    weight = gradient.new_ones(len(gradient), 1)  # V_x = weight · base, z zᵀ = ratio · weight · base baseᵀ
    policies: list[LayerPolicy] = []
    for t in reversed(range(len(linearisations))):
        linearisation = linearisations[t]
        control, state = linearisation.pull_control(base), linearisation.pull_state(base)
        bends = feedback and t > 0  # nothing precedes stage 0
        if bends:
            control.prepare()
        workspace = None if workspaces is None else workspaces[t]
        metric, direction = rule(t, layer_gradients(linearisation, Combination(control, weight), workspace=workspace))
        gain = None
        if bends:
            c = (weight * control.gram(metric)[..., 0]).mul_(ratio)
            weight = weight / c.add_(1)
            gain = FeedbackGain(control, state, (weight * -ratio)[..., None], metric)
        policies.append(LayerPolicy(direction, metric, gain))
        base = state
        if t > 0 and linearisation.couples_samples:
            base, weight, ratio = through_batch(linearisation, base, weight, ratio)
    return policies[::-1]


def through_batch(
    linearisation: Linearisation, base: StateBase, weight: Tensor, ratio: Tensor
) -> tuple[StateBase, Tensor, Tensor]:
    """Return V_x of the batch's total cost as a base of weight 1; z stays parallel to it, as at the end (z ∥ ∇φ)."""
    Vx = linearisation.through_batch(base.combine(weight))
    return StateBase(Vx[None]), torch.ones_like(weight), ratio / weight
