"""E4: Tables 6 to 8: the twins at the baselines' best learning rates on DIGITS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.cells import Cells
from ocpkit_nn.experiments.methods import NAMES, listed
from ocpkit_nn.experiments.report import COLOURS, FAILS, HOLDS, PARTLY, Picture, Report, Table, figure, log_scale, save
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.statistics import accuracy, difference, loss, percent
from ocpkit_nn.experiments.trial import train
from ocpkit_nn.experiments.twins import baseline_run, common, seeds, twin_run

__all__ = ["TITLE", "report", "runs", "train"]

TITLE = "E4: the twins at the baselines' best learning rates (Tables 6 to 8)"
RATES = {**paper.BEST_RATES, "adam": 0.001}
TERMINALS = ("empirical", "ggn")


def runs(options: Options) -> list[Run]:
    """Return the baselines and their twins at ε = 0."""
    every = []
    for dataset in options.datasets or ("digits",):
        for baseline, rate in RATES.items():
            shared = common("e4", dataset, baseline, options)
            for seed in seeds(options):
                every += [baseline_run(shared, rate, seed), twin_run(shared, rate, seed, "none")]
                every += [
                    twin_run(shared, rate, seed, feedback, terminal=terminal)
                    for terminal in TERMINALS
                    for feedback in ("full", "value")
                ]
    return every


def report(results: Sequence[Result], folder: Path) -> Report:
    """Compare losses and accuracies with Tables 6 to 8."""
    every = Cells.each(results)
    verdict, text = _verdict(every[0])
    tables = [table for cells in every for table in (_beside(cells), _twins(cells))]
    return Report(TITLE, verdict, text, tuple(tables), tuple(_draw(cells, folder) for cells in every), NOTES)


NOTES = (
    "The paper does not say which ε its Tables 6 to 8 have; here ε = 0, and nothing was tuned for them but what the "
    "paper gives, the learning rates. Adam at 0.001 is added.",
)


def _verdict(cells: Cells) -> tuple[str, str]:
    names = [name for name in cells.baselines if name in paper.TABLES_6_TO_8]
    lower, higher = [], []
    for name in names:
        own, twin = cells.of(name, RATES[name], name), cells.twin(name, RATES[name], "full")
        lower += [name] if difference(twin, own).mean < 0 else []
        higher += [name] if difference(twin, own, percent).mean > 0 else []
    verdict = HOLDS if len(lower) == len(names) and 2 * len(higher) >= len(names) else PARTLY if lower else FAILS
    text = (
        f"On {cells.name} the full twin ends with a lower training loss for {listed(lower)} and with a higher "
        f"accuracy for {listed(higher)} (paper: all three, and SGD and RMSprop). Rule: holds if the loss is lower for "
        "all three and the accuracy higher for at least half, partly if the loss is lower for any."
    )
    return verdict, text


def _beside(cells: Cells) -> Table:
    rows = []
    for name in cells.baselines:
        rate, printed = RATES[name], paper.TABLES_6_TO_8.get(name)
        for method in (name, "ddpnopt"):
            group = cells.of(name, rate, name) if method == name else cells.twin(name, rate, "full")
            theirs = ("–", "–") if printed is None else (f"{printed[method][0]:.3f}", f"{printed[method][1]:.2f}")
            label = NAMES[name] if method == name else f"DDPNOpt, twin of {NAMES[name]}"
            mean = loss(group)
            losses = mean.text(4), theirs[0], mean.median_text(4)
            rows.append((label, f"{rate:g}", *losses, accuracy(group).text(2), theirs[1]))
    header = ("method", "rate", "training loss", "paper", "its median", "accuracy [%]", "paper")
    return Table(f"Mean ± standard error on {cells.name} beside Tables 6 to 8", header, tuple(rows))


def _twins(cells: Cells) -> Table:
    rows = []
    for name in cells.baselines:
        for terminal in TERMINALS:
            source = cells.source(name, RATES[name], terminal=terminal)
            parts = (source.noise, source.value, source.feedback, source.total)
            texts = (*(part.text(4) for part in parts), source.total.median_text(4))
            rows.append((f"{NAMES[name]}, {terminal}", f"{RATES[name]:g}", *texts))
    header = (
        "baseline, terminal curvature",
        "rate",
        "none − baseline",
        "value − baseline",
        "full − value",
        "full − baseline",
        "its median",
    )
    return Table(f"Changes of the training loss on {cells.name}, paired by seed", header, tuple(rows))


def _draw(cells: Cells, folder: Path) -> Picture:
    """Every seed's training loss: the baseline against its twins, where neither diverged."""
    drawn = figure(3.2 * len(cells.baselines), 3.8)
    axes = drawn.subplots(1, len(cells.baselines), squeeze=False)[0]
    for ax, name in zip(axes, cells.baselines):
        own = {result.run.seed: result.loss for result in cells.of(name, RATES[name], name)}
        drawn_losses: list[float] = []
        for feedback in ("full", "value"):
            twins = cells.twin(name, RATES[name], feedback)
            pairs = [(own[result.run.seed], result.loss) for result in twins]
            pairs = [pair for pair in pairs if math.isfinite(sum(pair))]
            drawn_losses += [number for pair in pairs for number in pair]
            ax.plot(*np.reshape(pairs, (-1, 2)).T, "o", color=COLOURS[feedback], markersize=4, label=feedback)
        ends = [min(drawn_losses, default=0.1) / 1.1, (max(drawn_losses, default=0.0) or 1.0) * 1.1]
        ax.plot(ends, ends, color="0.6", linewidth=1)
        ax.set(xlim=ends, ylim=ends, box_aspect=1)
        log_scale(ax, "xy")
        ax.set(title=f"{NAMES[name]}, rate {RATES[name]:g}", xlabel="training loss of the baseline")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("training loss of the twin")
    axes[0].legend(title="feedback")
    caption = f"One point for each seed, {cells.name}; below the line the twin is better"
    return save(drawn, folder / f"pairs-{cells.stem}.png", caption)
