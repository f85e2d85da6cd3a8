"""E5: Fig. 4b: do the twins converge faster and vary less from seed to seed? Training curves with bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import COLORS, Page, Picture, Report, Table, band, log_scale, panels
from ocpkit_nn.experiments.results import Cell, Cells, estimate, quartiles
from ocpkit_nn.experiments.run import Options, Result, Run, baseline_run, common, twin_run

RATES = {"sgd": (0.4, 0.7), "rmsprop": (0.01, 0.03), "ekfac": (0.05, 0.1), "adam": (0.01, 0.02)}
RECORD_EVERY = 20
PAGE = Page("e5")


def runs(options: Options) -> list[Run]:
    every = []
    for dataset in options.datasets or ("digits",):
        for baseline, rates in RATES.items():
            shared = common("e5", dataset, baseline, options, record_every=2 if options.quick else RECORD_EVERY)
            for rate in rates[-1:] if options.quick else rates:
                for seed in options.seed_range:
                    every.append(baseline_run(shared, rate, seed))
                    every += [twin_run(shared, rate, seed, feedback) for feedback in ("full", "value")]
    return every


@dataclass(frozen=True)
class Bundle:
    """The curves of one method over the seeds."""

    updates: NDArray[np.float64]  # (N,)
    losses: NDArray[np.float64]  # (seeds, N), inf from where a training diverged

    @property
    def mean(self) -> NDArray[np.float64]:
        return self.losses.mean(0)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation over the seeds, inf where a training diverged."""
        if len(self.losses) == 1:
            return np.zeros(self.losses.shape[1])
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(self.mean), self.losses.std(0, ddof=1), np.inf)

    def reaches(self, loss: float) -> float:
        """Return the first update from which on the mean is finite and at most `loss`; inf if there is none."""
        above = np.flatnonzero(~((self.mean <= loss) & np.isfinite(self.mean)))
        first = above[-1] + 1 if len(above) else 0
        return float(self.updates[first]) if first < len(self.updates) else math.inf


def bundle(results: Sequence[Result]) -> Bundle:
    """Put the curves of all seeds on the longest one's updates."""
    curves = [result.curves for result in results]
    updates = np.array(max((curve["update"] for curve in curves), key=len), dtype=float)
    losses = np.full((len(curves), len(updates)), np.inf)
    for row, curve in zip(losses, curves):
        values = [math.inf if value is None else value for value in curve["train_loss"]]
        row[: len(values)] = values
    return Bundle(updates, losses)


def _bundles(cell: Cell) -> dict[str, Bundle]:
    return {"baseline": bundle(cell.own), **{feedback: bundle(cell.twin(feedback)) for feedback in ("full", "value")}}


def report(results: Sequence[Result], folder: Path) -> Report:
    every = Cells.each(results)
    tables, pictures = [_table(cells) for cells in every], [_draw(cells, folder) for cells in every]
    return PAGE.report(_verdict(every[0]), tables, pictures)


def _verdict(cells: Cells) -> tuple[str, str]:
    pairs = [(bundles["baseline"], bundles["full"]) for bundles in map(_bundles, cells)]
    steadier = sum(bool(full.deviation[-1] < own.deviation[-1]) for own, full in pairs)
    faster = sum(full.reaches(own.mean[-1]) < own.updates[-1] for own, full in pairs)
    holds, partly = steadier == faster == len(pairs), steadier + faster > len(pairs)
    counts = {"steadier": steadier, "panels": len(pairs), "faster": faster}
    return PAGE.judged(holds=holds, partly=partly, data=cells.name, **counts)


def _table(cells: Cells) -> Table:
    rows = []
    for cell in cells:
        bundles = _bundles(cell)
        for feedback, curve in bundles.items():
            when, last = curve.reaches(bundles["baseline"].mean[-1]), curve.deviation[-1]
            final = estimate(curve.losses[:, -1])
            deviation = f"{last:.4f}" if math.isfinite(last) else "diverged"
            numbers = (final.short(4), final.median_text(4), deviation, f"{when:.0f}" if when < math.inf else "never")
            rows.append((NAMES[cell.baseline], f"{cell.rate:g}", feedback, *numbers))
    return PAGE.table("Table", rows, data=cells.name)


def _draw(cells: Cells, folder: Path) -> Picture:
    columns, rows = len(cells.cells), max(map(len, cells.cells.values()))
    drawn, axes = panels(3.6 * columns, 2.8 * rows, rows, columns, ["training loss"] * rows)
    for column, row in zip(axes.T, cells.cells.values()):
        for ax, cell in zip(column, row):
            for feedback, curve in _bundles(cell).items():
                color = COLORS["none" if feedback == "baseline" else feedback]
                band(ax, curve.updates, [quartiles(losses) for losses in curve.losses.T], color, 0.2, label=feedback)
            ax.set(title=f"{NAMES[cell.baseline]}, rate {cell.rate:g}")
            log_scale(ax)
        column[-1].set_xlabel("update")
    axes[0, 0].legend(title="feedback", loc="upper right")
    return PAGE.figure("Figure", drawn, folder / f"curves-{cells.stem}.png", data=cells.name)
