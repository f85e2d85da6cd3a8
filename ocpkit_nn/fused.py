"""The steps of the element-wise baselines, moments included, in one pass over a layer's memory.

`curvature` splits such a step into M and a direction, because exact gains need M before the step is known; here nobody
does. torch's fused kernel of Adam reads and writes every number once (where torch has it for the device); RMSprop is
its case β₁ = 0 without correction of the bias (step ∞).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from ocpkit_nn.curvature import Memory
from ocpkit_nn.layers import Layer
from ocpkit_nn.metric import Metric, RootMetric

CURVATURES = ("identity", "diagonal", "adam")
MOMENTS = ("velocity", "mean", "square")
"""What a layer's memory may hold, each a list of tensors like the parameters."""
WITH_KERNEL = ("cpu", "cuda")
"""Devices for which torch fuses Adam."""


def descend(curvature: str, layer: Layer, gradient: list[Tensor], memory: Memory, options: dict[str, Any]) -> None:
    """Take the baseline's step.

    Parameters
    ----------
    gradient
        One contiguous tensor for each of the layer's parameters; overwritten.
    memory
        The layer's moments.
    """
    parameters = layer.parameters
    if not all(map(Tensor.is_contiguous, parameters)):  # the kernel takes memory as it lies
        gradient = [torch.empty_like(own).copy_(part) for own, part in zip(parameters, gradient)]
    if options["weight_decay"]:
        torch._foreach_add_(gradient, parameters, alpha=options["weight_decay"])
    if curvature == "identity":
        if options["momentum"]:
            velocity = _moment(memory, "velocity", parameters)
            torch._foreach_mul_(velocity, options["momentum"])
            torch._foreach_add_(velocity, gradient)
            gradient = velocity
        torch._foreach_add_(parameters, gradient, alpha=-options["lr"])
        return
    squares = _moment(memory, "square", parameters)
    if curvature == "diagonal":
        means, (b1, b2) = gradient, (0.0, options["decay"])
    else:
        means, (b1, b2) = _moment(memory, "mean", parameters), options["betas"]
    step = memory.setdefault("step", math.inf if curvature == "diagonal" else 0.0)
    memory["step"] = step + 1
    adam(
        parameters,
        gradient,
        means,
        squares,
        [],
        [torch.full((), step, dtype=torch.float32, device=own.device) for own in parameters],
        fused=parameters[0].device.type in WITH_KERNEL,
        lr=options["lr"],
        beta1=b1,
        beta2=b2,
        weight_decay=0.0,
        eps=options["eps"],
        amsgrad=False,
        maximize=False,
    )


def metric(curvature: str, layer: Layer, memory: Memory, options: dict[str, Any]) -> Metric | None:
    """Return M/η after the last step, None before the first one."""
    if curvature == "identity":
        return Metric(options["lr"])
    if "square" not in memory:
        return None
    correction = 1.0 if curvature == "diagonal" else 1 - options["betas"][1] ** memory["step"]
    root = (layer.join(memory["square"]) / correction).sqrt_().add_(options["eps"])
    return RootMetric(root, options["lr"])


def _moment(memory: Memory, name: str, parameters: list[Tensor]) -> list[Tensor]:
    """Return a running mean, zero at first."""
    if name not in memory:
        memory[name] = [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters]
    moment: list[Tensor] = memory[name]
    return moment
