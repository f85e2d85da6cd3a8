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

from ocpkit.boundary.atomic import write_atomically
from ocpkit_nn.experiments.contest import (
    METHODS,
    Choice,
    Entry,
    choices,
    contest_run,
    entries,
    every_choice,
    is_kronecker,
)
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import LINES, Picture, Report, Table, figure, save
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.statistics import accuracy, group, loss
from ocpkit_nn.experiments.trial import WITH_TEST_SET, train

__all__ = ["TITLE", "report", "runs", "train"]

TITLE = "Search of the hyper-parameters (Table 5)"
FIRST_SEED, SEEDS = 1000, 3
ONE_EPOCH = ("emsa", "vanilla-ddp")
"""Methods whose epoch takes minutes on images from files."""
FIRST_ORDER = ("sgd-m", "rmsprop", "adam")
CIFAR_SAMPLES = 10_000
"""Of CIFAR-10, without a GPU, for the others: on all a training takes them up to ten minutes."""


def runs(options: Options) -> list[Run]:
    """Return every choice of every method on every data set, validated on training data."""
    return [
        contest_run("search", entry, method, choice, seed, options, evaluated_on="validation", **effort)
        for entry in entries(options)
        for method in entry.methods()
        for effort in [_effort(entry, method, options)]
        for choice in choices(entry, method)[: 2 if options.quick else None]
        for seed in range(FIRST_SEED, FIRST_SEED + _count(entry, options))
    ]


def _effort(entry: Entry, method: str, options: Options) -> dict[str, Any]:
    """Return how much shorter than in E1 a training is."""
    if entry.dataset not in WITH_TEST_SET or options.quick:
        return {}
    if entry.dataset == "cifar10" and options.device == "cpu":
        return {} if method in FIRST_ORDER else {"samples": CIFAR_SAMPLES}
    return {"epochs": 1} if entry.model == "cnn" or method in ONE_EPOCH else {}


def _count(entry: Entry, options: Options) -> int:
    """Return the number of seeds."""
    few = options.quick or (entry.dataset in WITH_TEST_SET and options.device == "cpu")
    return 1 if few else min(options.seeds, SEEDS)


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
    counts = sorted({len(members) for ranked in ranking.values() for _, members in ranked})
    said = (
        f"{sum(map(len, ranking.values()))} choices with {' or '.join(map(str, counts))} seed(s), judged on a "
        "fifth of the training set; the test set was not touched. `best.json` holds the outcome."
    )
    return Report(TITLE, "", said, (table,), (_draw(ranking, folder),), NOTES)


NOTES = (
    "Table 5 gives ranges, not grids: here four rates, evenly spaced in the logarithm (six for SGD with momentum 0.9, "
    "whose range begins at a tenth of that of plain SGD).",
    "The curvature of DDPNOpt is searched too; the paper has the adaptive diagonal on FCNs and Gauss-Newton on CNNs, "
    "because they are the best in practice. Here it is RMSprop's at its four rates, or EKFAC's at the smaller two (at "
    "the larger two EKFAC itself fails on the CNNs, as the figure shows), most with two terminal curvatures: 12 "
    "choices on FCNs, 8 on CNNs, where the baselines have 3 to 6.",
    "On images from files E-MSA and vanilla DDP are judged after one epoch, as are CNNs on MNIST. Without a GPU these "
    f"data have one seed, and SGD-m, RMSprop and Adam see all training images of CIFAR-10, the others {CIFAR_SAMPLES}.",
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
        for colour, method in zip(LINES, METHODS):
            for kronecker, label in ((False, NAMES[method]), (True, f"{NAMES[method]}, EKFAC's M")):
                best: dict[float, float] = {}
                for choice, members in ranking.get((entry, method), []):
                    if choice.learning_rate is not None and is_kronecker(choice) == kronecker:
                        best.setdefault(choice.learning_rate, accuracy(members).mean)
                if best:
                    style = "o--" if kronecker else "o-"
                    ax.plot(*zip(*sorted(best.items())), style, markersize=3, color=colour, label=label)
        ax.set(title=entry.name, xlabel="learning rate", xscale="log")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("validation accuracy [%]")
    axes[0].legend(fontsize=7)
    return save(drawn, folder / "search.png", "Validation accuracy over the learning rate")
