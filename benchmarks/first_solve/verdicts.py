"""What the first solve shall reach, stated before any run.

A row's answer counts where ocpkit ends with "converged" and its J is at most 1e-6 (relative) above IPOPT's; a J more
than 1e-6 below IPOPT's is a better local optimum, and counts. Where IPOPT has no answer within its time, J is not
compared and no ratio is judged. Ratios of a row whose answer does not count are infinite. Per row the ratio is the
median over the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.first_solve.race import Row

SAME_COST, SMALLEST_COST = 1e-6, 1e-9  # relative; of |J| below which the difference counts as such
MEDIAN, NINE_IN_TEN, WORST = 0.7, 1.2, 1.5  # first solve: ocpkit's time over IPOPT's
READY, LARGEST = 4.0, 14  # seconds until C is ready, up to so many states
SECOND = 0.1  # second solve: ocpkit's time over IPOPT's
FIRST_PARTS = ("declare", "solve"), ("write", "build", "solve")


@dataclass(frozen=True)
class Verdict:
    """One target over all rows."""

    target: str
    limit: float
    measured: float

    @property
    def met(self) -> bool:
        return self.measured <= self.limit


def compare_costs(row: Row) -> str:
    """Return "same", "better", "worse", or nothing where one of the two has no answer."""
    ours, theirs = row.answer("ocpkit"), row.answer("ipopt")
    if ours is None or not converged(row) or theirs is None or not theirs["success"]:
        return ""
    apart = (ours["J"] - theirs["J"]) / max(abs(theirs["J"]), SMALLEST_COST)
    if abs(apart) <= SAME_COST:
        return "same"
    return "better" if apart < 0 else "worse"


def converged(row: Row) -> bool:
    """Whether ocpkit says so."""
    ours = row.answer("ocpkit")
    return ours is not None and ours["status"] == "CONVERGED"


def first_ratio(row: Row) -> float | None:
    """Time of the first solve over IPOPT's."""
    return row.ratio(*FIRST_PARTS)


def second_ratio(row: Row) -> float | None:
    """Time of the second solve over IPOPT's."""
    return row.ratio(("second",), ("second",))


def in_c_ratio(row: Row) -> float | None:
    """Time of a solve once C is ready over IPOPT's second."""
    return row.ratio(("in C",), ("second",))


def _judged(rows: Sequence[Row], of: Callable[[Row], float | None]) -> list[float]:
    """Ratios of the rows that IPOPT solves, infinite where ocpkit has no answer that counts."""
    ratios = list[float]()
    for row in rows:
        theirs = row.answer("ipopt")
        if theirs is None or not theirs["success"]:
            continue
        ratio = of(row)
        counts = converged(row) and compare_costs(row) != "worse"
        ratios.append(ratio if counts and ratio is not None else float("inf"))
    return ratios


def judge(rows: Sequence[Row]) -> Iterator[Verdict]:
    """Yield every target's verdict."""
    yield Verdict("answers that are not converged", 0, sum(not converged(row) for row in rows))
    yield Verdict("answers with J more than 1e-6 above IPOPT's", 0, sum(compare_costs(row) == "worse" for row in rows))
    first = _judged(rows, first_ratio)
    if first:
        yield Verdict("first solve / IPOPT's, median", MEDIAN, median(first))
        yield Verdict("first solve / IPOPT's, nine in ten", NINE_IN_TEN, _quantile(first, 0.9))
        yield Verdict("first solve / IPOPT's, largest", WORST, max(first))
    ready = [row.seconds("c", "declare", "build") for row in rows if (row.sizes or [0])[0] <= LARGEST]
    if ready:
        worst = max(float("inf") if seconds is None else seconds for seconds in ready)
        yield Verdict(f"seconds until C is ready, n ≤ {LARGEST}, largest", READY, worst)
    second = _judged(rows, second_ratio)
    if second:
        yield Verdict("second solve / IPOPT's, largest", SECOND, max(second))
    in_c = _judged(rows, in_c_ratio)
    if in_c:
        yield Verdict("solve in C / IPOPT's second, nine in ten", SECOND, _quantile(in_c, 0.9))
        yield Verdict("solve in C / IPOPT's second, largest", SECOND, max(in_c))


def _quantile(values: Sequence[float], share: float) -> float:
    """The least value that so large a share of all does not exceed."""
    return sorted(values)[int(np.ceil(share * len(values))) - 1]
