"""The baseline whose M and step DDPNOpt borrows (SGD, RMSprop, Adam, KFAC, EKFAC), as the passes of one step see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.vectors import ControlBase
from ocpkit_nn.passes import fused
from ocpkit_nn.passes.curvature import RULES, LayerGradients
from ocpkit_nn.passes.moments import Memory


@dataclass(frozen=True)
class Baseline:
    """A curvature's rule with the moments and options of every layer.

    Attributes
    ----------
    curvature
        A name of `curvature.RULES`.
    layers, memories, options
        Of every stage; the options of one parameter group are one dictionary.
    """

    curvature: str
    layers: Sequence[Layer]
    memories: Sequence[Memory]
    options: Sequence[dict[str, Any]]

    def __call__(self, t: int, gradients: LayerGradients) -> tuple[Metric, Tensor]:
        """Update the moments of stage t; return M/η and the direction g."""
        decay = self.options[t]["weight_decay"]
        if decay:
            gradients = replace(gradients, mean=gradients.mean + decay * self.layers[t].matrix())
        return RULES[self.curvature](gradients, self.memories[t], self.options[t])

    def metric(self, t: int, **changes: Any) -> Metric | None:
        """Return M/η of stage t after its last step by `descend`, None before the first one."""
        return fused.metric(self.curvature, self.layers[t], self.memories[t], {**self.options[t], **changes})

    def metric_without_rate(self, t: int, control: ControlBase, weight: Tensor) -> Metric:
        """Return M of stage t; before the first step that of the first gradient, control · weight, alone."""
        known = self.metric(t, lr=1.0)
        if known is not None:
            return known
        fresh = Baseline(self.curvature, [self.layers[t]], [{}], [{**self.options[t], "lr": 1.0}])
        return fresh(0, LayerGradients(control.expectation(weight), control, weight, None))[0]

    def step(self, t: int, gradient: list[Tensor]) -> None:
        """Take the baseline's step at stage t, on the gradient for its parameters."""
        fused.descend(self.curvature, [self.layers[t]], [gradient], [self.memories[t]], self.options[t])

    def descend(self, stages: Sequence[int], gradients: Sequence[list[Tensor]]) -> None:
        """Take the baseline's step at some stages, on the gradients for their parameters; at once in each group."""
        left = list(zip(stages, gradients))
        while left:
            options = self.options[left[0][0]]
            same = [pair for pair in left if self.options[pair[0]] is options]
            left = [pair for pair in left if self.options[pair[0]] is not options]
            layers, memories = [self.layers[t] for t, _ in same], [self.memories[t] for t, _ in same]
            fused.descend(self.curvature, layers, [gradient for _, gradient in same], memories, options)
