"""One line of the result, and the rule that decides whether its time may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

OPTIMALITY = 1e-6  # relative difference of J up to which two systems found the same optimum
FEASIBILITY = 1e-6  # violation of a constraint up to which a trajectory is a solution
OTHER_OPTIMUM, INFEASIBLE = "other optimum", "infeasible"


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
    violation
        Largest violation of a constraint or control bound along that trajectory; None for tasks without any.
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
    violation: float | None = None
    per_iteration_us: float | None = None
    solve_ms: float | None = None
    build_s: float | None = None
    iteration_ratio: float | None = None
    solve_ratio: float | None = None
    note: str = ""


def judge(rows: Sequence[Row]) -> list[Row]:
    """Mark rows that are infeasible or not within 1e-6 of the best feasible J, and withdraw their solve ratios."""
    feasible = [row for row in rows if row.violation is None or row.violation <= FEASIBILITY]
    costs = [row.cost for row in feasible if row.cost is not None and abs(row.cost) < float("inf")]
    best, judged = min(costs, default=0.0), list[Row]()
    for row in rows:
        if row not in feasible:
            judged.append(_withdrawn(row, f"{INFEASIBLE} by {row.violation:.1e}"))
        elif row.cost is None or _same(row.cost, best):
            judged.append(row)
        else:
            judged.append(_withdrawn(row, f"{OTHER_OPTIMUM} (best J {best:.8g})"))
    return judged


def _same(cost: float, best: float) -> bool:
    return abs(cost - best) <= OPTIMALITY * abs(best)


def _withdrawn(row: Row, off: str) -> Row:
    return replace(row, solve_ratio=None, note=f"{off}; {row.note}" if row.note else off)
