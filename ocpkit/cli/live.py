"""The table of iterations that grows while a solver runs."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ocpkit.solution.solution import Iteration

ROWS = 15
REFRESH_SECONDS = 0.1
COLUMNS = ("iter", "cost J", "expected", "actual", "‖Q_u‖", "μ", "step α", "gap", "seconds")


class IterationTable:
    """Context manager and solver callback that shows the last iterations on stderr.

    Redrawn at most ten times a second (once, at the end, where stderr is a file), by the solving thread itself.
    """

    def __init__(self, title: str, *, visible: bool = True) -> None:
        self.title, self.visible = title, visible
        self.rows: deque[Iteration] = deque(maxlen=ROWS)
        # FORCE_COLOR would make rich take a file, or the output of a notebook, for a terminal that can go back.
        console = Console(stderr=True, force_terminal=sys.stderr.isatty())
        self.live = Live(console=console, get_renderable=self.table, auto_refresh=False)
        self.drawn = -math.inf

    def __enter__(self) -> IterationTable:
        if self.visible:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        for name in COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*cells(row))
        return table


def cells(row: Iteration) -> list[str]:
    """Format one iteration; a dash where the method has no such number."""
    small = (row.expected_decrease, row.actual_decrease, row.gradient_norm, row.regularization)
    return [
        str(row.index),
        f"{row.cost:.8g}",
        *(f"{value:.2e}" if value and not math.isnan(value) else "–" for value in small),
        f"{row.step_size:.3g}" if row.step_size else "–",
        f"{row.gap:.1e}" if row.gap else "–",
        f"{row.seconds:.2f}",
    ]
