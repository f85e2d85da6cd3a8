"""Steps of the element-wise baselines, moments included, in one pass over a layer's memory.

`curvature` splits such a step into M and a direction, because exact gains need M before the step is known; separable
gains do not. torch's fused kernel of Adam reads and writes every number once (where torch has it for the device);
RMSprop is its case β₁ = 0 without correction of the bias (step ∞).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.layers.metric import Metric, RootMetric
from ocpkit_nn.passes import moments
from ocpkit_nn.passes.moments import Memory

CURVATURES = ("identity", "diagonal", "adam")
WITH_KERNEL = ("cpu", "cuda")
"""Devices for which torch fuses Adam."""


def descend(
    curvature: str,
    layers: Sequence[Layer],
    gradients: Sequence[list[Tensor]],
    memories: Sequence[Memory],
    options: dict[str, Any],
) -> None:
    """Take the baseline's step at some layers at once.

    Parameters
    ----------
    gradients
        Of each layer one contiguous tensor for each of its parameters; overwritten.
    memories
        Each layer's moments.
    """
    parameters, gradient = _flat(layer.parameters for layer in layers), _flat(gradients)
    if not all(map(Tensor.is_contiguous, parameters)):  # the kernel takes memory as it lies
        gradient = [torch.empty_like(own).copy_(part) for own, part in zip(parameters, gradient)]

    def moment(name: str) -> list[Tensor]:
        return _flat(moments.tensors(memory, name, layer.parameters) for layer, memory in zip(layers, memories))

    if options["weight_decay"]:
        torch._foreach_add_(gradient, parameters, alpha=options["weight_decay"])
    if curvature == "identity" or (curvature == "diagonal" and options.get("momentum")):
        _step_with_velocity(curvature, parameters, gradient, moment, options)
        return
    if curvature == "diagonal":
        means, first, (b1, b2) = gradient, math.inf, (0.0, options["decay"])
    else:
        means, first, (b1, b2) = moment("mean"), 0.0, options["betas"]
    adam(
        parameters,
        gradient,
        means,
        moment("square"),
        [],
        _flat(_steps(memory, layer.parameters, first) for layer, memory in zip(layers, memories)),
        fused=parameters[0].device.type in WITH_KERNEL,
        lr=options["lr"],
        beta1=b1,
        beta2=b2,
        weight_decay=0.0,
        eps=options["eps"],
        amsgrad=False,
        maximize=False,
    )


def _step_with_velocity(
    curvature: str,
    parameters: list[Tensor],
    gradient: list[Tensor],
    moment: Callable[[str], list[Tensor]],
    options: dict[str, Any],
) -> None:
    """Take the step of SGD, or of RMSprop with momentum, for which there is no kernel."""
    roots, step = None, gradient
    if curvature == "diagonal":
        squares = moment("square")
        moments.average_squares(squares, gradient, options["decay"])
        roots = list(torch._foreach_sqrt(squares))
        torch._foreach_add_(roots, options["eps"])
    if options["momentum"]:
        step = moment("velocity")
        moments.add_to_velocity(step, gradient, options["momentum"], roots)
    torch._foreach_add_(parameters, step, alpha=-options["lr"])


def _flat(lists: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    return [tensor for each in lists for tensor in each]


def _steps(memory: Memory, parameters: list[Tensor], first: float) -> tuple[Tensor, ...]:
    """Return the number of the steps so far, for each parameter, and count one more."""
    step, device = memory.setdefault("step", first), parameters[0].device
    if isinstance(step, list):
        memory["step"] = [each + 1 for each in step]
        return torch.tensor(step, dtype=torch.float32, device=device).unbind()
    memory["step"] = step + 1
    return torch.full((len(parameters),), step, dtype=torch.float32, device=device).unbind()


def metric(curvature: str, layer: Layer, memory: Memory, options: dict[str, Any]) -> Metric | None:
    """Return M/η after the last step, None before the first one."""
    if curvature == "identity":
        return Metric(options["lr"])
    if "square" not in memory:
        return None
    squares, step = memory["square"], memory.get("step", math.inf)  # none are counted with momentum
    if isinstance(step, list):  # of each parameter
        square = layer.join([own / _correction(curvature, options, each) for own, each in zip(squares, step)])
    else:
        square = layer.join(squares) / _correction(curvature, options, step)
    return RootMetric(square.sqrt_().add_(options["eps"]), options["lr"])


def _correction(curvature: str, options: dict[str, Any], step: float) -> float:
    """Return the share of the squares that a running mean has seen after so many steps."""
    return 1.0 if curvature == "diagonal" else 1 - options["betas"][1] ** step
