"""Step size of a training step: halved until the total cost of the batch does not rise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ocpkit_nn.layers.stages import Stage

HALVINGS = 10
"""Halvings of the step size, at most."""


def backtrack(cost_after: Callable[[float], float], before: float, undo: Callable[[], None]) -> None:
    """Take the first of α = 1, ½, ¼, … at which the cost does not rise; take no step where none is.

    Parameters
    ----------
    cost_after
        Takes the step of size α and returns the cost.
    before
        Cost without a step.
    undo
        Takes the last step back.
    """
    for halvings in range(HALVINGS + 1):
        if cost_after(0.5**halvings) <= before:
            return
        undo()


def running_cost(stages: Iterable[Stage], options: Iterable[dict[str, Any]]) -> float:
    """Return Σ_t ½ λ ‖u_t‖²."""
    decayed = [(stage.layer, group["weight_decay"]) for stage, group in zip(stages, options)]
    return sum(0.5 * decay * float(layer.matrix().square().sum()) for layer, decay in decayed if decay)
