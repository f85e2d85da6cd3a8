"""Optimal control problems in continuous time, stated once for every transcription and every solver.

    minimize   φ(x(T), p, T) + ∫₀ᵀ ℓ(x, u, p, t) dt
    subject to ẋ = f(x, u, p, t),   lower ≤ path(x, u, p, t) ≤ upper,   bounds of x, u, p and T,   boundary rows

Functions are written with `ocpkit.math`, so that they take numbers as well as symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array

inf = np.inf
Bound = float | Sequence[float]
Rates = Callable[[Any, Any, Any, Any], tuple[Sequence[Any], Any, Sequence[Any]]]


@dataclass(frozen=True)
class Rows:
    """Boundary rows lower ≤ g(x(0), x(T), p, T) ≤ upper."""

    function: Callable[[Any, Any, Any, Any], Sequence[Any]]
    lower: Sequence[float]
    upper: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class ContinuousProblem:
    """One problem, with the optimum that others have published.

    Attributes
    ----------
    name
        What tables call it.
    rates
        f(x, u, p, t) → (ẋ, n entries; ℓ, or None; path rows, of which there may be none).
    controls
        Number m of controls.
    initial, final
        x(0) and x(T); None where an entry is free. Their length is n.
    final_time
        T, or (lower, upper, guess) where it is free.
    parameters
        (lower, upper, guess) of each entry of p.
    state_bounds, control_bounds, path_bounds
        (lower, upper), each a number or one per entry; those of the states hold where x is not fixed already.
    terminal_cost
        φ(x, p, T).
    boundary
        Further rows of both ends.
    state_guess
        x(s) for s = t/T in [0, 1]; None: a line from x(0) to x(T), constant where one of them is free.
    control_guess
        u, or u(s).
    intervals
        How many are usual for it.
    time_dependent
        Whether the rates depend on t.
    optimum, source
        The published J, and where the problem and J are from.
    """

    name: str
    rates: Rates
    controls: int = 1
    initial: Sequence[float | None]
    final: Sequence[float | None] | None = None
    final_time: float | tuple[float, float, float] = 1.0
    parameters: tuple[tuple[float, float, float], ...] = ()
    state_bounds: tuple[Bound, Bound] = (-inf, inf)
    control_bounds: tuple[Bound, Bound] = (-inf, inf)
    path_bounds: tuple[Bound, Bound] = ((), ())
    terminal_cost: Callable[[Any, Any, Any], Any] = lambda x, p, T: 0.0 * x[0]
    boundary: Rows | None = None
    state_guess: Callable[[float], Sequence[float]] | None = None
    control_guess: float | Sequence[float] | Callable[[float], Bound] = 0.0
    intervals: int = 60
    time_dependent: bool = False
    optimum: float
    source: str

    @property
    def states(self) -> int:
        """Number n of states."""
        return len(self.initial)

    @property
    def ends(self) -> tuple[float | None, ...]:
        """x(T); None where an entry is free."""
        return (None,) * self.states if self.final is None else tuple(self.final)

    @property
    def duration(self) -> tuple[float, float, float]:
        """Lower bound, upper bound and guess of T."""
        T = self.final_time
        return T if isinstance(T, tuple) else (T, T, T)

    @property
    def free_time(self) -> bool:
        """Whether T is free."""
        return isinstance(self.final_time, tuple)

    def guessed_states(self, intervals: int) -> Array:
        """Return x (intervals + 1, n) at the ends of equal intervals, fixed entries of x(0) and x(T) in place."""
        guess = self.state_guess or self._line
        x = np.array([guess(s) for s in np.linspace(0.0, 1.0, intervals + 1)], float)
        for row, fixed in ((0, self.initial), (-1, self.ends)):
            x[row] = [value if end is None else end for value, end in zip(x[row], fixed)]
        return x

    def guessed_controls(self, intervals: int) -> Array:
        """Return u (intervals, m), each at the beginning of its interval."""
        guess = self.control_guess
        series = [guess(k / intervals) if callable(guess) else guess for k in range(intervals)]
        return np.array([np.broadcast_to(u, self.controls) for u in series], float)

    def _line(self, s: float) -> Sequence[float]:
        begins = [0.0 if a is None else a for a in self.initial]
        return [a + s * ((a if b is None else b) - a) for a, b in zip(begins, self.ends)]


def spread(bounds: tuple[Bound, Bound], size: int) -> tuple[Array, Array]:
    """Return a lower and an upper bound with one entry each for `size` entries."""
    lower, upper = (np.array(np.broadcast_to(side, size), float) for side in bounds)
    return lower, upper
