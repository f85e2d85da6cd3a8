"""The measurements as the sections of a page."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.control.row import Row
from benchmarks.control.table import COLUMNS, VERDICTS, by_task, cells, verdict_cells
from benchmarks.control.targets import Verdict
from benchmarks.page import markdown


def sections(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Sequence[str]:
    """Return the targets, then a table per task."""
    met = sum(bool(verdict.met) for verdict in verdicts)
    compared = sum(verdict.met is not None for verdict in verdicts)
    return [
        f"## Targets\n\n{met} of {compared} comparable ones are met.",
        markdown(VERDICTS, (verdict_cells(verdict) for verdict in verdicts)),
        "## Measurements",
        *(f"### {title}\n\n" + markdown(COLUMNS, (cells(row) for row in group)) for title, group in by_task(rows)),
    ]
