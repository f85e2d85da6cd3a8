"""The whole program: which tasks and systems, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.control import latency, sweeps
from benchmarks.control.clock import FULL, QUICK, Effort
from benchmarks.control.contestant import System, Unavailable
from benchmarks.control.race import Report, race
from benchmarks.control.row import Row
from benchmarks.control.systems import ALL, ocpkit_ddp
from benchmarks.control.tasks import TASKS

SLOW = ("IPOPT compiled", "fatrop compiled", "sqpmethod convexified", "acados SQP", "SciPy trust-constr")
SWEPT = ("ocpkit c", "Crocoddyl C++")


def run(*, quick: bool, only: Sequence[str], report: Report, show: Callable[[list[Row]], None]) -> list[Row]:
    """Run what was asked for; `show` gets the rows of every task as soon as they are there.

    Parameters
    ----------
    quick
        Few turns, small tasks unless `only` names them, no system that compiles for long.
    only
        Keep the tasks whose name contains one of these words; empty: all.
    """
    effort, rows = QUICK if quick else FULL, list[Row]()
    once = _say_once(report)

    def wanted(name: str) -> bool:
        return not only or any(word in name for word in only)

    def keep(new: list[Row]) -> None:
        rows.extend(new)
        show(new)

    systems = [system for system in ALL if not (quick and system.name in SLOW)]
    for task in TASKS:
        if wanted(task.name) and (task.quick or not quick or only):
            keep(race(task, systems, effort, once))
    for name, tasks in sweeps.tasks(quick=quick).items():
        if wanted(name):
            keep([row for task in tasks for row in race(task, _swept(), effort, once)])
    for name, measure in ((latency.MPC_STEP, latency.mpc_step), (latency.OVERHEAD, latency.call_overhead)):
        if wanted(name):
            keep(sorted(_latencies(measure, effort, once), key=lambda row: row.task, reverse=True))
    return rows


def _latencies(measure: Callable[[ocpkit_ddp.Ocpkit, Effort], list[Row]], effort: Effort, report: Report) -> list[Row]:
    """Measure every engine that works."""
    rows = list[Row]()
    for system in ocpkit_ddp.SYSTEMS:
        try:
            rows += measure(system, effort)
        except Unavailable as error:
            report(f"{system.name} left out: {error}")
    return rows


def _swept() -> list[System]:
    """Sweeps show how the compiled engine and Crocoddyl's C++ grow."""
    return [system for system in ALL if system.name in SWEPT]


def _say_once(report: Report) -> Report:
    said = set[str]()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            report(line)

    return say
