"""The filter: pairs of violation and objective that a step may not be worse than in both (Fletcher & Leyffer 2002)."""

from __future__ import annotations

from dataclasses import dataclass, field

GAMMA_VIOLATION, GAMMA_COST = 1e-5, 1e-8
"""Least shares of the violation by which a step lowers it, or the objective (Wächter & Biegler 2006, Eq. 18)."""


@dataclass
class Filter:
    """Pairs (θ, φ) that have been left, with their margins; and the largest θ."""

    largest: float
    pairs: list[tuple[float, float]] = field(default_factory=list)

    def accepts(self, violation: float, cost: float) -> bool:
        """Whether a point is better than each pair in one of both."""
        return violation <= self.largest and all(violation < theta or cost < phi for theta, phi in self.pairs)

    def add(self, violation: float, cost: float) -> None:
        """Forbid what is no better than this point; pairs that it covers go."""
        pair = (1 - GAMMA_VIOLATION) * violation, cost - GAMMA_COST * violation
        self.pairs = [each for each in self.pairs if each[0] < pair[0] or each[1] < pair[1]]
        self.pairs.append(pair)
