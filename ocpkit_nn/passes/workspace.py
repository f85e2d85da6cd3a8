"""Reusable memory for the results of a step."""

from __future__ import annotations

from torch import Tensor


class Workspace:
    """Named arrays of one layer, kept from step to step.

    A step needs the gradient of a control and its scaling at the same time; asking the system for new pages of
    that size at every step costs as much as the arithmetic on them.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, Tensor] = {}

    def array(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return the array of this name, not initialized; a new one if shape, type or device differ from the last."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape or array.dtype != like.dtype or array.device != like.device:
            array = self._arrays[name] = like.new_empty(shape)
        return array
