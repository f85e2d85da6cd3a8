"""Levenberg damping μ of DDP's backward pass, and the schedule by which it follows the iterates.

Q_uu + μ D, or V_xx + μ diag |V_xx|, stands for the exact matrix: μ has no unit (see `recursion.curvature.Metric`). It
grows where Q_uu is not positive definite or no step is accepted, and shrinks after good steps (see `decisions`):

    geometric    μ ← μ f                    and   μ ← μ/f
    quadratic    δ ← max(f, δ f), μ ← μ δ   and   δ ← min(1/f, δ/f), μ ← μ δ      (Tassa, Erez & Todorov 2012)

Up to the minimum μ jumps at once, and below it it is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ocpkit.errors import ProblemError, refuse_hidden_fields, unknown_name
from ocpkit.solvers.driver import not_negative, positive

TARGETS = ("control", "state")
GROWTHS = ("geometric", "quadratic")


@dataclass(frozen=True)
class Level:
    """State of the schedule.

    Attributes
    ----------
    value
        μ, a number or one per problem (B,).
    growth
        δ, the factor by which it has changed last.
    """

    value: Any
    growth: Any


@dataclass(frozen=True, kw_only=True)
class Damping:
    """Options of the damping.

    Parameters
    ----------
    target
        Where it goes: ``"control"``, Q_uu + μ D, or ``"state"``, V_xx + μ diag |V_xx|. With ``scaling=False`` of the
        solver: + μ I.
    initial
        μ of the first pass.
    minimum, maximum
        Bounds of μ; below the minimum it is zero, above the maximum the solver gives up.
    factor
        f, above 1.
    growth
        ``"geometric"``: always by f; ``"quadratic"``: by f, f², f³, … while it goes on in one direction.
    """

    target: str = "control"
    initial: float = 0.0
    minimum: float = 4e-3
    maximum: float = 1e12
    factor: float = 4.0
    growth: str = "geometric"

    def __post_init__(self) -> None:
        refuse_hidden_fields(self)
        positive(self, "minimum", "maximum", "factor")
        not_negative(self, "initial")
        if self.target not in TARGETS:
            raise unknown_name("target of the damping", self.target, TARGETS)
        if self.growth not in GROWTHS:
            raise unknown_name("growth of the damping", self.growth, GROWTHS)
        if self.factor <= 1:
            raise ProblemError(f"factor of the damping must be above 1, got {self.factor!r}")
        if not max(self.factor, self.maximum) < float("inf"):
            raise ProblemError("factor and maximum of the damping must be finite: μ would grow for ever")
        if self.minimum > self.maximum:
            raise ProblemError("minimum of the damping must not be above its maximum")

    @property
    def on_state(self) -> bool:
        """Whether V_xx is damped, not Q_uu."""
        return self.target == "state"

    @property
    def quadratic(self) -> bool:
        """Whether the factor grows while μ goes on in one direction."""
        return self.growth == "quadratic"

    def start(self) -> Level:
        """Return where the schedule begins."""
        return Level(self.initial, 1.0)

    def raised(self, level: Level) -> Level:
        """Return the next larger μ, which `exhausted` may find too large."""
        growth = _larger(level.growth * self.factor, self.factor) if self.quadratic else self.factor
        return Level(_larger(level.value * growth, self.minimum), growth)

    def lowered(self, level: Level) -> Level:
        """Return the next smaller μ, zero below the minimum."""
        growth = _smaller(level.growth / self.factor, 1 / self.factor) if self.quadratic else 1 / self.factor
        value = level.value * growth
        return Level(value * (value >= self.minimum), growth)

    def exhausted(self, level: Level) -> Any:
        """Whether μ is above its maximum."""
        return level.value > self.maximum


QUADRATIC = Damping(minimum=1e-5, factor=2.0, growth="quadratic")
"""The schedule of Tassa et al.; it suits solves that are warm-started from one function to the next, nearly alike."""


def _larger(value: Any, bound: float) -> Any:
    """Return the larger of the two, entry by entry, of the type of the value."""
    other = 0.0 * value + bound
    return value * (value >= bound) + other * (value < bound)


def _smaller(value: Any, bound: float) -> Any:
    return -_larger(-value, -bound)
