"""Running means of gradients over the steps, in place: SGD's velocity, the moments of RMSprop and Adam.

Lists of tensors, so that one call serves one control matrix or the parameters of all layers. The readable form for
small problems is `ocpkit.recursion.curvature`; a test holds this one to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Memory = dict[str, Any]
"""Running means and counts of one layer's control, by name."""

MOMENTS = ("velocity", "mean", "square")
"""Running means that belong to single numbers: a matrix (o, i), or a list of tensors shaped as the parameters."""


def matrix(memory: Memory, name: str, like: Tensor) -> Tensor:
    """Return a running mean (o, i), zero at first."""
    moment: Tensor | None = memory.get(name)
    if moment is None:
        moment = memory[name] = torch.zeros_like(like)
    return moment


def tensors(memory: Memory, name: str, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return a running mean shaped as the parameters, zero at first."""
    if name not in memory:
        memory[name] = [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters]
    moment: list[Tensor] = memory[name]
    return moment


def add_to_velocity(
    velocity: list[Tensor], gradients: list[Tensor], momentum: float, roots: list[Tensor] | None = None
) -> None:
    """v ← μ v + g, or with the roots of RMSprop v ← μ v + g/root."""
    torch._foreach_mul_(velocity, momentum)
    if roots is None:
        torch._foreach_add_(velocity, gradients)
    else:
        torch._foreach_addcdiv_(velocity, gradients, roots)


def average_squares(squares: list[Tensor], gradients: list[Tensor], decay: float) -> None:
    """s ← β s + (1 − β) g²."""
    torch._foreach_mul_(squares, decay)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - decay)


def average(memory: Memory, name: str, new: Tensor, decay: float) -> Tensor:
    """Return a ← β a + (1 − β) new, which starts at the first value: no bias to correct."""
    if name not in memory:
        memory[name] = new.clone()
    else:
        memory[name].mul_(decay).add_(new, alpha=1 - decay)
    mean: Tensor = memory[name]
    return mean
