"""What the compiled engine shall reach, judged on the rows of one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.control import sweeps
from benchmarks.control.latency import MPC_STEP, OVERHEAD
from benchmarks.control.row import Row
from benchmarks.control.tasks import CONSTRAINED

PER_ITERATION, CDDP, FATROP, IPOPT = 0.5, 0.05, 0.2, 0.1  # times of ocpkit over the peer's
CONSTRAINED_FATROP, CONSTRAINED_IPOPT, VIOLATION = 0.3, 0.15, 1e-8  # where there are more constraints than bounds
LARGEST = 40  # states, up to which the first holds
CARTPOLE_MS, OVERHEAD_MS, MPC_MS, GROWTH = 2.0, 0.05, 0.3, 0.1


@dataclass(frozen=True)
class Verdict:
    """One target on one case; `measured` is None where nothing comparable was measured."""

    target: str
    case: str
    limit: float
    measured: float | None

    @property
    def met(self) -> bool | None:
        return None if self.measured is None else self.measured <= self.limit


def judge_targets(rows: Sequence[Row]) -> list[Verdict]:
    """Return every verdict that the rows allow."""
    return [*_against_peers(rows), *_absolute(rows), *_growth(rows)]


def _against_peers(rows: Iterable[Row]) -> Iterator[Verdict]:
    """Ratios to peers; of a peer with several settings each counts, so the fastest decides."""
    for row in rows:
        if row.system == "Crocoddyl C++" and row.n <= LARGEST and row.task not in sweeps.HORIZON_SWEEPS:
            case = f"{row.task}, n = {row.n}, m = {row.m}"
            yield Verdict("iteration / Crocoddyl C++", case, PER_ITERATION, row.iteration_ratio)
    limits = {"pycddp": (CDDP, CDDP), "fatrop": (FATROP, CONSTRAINED_FATROP), "IPOPT": (IPOPT, CONSTRAINED_IPOPT)}
    for peer, (free, constrained) in limits.items():
        for row in rows:
            if row.system.startswith(peer):
                limit = constrained if row.task.startswith(CONSTRAINED) else free
                yield Verdict(f"solve / {row.system}", row.task, limit, row.solve_ratio)


def _absolute(rows: Iterable[Row]) -> Iterator[Verdict]:
    limits = {"cartpole": CARTPOLE_MS, OVERHEAD: OVERHEAD_MS}
    seen = set[str]()
    for row in rows:
        if row.task.startswith(CONSTRAINED) and row.system.startswith("ocpkit"):
            yield Verdict(f"violation, {row.system}", row.task, VIOLATION, row.violation)
        limit = MPC_MS if row.task.startswith(MPC_STEP) else limits.get(row.task)
        if limit is not None and row.task not in seen:  # the first row of a task is ocpkit's fastest engine
            seen.add(row.task)
            yield Verdict(f"ms per solve, {row.system}", row.task, limit, row.solve_ms)


def _growth(rows: Iterable[Row]) -> Iterator[Verdict]:
    for task in sweeps.HORIZON_SWEEPS:
        of_task = [row for row in rows if row.task == task and row.system.startswith("ocpkit")]
        ours = [row for row in of_task if row.system == of_task[0].system]
        if len(ours) > 2:
            case = f"{task}, T = {ours[0].horizon} … {ours[-1].horizon}"
            yield Verdict(f"distance from a line in T, {ours[0].system}", case, GROWTH, sweeps.fit(ours).deviation)
