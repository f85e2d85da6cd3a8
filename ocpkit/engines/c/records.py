"""Records of compiled solvers, what each is, cost and how often it was loaded: a small JSON file beside it.

Records are for people. One that is missing, damaged or cannot be written is no error, and where two processes load a
solver at once, one of the two loads may go uncounted.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ocpkit.engines.graphs import ProblemGraph

SUFFIX = ".json"
LARGEST = 1e12  # number that a record can hold


@dataclass(frozen=True)
class Record:
    """Record of one compiled solver.

    Attributes
    ----------
    problem
        Name of the problem that it was built for first; others of the same structure use it too.
    states, controls, kinds
        Largest n and m, and the number of types of stages.
    engine
        ``"ddp"``; ``"augmented"`` where its costs price constraints.
    seconds
        What generating and compiling it took.
    loads
        How many processes have loaded it since.
    """

    problem: str
    states: int
    controls: int
    kinds: int
    engine: str
    seconds: float
    loads: int = 0

    @property
    def saved(self) -> float:
        """Seconds that the loads have spared."""
        return self.loads * self.seconds


def note_build(library: Path, graph: ProblemGraph, seconds: float) -> None:
    """Write the record of a solver that was just built."""
    record = Record(
        problem=graph.name,
        states=max(each.state_size for each in graph.stage_types),
        controls=max(each.control_size for each in graph.stage_types),
        kinds=len(graph.stage_types),
        engine="augmented" if graph.augmented else "ddp",
        seconds=seconds,
    )
    _write(library, record)


def note_load(library: Path) -> None:
    """Count a load of a solver."""
    record = read_record(library)
    if record is not None:
        _write(library, replace(record, loads=record.loads + 1))


def drop_record(library: Path) -> None:
    """Remove the record of a solver that is gone."""
    with suppress(OSError):
        library.with_suffix(SUFFIX).unlink()


def read_record(library: Path) -> Record | None:
    """Return the record of a solver; None where there is none, or none that can be read."""
    try:
        content = json.loads(library.with_suffix(SUFFIX).read_text(encoding="utf-8"))
        record = Record(**content)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts, numbers = (record.problem, record.engine), (record.states, record.controls, record.kinds, record.loads)
    sound = all(isinstance(text, str) for text in texts) and all(isinstance(number, int) for number in numbers)
    return record if sound and all(_plausible(number) for number in (*numbers, record.seconds)) else None


def _plausible(number: Any) -> bool:
    return isinstance(number, (int, float)) and 0 <= number < LARGEST


def _write(library: Path, record: Record) -> None:
    """Replace a record at once, so that no reader sees half of one."""
    with suppress(OSError):
        handle, name = tempfile.mkstemp(dir=library.parent, prefix="building-", suffix=SUFFIX)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(record), file)
            os.replace(name, library.with_suffix(SUFFIX))
        except OSError:
            Path(name).unlink(missing_ok=True)
