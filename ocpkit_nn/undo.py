"""What a training step changes, kept so that a step that fails or leaves the finite numbers leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ocpkit_nn.curvature import Memory


class Undo:
    """Copies of buffers, parameters and moments from before a step.

    Buffers are copied at every step, the others only where a step may fail after it has begun to change them: in a
    wide network copies of all weights and moments take a tenth of a step.

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
        self._moved = 0

    def keep_buffers(self) -> None:
        """Copy the buffers, before a step's first forward pass."""
        self._memories, self._controls.count = [], 0
        self._homes = [
            (inner._buffers, name, buffer)
            for inner in self._modules
            for name, buffer in inner._buffers.items()
            if buffer is not None and not is_lazy(buffer)  # type: ignore[no-untyped-call]
        ]
        self._buffers.take([buffer for *_, buffer in self._homes])

    def keep_controls(self, parameters: Sequence[Tensor], memories: Sequence[Memory]) -> None:
        """Copy parameters and what the baselines' rules remember of the layers, before a step changes them."""
        self._memories, self._moved = [(memory, memory.copy()) for memory in memories], len(parameters)
        live = list(parameters)
        for memory in memories:
            for value in memory.values():
                if isinstance(value, Tensor):
                    live.append(value)
                elif isinstance(value, list):
                    live += [part for part in value if isinstance(part, Tensor)]  # others are numbers of steps
        self._controls.take(live)

    def restore_parameters(self) -> None:
        """Take back what the step has done to the parameters, and nothing else."""
        self._controls.put_back(self._moved)

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
    """Copies of tensors, in memory that is kept as long as it is for the same tensors.

    Attributes
    ----------
    count
        How many of them are to be put back.
    """

    def __init__(self) -> None:
        self._live: list[Tensor] = []
        self._copies: list[Tensor] = []
        self.count = 0

    def take(self, live: list[Tensor]) -> None:
        self.count = len(live)
        if not live:
            return
        known = list(map(id, live)) == list(map(id, self._live))
        if not known or live[0].dtype is not self._copies[0].dtype:  # `model.double()` keeps the tensors
            self._live, self._copies = live, [torch.empty_like(tensor, requires_grad=False) for tensor in live]
        torch._foreach_copy_(self._copies, live)

    def put_back(self, count: int | None = None) -> None:
        """Write the first so many back, by default all that were taken last."""
        count = self.count if count is None else count
        if count:
            torch._foreach_copy_(self._live[:count], self._copies[:count])
