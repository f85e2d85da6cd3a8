"""Penalty ρ of the augmented Lagrangian, and the schedule by which it follows the outer iterations.

With r = |y⁺ − y|/ρ, which is zero only where the rows hold and are complementary to y,

    ρ ← f ρ    where r has not fallen to the required share of what it was.

`run` follows it in Python, `tighten` of engines/c/kernel/augmented.c in C. What a row costs under ρ is in `augmented`
and `barrier`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocpkit.errors import ProblemError, refuse_hidden_fields
from ocpkit.solution.solution import WarmStart
from ocpkit.solvers.driver import positive

SEARCH_FACTOR = 100.0  # of ρ between two searches for the least violation


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """Options of the schedule of ρ.

    Parameters
    ----------
    initial, maximum
        First ρ [natural unit of J per squared unit of the row], and the ρ beyond which only the violation is minimized.
    factor
        f, above 1.
    required_decrease
        Share of what it was to which r must fall, below 1; else ρ grows.

    Raises
    ------
    ProblemError
        For a number out of its range.
    """

    initial: float = 30.0
    maximum: float = 1e9
    factor: float = 10.0
    required_decrease: float = 0.1

    def __post_init__(self) -> None:
        refuse_hidden_fields(self)
        positive(self, "initial", "maximum", "factor", "required_decrease")
        if self.factor <= 1 or self.required_decrease >= 1:
            raise ProblemError("factor of the penalty must be above 1 and required_decrease below 1")

    def first(self, warm: WarmStart | None) -> float:
        """Return the first ρ: that of a warm start, as far as it goes further and leaves room to grow.

        Else a small disturbance could end a solve as infeasible that goes on from many others.
        """
        if warm is None:
            return self.initial
        return max(self.initial, min(warm.penalty, self.maximum / self.factor**2))

    def raised(self, rho: float) -> float:
        """Return the next larger ρ, which `exhausted` may find too large."""
        return rho * self.factor

    def exhausted(self, rho: float) -> bool:
        """Whether ρ is above its maximum."""
        return rho > self.maximum

    def too_slow(self, residual: float, before: float) -> bool:
        """Whether r has not fallen by the required share."""
        return residual > self.required_decrease * before
