"""The table of iterations that grows while a solver runs."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ocpkit.solution.history import DDPIteration, Iteration, columns

ROWS = 15
REFRESH_SECONDS = 0.1
HEADERS = {
    "index": "iter",
    "cost": "cost J",
    "expected_decrease": "expected",
    "actual_decrease": "actual",
    "gradient_norm": "‖Q_u‖",
    "regularization": "μ",
    "penalty": "ρ",
    "barrier": "μ",
    "inner_iterations": "inner",
    "step_size": "step α",
    "gap": "gap",
    "violation": "violation",
    "seconds": "seconds",
}
"""Columns in their order; a kind of iteration has some of them."""
FORMATS = {
    "cost": ".8g",
    "inner_iterations": "d",
    "step_size": ".3g",
    "gap": ".1e",
    "violation": ".1e",
    "seconds": ".2f",
}
ALWAYS = ("index", "cost", "seconds")


class _LastMessage(logging.Handler):
    """Keeps what the library has said last: which engine runs, and when a solve goes over to another one."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class IterationTable:
    """Context manager and solver callback that shows the last iterations on stderr, and the engine below them.

    Redrawn at most ten times a second (once, at the end, where stderr is a file), by the solving thread itself.
    """

    def __init__(self, title: str, *, visible: bool = True) -> None:
        self.title, self.visible = title, visible
        self.rows: deque[Iteration] = deque(maxlen=ROWS)
        self.said, self.log = _LastMessage(), logging.getLogger("ocpkit")
        # FORCE_COLOR would make rich take a file, or the output of a notebook, for a terminal that can go back.
        console = Console(stderr=True, force_terminal=sys.stderr.isatty())
        self.live = Live(console=console, get_renderable=self.table, auto_refresh=False)
        self.drawn = -math.inf

    def __enter__(self) -> IterationTable:
        self.level = self.log.level
        if self.visible:
            self.log.addHandler(self.said)
            self.log.setLevel(logging.INFO)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.removeHandler(self.said)
        self.log.setLevel(self.level)
        self.live.transient = not self.rows
        self.live.stop()
        if self.visible and not self.live.console.is_terminal:
            self.live.console.line()

    def __call__(self, iteration: Iteration) -> None:
        self.rows.append(iteration)
        now = time.monotonic()
        if self.visible and now - self.drawn >= REFRESH_SECONDS:
            self.drawn = now
            self.live.refresh()

    def table(self) -> Table:
        """Draw the last rows."""
        table = Table(title=self.title, box=None, header_style="bold", title_justify="left")
        table.caption, table.caption_justify = self.said.text, "left"
        for name in shown(type(self.rows[-1]) if self.rows else DDPIteration):
            table.add_column(HEADERS[name], justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*cells(row))
        return table


def shown(kind: type[Iteration]) -> list[str]:
    """Return the columns that a kind of iteration has."""
    own = {"index", *columns(kind)}
    return [name for name in HEADERS if name in own]


def cells(row: Iteration) -> list[str]:
    """Format one iteration; a dash where the method has no such number."""
    return [_cell(name, getattr(row, name)) for name in shown(type(row))]


def _cell(name: str, value: float) -> str:
    if name == "index":
        return str(value)
    return f"{value:{FORMATS.get(name, '.2e')}}" if name in ALWAYS or (value and not math.isnan(value)) else "–"
