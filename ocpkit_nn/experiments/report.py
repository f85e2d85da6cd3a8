"""What an item says of its results: a verdict, tables beside the paper's, figures in one style."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocpkit.boundary.atomic import write_atomically
from ocpkit.errors import ProblemError
from ocpkit_nn.experiments.run import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOLDS, PARTLY, FAILS = "holds", "holds partly", "does not hold"
NOT_JUDGED = "not judged (the quick form only shows that the experiment runs)"
COLOURS = {"none": "#000000", "full": "#0072B2", "value": "#D55E00"}
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Attributes
    ----------
    caption
        One line above it.
    header, rows
        Of equal length.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table, its first column to the left, the others to the right."""
        rule = ("---", *("---:" for _ in self.header[1:]))
        lines = ["| " + " | ".join(row) + " |" for row in (self.header, rule, *self.rows)]
        return "\n".join([f"**{self.caption}**", "", *lines])


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn: its file and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Report:
    """What the results of an item say.

    Attributes
    ----------
    title
        What was to be reproduced.
    verdict
        `HOLDS`, `PARTLY` or `FAILS`; `NOT_JUDGED` for the quick form; empty where
        there is nothing to judge.
    text
        A paragraph that gives the rule behind the verdict and the numbers it was computed from.
    tables, pictures
        In the order in which they are shown.
    notes
        Where the experiment departs from the paper, and why.
    provenance
        Number of runs, machine and versions.
    notes_heading
        What stands over the notes.
    """

    title: str
    verdict: str
    text: str
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: str = ""
    notes_heading: str = "Deviations from the paper"

    def markdown(self, relative_to: Path, level: int = 1) -> str:
        """Return the report as Markdown in a file of the folder `relative_to`."""
        parts = [
            f"{'#' * level} {self.title}",
            f"**Verdict: {self.verdict}.** {self.text}" if self.verdict else self.text,
        ]
        for picture in self.pictures:
            path = Path(os.path.relpath(picture.path, relative_to)).as_posix()
            parts.append(f"![{picture.caption}]({path})\n\n*{picture.caption}*")
        parts += [table.markdown() for table in self.tables]
        if self.notes:
            parts.append(f"{self.notes_heading}:\n\n" + "\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join([*parts, self.provenance]).rstrip() + "\n"


def provenance(results: Sequence[Result]) -> str:
    """Say on which machines, with which versions and how long the runs took."""
    machines = sorted({result.versions.get("machine", "unknown machine") for result in results})
    software = sorted(
        {
            ", ".join(f"{name} {version}" for name, version in result.versions.get("versions", {}).items())
            for result in results
        }
    )
    minutes = sum(result.seconds for result in results) / 60
    return (
        f"{len(results)} {'run' if len(results) == 1 else 'runs'}, {_seeds(results)}, {minutes:.1f} CPU minutes. "
        f"{'; '.join(machines)}. {'; '.join(software)}."
    )


def _seeds(results: Sequence[Result]) -> str:
    """Say which seeds there are, such as "seeds 0 to 9, 1000 to 1009"."""
    seeds = sorted({result.run.seed for result in results})
    starts = [seed for seed in seeds if seed - 1 not in seeds]
    ends = [seed for seed in seeds if seed + 1 not in seeds]
    ranges = [f"{start} to {end}" if end > start else f"{start}" for start, end in zip(starts, ends)]
    return f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(ranges)}"


def figure(width: float, height: float) -> Figure:
    """Return an empty figure [inches] that needs no display.

    Raises
    ------
    ProblemError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ProblemError("the figures need matplotlib: pip install 'ocpkit[plot]'") from error
    new = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(new)
    return new


def save(drawn: Figure, path: Path, caption: str) -> Picture:
    """Write a figure as .png of 256 colours, which keeps the file small, and return it with its caption."""
    from PIL import Image

    pixels = BytesIO()
    drawn.savefig(pixels, dpi=110, format="png")
    image = Image.open(pixels).convert("RGB").quantize(256)
    write_atomically(path, lambda file: image.save(file, format="png", optimize=True))
    return Picture(path, caption)


def heat_map(
    axes: Any, values: Any, rows: Sequence[str], columns: Sequence[str], *, lower_is_better: bool, digits: int = 3
) -> None:
    """Draw a matrix of differences (rows, columns) with its numbers; blue is better than zero, red worse.

    The colours end at the upper quartile of the sizes, so that one outlier does not make all others white. nan is grey.
    """
    sizes = sorted(abs(value) for row in values for value in row if math.isfinite(value))
    limit = (sizes[(3 * len(sizes)) // 4] if sizes else 0.0) or 1.0
    shown = [[max(-limit, min(limit, value)) if not math.isnan(value) else value for value in row] for row in values]
    axes.set_facecolor("0.85")
    axes.imshow(shown, cmap="RdBu_r" if lower_is_better else "RdBu", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            colour = "white" if abs(value) > 0.6 * limit else "black"
            text = f"{value:+.{digits}f}" if math.isfinite(value) else _INFINITE.get(value, "both\ndiverged")
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)


_INFINITE = {math.inf: "twin\ndiverged", -math.inf: "baseline\ndiverged"}


def log_scale(axes: Any, which: str = "y") -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 times the powers of ten.

    An axis on which nothing is drawn that is finite and positive, since every training diverged, stays as it is.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name in which:
        axis, plain = getattr(axes, f"{name}axis"), FuncFormatter(lambda value, _: f"{value:g}")
        if not 0 < axis.get_data_interval()[1] < math.inf:
            continue
        getattr(axes, f"set_{name}scale")("log")
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
