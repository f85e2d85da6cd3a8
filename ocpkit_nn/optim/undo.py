"""Copies of what a training step changes, with which a failed or non-finite step is undone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ocpkit_nn.passes.moments import Memory


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
        self._memories, self._controls.count, self._moved = [], 0, 0
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
        self._controls.take([*parameters, *(tensor for memory in memories for tensor in _tensors(memory))])

    def restore_parameters(self) -> None:
        """Take back what the step has done to the parameters, and nothing else."""
        self._controls.put_back(self._moved)

    def all_finite(self, *, moments: bool) -> bool:
        """Whether the parameters that were copied are finite now, and so are the moments if they count."""
        remembered = [tensor for memory, _ in self._memories for tensor in _tensors(memory)] if moments else []
        return all(bool(tensor.isfinite().all()) for tensor in [*self._controls.live(self._moved), *remembered])

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


def _tensors(memory: Memory) -> list[Tensor]:
    """Tensors of a layer's memory; what else it holds are numbers of steps."""
    lists = [value if isinstance(value, list) else [value] for value in memory.values()]
    return [part for parts in lists for part in parts if isinstance(part, Tensor)]


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

    def live(self, count: int) -> list[Tensor]:
        """Return the first so many tensors that are to be put back, as they are now."""
        return self._live[: min(count, self.count)]

    def put_back(self, count: int | None = None) -> None:
        """Write the first so many back, by default all that were taken last."""
        count = self.count if count is None else count
        if count:
            torch._foreach_copy_(self._live[:count], self._copies[:count])
