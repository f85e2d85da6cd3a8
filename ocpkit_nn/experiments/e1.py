"""E1: Table 3: accuracy of seven methods on feed-forward and convolutional networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.contest import CPU_EPOCHS, SLOW, Choice, Entry, best, contest_run, default, entries, searched
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import FAILS, HOLDS, LINES, PARTLY, Picture, Report, Table, figure, save
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.statistics import Estimate, accuracy, difference, loss, percent
from ocpkit_nn.experiments.trial import train
from ocpkit_nn.experiments.twins import seeds

__all__ = ["TITLE", "report", "runs", "train"]

TITLE = "E1: accuracy of seven methods (Table 3)"
CNN_SEEDS = 3
"""Of a CNN without a GPU, where a training takes EKFAC and its twin about ten minutes."""
MARGIN = 0.3
OTHERS = [method for method in paper.TABLE_3_METHODS if method != "ddpnopt"]


def runs(options: Options) -> list[Run]:
    """Return every method on every data set with the hyper-parameters that the search found."""
    every = []
    for entry in entries(options):
        for method in entry.methods():
            choice = best(options.out, entry, method)
            for seed in seeds(options)[: _most_seeds(entry, options)]:
                every.append(contest_run("e1", entry, method, choice, seed, options))
    return every


def _most_seeds(entry: Entry, options: Options) -> int | None:
    return CNN_SEEDS if entry.model == "cnn" and options.device == "cpu" else None


class Standing:
    """The results of all methods on one row of Table 3."""

    def __init__(self, entry: Entry, results: Sequence[Result]) -> None:
        self.entry = entry
        own = [r for r in results if (r.run.model, r.run.dataset) == (entry.model, entry.dataset)]
        self.results = {method: [r for r in own if r.run.method == method] for method in paper.TABLE_3_METHODS}
        self.accuracy = {method: accuracy(group) for method, group in self.results.items() if group}
        numbers = paper.TABLE_3.get((entry.model, entry.dataset), (None,) * len(paper.TABLE_3_METHODS))
        self.printed = dict(zip(paper.TABLE_3_METHODS, numbers))

    @property
    def best(self) -> float:
        return max(mean.mean for mean in self.accuracy.values())

    def is_near_the_best(self) -> bool:
        """Whether DDPNOpt is the best or within the margin."""
        return self.accuracy["ddpnopt"].mean >= self.best - MARGIN

    def beats_optimal_control(self) -> bool:
        """Whether DDPNOpt is above E-MSA and vanilla DDP."""
        others = (self.accuracy[name].mean for name in ("emsa", "vanilla-ddp") if name in self.accuracy)
        return all(self.accuracy["ddpnopt"].mean > other for other in others)

    def lead(self, method: str) -> Estimate:
        """DDPNOpt's accuracy minus a method's, paired by seed."""
        return difference(self.results["ddpnopt"], self.results[method], percent)

    def clearly_better(self) -> list[str]:
        """Return the methods that are above DDPNOpt by more than two standard errors."""
        leads = {method: self.lead(method) for method in OTHERS}
        return [NAMES[method] for method, lead in leads.items() if lead.significant and lead.mean < 0]

    def reaches_the_paper(self) -> bool:
        """Whether DDPNOpt is at or above the paper's own number."""
        return self.accuracy["ddpnopt"].mean >= (self.printed["ddpnopt"] or math.inf)


def report(results: Sequence[Result], folder: Path) -> Report:
    """Set our accuracies beside Table 3."""
    rows = [Standing(Entry(*key), results) for key in dict.fromkeys((r.run.model, r.run.dataset) for r in results)]
    verdict, text = _verdict(rows)
    tables = (_beside(rows), _differences(rows), _losses(rows), _settings(rows, folder.parent))
    return Report(TITLE, verdict, text, tables, (_draw(rows, folder),), NOTES)


NOTES = (
    "The paper names neither the epochs nor the CNN's strides. Here strides halve the image twice; FCNs have "
    "width 10 (WINE), 24 (DIGITS) or 32.",
    f"On images from files E-MSA has {SLOW['emsa']} epoch and 3 L-BFGS iterations per layer and step, vanilla DDP "
    f"{SLOW['vanilla-ddp']} epochs: an epoch takes them as long as tens of epochs of the others.",
    f"Without a GPU CNNs have {CNN_SEEDS} seeds and {CPU_EPOCHS} epochs. CIFAR-10 may come from a lossy JPEG copy.",
    "Hyper-parameters were chosen on training data (`ocpkit reproduce search`) or, where that had not been made, are "
    "the second of what it tries (“default”), as the table says; the paper does not say on which data it chose. The "
    "curvature of DDPNOpt is one of them: RMSprop's, or EKFAC's where the table says so; the paper took the adaptive "
    "diagonal for all FCNs and Gauss-Newton for all CNNs.",
)


def _verdict(rows: Sequence[Standing]) -> tuple[str, str]:
    near = [row for row in rows if row.is_near_the_best()]
    above = [row for row in rows if row.beats_optimal_control()]
    reach = [row for row in rows if row.reaches_the_paper()]
    both = [row for row in near if row in above]
    verdict = HOLDS if len(both) == len(rows) else PARTLY if 2 * len(both) > len(rows) else FAILS
    better = [f"{name} on {row.entry.name}" for row in rows for name in row.clearly_better()]
    text = (
        f"DDPNOpt is the best or within {MARGIN} points of the best on {_listed(near)}, above E-MSA and vanilla DDP on "
        f"{_listed(above)}, and at or above the paper's own number on {_listed(reach)} ({len(rows)} rows in "
        f"all). Above it by more than two standard errors, paired by seed: {', '.join(better) or 'none'}. Rule: holds "
        "if the first two are so on every row, partly if they are on more than half."
    )
    return verdict, text


def _listed(rows: Sequence[Standing]) -> str:
    return ", ".join(row.entry.name for row in rows) or "none"


def _beside(rows: Sequence[Standing]) -> Table:
    def cell(row: Standing, method: str) -> str:
        ours, theirs = row.accuracy.get(method), row.printed[method]
        if ours is None:
            return "–"
        text = ours.text(2)
        text = f"**{text}**" if ours.mean == row.best else text
        return text if theirs is None else f"{text} ({theirs:.2f})"

    header = ("data", *(NAMES[method] for method in paper.TABLE_3_METHODS))
    lines = tuple((row.entry.name, *(cell(row, method) for method in paper.TABLE_3_METHODS)) for row in rows)
    return Table("Accuracy [%], mean ± standard error (the paper's); best of a row in bold", header, lines)


def _differences(rows: Sequence[Standing]) -> Table:
    lines = tuple((row.entry.name, *(row.lead(method).marked(2) for method in OTHERS)) for row in rows)
    title = "DDPNOpt's accuracy minus a method's, in points, paired by seed; in bold beyond two standard errors"
    return Table(title, ("data", *(NAMES[method] for method in OTHERS)), lines)


def _losses(rows: Sequence[Standing]) -> Table:
    def cell(row: Standing, method: str) -> str:
        group = row.results[method]
        return f"{loss(group).text(4)}; {group[0].updates}" if group else "–"

    header = ("data", *(NAMES[method] for method in paper.TABLE_3_METHODS))
    lines = tuple((row.entry.name, *(cell(row, method) for method in paper.TABLE_3_METHODS)) for row in rows)
    return Table("Final training loss; number of updates", header, lines)


def _settings(rows: Sequence[Standing], out: Path) -> Table:
    lines = []
    for row in rows:
        for method, group in row.results.items():
            if group:
                choice = Choice(group[0].run.learning_rate, group[0].run.optimizer)
                lines.append(
                    (
                        f"{row.entry.name}, {NAMES[method]}",
                        choice.text(),
                        _source(out, row.entry, method, choice),
                        str(len(group)),
                    )
                )
    header = ("data and method", "hyper-parameters", "chosen by", "seeds")
    return Table("Hyper-parameters", header, tuple(lines))


def _source(out: Path, entry: Entry, method: str, choice: Choice) -> str:
    """Say what chose the hyper-parameters of runs that are there: a run may be older than the search."""
    if searched(out, entry, method) == choice:
        return "search"
    return "default" if choice == default(entry, method) else "an earlier search"


def _draw(rows: Sequence[Standing], folder: Path) -> Picture:
    drawn = figure(2.6 * len(rows) + 0.6, 3.4)
    axes = drawn.subplots(1, len(rows), squeeze=False)[0]
    for ax, row in zip(axes, rows):
        for place, method in enumerate(paper.TABLE_3_METHODS):
            theirs = row.printed[method]
            if theirs is not None:
                ax.plot(place, theirs, "_", color="0.4", markersize=14, label="paper" if place == 0 else None)
            if method in row.accuracy:
                _point(ax, place, row.accuracy[method])
        ax.set_xticks(range(len(paper.TABLE_3_METHODS)), [NAMES[m] for m in paper.TABLE_3_METHODS], rotation=90)
        ax.set_title(row.entry.name)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy [%]")
    return save(drawn, folder / "accuracy.png", "Accuracy with standard errors; grey marks are the paper's numbers")


def _point(ax: object, place: int, mean: Estimate) -> None:
    error = mean.error if math.isfinite(mean.error) else 0.0
    ax.errorbar(place, mean.mean, error, fmt="o", color=LINES[0], capsize=3)  # type: ignore[attr-defined]
