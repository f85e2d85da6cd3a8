"""All runs, each in a worker process with a limit on its time; a family's runs share their worker while it lives."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.robustness.family import Family
from benchmarks.robustness.record import Key, Record
from benchmarks.robustness.worker import serve

PREPARING, CHECKING = 300.0, 60.0  # seconds
GRACE = 3.0  # times the limit of wall clock, after which a solve is ended: other jobs may share the processor


@dataclass(frozen=True)
class Plan:
    """What is run of a family: pairs of an instance and a guess by every system, but for what is known.

    Attributes
    ----------
    limit
        Seconds for one solve.
    """

    guesses: Sequence[str]
    systems: Sequence[str]
    limit: float


def run(families: Sequence[Family], plan: Plan, known: Container[Key], jobs: int) -> Iterator[list[Record]]:
    """Yield the records of each family as it is done, those that are `known` left out."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(_run_family, family, plan, known) for family in families]
        for done in as_completed(waiting):
            yield done.result()


def planned(family: Family, plan: Plan) -> list[Record]:
    """Return an empty record for each run of a family."""
    return [
        Record(family.group, family.name, instance.name, guess, system, infeasible=instance.infeasible)
        for instance in family.instances
        for guess in plan.guesses
        for system in plan.systems
    ]


def _run_family(family: Family, plan: Plan, known: Container[Key]) -> list[Record]:
    worker, found = _Worker(family, plan.limit), []
    for record in planned(family, plan):
        if record.key not in known:
            found.append(worker.solve(record))
    worker.close()
    return found


class _Worker:
    """A process, started when it is needed, and again after one was ended."""

    def __init__(self, family: Family, limit: float) -> None:
        self.family, self.limit = family, limit
        self.process: Any = None
        self.folder = TemporaryDirectory()

    def solve(self, record: Record) -> Record:
        """Let the process run one, and wait no longer than each part of it may take."""
        if self.process is None:
            context = get_context("spawn")
            self.pipe, theirs = context.Pipe()
            arguments = (theirs, self.folder.name, self.family.group, self.family.name, self.limit)
            self.process = context.Process(target=serve, args=arguments, daemon=True)
            self.process.start()
            theirs.close()
        with suppress(OSError):  # of a process that has ended, as will be seen
            self.pipe.send((record.instance, record.guess, record.system))
        for part, patience in (("preparing", PREPARING), ("solving", GRACE * self.limit), ("checking", CHECKING)):
            try:
                if not self.pipe.poll(patience):
                    return self._end(record, f"ended after {patience:g} s of {part}")
                message = self.pipe.recv()
            except (EOFError, OSError):
                return self._end(record, f"the process ended while {part}")
            if isinstance(message, Record):
                return message
        return self._end(record, "no answer")

    def _end(self, record: Record, why: str) -> Record:
        self.process.kill()
        self.process.join()
        self.process = None
        return replace(record, status=why)

    def close(self) -> None:
        """Let the process go."""
        if self.process is not None:
            with suppress(OSError):
                self.pipe.send(None)
            self.process.join(timeout=10)
            self.process.kill()
            self.process.join()
        self.folder.cleanup()
