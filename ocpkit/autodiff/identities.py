"""A key for what was traced from the parts of a problem: the parts themselves, compared by identity."""

from __future__ import annotations

from typing import Any


class Identities:
    """Objects as one hashable key; equal only to a key of the very same objects.

    Problems made by ``Problem.replace`` share their stages, so functions of stages that are cached under this key are
    traced once for all of them. The key keeps its objects alive, hence an identity is never used twice.
    """

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self._hash = hash(tuple(map(id, parts)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Identities)
            and len(self.parts) == len(other.parts)
            and all(mine is theirs for mine, theirs in zip(self.parts, other.parts))
        )
