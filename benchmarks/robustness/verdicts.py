"""What counts, stated before any run: successes, false claims, best optima, ratios, and the targets.

* A run is a success where `kkt.check` passes, whatever the system says, or where it says infeasible of a problem that
  is known to be.
* A claim is false where "optimal" fails the check, or "infeasible" is said of a problem of which some system has
  found a point that keeps all rows.
* The best optimum of a problem is the lowest J of all successes, of all systems and from all guesses; it is reached
  where J is above it by at most `SAME_COST` of it.
* Ratios are geometric means over the runs that both systems solve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median

import numpy as np

from benchmarks.first_solve.verdicts import SAME_COST, SMALLEST_COST
from benchmarks.robustness.contract import Claim
from benchmarks.robustness.record import Record

ALL = "all"
IPOPTS, FATROP = ("ipopt", "ipopt-adaptive"), "fatrop"
OVERALL, OF_FATROP, OF_IPOPT, ITERATIONS = 0.97, 0.2, 0.1, 1.2


def success(record: Record) -> bool:
    """Whether a run arrived."""
    return record.claim == Claim.INFEASIBLE.value if record.infeasible else record.stationary


@dataclass(frozen=True)
class Table:
    """All records, and what is known of their problems from all of them together."""

    records: Sequence[Record]

    @cached_property
    def best(self) -> dict[tuple[str, str, str], float]:
        """Lowest J of all successes of each problem."""
        found = dict[tuple[str, str, str], float]()
        for record in self.records:
            if success(record) and not record.infeasible and record.cost is not None:
                found[record.problem] = min(record.cost, found.get(record.problem, np.inf))
        return found

    @cached_property
    def kept(self) -> set[tuple[str, str, str]]:
        """Problems of which some system has found a point that keeps all rows."""
        return {record.problem for record in self.records if record.feasible}

    @property
    def groups(self) -> list[str]:
        """Groups in order, and `ALL` of them."""
        return [*dict.fromkeys(record.group for record in self.records), ALL]

    @property
    def systems(self) -> list[str]:
        """Systems in order."""
        return list(dict.fromkeys(record.system for record in self.records))

    def of(self, group: str, system: str) -> list[Record]:
        """Return the runs of a system on a group, or on all, to which it applies."""
        return [
            each
            for each in self.records
            if each.system == system and group in (ALL, each.group) and each.claim != Claim.DOES_NOT_APPLY.value
        ]

    def best_reached(self, record: Record) -> bool:
        """Whether a run is a success, and none has a lower J."""
        if not success(record) or record.infeasible:
            return success(record)
        best = self.best[record.problem]
        return record.cost is not None and record.cost - best <= SAME_COST * max(abs(best), SMALLEST_COST)

    def false_claim(self, record: Record) -> bool:
        """Whether a run claims what is not so."""
        if record.claim == Claim.INFEASIBLE.value:
            return not record.infeasible and record.problem in self.kept
        return record.claim == Claim.OPTIMAL.value and (record.infeasible or not record.stationary)

    def share(self, runs: Sequence[Record], counts: Callable[[Record], bool]) -> float:
        """Share of runs that count."""
        return sum(map(counts, runs)) / len(runs) if runs else float("nan")

    def ratio(self, ours: Iterable[Record], theirs: Iterable[Record], of: Callable[[Record], float | None]) -> float:
        """Geometric mean of ours over theirs, over the cases that both solve."""
        known = {record.case: of(record) for record in theirs if success(record)}
        pairs = [(of(record), known.get(record.case)) for record in ours if success(record)]
        logs = [np.log(a / b) for a, b in pairs if a and b]
        return float(np.exp(fmean(logs))) if logs else float("nan")


def seconds(record: Record) -> float | None:
    """Seconds of a run."""
    return record.seconds


def iterations(record: Record) -> float | None:
    """Iterations of a run, at least one."""
    return float(max(record.iterations, 1))


@dataclass(frozen=True)
class Line:
    """One system on one group; shares of its runs, ratios to the peers."""

    group: str
    system: str
    runs: int
    success: float
    best: float
    false_claims: int
    of_ipopt: float
    of_fatrop: float
    mean_iterations: float
    median_iterations: float


def lines(table: Table) -> Iterator[Line]:
    """Yield every system's line on every group."""
    for group in table.groups:
        for system in table.systems:
            runs = table.of(group, system)
            if not runs:
                continue
            counts = [record.iterations for record in runs if success(record)] or [0]
            yield Line(
                group,
                system,
                len(runs),
                table.share(runs, success),
                table.share(runs, table.best_reached),
                sum(map(table.false_claim, runs)),
                table.ratio(runs, table.of(group, IPOPTS[0]), seconds),
                table.ratio(runs, table.of(group, FATROP), seconds),
                fmean(counts),
                median(counts),
            )


@dataclass(frozen=True)
class Target:
    """One target, its limit, and what was measured of it."""

    name: str
    limit: float
    measured: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is kept; False where nothing could be measured."""
        return self.measured >= self.limit if self.least else self.measured <= self.limit


def targets(table: Table, system: str) -> Iterator[Target]:
    """Yield the targets of a system; of IPOPT's two settings of μ the better one of each group counts."""
    peers = [[name for name in names if name in table.systems] for names in (IPOPTS, (FATROP,))]
    for word, counts, groups in (
        ("success", success, table.groups[:-1]),
        ("best optimum", table.best_reached, [ALL]),
    ):
        for group in groups:
            for names in filter(None, peers):
                limit = max(table.share(table.of(group, name), counts) for name in names)
                measured = table.share(table.of(group, system), counts)
                yield Target(f"{word} on {group}, {names[0]}'s at least", limit, measured, least=True)
    ours = table.of(ALL, system)
    yield Target("success on all", OVERALL, table.share(ours, success), least=True)
    yield Target("false claims", 0, sum(map(table.false_claim, ours)))
    if peers[1]:
        theirs = table.of(ALL, FATROP)
        yield Target("time, of fatrop's", OF_FATROP, table.ratio(ours, theirs, seconds))
        yield Target("iterations, of fatrop's", ITERATIONS, table.ratio(ours, theirs, iterations))
    if peers[0]:
        largest = max(table.ratio(ours, table.of(ALL, name), seconds) for name in peers[0])
        yield Target("time, of ipopt's", OF_IPOPT, largest)
