"""Moments of the baselines where a network is cut into other controls than before.

A memory belongs to a control and is kept under its first parameter. When the control changes (a bias is frozen, a
layer gets a hook), moments that belong to single numbers go with their parameters, as they do in torch; averages
over the whole control, such as Kronecker's factors, begin anew.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ocpkit_nn.layers.layers import Layer
from ocpkit_nn.passes.moments import MOMENTS, Memory

COUNTS = ("count", "step")
"""Numbers of steps: one for the control, or one for each of its numbers or parameters where they differ."""
APART = "apart"
"""Place of the moments of a parameter that is in no control, shaped as the parameter."""


def check_form(memories: Iterable[Memory], gains: str) -> None:
    """Check that saved moments have the form of this kind of gains.

    Raises
    ------
    ValueError
        If they are in that of the other kind.
    """
    kind = list if gains == "separable" else Tensor
    for memory in memories:
        if any(not isinstance(memory.get(name, kind()), kind) for name in MOMENTS):
            raise ValueError(
                f'the moments saved are not in the form of gains="{gains}": load them into an optimizer with the gains '
                "they were trained with, or train again"
            )


def carry(state: MutableMapping[Tensor, Memory], before: Sequence[Layer], after: Sequence[Layer], lists: bool) -> None:
    """Move what is remembered from the controls before to those after.

    Parameters
    ----------
    state
        The memories of all controls.
    lists
        Whether moments are lists of tensors like the parameters, else matrices.
    """
    same = {_control(layer) for layer in before} & {_control(layer) for layer in after}
    for layer in before:
        if _control(layer) not in same:
            _part(state, layer)
    for layer in after:
        if _control(layer) not in same:
            _join(state, layer, lists)


def _control(layer: Layer) -> tuple[Any, ...]:
    return type(layer), *map(id, layer.parameters)


def _part(state: MutableMapping[Tensor, Memory], layer: Layer) -> None:
    memory = state.pop(layer.parameters[0], {})
    kept = {name: memory[name] for name in MOMENTS if name in memory}
    if not kept:
        return
    kept |= {name: memory[name] for name in COUNTS if name in memory}
    for name, value in kept.items():
        parts = value if isinstance(value, list) else layer.split(value) if isinstance(value, Tensor) else None
        for index, parameter in enumerate(layer.parameters):
            part = value if parts is None else parts[index]
            if name in COUNTS and isinstance(part, Tensor):
                part = float(part.flatten()[0])
            apart = state.setdefault(parameter, {}).setdefault(APART, {})
            apart[name] = part.clone() if isinstance(part, Tensor) else part


def _join(state: MutableMapping[Tensor, Memory], layer: Layer, lists: bool) -> None:
    memory = Memory()
    pieces = [state.get(parameter, {}).pop(APART, {}) for parameter in layer.parameters]
    for name in MOMENTS:
        if any(name in piece for piece in pieces):
            parts = [
                piece[name] if name in piece else torch.zeros_like(parameter, requires_grad=False)
                for piece, parameter in zip(pieces, layer.parameters)
            ]
            memory[name] = parts if lists else layer.join(parts)
    for name in COUNTS:
        known = [piece[name] for piece in pieces if name in piece]
        if known:
            fresh = known[0] if known[0] == float("inf") else 0  # a rule that counts no steps
            counts = [piece.get(name, fresh) for piece in pieces]
            memory[name] = counts[0] if len(set(counts)) == 1 else counts if lists else _as_matrix(layer, counts)
    for parameter in layer.parameters:
        if parameter in state and not state[parameter]:
            del state[parameter]
    if memory:
        state.setdefault(layer.parameters[0], {}).update(memory)


def _as_matrix(layer: Layer, counts: Sequence[float]) -> Tensor:
    return layer.join([torch.full_like(p, count, requires_grad=False) for p, count in zip(layer.parameters, counts)])
