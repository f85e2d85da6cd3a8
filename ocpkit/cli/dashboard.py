"""Dashboard of a training run: epochs, curves, speed and the time that is left."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ocpkit.cli.sparkline import sparkline

if TYPE_CHECKING:
    from ocpkit_nn.training.record import Row, Step

REFRESH_SECONDS = 0.5
"""A drawing takes some milliseconds of the training's time."""
ROWS = 8
COLUMNS = ("epoch", "train loss", "test loss", "train accuracy", "test accuracy", "seconds")
NARROW, NARROW_COLUMNS = 60, (0, 1, 2, 4)
"""Columns of a window that is narrower than this many characters."""
LINES_BELOW, LINES_OF_CURVES = 8, 4
"""Lines of title, headings, progress and prompt, and of the curves, which a low window goes without."""
LONGEST_CURVE = 60


class Dashboard:
    """Context manager on stderr: a live display in a terminal, one line per epoch in a file.

    Drawn at most twice a second, by the training thread itself, for the size that the window then has.
    """

    def __init__(self, title: str, *, visible: bool = True, console: Console | None = None) -> None:
        # FORCE_COLOR would make rich take a file, or the output of a notebook, for a terminal that can go back.
        self.console = console or Console(stderr=True, force_terminal=sys.stderr.isatty())
        self.title, self.visible, self.live = title, visible, visible and self.console.is_terminal
        self.display = Live(self, console=self.console, auto_refresh=False)
        self.rows: list[Row] = []
        self.step: Step | None = None
        self.update_length: float | None = None
        self.began, self.steps, self.samples = math.nan, 0, 0
        self.drawn = -math.inf
        self.ended = False

    def __enter__(self) -> Dashboard:
        if self.live:
            self.display.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended = True
        if self.live:
            self.display.transient = not self.rows
            self.display.stop()

    def advance(self, step: Step) -> bool:
        """Count a batch; return True, to have the next update measured, where it was drawn."""
        now = time.monotonic()
        if self.step is None:  # the first step, and all before a resumed one, say nothing about the speed
            self.began = now
        else:
            self.steps, self.samples = self.steps + 1, self.samples + step.samples
        self.step = step
        if step.update_length is not None:
            self.update_length = step.update_length
        if not self.live or now - self.drawn < REFRESH_SECONDS:
            return False
        self.drawn = now
        self.display.refresh()
        return True

    def add(self, row: Row) -> None:
        """Show an epoch."""
        self.rows.append(row)
        if self.visible and not self.live:
            typer.echo(", ".join(f"{name} {text}" for name, text in zip(COLUMNS, cells(row))), err=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw what the window has room for."""
        width, room = options.max_width, console.height - LINES_BELOW
        yield Text(self.title, style="italic", no_wrap=True, overflow="ellipsis")
        if self.rows:
            curves = room > LINES_OF_CURVES
            yield self._table(width, max(1, min(ROWS, room - LINES_OF_CURVES * curves)))
            if curves:
                yield self._curves(width, options.ascii_only)
        if self.step is None:
            yield Text("loading")
        elif not self.ended:
            yield self._bar(self.step)
            yield Text(", ".join(self._speed(self.step)), style="cyan")
            yield Text(", ".join(self._numbers(self.step)))

    def _table(self, width: int, rows: int) -> Table:
        """Draw the last epochs."""
        shown = NARROW_COLUMNS if width < NARROW else range(len(COLUMNS))
        table = Table(box=None, header_style="bold", pad_edge=False)
        for i in shown:
            table.add_column(COLUMNS[i].replace(" ", "\n"), justify="right", no_wrap=True, vertical="bottom")
        for row in self.rows[-rows:]:
            texts = cells(row)
            table.add_row(*(texts[i] for i in shown))
        return table

    def _curves(self, width: int, ascii_only: bool) -> Table:
        """Draw losses, on a logarithmic scale, and accuracies over all epochs."""
        grid = Table.grid(padding=(0, 1))
        for _ in range(3):
            grid.add_column(no_wrap=True, overflow="ellipsis")
        last, best = cells(self.rows[-1]), max(self.rows, key=lambda row: row.test_accuracy)
        for i, name in enumerate(COLUMNS[1:5], 1):
            attribute = name.replace(" ", "_")
            values = [value for row in self.rows if (value := getattr(row, attribute)) is not None]
            if "loss" in name and min(values, default=0.0) > 0:
                values = [math.log(value) for value in values]
            note = f", best {best.test_accuracy:.2f} % in epoch {best.epoch}" * (
                name == "test accuracy" and width >= 80
            )
            curve = sparkline(values, min(LONGEST_CURVE, width - 25 - len(note)), ascii_only=ascii_only)
            grid.add_row(name, Text(curve, style="green" if "accuracy" in name else "magenta"), last[i] + note)
        return grid

    def _bar(self, step: Step) -> Table:
        done, total = progress(step)
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        place = f"epoch {step.epoch}/{step.epochs}, batch {step.batch}/{step.batches}"
        grid.add_row(place, ProgressBar(total=total, completed=done))
        return grid

    def _speed(self, step: Step) -> Iterator[str]:
        done, total = progress(step)
        elapsed = time.monotonic() - self.began
        yield f"{100 * done / total:.0f} %"
        if self.steps and elapsed > 0:
            yield f"{timedelta(seconds=round((total - done) * elapsed / self.steps))} left"
            yield f"{self.samples / elapsed:,.0f} samples/s"

    def _numbers(self, step: Step) -> Iterator[str]:
        yield f"batch loss {step.loss:.4g}"
        if step.learning_rate is not None:
            yield f"learning rate {step.learning_rate:.3g}"
        if self.update_length is not None:
            yield f"update length {self.update_length:.3g}"


def progress(step: Step) -> tuple[int, int]:
    """Return the batches that are done, and those of the whole run."""
    return (step.epoch - 1) * step.batches + step.batch, step.epochs * step.batches


def cells(row: Row) -> list[str]:
    """Format one epoch; a dash where an older run did not record it."""
    return [
        str(row.epoch),
        f"{row.train_loss:.4g}",
        f"{row.test_loss:.4g}",
        "–" if row.train_accuracy is None else f"{row.train_accuracy:.2f} %",
        f"{row.test_accuracy:.2f} %",
        f"{row.seconds:.1f}",
    ]
