"""Figures of E3: heat maps in the form of Fig. 4a and 9, and where the gain comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ocpkit_nn.experiments.cells import Cells
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import COLOURS, Picture, figure, heat_map, log_scale, save
from ocpkit_nn.experiments.run import Result
from ocpkit_nn.experiments.statistics import difference, percent, quartiles


def draw_heat_maps(cells: Cells, terminal: str, folder: Path) -> Picture:
    """Full twin minus baseline, for the training loss (above) and the accuracy (below); blue is better in both."""
    drawn = figure(3.6 * len(cells.baselines), 5.6)
    axes = drawn.subplots(2, len(cells.baselines), squeeze=False)
    for column, name in enumerate(cells.baselines):
        epsilons, rates = cells.epsilons(name, terminal), cells.rates(name)
        labels = [f"{rate:g}" for rate in rates], [f"{epsilon:g}" for epsilon in epsilons]
        for row, (value, digits) in enumerate(((lambda r: r.loss, 3), (percent, 1))):
            differences = [[_mean(cells, name, r, e, terminal, value) for e in epsilons] for r in rates]
            heat_map(axes[row, column], differences, *labels, lower_is_better=row == 0, digits=digits)
        axes[0, column].set_title(f"DDPNOpt − {NAMES[name]}")
        axes[1, column].set_xlabel("ε")
    axes[0, 0].set_ylabel("training loss\nlearning rate")
    axes[1, 0].set_ylabel("accuracy [%]\nlearning rate")
    caption = f"Full twin minus baseline, {cells.name}, terminal curvature “{terminal}” (blue: the feedback helps)"
    return save(drawn, folder / f"heat-maps-{cells.stem}-{terminal}.png", caption)


def _mean(
    cells: Cells, name: str, rate: float, epsilon: float, terminal: str, value: Callable[[Result], float]
) -> float:
    return difference(cells.twin(name, rate, "full", epsilon, terminal), cells.of(name, rate, name), value).mean


def draw_sources(cells: Cells, terminal: str, folder: Path) -> Picture:
    """Median training loss of the three twins over the learning rate, and the middle half of the seeds."""
    drawn = figure(3.6 * len(cells.baselines), 3.2)
    axes = drawn.subplots(1, len(cells.baselines), squeeze=False)[0]
    for ax, name in zip(axes, cells.baselines):
        rates = cells.rates(name)
        for feedback, colour in COLOURS.items():
            losses = [[r.loss for r in cells.twin(name, rate, feedback, 0.0, terminal)] for rate in rates]
            low, middle, high = np.transpose([quartiles(values) for values in losses])
            ax.plot(range(len(rates)), middle, color=colour, marker="o", markersize=4, label=feedback)
            ax.fill_between(range(len(rates)), low, high, color=colour, alpha=0.15, linewidth=0)
        ax.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        ax.set(title=f"twins of {NAMES[name]}", xlabel="learning rate")
        log_scale(ax)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("training loss")
    axes[0].legend(title="feedback")
    caption = (
        f"Training loss of the three twins, {cells.name}, terminal curvature “{terminal}”, ε = 0: "
        "median and the middle half of the seeds"
    )
    return save(drawn, folder / f"sources-{cells.stem}-{terminal}.png", caption)
