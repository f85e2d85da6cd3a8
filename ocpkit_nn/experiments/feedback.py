"""Beyond the paper: does another form of the feedback do better than Alg. 3?

The forms are those of `FORMS`; its page says what they are, and docs/whole-batch.md derives the stacked ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ocpkit_nn.experiments.e3 import BEST_RATES, RATES
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import LINES, Page, Picture, Report, Table, log_scale, panels
from ocpkit_nn.experiments.results import Cell, Cells, Estimate, Results, bold, capped_loss, estimate, quartiles
from ocpkit_nn.experiments.run import Options, Result, Run, baseline_run, common, twin_run

BASELINES = ("sgd", "rmsprop", "adam")
PAPER, SWEEP = "Alg. 3", "Gauss-Seidel"
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "no K δx": ("ddpnopt", {"feedback": "value", "terminal": "empirical"}),
    PAPER: ("ddpnopt", {"feedback": "full", "terminal": "empirical"}),
    "rank 1": ("ddpnopt", {"feedback": "full", "terminal": "rank", "rank": 1}),
    "rank 3": ("ddpnopt", {"feedback": "full", "terminal": "rank", "rank": 3}),
    "random column": ("ddpnopt", {"feedback": "full", "terminal": "montecarlo"}),
    "all columns": ("ddpnopt", {"feedback": "full", "terminal": "ggn"}),
    "ρ = 0.1": ("trust-region", {"radius": 0.1}),
    "ρ = 1": ("trust-region", {"radius": 1.0}),
    SWEEP: ("gauss-seidel", {}),
    "stacked": ("stacked", {}),
    "stacked, no K δx": ("stacked", {"feedback": "value"}),
    "stacked, own k": ("stacked", {"open_loop": "levenberg"}),
    "stacked, all columns": ("stacked", {"terminal": "ggn"}),
    "stacked, all columns, own k": ("stacked", {"terminal": "ggn", "open_loop": "levenberg"}),
}
"""Method and options by form."""
WITHOUT = {PAPER: "no K δx", "stacked": "stacked, no K δx"}
"""The same form without its second forward pass."""
PAGE = Page("feedback")


def runs(options: Options) -> list[Run]:
    """Return the baselines and every form at ε = 0, at the best rate on DIGITS and Table 9's smallest and largest."""
    return [
        run
        for dataset in options.datasets or ("digits", "wine")
        for baseline in BASELINES
        for rate in (BEST_RATES[baseline], RATES[baseline][0], RATES[baseline][-1])[-1 if options.quick else 0 :]
        for seed in options.seed_range
        for run in _forms(common("feedback", dataset, baseline, options), rate, seed)
    ]


def _forms(shared: dict[str, Any], rate: float, seed: int) -> Iterator[Run]:
    yield baseline_run(shared, rate, seed)
    for method, optimizer in FORMS.values():
        if method == "ddpnopt":
            yield twin_run(shared, rate, seed, **optimizer)
        else:
            yield baseline_run(shared, rate, seed, method, **optimizer)


def form(run: Run) -> str:
    return next((name for name, chosen in FORMS.items() if chosen == (run.method, run.optimizer)), "baseline")


class Forms:
    def __init__(self, of: Cells, cell: Cell) -> None:
        self.name = f"{of.name}, {NAMES[cell.baseline]}, {cell.rate:g}"
        found: dict[str, Results] = cell.results.by(form)
        first = ("baseline", PAPER)
        self.results = {name: found[name] for name in first} | found
        self.losses = {name: estimate(map(capped_loss, own)) for name, own in self.results.items()}

    def change(self, name: str, reference: str) -> Estimate:
        return self.results[name].minus(self.results[reference], capped_loss)


def report(results: Sequence[Result], folder: Path) -> Report:
    every = Cells.each(results)
    cells = [Forms(of, cell) for of in every for cell in of]
    names = list(dict.fromkeys(name for cell in cells for name in cell.results))
    losses = [(cell.name, *_lowest_in_bold([cell.losses[name] for name in names])) for cell in cells]
    accuracies = [(cell.name, *(cell.results[name].accuracy.text(1) for name in names)) for cell in cells]
    of_forms = (PAGE.table("Losses", losses, names), PAGE.table("Accuracies", accuracies, names))
    pictures = [_draw(of, folder) for of in every]
    return PAGE.report(_verdict(cells, names[2:]), [_counts(cells, names[1:]), *of_forms], pictures)


def _clear(changes: Sequence[Estimate]) -> tuple[int, int]:
    """Return in how many cells a loss is clearly lower, and clearly higher."""
    return sum(change.below for change in changes), sum(change.above for change in changes)


def _lowest_in_bold(means: Sequence[Estimate]) -> list[str]:
    best = min(mean.mean for mean in means)
    return [bold(mean.text(3), mean.mean == best) for mean in means]


def _verdict(cells: Sequence[Forms], others: Sequence[str]) -> tuple[str, str]:
    counts = {name: _clear([cell.change(name, PAPER) for cell in cells]) for name in others}
    best = max(counts, key=lambda name: counts[name][0] - counts[name][1])
    lower, higher = counts[best]
    own, sweep = (_clear([cell.change(name, "baseline") for cell in cells]) for name in (PAPER, SWEEP))
    passes = {name: [cell.change(name, WITHOUT[name]) for cell in cells] for name in WITHOUT}
    second_pass = " ".join(
        f"K δx makes {name} lower in {_clear(both)[0]} and higher in {_clear(both)[1]} of {len(both)} cells."
        for name, both in passes.items()
    )
    said = {"best": best, "lower": lower, "higher": higher, "cells": len(cells), "second_pass": second_pass}
    sweeps = {"own": own, "sweep": sweep, "sweep_to_paper": counts[SWEEP]}
    return PAGE.judged(holds=2 * lower > len(cells) and not higher, partly=lower > higher, **said, **sweeps)


def _counts(cells: Sequence[Forms], names: Sequence[str]) -> Table:
    rows = []
    for name in names:
        texts = []
        for reference in ("baseline", PAPER):
            counts = _clear([cell.change(name, reference) for cell in cells])
            texts += ["–", "–"] if name == reference else [str(count) for count in counts]
        rows.append((name, *texts))
    return PAGE.table("Counts", rows, cells=len(cells))


def _draw(of: Cells, folder: Path) -> Picture:
    drawn, (axes,) = panels(4.2 * len(of.cells) + 1.2, 3.6, 1, len(of.cells), ["training loss"])
    handles: dict[str, Any] = {}
    for ax, (baseline, row) in zip(axes, of.cells.items()):
        for place, cell in enumerate(row):
            results = Forms(of, cell).results
            for index, (name, own) in enumerate(results.items()):
                low, middle, high = quartiles(list(map(capped_loss, own)))
                color = "0.6" if name == "baseline" else LINES[(index - 1) % len(LINES)]
                x = place + 0.8 * (index / (len(results) - 1) - 0.5)
                ax.plot([x, x], [low, high], color=color, linewidth=1.5)
                handles[name] = ax.plot(x, middle, "o" if index <= len(LINES) else "s", color=color, markersize=6)[0]
        ax.set_xticks(range(len(row)), [f"{cell.rate:g}" for cell in row])
        ax.set(title=NAMES[baseline], xlabel="learning rate")
        log_scale(ax)
        ax.grid(visible=False, axis="x")
    drawn.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    return PAGE.figure("Figure", drawn, folder / f"forms-{of.stem}.png", data=of.name)
