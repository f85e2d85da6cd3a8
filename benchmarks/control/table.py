"""The rows as text: for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.control.row import Row
from benchmarks.control.targets import Verdict

COLUMNS = ("system", "n", "m", "T", "it.", "cost J", "violation", "µs / it.", "ratio", "ms", "ratio", "build s", "note")
VERDICTS = ("target", "case", "limit", "measured", "met")


def cells(row: Row) -> list[str]:
    """Format a row as the cells of `COLUMNS`."""
    return [
        row.system,
        *(str(size) for size in (row.n, row.m, row.horizon)),
        "–" if row.iterations is None else str(row.iterations),
        "–" if row.cost is None else f"{row.cost:.8g}",
        "–" if row.violation is None else f"{row.violation:.1e}",
        number(row.per_iteration_us),
        number(row.iteration_ratio),
        number(row.solve_ms),
        number(row.solve_ratio),
        number(row.build_s),
        row.note,
    ]


def verdict_cells(verdict: Verdict) -> list[str]:
    """Format a verdict as the cells of `VERDICTS`."""
    word = {None: "not comparable", True: "yes", False: "NO"}[verdict.met]
    return [verdict.target, verdict.case, f"{verdict.limit:g}", number(verdict.measured), word]


def number(value: float | None) -> str:
    """Three significant digits."""
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def by_task(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Group rows that follow each other by their task."""
    return [(task, list(group)) for task, group in groupby(rows, key=lambda row: row.task)]


def print_rows(console: Console, rows: Sequence[Row]) -> None:
    """Print one table per task."""
    for title, group in by_task(rows):
        table = Table(*COLUMNS, title=title, title_justify="left", box=SIMPLE)
        for row in group:
            table.add_row(*cells(row))
        console.print(table)


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print the targets, met or not."""
    table = Table(*VERDICTS, title="Targets", title_justify="left", box=SIMPLE)
    for verdict in verdicts:
        style = {None: "dim", True: "green", False: "red"}[verdict.met]
        table.add_row(*verdict_cells(verdict), style=style)
    console.print(table)
