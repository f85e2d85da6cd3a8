"""Affine policy around a trajectory: what the backward pass hands to whoever applies it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class AffinePolicy:
    """Affine policy u = u*_t + α k_t + K_t (x − x*_t), Alg. 1, line 9.

    Attributes
    ----------
    states, controls
        x*_t (n,) and u*_t (m,) of the trajectory.
    feedforward, feedback_gains
        k_t (m,) and K_t (m, n); None: zero.
    difference
        (x, x*) → x − x* (n,), which for angles is modulo 2π.
    """

    states: Sequence[Any]
    controls: Sequence[Any]
    feedforward: Sequence[Any] | None
    feedback_gains: Sequence[Any] | None
    difference: Callable[[Any, Any], Any]

    def control(self, t: int, x: Any, step_size: float = 1.0) -> Any:
        """Return u (m,) at stage t and state x (n,), not yet put inside bounds."""
        u = self.controls[t]
        if self.feedforward is not None:
            u = u + step_size * self.feedforward[t]
        if self.feedback_gains is not None:
            u = u + self.feedback_gains[t] @ self.difference(x, self.states[t])
        return u
