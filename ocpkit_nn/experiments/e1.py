"""E1: Table 3: accuracy of seven methods on feed-forward and convolutional networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import LINES, Page, Picture, Report, Table, panels
from ocpkit_nn.experiments.results import Estimate, Results, bold, percent
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.search import CPU_EPOCHS, METHODS, SLOW, Choice, Entry, default, entries, searched

CNN_SEEDS = 3
"""Of a CNN without a GPU, where a training takes EKFAC and its twin about ten minutes."""
MARGIN = 0.3
OTHERS = [method for method in METHODS if method != "ddpnopt"]
PAGE = Page("e1", margin=MARGIN, slow=SLOW, cnn_seeds=CNN_SEEDS, cpu_epochs=CPU_EPOCHS)


def runs(options: Options) -> list[Run]:
    """Return every method on every data set with the hyper-parameters that the search found, or else the default."""
    return [
        entry.run("e1", method, choice, seed, options)
        for entry in entries(options)
        for method in entry.methods()
        for choice in [searched(options.out, entry, method) or default(entry, method)]
        for seed in options.seed_range[: CNN_SEEDS if entry.model == "cnn" and options.device == "cpu" else None]
    ]


class Standing:
    """The results of all methods on one row of Table 3."""

    def __init__(self, entry: Entry, results: Results) -> None:
        self.entry = entry
        self.results = {method: results.where(method=method) for method in METHODS}
        self.accuracy = {method: group.accuracy for method, group in self.results.items() if group}
        self.best = max(mean.mean for mean in self.accuracy.values())
        self.ours = self.accuracy["ddpnopt"].mean
        numbers = paper.TABLE_3.get((entry.model, entry.dataset), (None,) * len(METHODS))
        self.printed = dict(zip(METHODS, numbers))

    def lead(self, method: str) -> Estimate:
        return self.results["ddpnopt"].minus(self.results[method], percent)

    def beats_optimal_control(self) -> bool:
        return all(self.ours > self.accuracy[name].mean for name in ("emsa", "vanilla-ddp") if name in self.accuracy)


def report(results: Sequence[Result], folder: Path) -> Report:
    rows = [Standing(Entry(*data), members) for data, members in Results(results).by("model", "dataset").items()]
    tables = (
        _table("Accuracy", rows, METHODS, _beside),
        _table("Lead", rows, OTHERS, lambda row, method: row.lead(method).marked(2)),
        _table("Loss", rows, METHODS, _loss),
        _settings(rows, folder.parent),
    )
    return PAGE.report(_verdict(rows), tables, [_draw(rows, folder)])


def _verdict(rows: Sequence[Standing]) -> tuple[str, str]:
    near = [row for row in rows if row.ours >= row.best - MARGIN]
    above = [row for row in rows if row.beats_optimal_control()]
    reach = [row for row in rows if row.ours >= (row.printed["ddpnopt"] or math.inf)]
    both = sum(row in above for row in near)
    better = [f"{NAMES[method]} on {row.entry.name}" for row in rows for method in OTHERS if row.lead(method).below]
    groups = {"near": near, "above": above, "reach": reach}
    said = {name: ", ".join(row.entry.name for row in own) or "none" for name, own in groups.items()}
    said["better"] = ", ".join(better) or "none"
    return PAGE.judged(holds=both == len(rows), partly=2 * both > len(rows), rows=len(rows), **said)


def _table(
    heading: str, rows: Sequence[Standing], methods: Sequence[str], cell: Callable[[Standing, str], str]
) -> Table:
    texts = [(row.entry.name, *(cell(row, method) for method in methods)) for row in rows]
    return PAGE.table(heading, texts, [NAMES[method] for method in methods])


def _beside(row: Standing, method: str) -> str:
    ours, theirs = row.accuracy.get(method), row.printed[method]
    if ours is None:
        return "–"
    return bold(ours.text(2), ours.mean == row.best) + ("" if theirs is None else f" ({theirs:.2f})")


def _loss(row: Standing, method: str) -> str:
    group = row.results[method]
    return f"{group.loss.text(4)}; {group[0].updates}" if group else "–"


def _settings(rows: Sequence[Standing], out: Path) -> Table:
    lines = []
    for row in rows:
        for method, group in row.results.items():
            if group:
                choice = Choice.of(group[0].run)
                texts = (choice.text(), _source(out, row.entry, method, choice), str(len(group)))
                lines.append((f"{row.entry.name}, {NAMES[method]}", *texts))
    return PAGE.table("Hyper-parameters", lines)


def _source(out: Path, entry: Entry, method: str, choice: Choice) -> str:
    """Say what chose the hyper-parameters of runs that are there: a run may be older than the search."""
    if searched(out, entry, method) == choice:
        return "search"
    return "default" if choice == default(entry, method) else "an earlier search"


def _draw(rows: Sequence[Standing], folder: Path) -> Picture:
    drawn, (axes,) = panels(2.6 * len(rows) + 0.6, 3.4, 1, len(rows), ["accuracy [%]"])
    for ax, row in zip(axes, rows):
        for place, method in enumerate(METHODS):
            theirs = row.printed[method]
            if theirs is not None:
                ax.plot(place, theirs, "_", color="0.4", markersize=14, label="paper" if place == 0 else None)
            if method in row.accuracy:
                mean = row.accuracy[method]
                error = mean.error if math.isfinite(mean.error) else 0.0
                ax.errorbar(place, mean.mean, error, fmt="o", color=LINES[0], capsize=3)
        ax.set_xticks(range(len(METHODS)), [NAMES[m] for m in METHODS], rotation=90)
        ax.set_title(row.entry.name)
    return PAGE.figure("Figure", drawn, folder / "accuracy.png")
