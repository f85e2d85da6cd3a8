"""Deconvolution: from the activations of a layer back to the image (Zeiler & Fergus 2014), as Alg. 4 needs it.

On the way back a convolution is its transpose with the same filters, a Linear layer its transpose, max-pooling puts
each value where the maximum was on the way there (the "switches"), and ReLU is ReLU again. Biases are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

Back = Callable[[Tensor], Tensor]


def project(modules: Sequence[nn.Module], image: Tensor, direction: Tensor) -> Tensor:
    """Project a direction in the space after `modules` back to the image.

    A direction has two signs and ReLU lets one pass, so its positive and its negative part go back each for itself
    and are subtracted.

    Parameters
    ----------
    modules
        The layers between the image and the activations, in the order in which they are applied.
    image
        (C, H, W): where the switches of max-pooling are set.
    direction
        As many numbers as there are activations.

    Returns
    -------
    Tensor
        (C, H, W).

    Raises
    ------
    ValueError
        For a module that has no deconvolution here.
    """
    steps: list[Back] = []
    x = image[None].detach()
    with torch.no_grad():
        for module in modules:
            x, back = _step(module, x)
            steps.append(back)
        signed = direction.reshape(x.shape).to(x)
        positive, negative = signed.clamp_min(0), (-signed).clamp_min(0)
        for back in reversed(steps):
            positive, negative = back(positive), back(negative)
    return (positive - negative)[0]


def _step(module: nn.Module, x: Tensor) -> tuple[Tensor, Back]:
    """Apply a module, and return what it is on the way back."""
    shape = x.shape
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        options = (module.stride, module.padding, module.dilation, module.groups)
        return module(x), lambda y: conv2d_input(shape, module.weight, y, *options)
    if isinstance(module, nn.Linear):
        return module(x), lambda y: y @ module.weight
    if isinstance(module, nn.ReLU):
        return F.relu(x), F.relu
    if isinstance(module, nn.Flatten):
        return module(x), lambda y: y.reshape(shape)
    if isinstance(module, nn.MaxPool2d) and not module.ceil_mode and module.dilation == 1:
        pooled, switches = F.max_pool2d(x, module.kernel_size, module.stride, module.padding, return_indices=True)
        return pooled, lambda y: _unpool(y, switches, shape)
    raise ValueError(f"no deconvolution for {module}; give Conv2d, Linear, ReLU, MaxPool2d or Flatten")


def _unpool(y: Tensor, switches: Tensor, shape: torch.Size) -> Tensor:
    """Add every value to the place of its maximum."""
    empty = y.new_zeros(*shape[:2], shape[2] * shape[3])
    return empty.scatter_add(2, switches.flatten(2), y.flatten(2)).reshape(shape)
