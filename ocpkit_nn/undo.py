"""What a training step changes, kept so that a step that fails or leaves the finite numbers leaves nothing behind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ocpkit_nn.curvature import Memory


class Undo:
    """Copies of buffers, parameters and moments from before a step.

    They are written where the last step's were, which makes them cheap: a hundredth of a step.

    Parameters
    ----------
    modules
        Whose buffers a forward pass may change.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list({inner: None for module in modules for inner in module.modules()})
        self._buffers, self._controls = _Copies(), _Copies()
        self._memories: list[tuple[Memory, Memory]] = []
        self._homes: list[tuple[dict[str, Any], str, Tensor]] = []
        self._parameters: list[Tensor] = []

    def keep_buffers(self) -> None:
        """Copy the buffers, before a step's first forward pass."""
        self._memories, self._parameters = [], []
        self._homes = [
            (inner._buffers, name, buffer)
            for inner in self._modules
            if inner._buffers
            for name, buffer in inner._buffers.items()
            if buffer is not None and not is_lazy(buffer)  # type: ignore[no-untyped-call]
        ]
        self._buffers.take([buffer for *_, buffer in self._homes])
        self._controls.take([])

    def keep_controls(self, parameters: Sequence[Tensor], memories: Sequence[Memory]) -> None:
        """Copy parameters and what the baselines' rules remember of the layers, before a step changes them."""
        self._parameters = list(parameters)
        self._memories = [(memory, dict(memory)) for memory in memories]
        moments = [tensor for memory in memories for value in memory.values() for tensor in _tensors(value)]
        self._controls.take([*self._parameters, *moments])

    def restore_parameters(self) -> None:
        """Take back what the step has done to the parameters, and nothing else."""
        self._controls.put_back(len(self._parameters))

    @torch.no_grad()
    def restore(self) -> None:
        """Take back the step."""
        self._controls.put_back()
        self._buffers.put_back()
        for memory, kept in self._memories:
            memory.clear()
            memory.update(kept)
        for home, name, buffer in self._homes:
            home[name] = buffer


class _Copies:
    """Copies of tensors, in memory that is kept as long as it is for the same tensors."""

    def __init__(self) -> None:
        self._live: list[Tensor] = []
        self._copies: list[Tensor] = []

    def take(self, live: list[Tensor]) -> None:
        same = len(live) == len(self._live) and all(
            new is old and new.dtype is copy.dtype and new.device == copy.device and new.shape == copy.shape
            for new, old, copy in zip(live, self._live, self._copies)
        )
        if not same:
            self._live, self._copies = live, [torch.empty_like(tensor, requires_grad=False) for tensor in live]
        if live:
            torch._foreach_copy_(self._copies, live)

    def put_back(self, count: int | None = None) -> None:
        if self._live:
            torch._foreach_copy_(self._live[:count], self._copies[:count])


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [each for each in value if isinstance(each, Tensor)] if isinstance(value, (list, tuple)) else []


def finite(loss: Tensor, parameters: Sequence[Tensor]) -> float | None:
    """Return a loss as a number if it and all parameters are finite, for one sum each and one synchronisation."""
    sums = [_sum(parameter.detach()).to(loss) for parameter in parameters]
    numbers = torch.stack([loss, *sums]).tolist()
    # a sum of large numbers may overflow where none of them has
    if all(map(math.isfinite, numbers)) or all(bool(tensor.isfinite().all()) for tensor in (loss, *parameters)):
        return float(numbers[0])
    return None


def _sum(tensor: Tensor) -> Tensor:
    """Return the sum, in single precision where half would overflow."""
    return tensor.sum(dtype=torch.float32) if tensor.element_size() < 4 else tensor.sum()


def first_not_finite(samples: object) -> int | None:
    """Return the index of the first sample of (B, …) that is not finite."""
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        return None
    wrong = (~samples.isfinite()).flatten(1).any(1) if samples.ndim > 1 else ~samples.isfinite()
    return int(wrong.nonzero()[0]) if bool(wrong.any()) else None
