"""One line of the result, and the rule that decides whether its time may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

OPTIMALITY = 1e-6  # relative difference of J up to which two systems found the same optimum
OTHER_OPTIMUM = "other optimum"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A system on a task.

    Attributes
    ----------
    task, system
        Names.
    n, m, horizon
        Sizes of state and control, number of stages T.
    iterations
        Until the system's own convergence test, from the task's guess.
    cost
        J of its controls, rolled out on the task's `Problem`.
    per_iteration_us
        One iteration: derivatives, backward and forward pass [µs].
    solve_ms
        From the guess to convergence [ms].
    build_s
        Set-up before the first solve, compilation included [s]; never part of `solve_ms`.
    iteration_ratio, solve_ratio
        Time of ocpkit's fastest engine over this system's; below 1, ocpkit is faster. None where there is nothing
        to compare, or it would be unfair.
    note
        What a reader must know of this line.
    """

    task: str
    system: str
    n: int
    m: int
    horizon: int
    iterations: int | None = None
    cost: float | None = None
    per_iteration_us: float | None = None
    solve_ms: float | None = None
    build_s: float | None = None
    iteration_ratio: float | None = None
    solve_ratio: float | None = None
    note: str = ""


def judge(rows: Sequence[Row]) -> list[Row]:
    """Mark the rows of one task whose cost is not the best one's to 1e-6, and withdraw their solve ratios."""
    costs = [row.cost for row in rows if row.cost is not None and abs(row.cost) < float("inf")]
    best = min(costs, default=0.0)
    return [row if row.cost is None or _same(row.cost, best) else _withdrawn(row, best) for row in rows]


def _same(cost: float, best: float) -> bool:
    return abs(cost - best) <= OPTIMALITY * abs(best)


def _withdrawn(row: Row, best: float) -> Row:
    off = f"{OTHER_OPTIMUM} (best J {best:.8g})"
    return replace(row, solve_ratio=None, note=f"{off}; {row.note}" if row.note else off)
