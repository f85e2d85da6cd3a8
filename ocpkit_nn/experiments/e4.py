"""E4: Tables 6 to 8: the twins at the baselines' best learning rates on DIGITS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.methods import NAMES, listed
from ocpkit_nn.experiments.report import COLORS, Page, Picture, Report, Table, log_scale, panels
from ocpkit_nn.experiments.results import Cells, percent
from ocpkit_nn.experiments.run import Options, Result, Run, baseline_run, common, twin_run

RATES = {**paper.BEST_RATES, "adam": 0.001}
TERMINALS = ("empirical", "ggn")
PAGE = Page("e4")


def runs(options: Options) -> list[Run]:
    every = []
    for dataset in options.datasets or ("digits",):
        for baseline, rate in RATES.items():
            shared = common("e4", dataset, baseline, options)
            for seed in options.seed_range:
                every += [baseline_run(shared, rate, seed), twin_run(shared, rate, seed, "none")]
                forms = [(feedback, terminal) for terminal in TERMINALS for feedback in ("full", "value")]
                every += [twin_run(shared, rate, seed, feedback, terminal=terminal) for feedback, terminal in forms]
    return every


def report(results: Sequence[Result], folder: Path) -> Report:
    every = Cells.each(results)
    tables = [table for cells in every for table in (_beside(cells), _twins(cells))]
    return PAGE.report(_verdict(every[0]), tables, [_draw(cells, folder) for cells in every])


def _verdict(cells: Cells) -> tuple[str, str]:
    judged_by = [cell for cell in cells if cell.baseline in paper.TABLES_6_TO_8]
    lower = [cell.baseline for cell in judged_by if cell.gain().mean < 0]
    higher = [cell.baseline for cell in judged_by if cell.twin("full").minus(cell.own, percent).mean > 0]
    holds = len(lower) == len(judged_by) and 2 * len(higher) >= len(judged_by)
    said = {"data": cells.name, "lower": listed(lower), "higher": listed(higher)}
    return PAGE.judged(holds=holds, partly=bool(lower), **said)


def _beside(cells: Cells) -> Table:
    rows = []
    for cell in cells:
        name, printed = cell.baseline, paper.TABLES_6_TO_8.get(cell.baseline)
        twin = (f"DDPNOpt, twin of {NAMES[name]}", "ddpnopt", cell.twin("full"))
        for label, method, group in ((NAMES[name], name, cell.own), twin):
            theirs = ("–", "–") if printed is None else (f"{printed[method][0]:.3f}", f"{printed[method][1]:.2f}")
            losses = group.loss.text(4), theirs[0], group.loss.median_text(4)
            rows.append((label, f"{cell.rate:g}", *losses, group.accuracy.text(2), theirs[1]))
    return PAGE.table("Beside the paper", rows, data=cells.name)


def _twins(cells: Cells) -> Table:
    rows = []
    for cell in cells:
        for terminal in TERMINALS:
            source = cell.source(terminal)
            texts = (*(part.text(4) for part in source.values()), source["full − baseline"].median_text(4))
            rows.append((f"{NAMES[cell.baseline]}, {terminal}", f"{cell.rate:g}", *texts))
    return PAGE.table("Sources", rows, data=cells.name)


def _draw(cells: Cells, folder: Path) -> Picture:
    drawn, (axes,) = panels(3.2 * len(cells.cells), 3.8, 1, len(cells.cells), ["training loss of the twin"])
    for ax, cell in zip(axes, cells):
        own = {result.run.seed: result.loss for result in cell.own}
        points: list[float] = []
        for feedback in ("full", "value"):
            pairs = [(own[result.run.seed], result.loss) for result in cell.twin(feedback)]
            pairs = [pair for pair in pairs if math.isfinite(sum(pair))]
            points += [number for pair in pairs for number in pair]
            ax.plot(*np.reshape(pairs, (-1, 2)).T, "o", color=COLORS[feedback], markersize=4, label=feedback)
        ends = [min(points, default=0.1) / 1.1, (max(points, default=0.0) or 1.0) * 1.1]
        ax.plot(ends, ends, color="0.6", linewidth=1)
        ax.set(xlim=ends, ylim=ends, box_aspect=1)
        log_scale(ax, "xy")
        ax.set(title=f"{NAMES[cell.baseline]}, rate {cell.rate:g}", xlabel="training loss of the baseline")
    axes[0].legend(title="feedback")
    return PAGE.figure("Figure", drawn, folder / f"pairs-{cells.stem}.png", data=cells.name)
