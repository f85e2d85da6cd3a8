"""Differences of states some of whose entries are angles, which are the same 2π later.

    difference(x, y)_i = x_i − y_i,  for angles in [−π, π)

A model whose angles are declared has the period 2π in them. Then a plan goes on when a sensor jumps from π to −π, a
feedback gain sees the short way round, and a picture has no vertical lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.errors import ProblemError

TURN = 2 * np.pi


def checked_angles(value: Any, sizes: Sequence[int], what: str = "states") -> tuple[int, ...]:
    """Check the indices of angles in vectors of these sizes.

    Raises
    ------
    ProblemError
        If they are no whole numbers, no entries of every vector, or stand twice.
    """
    angles = tuple(value) if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else (value,)
    for index in angles:
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index not in range(min(sizes)):
            raise ProblemError(
                f"angles must be indices of {what}, whole numbers from 0 to {min(sizes) - 1}, got {index!r}"
            )
    if len({*angles}) < len(angles):
        raise ProblemError(f"an index stands twice in angles, got {angles}")
    return tuple(map(int, angles))


def difference(x: Array, y: Array, angles: Sequence[int]) -> Array:
    """Return x − y (…, n), entries that are angles [rad] in [−π, π); without angles at the price of a subtraction."""
    moved: Array = x - y
    if angles:
        index = list(angles)
        moved[..., index] -= _turns(moved[..., index])
    return moved


def nearest(x: Array, y: Array, angles: Sequence[int]) -> Array:
    """Return x (…, n), its angles moved by whole turns to where they are within half a turn of those of y."""
    if not angles:
        return x
    index, near = list(angles), np.array(x, dtype=float)
    near[..., index] -= _turns((near - y)[..., index])
    return near


def continued(states: Iterable[Array], angles: Sequence[int]) -> list[Array]:
    """Return states each of which is within half a turn of the one before it, the first one as it is."""
    first, *others = states
    followed = [first]
    for x in others:
        size = min(len(x), len(followed[-1]))  # sizes may change along the horizon, behind the angles
        near = np.array(x, dtype=float)
        near[:size] = nearest(near[:size], followed[-1][:size], angles)
        followed.append(near)
    return followed


def _turns(moved: Array) -> Array:
    """2π times the number of whole turns, of which none is counted in [−π, π)."""
    return TURN * np.floor(moved / TURN + 0.5)
