"""The table of epochs and the progress bar that are shown while a network is trained."""

from __future__ import annotations

import math
import time
from collections import deque
from types import TracebackType
from typing import Protocol

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

ROWS = 15
REFRESH_SECONDS = 0.1
COLUMNS = ("epoch", "train loss", "test loss", "test accuracy", "seconds")


class Epoch(Protocol):
    """What a row shows; `ocpkit_nn.record.Row` is one."""

    @property
    def epoch(self) -> int: ...
    @property
    def train_loss(self) -> float: ...
    @property
    def test_loss(self) -> float: ...
    @property
    def test_accuracy(self) -> float: ...
    @property
    def seconds(self) -> float: ...


class EpochTable:
    """Context manager on stderr: a live table and a bar in a terminal, one line per epoch in a file.

    Redrawn at most ten times a second, by the training thread itself.
    """

    def __init__(self, title: str, *, visible: bool = True) -> None:
        self.title, self.visible = title, visible
        self.rows: deque[Epoch] = deque(maxlen=ROWS)
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, auto_refresh=False)
        self.task = self.progress.add_task("loading", total=None)
        self.live = Live(console=console, get_renderable=self._content, auto_refresh=False)
        self.terminal = console.is_terminal
        self.drawn = -math.inf

    def __enter__(self) -> EpochTable:
        if self.visible and self.terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.visible and self.terminal:
            self.progress.update(self.task, visible=False)
            self.live.transient = not self.rows
            self.live.stop()

    def advance(self, epoch: int, epochs: int, batch: int, batches: int) -> None:
        """Move the bar after a batch."""
        now = time.monotonic()
        if not (self.visible and self.terminal) or now - self.drawn < REFRESH_SECONDS:
            return
        done, total = (epoch - 1) * batches + batch, epochs * batches
        if self.drawn == -math.inf:  # what a resumed run has done before says nothing about its speed
            self.progress.reset(self.task, total=total, completed=done)
        self.drawn = now
        text = f"epoch {epoch}/{epochs}, batch {batch}/{batches}"
        self.progress.update(self.task, description=text, completed=done)
        self.live.refresh()

    def add(self, row: Epoch) -> None:
        """Show an epoch."""
        self.rows.append(row)
        if self.visible and not self.terminal:
            typer.echo(", ".join(f"{name} {text}" for name, text in zip(COLUMNS, cells(row))), err=True)

    def _content(self) -> Group:
        return Group(self.table(), self.progress)

    def table(self) -> Table:
        """Draw the last rows."""
        table = Table(title=self.title, box=None, header_style="bold", title_justify="left")
        for name in COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*cells(row))
        return table


def cells(row: Epoch) -> list[str]:
    """Format one epoch."""
    return [
        str(row.epoch),
        f"{row.train_loss:.4g}",
        f"{row.test_loss:.4g}",
        f"{row.test_accuracy:.2f} %",
        f"{row.seconds:.1f}",
    ]
