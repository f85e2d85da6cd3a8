"""The search of the hyper-parameters of Table 3, over the ranges of Table 5, on a fifth of the training data.

The test set is not touched, and the seeds (1000, 1001, …) are not those of any report. The best mean accuracy wins,
the lower mean training loss where two are equal. ``OUT/search/best.json`` has the outcome, with which `e1` trains.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit.errors import ProblemError
from ocpkit_nn.data import ON_DISK, is_there
from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import LINES, Page, Picture, Report, panels
from ocpkit_nn.experiments.results import Results
from ocpkit_nn.experiments.run import Options, Result, Run, baseline_run, common, write

METHODS = paper.TABLE_3_METHODS
EPOCHS = {"fcn:wine": 50, "fcn:digits": 20, "cnn:mnist": 3, "cnn:svhn": 6, "cnn:cifar10": 10}
SLOW = {"emsa": 1, "vanilla-ddp": 2}
"""Most epochs of a method on data sets of images from files, where an epoch takes it minutes."""
CPU_EPOCHS = 3
"""Most epochs of a CNN without a GPU."""
FIRST_SEED, SEEDS = 1000, 3
FIRST_ORDER = ("sgd-m", "rmsprop", "adam")
CIFAR_SAMPLES = 10_000
"""Of CIFAR-10, without a GPU, for the others: on all a training takes them up to ten minutes."""
PAGE = Page("search", cifar_samples=CIFAR_SAMPLES)


@dataclass(frozen=True)
class Entry:
    """A network on a data set: one row of Table 3."""

    model: str
    dataset: str

    @property
    def name(self) -> str:
        return f"{self.model}:{self.dataset}"

    def methods(self) -> tuple[str, ...]:
        """Return the methods that can train it: vanilla DDP only an FCN."""
        return tuple(method for method in METHODS if self.model == "fcn" or method != "vanilla-ddp")

    def run(self, item: str, method: str, choice: Choice, seed: int, options: Options, **more: Any) -> Run:
        """Return one training; DDPNOpt is the twin of the method whose curvature it has."""
        epochs = EPOCHS.get(self.name, 5)
        if method in SLOW and self.dataset in ON_DISK:
            epochs = min(epochs, SLOW[method])
        if self.model == "cnn" and options.device == "cpu":
            epochs = min(epochs, CPU_EPOCHS)
        own, epsilon = (method, None) if method != "ddpnopt" else ("ekfac" if choice.is_kronecker else "rmsprop", 0.0)
        fields: dict[str, Any] = {"epochs": epochs, "samples": None, "epsilon": epsilon} | more
        shared = common(item, self.name, own, options, **fields)
        return baseline_run(shared, choice.learning_rate, seed, method, **choice.optimizer)


def entries(options: Options) -> list[Entry]:
    """Return the rows of Table 3 whose data are there, or those asked for: "mnist" (all its networks), "cnn:mnist".

    `ProblemError` if a data set that was asked for is not in Table 3.
    """
    every, asked = [Entry(*key) for key in paper.TABLE_3], set(options.datasets)
    if unknown := asked - {name for entry in every for name in (entry.name, entry.dataset)}:
        known = ", ".join(entry.name for entry in every)
        raise ProblemError(f"Table 3 has no {', '.join(sorted(unknown))}; it has {known}")
    if options.quick and not asked:
        return [Entry("fcn", "wine"), Entry("cnn", "digits")]
    return [entry for entry in every if ({entry.name, entry.dataset} & asked if asked else is_there(entry.dataset))]


@dataclass(frozen=True)
class Choice:
    learning_rate: float | None
    optimizer: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Choice:
        return cls(run.learning_rate, run.optimizer)

    @property
    def is_kronecker(self) -> bool:
        """Whether it has EKFAC's curvature for DDPNOpt."""
        return self.optimizer.get("curvature") == "ekfac"

    def text(self) -> str:
        rate = [] if self.learning_rate is None else [f"rate {self.learning_rate:.2g}"]
        shown = (f"{k} {v}" for k, v in self.optimizer.items() if k not in ("feedback", "basis_every"))
        return ", ".join([*rate, *shown])


def choices(entry: Entry, method: str) -> list[Choice]:
    """Return what the search tries: four rates over the range of Table 5, and what else a method has.

    Of DDPNOpt that is the curvature: RMSprop's or, as the paper has for CNNs, a Gauss-Newton one, EKFAC's.
    """
    basis = {} if entry.dataset in ("wine", "digits") and entry.model == "fcn" else {"basis_every": 10}
    adaptive, kronecker = _rates(*paper.TABLE_5["rmsprop"]), _rates(*paper.TABLE_5["ekfac"])
    low, high = paper.TABLE_5["sgd"]  # with momentum 0.9 the steps are ten times as long, so the range begins that low
    damped = [(rate, {"damping": damping}) for damping in (0.03, 0.3) for rate in (0.1, 0.3, 1.0)]
    of_baseline = {
        "sgd-m": [Choice(rate) for rate in _rates(low / 10, high, 6)],
        "rmsprop": [Choice(rate) for rate in adaptive],
        "adam": [Choice(rate) for rate in adaptive],
        "ekfac": [Choice(rate, basis) for rate in kronecker],
        "emsa": [Choice(None, {"penalty": p, "stage_iterations": 3}) for p in (0.1, 0.3, 1.0, 3.0, 10.0)],
        "vanilla-ddp": [Choice(*each) for each in damped],
    }
    if method in of_baseline:
        return of_baseline[method]
    if entry.model == "fcn":
        terminals = ("empirical", "ggn")
        diagonal = [_feedback(rate, terminal) for terminal in terminals for rate in adaptive]
    else:
        terminals = ("empirical", "montecarlo")
        diagonal = [_feedback(rate, "montecarlo", curvature="diagonal", decay=0.99) for rate in adaptive]
    smaller = [(rate, terminal) for terminal in terminals for rate in kronecker[:2]]
    return diagonal + [_feedback(rate, terminal, curvature="ekfac", **basis) for rate, terminal in smaller]


def _feedback(rate: float, terminal: str, **more: Any) -> Choice:
    return Choice(rate, {"feedback": "full", "terminal": terminal, **more})


def _rates(low: float, high: float, count: int = 4) -> list[float]:
    return [float(f"{rate:.3g}") for rate in np.geomspace(low, high, count)]


def default(entry: Entry, method: str) -> Choice:
    """Return what is taken without a search: the second of its choices."""
    return choices(entry, method)[1]


def searched(out: Path, entry: Entry, method: str) -> Choice | None:
    return every_choice(out).get(entry.name, {}).get(method)


def every_choice(out: Path) -> dict[str, dict[str, Choice]]:
    """Return OUT/search/best.json by row and method; empty before the first search.

    `ProblemError` if it is damaged.
    """
    path = out / "search" / "best.json"
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {row: {method: Choice(**own) for method, own in found.items()} for row, found in rows.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ProblemError(f"{path} is damaged ({error}); delete it and run the search again") from error


def runs(options: Options) -> list[Run]:
    """Return every choice of every method on every data set, validated on training data."""
    every = []
    for entry in entries(options):
        few = options.quick or (entry.dataset in ON_DISK and options.device == "cpu")
        seeds = range(FIRST_SEED, FIRST_SEED + (1 if few else min(options.seeds, SEEDS)))
        for method in entry.methods():
            effort = {"evaluated_on": "validation", **_effort(entry, method, options)}
            for choice in choices(entry, method)[: 2 if options.quick else None]:
                every += [entry.run("search", method, choice, seed, options, **effort) for seed in seeds]
    return every


def _effort(entry: Entry, method: str, options: Options) -> dict[str, Any]:
    """Return how much shorter than in E1 a training is."""
    if entry.dataset not in ON_DISK:
        return {}
    if entry.dataset == "cifar10" and options.device == "cpu":
        return {} if method in FIRST_ORDER else {"samples": CIFAR_SAMPLES}
    return {"epochs": 1} if entry.model == "cnn" or method in SLOW else {}


def report(results: Sequence[Result], folder: Path) -> Report:
    """Write best.json, which e1 reads, and show every choice."""
    ranking = _ranking(Results(results))
    outcome, rows = every_choice(folder.parent), []  # other rows keep theirs
    for (entry, method), ranked in ranking.items():
        (choice, first), (_, last) = ranked[0], ranked[-1]
        outcome.setdefault(entry.name, {})[method] = choice
        texts = (choice.text(), first.accuracy.text(2), last.accuracy.text(2), str(len(ranked)))
        rows.append((f"{entry.name}, {NAMES[method]}", *texts))
    write(folder / "best.json", (json.dumps(outcome, indent=2, default=asdict) + "\n").encode())
    counts = sorted({len(members) for ranked in ranking.values() for _, members in ranked})
    text = PAGE.say("Verdict", choices=sum(map(len, ranking.values())), counts=" or ".join(map(str, counts)))
    return PAGE.report(("", text), [PAGE.table("Table", rows)], [_draw(ranking, folder)])


Ranking = dict[tuple[Entry, str], list[tuple[Choice, Results]]]


def _ranking(results: Results) -> Ranking:
    """Return the choices of every method on every data set, the best first."""
    ranking: Ranking = {}
    for (model, dataset, method), members in results.by("model", "dataset", "method").items():
        by_choice = members.by(lambda run: json.dumps([run.learning_rate, run.optimizer])).values()
        tried = [(Choice.of(each[0].run), each) for each in by_choice]
        best_first = sorted(tried, key=lambda pair: (-pair[1].accuracy.mean, pair[1].loss.mean))
        ranking[Entry(model, dataset), method] = best_first
    return ranking


def _draw(ranking: Ranking, folder: Path) -> Picture:
    names = list(dict.fromkeys(entry for entry, _ in ranking))
    drawn, (axes,) = panels(3.6 * len(names), 3.2, 1, len(names), ["validation accuracy [%]"])
    for ax, entry in zip(axes, names):
        for color, method in zip(LINES, METHODS):
            for kronecker, label in ((False, NAMES[method]), (True, f"{NAMES[method]}, EKFAC's M")):
                best: dict[float, float] = {}
                for choice, members in ranking.get((entry, method), []):
                    if choice.learning_rate is not None and choice.is_kronecker == kronecker:
                        best.setdefault(choice.learning_rate, members.accuracy.mean)
                if best:
                    style = "o--" if kronecker else "o-"
                    ax.plot(*zip(*sorted(best.items())), style, markersize=3, color=color, label=label)
        ax.set(title=entry.name, xlabel="learning rate", xscale="log")
    axes[0].legend(fontsize=7)
    return PAGE.figure("Figure", drawn, folder / "search.png")
