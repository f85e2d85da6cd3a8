"""What is kept of a run, and the file that keeps it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ocpkit.boundary.atomic import write_atomically

Key = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Record:
    """One run: which system on which problem from which guess, and what came of it.

    Attributes
    ----------
    claim
        What the system says, a value of `contract.Claim`.
    status
        In its own words, or what it raised.
    feasible, stationary
        What `kkt.check` says of the answer; the second includes the first.
    slope
        Relative residual of the Lagrangian's gradient; None where it was not looked at.
    seconds
        Of the processor; None where the run was ended from outside or raised.
    infeasible
        Whether the problem is known to be.
    """

    group: str
    family: str
    instance: str
    guess: str
    system: str
    claim: str = "nothing"
    status: str = ""
    feasible: bool = False
    stationary: bool = False
    cost: float | None = None
    violation: float | None = None
    slope: float | None = None
    iterations: int = 0
    seconds: float | None = None
    infeasible: bool = False

    @property
    def key(self) -> Key:
        """What identifies the run."""
        return self.group, self.family, self.instance, self.guess, self.system

    @property
    def problem(self) -> tuple[str, str, str]:
        """What identifies the problem."""
        return self.group, self.family, self.instance

    @property
    def case(self) -> tuple[str, str, str, str]:
        """What identifies the problem and the guess."""
        return self.group, self.family, self.instance, self.guess


def read(path: Path | None) -> dict[Key, Record]:
    """Return the records of a file, none where there is none."""
    if path is None or not path.exists():
        return {}
    table = json.loads(gzip.decompress(path.read_bytes()))
    names = table["fields"]
    return {record.key: record for row in table["rows"] for record in [Record(**dict(zip(names, row)))]}


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records: the names of the fields once, then a line for each."""
    rows = [[_short(value) for value in astuple(record)] for record in records]
    names = [field.name for field in fields(Record)]
    text = json.dumps({"fields": names, "rows": rows}, separators=(",", ":")).replace("],[", "],\n[")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = gzip.compress(text.encode(), mtime=0)
    write_atomically(path, lambda stream: stream.write(content))


def _short(value: object) -> object:
    """Twelve digits of a number, None of what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.12g}") if abs(value) < float("inf") else None
    return value
