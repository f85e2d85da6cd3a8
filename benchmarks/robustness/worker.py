"""A process that solves runs of one family as it is told through a pipe; what hangs or crashes ends with it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.robustness import groups, guesses, kkt, systems
from benchmarks.robustness.contract import Claim, DoesNotApply, Solve
from benchmarks.robustness.family import Family
from benchmarks.robustness.record import Record
from ocpkit import Problem

LONGEST = 200  # characters of a message that are kept


def serve(pipe: Connection, folder: str, group: str, name: str, limit: float) -> None:
    """Answer (instance, guess, system) by "prepared", "solved" and a `Record`, until None comes.

    The folder takes what CasADi compiles, which it writes to where the process is.
    """
    os.chdir(folder)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    family = groups.get(group, name)
    bench = _Bench(family, limit)
    while (task := pipe.recv()) is not None:
        pipe.send(bench.run(Record(group, name, *task), pipe.send))


class _Bench:
    """The family's problem, and the systems that have prepared for it."""

    def __init__(self, family: Family, limit: float) -> None:
        self.family, self.limit, self.problem = family, limit, family.declare()
        self.prepared: dict[str, Solve] = {}
        self.latest: tuple[str, Problem] | None = None

    def run(self, record: Record, report: Callable[[str], None]) -> Record:
        """Solve, check, and fill in the record; what is raised is a failure, recorded with its message."""
        instance = next(each for each in self.family.instances if each.name == record.instance)
        record = replace(record, infeasible=instance.infeasible)
        try:
            problem = guesses.begin(self._instance(record.instance), record.guess)
            if record.system not in self.prepared:
                self.prepared[record.system] = systems.get(record.system)(problem, self.limit)
            report("prepared")
            answer = self.prepared[record.system](problem)
            report("solved")
            verdict = kkt.check(problem, answer.states, answer.controls)
        except DoesNotApply as error:
            return replace(record, claim=Claim.DOES_NOT_APPLY.value, status=str(error))
        except Exception as error:
            last = (str(error).strip().splitlines() or [""])[-1]
            return replace(record, status=f"{type(error).__name__}: {last}"[:LONGEST])
        return replace(
            record,
            claim=answer.claim.value,
            status=answer.status,
            feasible=bool(verdict.feasible),
            stationary=bool(verdict.holds),
            cost=verdict.cost,
            violation=verdict.violation,
            slope=verdict.slope,
            iterations=answer.iterations,
            seconds=answer.seconds,
        )

    def _instance(self, name: str) -> Problem:
        if self.latest is None or self.latest[0] != name:
            instance = next(each for each in self.family.instances if each.name == name)
            self.latest = name, instance.change(self.problem)
        return self.latest[1]
