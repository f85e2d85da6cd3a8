"""Stopwatches of the phases of a solve."""

from __future__ import annotations

from time import perf_counter

from ocpkit.solution.details import PhaseTimes


class Stopwatch:
    """Seconds spent inside its `with` blocks."""

    __slots__ = ("_began", "seconds")

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += perf_counter() - self._began


class Phases:
    """One stopwatch for each phase; see `PhaseTimes`."""

    def __init__(self) -> None:
        self.derivatives, self.backward, self.forward, self.line_search = (Stopwatch() for _ in range(4))

    @property
    def times(self) -> PhaseTimes:
        """Seconds so far."""
        return PhaseTimes(
            derivatives=self.derivatives.seconds,
            backward=self.backward.seconds,
            forward=self.forward.seconds,
            line_search=self.line_search.seconds,
        )
