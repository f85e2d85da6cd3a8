"""Growth with the horizon and with the size of the state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.control.row import Row
from benchmarks.control.tasks import LQR, Task, Unicycle

HORIZONS = (50, 100, 250, 500, 1000, 2500, 5000, 10_000)
STATES = (2, 4, 8, 16, 30, 40, 80)
HORIZON_SWEEPS = ("horizon-unicycle", "horizon-lqr-12-4")
SIZE_SWEEP = "size-lqr"


def tasks(*, quick: bool) -> dict[str, list[Task]]:
    """Return the tasks of every sweep by its name: T at fixed sizes, n with m = n / 4 at T = 100."""
    horizons, states = ((50, 100, 200), (4, 12)) if quick else (HORIZONS, STATES)
    unicycles = [Unicycle(horizon=T) for T in horizons]
    regulators = [LQR.random(12, 4, T) for T in horizons]
    sizes = [LQR.random(n, max(1, n // 4), 100) for n in states]
    named = ((HORIZON_SWEEPS[0], unicycles), (HORIZON_SWEEPS[1], regulators), (SIZE_SWEEP, sizes))
    return {name: [Task(name, source.problem, source) for source in sources] for name, sources in named}


@dataclass(frozen=True)
class Line:
    """Time of an iteration = start + slope · T [µs], and the largest relative distance of a measurement from it."""

    start: float
    slope: float
    deviation: float


def fit(rows: Sequence[Row]) -> Line:
    """Fit the line to the times of one system, relative errors weighing the same at every T."""
    T = np.array([row.horizon for row in rows], dtype=float)
    time = np.array([row.per_iteration_us for row in rows], dtype=float)
    design = np.stack([1 / time, T / time], axis=1)
    (start, slope), *_ = np.linalg.lstsq(design, np.ones(len(T)), rcond=None)
    return Line(float(start), float(slope), float(np.abs(design @ (start, slope) - 1).max()))
