"""A module's second evaluation in one step: the same function as the first, without a trace.

Buffers that a forward changes (running statistics, counters, power iterations) and random numbers that it draws make
the second evaluation another function, and change twice what torch changes once. A replay begins with the buffers and
random states that the first evaluation began with, and puts back those that were there.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

RANDOM = (_DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
"""Modules of torch that draw random numbers."""

Source = tuple[Callable[[], Any], Callable[[Any], Any]]
"""Reads and writes the state of a source of random numbers."""


class Replay:
    """What the first evaluation of some modules in a step began with."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = list({inner: None for module in modules for inner in module.modules()})
        self._used: dict[tuple[bool, ...], list[Source]] = {}  # beside torch's, by the modules' modes
        self._sources: list[Source] = []
        self._states: list[Any] = []
        self._buffers: list[tuple[dict[str, Any], str, Tensor]] = []

    def record(self, x: Tensor) -> None:
        """Note what an evaluation on x (B, …) is about to begin with.

        In the modules' first evaluation (in this mode, training or not) all sources of random numbers are looked at;
        from then on torch's and those that it drew from.
        """
        self._mode = tuple(inner.training for inner in self._modules)
        others = self._used.get(self._mode)
        own = _torch_sources(x)
        self._own = len(own)
        self._sources = [*own, *(_other_sources(self._modules) if others is None else others)]
        self._states = [read() for read, _ in self._sources]
        self._buffers = [
            (inner._buffers, name, buffer.clone())
            for inner in self._modules
            for name, buffer in inner._buffers.items()
            if buffer is not None and not is_lazy(buffer)  # type: ignore[no-untyped-call]
        ]

    def has_drawn(self) -> bool:
        """Whether random numbers have been drawn since `record`."""
        return any(not _equal(read(), state) for (read, _), state in zip(self._sources, self._states))

    def settle(self) -> None:
        """End the evaluation that `record` began."""
        if self._mode not in self._used:
            used = [not _equal(read(), state) for (read, _), state in zip(self._sources, self._states)]
            self._used[self._mode] = [s for s, drawn in zip(self._sources[self._own :], used[self._own :]) if drawn]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Evaluate the modules in this context as often as need be."""
        states = [read() for read, _ in self._sources]
        buffers = [(home, name, home[name]) for home, name, _ in self._buffers]
        for home, name, value in self._buffers:
            home[name] = value.clone()
        for (_, write), state in zip(self._sources, self._states):
            write(state)
        try:
            yield
        finally:
            for home, name, value in buffers:
                home[name] = value
            for (_, write), state in zip(self._sources, states):
                write(state)


def replay_of(modules: Sequence[nn.Module]) -> Replay | None:
    """Return a replay of modules that may draw or change buffers; None where torch's own are known not to."""
    return Replay(modules) if any(map(_may_change, modules)) else None


def _may_change(module: nn.Module) -> bool:
    return any(
        not type(inner).__module__.startswith("torch.nn.modules.")
        or isinstance(inner, RANDOM)
        or (any(buffer is not None for buffer in inner._buffers.values()) and not isinstance(inner, _BatchNorm))
        or bool(inner._forward_hooks or inner._forward_pre_hooks)
        for inner in module.modules()
    )


def _torch_sources(x: Tensor) -> list[Source]:
    sources: list[Source] = [(torch.get_rng_state, torch.set_rng_state)]
    if x.is_cuda:
        device = x.device
        sources.append((lambda: torch.cuda.get_rng_state(device), lambda s: torch.cuda.set_rng_state(s, device)))
    return sources


def _other_sources(modules: Sequence[nn.Module]) -> list[Source]:
    """Python's and NumPy's global generators, and generators among the modules' attributes."""
    sources: list[Source] = [
        (random.getstate, random.setstate),
        (np.random.get_state, np.random.set_state),
    ]
    for value in (value for module in modules for value in vars(module).values()):
        if isinstance(value, torch.Generator):
            sources.append((value.get_state, value.set_state))
        elif isinstance(value, random.Random):
            sources.append((value.getstate, value.setstate))
        elif isinstance(value, np.random.Generator):
            sources.append(_numpy_source(value.bit_generator))
    return sources


def _numpy_source(bits: Any) -> Source:
    return lambda: bits.state, lambda state: setattr(bits, "state", state)


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    return pickle.dumps(first) == pickle.dumps(second)
