"""The search of the hyper-parameters of Table 3, over the ranges of Table 5, on a fifth of the training data.

The test set is not touched, and the seeds (1000, 1001, …) are not those of any report. The best mean accuracy wins,
the lower mean training loss where two are equal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ocpkit.atomic import write_atomically
from ocpkit_nn.experiments.contest import Choice, Entry, choices, contest_run, entries, every_choice
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import LINES, Picture, Report, Table, figure, save
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.statistics import accuracy, group, loss
from ocpkit_nn.experiments.trial import WITH_TEST_SET, train

__all__ = ["TITLE", "report", "runs", "train"]

TITLE = "Search of the hyper-parameters (Table 5)"
FIRST_SEED, SEEDS = 1000, 3
ONE_EPOCH = ("ekfac", "emsa", "vanilla-ddp")
"""Methods whose epoch takes minutes on images from files."""
CIFAR_SAMPLES = 10_000
"""Of CIFAR-10 without a GPU."""


def runs(options: Options) -> list[Run]:
    """Return every choice of every method on every data set, validated on training data."""
    every = []
    for entry in entries(options):
        for method in entry.methods():
            tried, more = choices(entry, method), dict[str, Any](evaluated_on="validation")
            if entry.dataset in WITH_TEST_SET and (entry.model == "cnn" or method in ONE_EPOCH):
                more["epochs"] = 1
            if entry.dataset == "cifar10" and options.device == "cpu" and not options.quick:
                more["samples"] = CIFAR_SAMPLES
            for choice in tried[:2] if options.quick else tried:
                for seed in range(FIRST_SEED, FIRST_SEED + (1 if options.quick else min(options.seeds, SEEDS))):
                    every.append(contest_run("search", entry, method, choice, seed, options, **more))
    return every


def report(results: Sequence[Result], folder: Path) -> Report:
    """Write best.json, which e1 reads, and show every choice."""
    ranking = _ranking(results)
    outcome: dict[str, dict[str, dict[str, object]]] = every_choice(folder.parent)  # other rows keep theirs
    rows = []
    for (entry, method), ranked in ranking.items():
        (choice, first), (_, last) = ranked[0], ranked[-1]
        outcome.setdefault(entry.name, {})[method] = asdict(choice)
        percents = (accuracy(first).text(2), accuracy(last).text(2))
        rows.append((f"{entry.name}, {NAMES[method]}", choice.text(), *percents, str(len(ranked))))
    text = json.dumps(outcome, indent=2) + "\n"
    write_atomically(folder / "best.json", lambda file: file.write(text.encode()))
    header = ("data and method", "best choice", "validation accuracy [%]", "of the worst choice", "choices")
    table = Table("Chosen hyper-parameters", header, tuple(rows))
    said = (
        f"{sum(map(len, ranking.values()))} choices, {len({r.run.seed for r in results})} seed(s) each, judged on a "
        "fifth of the training set; the test set was not touched. `best.json` holds the outcome."
    )
    return Report(TITLE, "", said, (table,), (_draw(ranking, folder),), NOTES)


NOTES = (
    "Table 5 gives ranges, not grids: here four rates, evenly spaced in the logarithm (six for SGD with momentum 0.9, "
    "whose range begins at a tenth of that of plain SGD). DDPNOpt has its baseline's rates, each with two terminal "
    "curvatures, and on CNNs besides the paper's Gauss-Newton curvature also the adaptive diagonal.",
    "On images from files CNNs, EKFAC, E-MSA and vanilla DDP are judged after one epoch, all others after as many as "
    "in E1: after one, larger rates seem better than they are in the end. Without a GPU CIFAR-10 is searched on "
    f"{CIFAR_SAMPLES} of its training images.",
)

Ranking = dict[tuple[Entry, str], list[tuple[Choice, list[Result]]]]


def _ranking(results: Sequence[Result]) -> Ranking:
    """Return the choices of every method on every data set, the best first."""
    ranking: Ranking = {}
    for (entry, method), members in group(results, lambda r: (Entry(r.run.model, r.run.dataset), r.run.method)).items():
        by_choice = group(members, lambda r: json.dumps([r.run.learning_rate, r.run.optimizer]))
        tried = [(Choice(g[0].run.learning_rate, g[0].run.optimizer), g) for g in by_choice.values()]
        ranking[entry, method] = sorted(tried, key=lambda pair: (-accuracy(pair[1]).mean, loss(pair[1]).mean))
    return ranking


def _draw(ranking: Ranking, folder: Path) -> Picture:
    """Draw validation accuracy over the learning rate, the best of the other hyper-parameters at each rate."""
    names = list(dict.fromkeys(entry for entry, _ in ranking))
    drawn = figure(3.6 * len(names), 3.2)
    axes = drawn.subplots(1, len(names), squeeze=False)[0]
    for ax, entry in zip(axes, names):
        methods = [method for other, method in ranking if other == entry]
        for colour, method in zip(LINES, methods):
            best: dict[float, float] = {}
            for choice, members in ranking[entry, method]:
                if choice.learning_rate is not None:
                    best.setdefault(choice.learning_rate, accuracy(members).mean)
            if best:
                ax.plot(*zip(*sorted(best.items())), "o-", markersize=3, color=colour, label=NAMES[method])
        ax.set(title=entry.name, xlabel="learning rate", xscale="log")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("validation accuracy [%]")
    axes[0].legend(fontsize=7)
    return save(drawn, folder / "search.png", "Validation accuracy over the learning rate")
