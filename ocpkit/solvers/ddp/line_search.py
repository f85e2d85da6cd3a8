"""Backtracking along a step of DDP: α = 1, ½, ¼, … until the merit has fallen enough (Armijo 1966).

A step is accepted where the merit (J, or J + ν s with open gaps) falls by at least `armijo` times what the quadratic
model promises for it, less what the rounding of J is worth. Where the model promises more than S = Σ|ℓ_t| + |φ|, which
is all that J is made of, it is wrong about more than the length of its step: then only the full step is tried, and the
damping grows where that is refused (`ocpkit.solvers.ddp.decisions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ocpkit.errors import ProblemError, refuse_hidden_fields
from ocpkit.solvers.driver import positive


@dataclass(frozen=True, kw_only=True)
class LineSearch:
    """Options of the search.

    Parameters
    ----------
    min_step_size
        Smallest α tried, at most 1.
    armijo
        Share of the promised decrease that a step must achieve, below 1.
    """

    min_step_size: float = 1e-3
    armijo: float = 1e-4

    def __post_init__(self) -> None:
        refuse_hidden_fields(self)
        positive(self, "min_step_size", "armijo")
        if self.min_step_size > 1 or self.armijo >= 1:
            raise ProblemError("min_step_size must be at most 1 and armijo below 1")

    @property
    def step_sizes(self) -> list[float]:
        """The α that are tried, in this order."""
        count = int(np.floor(-np.log2(self.min_step_size)))
        return [0.5**i for i in range(count + 1)]

    def accepts(self, actual: Any, expected: Any, noise: Any) -> Any:
        """Whether a decrease of the merit is enough for what the model promises [J]."""
        return actual >= self.armijo * expected - noise


BACKTRACKING = LineSearch()


def implausible(promised: Any, magnitude: Any) -> Any:
    """Whether a model promises a larger decrease of J than Σ|ℓ_t| + |φ|, numbers or one per problem (B,)."""
    return promised > magnitude
