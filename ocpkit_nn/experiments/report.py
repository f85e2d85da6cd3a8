"""Report of an item: a verdict, tables beside the paper's, figures in one style."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocpkit.errors import ProblemError
from ocpkit_nn.experiments.run import Result, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOLDS, PARTLY, FAILS = "holds", "holds partly", "does not hold"
NOT_JUDGED = "not judged (the quick form only shows that the experiment runs)"
COLORS = {"none": "#000000", "full": "#0072B2", "value": "#D55E00"}
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, all of equal length; the caption is one line above it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        rule = ("---", *("---:" for _ in self.header[1:]))
        lines = ["| " + " | ".join(row) + " |" for row in (self.header, rule, *self.rows)]
        return "\n".join([f"**{self.caption}**", "", *lines])


@dataclass(frozen=True)
class Picture:
    path: Path
    caption: str


@dataclass(frozen=True)
class Report:
    title: str  # what was to be reproduced
    verdict: str  # `HOLDS`, `PARTLY`, `FAILS`, `NOT_JUDGED`; empty where there is nothing to judge
    text: str  # the rule behind the verdict, and the numbers it was computed from
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()  # where the experiment departs from the paper, and why; or how to read it
    notes_heading: str = ""
    provenance: str = ""  # number of runs, machine and versions

    def markdown(self, relative_to: Path, level: int = 1) -> str:
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


def prose(name: str) -> str:
    """Return ``pages/NAME.md``, with placeholders of `str.format`."""
    return (resources.files(__package__) / "pages" / f"{name}.md").read_text(encoding="utf-8")


class Page:
    """Prose of an item: title, sections by their headings, the last of which are the notes; filled by `values`."""

    def __init__(self, name: str, **values: Any) -> None:
        title, *sections = prose(name).split("\n## ")
        self.title, self.values = title.removeprefix("# ").strip(), values
        self.sections = {heading: _unwrapped(text) for heading, _, text in (each.partition("\n") for each in sections)}

    def say(self, heading: str, **values: Any) -> str:
        return self.sections[heading].format(**self.values, **values)

    def judged(self, *, holds: bool, partly: bool, **values: Any) -> tuple[str, str]:
        """Return the verdict, and the text that says why."""
        return HOLDS if holds else PARTLY if partly else FAILS, self.say("Verdict", **values)

    def table(self, heading: str, rows: Sequence[Sequence[str]], columns: Iterable[str] = (), **values: Any) -> Table:
        """Return a table with the caption and the header of a section, and `columns` beside those of the header."""
        caption, header = self.say(heading, **values).split("\n\n")
        return Table(caption, [*header.strip("| ").split(" | "), *columns], rows)

    def figure(self, heading: str, drawn: Figure, path: Path, **values: Any) -> Picture:
        """Write a figure, and return it with the caption that is a section."""
        return save(drawn, path, self.say(heading, **values))

    def report(self, judged: tuple[str, str], tables: Sequence[Table], pictures: Sequence[Picture]) -> Report:
        heading = list(self.sections)[-1]
        notes = self.say(heading).removeprefix("- ").split("\n- ")
        return Report(self.title, *judged, tables, pictures, notes, heading)


def _unwrapped(text: str) -> str:
    """Return paragraphs and items of lists as one line each."""
    return re.sub(r"(?<!\n)\n(?!\n|- ) *", " ", text.strip())


def provenance(results: Sequence[Result]) -> str:
    """Say on which machines, with which versions, seeds and in what time the runs were made."""
    machines = sorted({result.versions.get("machine", "unknown machine") for result in results})
    versions = [result.versions.get("versions", {}) for result in results]
    software = sorted({", ".join(f"{name} {version}" for name, version in each.items()) for each in versions})
    minutes = sum(result.seconds for result in results) / 60
    seeds = sorted({result.run.seed for result in results})
    starts = [seed for seed in seeds if seed - 1 not in seeds]
    ends = [seed for seed in seeds if seed + 1 not in seeds]
    ranges = [f"{start} to {end}" if end > start else f"{start}" for start, end in zip(starts, ends)]
    return (
        f"{len(results)} {'run' if len(results) == 1 else 'runs'}, {'seeds' if len(seeds) > 1 else 'seed'} "
        f"{', '.join(ranges)}, {minutes:.1f} CPU minutes. {'; '.join(machines)}. {'; '.join(software)}."
    )


def panels(
    width: float, height: float, rows: int, columns: int, ylabels: Sequence[str] = (), **shared: Any
) -> tuple[Figure, Any]:
    """Return an empty figure [inches] that needs no display, and its axes (rows, columns), each with a grid.

    The first column has the `ylabels`, one for each row. `ProblemError` if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ProblemError("the figures need matplotlib: pip install 'ocpkit[plot]'") from error
    new = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(new)
    axes = new.subplots(rows, columns, squeeze=False, **shared)
    for each in axes.flat:
        each.grid(alpha=0.3)
    for each, text in zip(axes[:, 0], ylabels):
        each.set_ylabel(text)
    return new, axes


def save(drawn: Figure, path: Path, caption: str) -> Picture:
    """Write a figure as .png of 256 colors, which keeps the file small, and return it with its caption."""
    from PIL import Image

    pixels, small = BytesIO(), BytesIO()
    drawn.savefig(pixels, dpi=110, format="png")
    Image.open(pixels).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    write(path, small.getvalue())
    return Picture(path, caption)


def band(axes: Any, x: Any, quartiles: Any, color: str, alpha: float, **style: Any) -> None:
    """Draw medians as a line in the band of the middle half, from (lower quartile, median, upper) at each x."""
    low, middle, high = zip(*quartiles)
    axes.plot(x, middle, color=color, **style)
    axes.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0)


def heat_map(
    axes: Any, values: Any, rows: Sequence[str], columns: Sequence[str], *, lower_is_better: bool, digits: int = 3
) -> None:
    """Draw a matrix of differences (rows, columns) with its numbers; blue is better than zero, red worse.

    The colors end at the upper quartile of the sizes, so that one outlier does not make all others white. nan is gray.
    """
    sizes = sorted(abs(value) for row in values for value in row if math.isfinite(value))
    limit = (sizes[(3 * len(sizes)) // 4] if sizes else 0.0) or 1.0
    shown = [[max(-limit, min(limit, value)) if not math.isnan(value) else value for value in row] for row in values]
    axes.set_facecolor("0.85")
    axes.grid(False)
    axes.imshow(shown, cmap="RdBu_r" if lower_is_better else "RdBu", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    infinite = {math.inf: "twin\ndiverged", -math.inf: "baseline\ndiverged"}
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            color = "white" if abs(value) > 0.6 * limit else "black"
            text = f"{value:+.{digits}f}" if math.isfinite(value) else infinite.get(value, "both\ndiverged")
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)


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
