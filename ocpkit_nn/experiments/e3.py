"""E3: Fig. 4a, Fig. 9, Tables 9 and 10: does the feedback lower the training loss at large learning rates?

ε = 0 is a column of its own: then the recursion is one scalar per sample and layer, and fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit_nn.data import is_there
from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.methods import NAMES, listed
from ocpkit_nn.experiments.report import COLORS, Page, Picture, Report, Table, band, heat_map, log_scale, panels
from ocpkit_nn.experiments.results import Cell, Cells, Estimate, bold, loss_of, percent, quartiles
from ocpkit_nn.experiments.run import Options, Result, Run, baseline_run, common, network_and_data, twin_run

PAPER, MNIST = ("fcn", "digits"), ("fcn", "mnist")
OTHERS = ("wine", "mnist", "cnn:digits")
OTHER_SEEDS = 5
"""Most seeds on data that are not the paper's."""
SUBSET: dict[str, Any] = {"samples": 2000, "epochs": 8}
"""Of MNIST for an FCN: 500 updates, since a sweep trains hundreds of them."""
ADAM_RATES = (0.003, 0.01, 0.02, 0.03)
RATES = {**{name: tuple(block) for name, block in paper.TABLE_9.items()}, "adam": ADAM_RATES}
EPSILONS = {**paper.EPSILONS, "adam": paper.EPSILONS["rmsprop"]}
BEST_RATES = {**paper.BEST_RATES, "adam": 0.001}
RIVALS: dict[str, tuple[str, ...]] = {
    "sgd": ("clip", "clip-samples", "warm-up", "normalised", "implicit"),
    "rmsprop": ("clip", "clip-samples", "warm-up"),
    "adam": ("clip", "clip-samples", "warm-up"),
    "ekfac": ("clip", "warm-up"),
}
"""What is compared with the twins of a baseline. Normalizing is nothing to RMSprop and Adam, which rescale anyway."""
PAPERS, OTHER = "empirical", {"fcn": "ggn", "cnn": "montecarlo"}
"""Terminal curvature: the paper's; the exact one, where a column a class can be paid, else draws of one."""
_ADAM = ", ".join(f"{rate:g}" for rate in ADAM_RATES)
PAGE = Page("e3", adam_rates=_ADAM, other_seeds=OTHER_SEEDS, subset=SUBSET)


def runs(options: Options) -> list[Run]:
    """Return all runs: the paper's cells on DIGITS; ε = 0 alone, and the best rate too, on other data sets.

    On MNIST without EKFAC, whose eigenbasis of 785 inputs in every step would take longer than all the rest.
    """
    others = () if options.quick else tuple(name for name in OTHERS if is_there(network_and_data(name)[1]))
    return [
        run
        for name in options.datasets or ("digits", *others)
        for baseline in RATES
        if network_and_data(name) != MNIST or baseline != "ekfac"
        for rate in _rates(name, baseline, options.quick)
        for seed in options.seed_range[: None if network_and_data(name) == PAPER else OTHER_SEEDS]
        for run in _cell(name, baseline, rate, seed, options)
    ]


def _cell(name: str, baseline: str, rate: float, seed: int, options: Options) -> Iterator[Run]:
    shared = common("e3", name, baseline, options, **(SUBSET if network_and_data(name) == MNIST else {}))
    yield baseline_run(shared, rate, seed)
    yield twin_run(shared, rate, seed, "none")
    for terminal in (PAPERS, OTHER[shared["model"]]):
        for epsilon in _epsilons(name, baseline, terminal, options.quick):
            for feedback in ("full", "value"):
                yield twin_run(shared, rate, seed, feedback, epsilon=epsilon, terminal=terminal)
    yield from (baseline_run(shared, rate, seed, rival) for rival in RIVALS[baseline])


def _rates(name: str, baseline: str, quick: bool) -> tuple[float, ...]:
    rates = RATES[baseline] if network_and_data(name) == PAPER else (BEST_RATES[baseline], *RATES[baseline])
    return (rates[0], rates[-1]) if quick else rates


def _epsilons(name: str, baseline: str, terminal: str, quick: bool) -> tuple[float, ...]:
    """Return ε of the columns: all of the paper's for its own curvature, the largest for the exact one."""
    if network_and_data(name) != PAPER:
        return (0.0,)
    printed = EPSILONS[baseline]
    return (0.0, printed[-1]) if quick or terminal != PAPERS else (0.0, *printed)


def report(results: Sequence[Result], folder: Path) -> Report:
    """Compare with the paper's cells; the verdict is that of DIGITS, where it is among the data sets."""
    every = sorted(Cells.each(results), key=lambda cells: cells.data != PAPER)
    verdict, text = _verdict(every[0])
    tables, pictures = [], []
    for cells in every:
        if cells.data == PAPER:
            tables += [
                _beside("Training loss beside Table 9: ours (the paper's)", cells, paper.TABLE_9, 4),
                _beside("Median training loss in the cells of Table 9", cells, {}, 4, Estimate.median_text),
                _beside("Accuracy [%] beside Table 10: ours (the paper's)", cells, paper.TABLE_10, 2),
            ]
        for terminal in cells.terminals:
            tables.append(_sources(cells, terminal))
            pictures += [draw_heat_maps(cells, terminal, folder), draw_sources(cells, terminal, folder)]
        tables.append(_rivals(cells, "Training loss", lambda e: (e.mean, e.text(4))))
        tables.append(_rivals(cells, "Median training loss", lambda e: (e.median, e.median_text(4))))
    text = " ".join([text, *(say(cells) for cells in every for say in (_source_sentence, _rivals_sentence))])
    return PAGE.report((verdict, text), tables, pictures)


def _verdict(cells: Cells) -> tuple[str, str]:
    gains = {name: [_gains(cells, cell) for cell in row] for name, row in cells.cells.items()}
    blocks = {name: rows for name, rows in gains.items() if name in paper.TABLE_9}
    ours = [gain for rows in blocks.values() for row in rows for gain in row]
    others = [gain for name, rows in gains.items() if name not in blocks for row in rows for gain in row]
    improved, theirs = sum(g.mean < 0 for g in ours), paper.improved_cells()
    # the mean over ε of the gain is larger at the largest rate than at the smallest
    growing = [name for name, rows in blocks.items() if _mean(rows[-1]) < _mean(rows[0])]
    holds = improved * theirs[1] >= theirs[0] * len(ours) and len(growing) == len(blocks)
    clear = {"below": sum(g.below for g in ours), "above": sum(g.above for g in ours)}
    adam = {"lower": sum(g.mean < 0 for g in others), "others": len(others)}
    said = {"data": cells.name, "improved": improved, "cells": len(ours), "blocks": listed(blocks), **clear, **adam}
    return PAGE.judged(holds=holds, partly=2 * improved > len(ours), theirs=theirs, growing=listed(growing), **said)


def _gains(cells: Cells, cell: Cell) -> list[Estimate]:
    """Return the gains at the paper's ε; those at ε = 0 where there are no others."""
    epsilons = cells.epsilons(cell.baseline)
    return [cell.gain(epsilon) for epsilon in [e for e in epsilons if e > 0] or epsilons]


def _mean(gains: Sequence[Estimate]) -> float:
    return float(np.mean([gain.mean for gain in gains]))


def _source_sentence(cells: Cells) -> str:
    """Say how much of the gain at ε = 0 is there without K δx."""
    sources = [cell.source() for cell in cells]
    clear = [s for s in sources if s["full − baseline"].below and np.isfinite(s["value − baseline"].mean)]
    shares = [s["value − baseline"].mean / s["full − baseline"].mean for s in clear]
    part = "there is nothing to divide"
    if clear:
        part = f"the value recursion alone gives {100 * float(np.median(shares)):.0f} % of it (median)"
    changes = [source["full − value"] for source in sources]
    lower, higher = sum(change.below for change in changes), sum(change.above for change in changes)
    counts = {"clear": len(clear), "cells": len(sources), "lower": lower, "higher": higher}
    return PAGE.say("Source of the gain", data=cells.name, part=part, **counts)


def _rivals_sentence(cells: Cells) -> str:
    """Say in how many cells the full twin at ε = 0 ends below each of a practitioner's remedies."""
    counts: dict[str, list[bool]] = {}
    for cell in cells:
        twin = cell.twin("full").loss.mean
        for rival in RIVALS[cell.baseline]:
            counts.setdefault(rival, []).append(twin < cell.results.where(method=rival).loss.mean)
    said = ", ".join(f"{NAMES[rival]} in {sum(wins)} of {len(wins)}" for rival, wins in counts.items())
    return PAGE.say("Rivals", data=cells.name, said=said)


def _beside(
    what: str,
    cells: Cells,
    printed: dict[str, dict[float, tuple[float, ...]]],
    digits: int,
    say: Callable[[Estimate, int], str] = Estimate.short,
) -> Table:
    """One row for each learning rate; the columns are the baseline, ε = 0, and ε from small to large."""
    rows = []
    for cell in cells:
        results = [cell.own, *(cell.twin("full", e) for e in (0.0, *EPSILONS[cell.baseline]))]
        means = [each.accuracy if printed is paper.TABLE_10 else each.loss for each in results]
        texts = ["–" if mean.seeds == 0 else say(mean, digits) for mean in means]
        theirs = printed.get(cell.baseline, {}).get(cell.rate, ())
        for place, number in zip((0, *range(2, len(texts))), theirs):
            texts[place] += f" ({number:.{digits}f})"
        rows.append((NAMES[cell.baseline], f"{cell.rate:g}", *texts))
    values = "; ".join(f"{NAMES[name]} {', '.join(f'{e:g}' for e in own)}" for name, own in paper.EPSILONS.items())
    return PAGE.table("Beside the paper", rows, what=what, epsilons=values)


def _sources(cells: Cells, terminal: str) -> Table:
    rows = []
    for cell in cells:
        source, own = cell.source(terminal), cell.own.loss
        texts = [own.text(4), own.median_text(4), *(part.text(4) for part in source.values())]
        rows.append((NAMES[cell.baseline], f"{cell.rate:g}", *texts, source["full − baseline"].median_text(4)))
    return PAGE.table("Sources", rows, data=cells.name, terminal=terminal)


def _rivals(cells: Cells, what: str, say: Callable[[Estimate], tuple[float, str]]) -> Table:
    other = next((t for t in cells.terminals if t != PAPERS), "ggn")
    every = list(dict.fromkeys(rival for rivals in RIVALS.values() for rival in rivals))
    forms = [(feedback, 0.0, terminal) for terminal in (PAPERS, other) for feedback in ("full", "value")]
    rows = []
    for cell in cells:
        twins, others = [cell.twin(*form) for form in forms], [cell.results.where(method=rival) for rival in every]
        said = [say(group.loss) if group else (math.inf, "") for group in (cell.own, *twins, *others)]
        best = min(number for number, _ in said)
        texts = (bold(text, number == best and bool(text)) for number, text in said)
        rows.append((NAMES[cell.baseline], f"{cell.rate:g}", *texts))
    return PAGE.table("Remedies", rows, [NAMES[rival] for rival in every], what=what, data=cells.name, other=other)


def draw_heat_maps(cells: Cells, terminal: str, folder: Path) -> Picture:
    ylabels = ("training loss\nlearning rate", "accuracy [%]\nlearning rate")
    drawn, axes = panels(3.6 * len(cells.cells), 5.6, 2, len(cells.cells), ylabels)
    for (above, below), (name, row) in zip(axes.T, cells.cells.items()):
        epsilons = cells.epsilons(name, terminal)
        labels = [f"{cell.rate:g}" for cell in row], [f"{epsilon:g}" for epsilon in epsilons]
        for ax, value, digits in ((above, loss_of, 3), (below, percent, 1)):
            twins = [[cell.twin("full", e, terminal).minus(cell.own, value).mean for e in epsilons] for cell in row]
            heat_map(ax, twins, *labels, lower_is_better=value is loss_of, digits=digits)
        above.set_title(f"DDPNOpt − {NAMES[name]}")
        below.set_xlabel("ε")
    path = folder / f"heat-maps-{cells.stem}-{terminal}.png"
    return PAGE.figure("Heat maps", drawn, path, data=cells.name, terminal=terminal)


def draw_sources(cells: Cells, terminal: str, folder: Path) -> Picture:
    drawn, (axes,) = panels(3.6 * len(cells.cells), 3.2, 1, len(cells.cells), ["training loss"])
    for ax, (name, row) in zip(axes, cells.cells.items()):
        for feedback, color in COLORS.items():
            losses = [quartiles([r.loss for r in cell.twin(feedback, 0.0, terminal)]) for cell in row]
            band(ax, range(len(row)), losses, color, 0.15, marker="o", markersize=4, label=feedback)
        ax.set_xticks(range(len(row)), [f"{cell.rate:g}" for cell in row])
        ax.set(title=f"twins of {NAMES[name]}", xlabel="learning rate")
        log_scale(ax)
    axes[0].legend(title="feedback")
    path = folder / f"sources-{cells.stem}-{terminal}.png"
    return PAGE.figure("Losses of the twins", drawn, path, data=cells.name, terminal=terminal)
