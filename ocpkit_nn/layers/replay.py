"""Repeated evaluation of modules within a step: the same function each time, without side effects.

In ordinary training a module runs once for each step. Random numbers that it draws and buffers that it changes
(running statistics, counters, power iterations) would make a second evaluation another function, and what happens
beside the value would happen twice: a hook that only watches is to see one call, pruning to leave the pruned weight
behind. A replay begins with the random states and buffers that the first evaluation began with, runs only those hooks
that have part in the output, and puts back what was there.
"""

from __future__ import annotations

import pickle
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from ocpkit_nn.layers.structure import is_bare

RANDOM = (_DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
"""Modules of torch that draw random numbers."""

Source = tuple[Callable[[], Any], Callable[[Any], Any]]
"""Reads and writes the state of a source of random numbers."""


class Replay:
    """Random states and buffers from before the first evaluation of some modules in a step."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = list({inner: None for module in modules for inner in module.modules()})
        self._used: dict[tuple[bool, ...], list[Source]] = {}  # beside torch's, by the modules' modes
        self._sources: list[Source] = []
        self._states: list[Any] = []
        self._buffers: list[tuple[dict[str, Any], str, Tensor]] = []
        self._watched: list[nn.Module] = []  # whose hooks leave the outputs alone

    @contextmanager
    def recording(self, x: Tensor) -> Iterator[None]:
        """Context of the modules' first evaluation in a step, at x (B, …), which `replaying` repeats.

        In their first evaluation (in this mode, training or not) all sources of random numbers are looked at; from
        then on torch's and those that it drew from.
        """
        mode = tuple(inner.training for inner in self._modules)
        others, own = self._used.get(mode), _torch_sources(x)
        self._sources = [*own, *(_other_sources(self._modules) if others is None else others)]
        self._states = [read() for read, _ in self._sources]
        self._buffers = [
            (inner._buffers, name, buffer.clone())
            for inner in self._modules
            for name, buffer in inner._buffers.items()
            if buffer is not None and not is_lazy(buffer)  # type: ignore[no-untyped-call]
        ]
        hooked = [inner for inner in self._modules if inner._forward_hooks]
        with _altered_by_hooks(hooked) as altered:
            yield
        self._watched = [inner for inner in hooked if id(inner) not in altered]
        if others is None:
            used = map(self._has_drawn_from, range(len(own), len(self._sources)))
            self._used[mode] = [source for source, drawn in zip(self._sources[len(own) :], used) if drawn]

    def has_drawn(self) -> bool:
        """Whether random numbers have been drawn since the first evaluation began."""
        return any(map(self._has_drawn_from, range(len(self._sources))))

    def _has_drawn_from(self, index: int) -> bool:
        return not _equal(self._sources[index][0](), self._states[index])

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Context of a further evaluation, with the random states and buffers of the first one."""
        states = [read() for read, _ in self._sources]
        buffers = [(home, name, home[name]) for home, name, _ in self._buffers]
        hooks = [inner._forward_hooks for inner in self._watched]
        computed = [vars(inner) for inner in self._modules if inner._forward_pre_hooks]  # pruned weights, for one
        attributes = [own.copy() for own in computed]
        for home, name, value in self._buffers:
            home[name] = value.clone()
        for (_, write), state in zip(self._sources, self._states):
            write(state)
        for inner in self._watched:
            inner._forward_hooks = OrderedDict()
        try:
            yield
        finally:
            for inner, own_hooks in zip(self._watched, hooks):
                inner._forward_hooks = own_hooks
            for own, before in zip(computed, attributes):
                own.update(before)
            for home, name, value in buffers:
                home[name] = value
            for (_, write), state in zip(self._sources, states):
                write(state)


def replay_of(modules: Sequence[nn.Module]) -> Replay | None:
    """Return a replay of modules that may draw or change buffers; None if all are torch's own that do neither."""
    return Replay(modules) if any(map(_may_change, modules)) else None


def _may_change(module: nn.Module) -> bool:
    return any(
        not type(inner).__module__.startswith("torch.nn.modules.")
        or isinstance(inner, RANDOM)
        or (any(buffer is not None for buffer in inner._buffers.values()) and not isinstance(inner, _BatchNorm))
        or not is_bare(inner)
        for inner in module.modules()
    )


@contextmanager
def _altered_by_hooks(modules: Sequence[nn.Module]) -> Iterator[set[int]]:
    """Yield the ids of those modules whose hooks replace or overwrite an output, filled while the block runs."""
    altered: set[int] = set()
    before: dict[int, tuple[Any, int | None]] = {}

    def enter(module: nn.Module, inputs: Any, output: Any) -> None:
        before[id(module)] = output, _version(output)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        same, version = before.pop(id(module))
        if output is not same or version is None or _version(output) != version:
            altered.add(id(module))

    handles = [each.register_forward_hook(enter, prepend=True) for each in modules]
    handles += [each.register_forward_hook(leave) for each in modules]
    try:
        yield altered
    finally:
        for handle in handles:
            handle.remove()


def _version(output: Any) -> int | None:
    """Count of the changes in place, None for what is no tensor."""
    return output._version if isinstance(output, Tensor) else None


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
