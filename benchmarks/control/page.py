"""The benchmark page: the measured part is written between two marks, what people wrote around it stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.control.row import Row
from benchmarks.control.table import COLUMNS, VERDICTS, by_task, cells, markdown, verdict_cells
from benchmarks.control.targets import Verdict

START, END = "<!-- measured: start -->", "<!-- measured: end -->"


def write(path: Path, machine: dict[str, str], rows: Sequence[Row], verdicts: Sequence[Verdict], command: str) -> None:
    """Write or renew the measured part of a page."""
    measured = "\n\n".join([START, *_sections(machine, rows, verdicts, command), END])
    old = path.read_text() if path.exists() else f"# Benchmarks\n\n{START}{END}\n"
    if START not in old or END not in old:
        raise ValueError(f"{path} has no marks {START} … {END} to write between")
    before, after = old.split(START)[0], old.split(END)[1]
    path.write_text(before + measured + after)


def _sections(machine: dict[str, str], rows: Sequence[Row], verdicts: Sequence[Verdict], command: str) -> Sequence[str]:
    met = sum(bool(verdict.met) for verdict in verdicts)
    compared = sum(verdict.met is not None for verdict in verdicts)
    return [
        f"Printed by `{command}` on: " + ", ".join(f"{key} {value}" for key, value in machine.items()) + ".",
        f"## Targets\n\n{met} of {compared} comparable ones are met.",
        markdown(VERDICTS, (verdict_cells(verdict) for verdict in verdicts)),
        "## Measurements",
        *(f"### {title}\n\n" + markdown(COLUMNS, (cells(row) for row in group)) for title, group in by_task(rows)),
    ]
