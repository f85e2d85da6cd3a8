"""The contest of Table 3: which methods train which networks on which data, with which hyper-parameters to choose from.

`search` chooses on validation data and writes ``OUT/search/best.json``; `e1` trains with what it finds there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit.errors import ProblemError
from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.run import Options, Run
from ocpkit_nn.experiments.trial import WITH_TEST_SET, is_there
from ocpkit_nn.experiments.twins import QUICK
from ocpkit_nn.training.networks import setting

METHODS = paper.TABLE_3_METHODS
EPOCHS = {("fcn", "wine"): 50, ("fcn", "digits"): 20, ("fcn", "mnist"): 5, ("fcn", "fashion-mnist"): 5}
CNN_EPOCHS = {"mnist": 3, "svhn": 6, "cifar10": 10}
SLOW = {"emsa": 1, "vanilla-ddp": 2}
"""Most epochs of a method on data sets of images from files, where an epoch takes it minutes."""
CPU_EPOCHS = 3
"""Most epochs of a CNN without a GPU."""


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

    def epochs(self, method: str) -> int:
        """Return the passes over the training set."""
        epochs = CNN_EPOCHS.get(self.dataset, 5) if self.model == "cnn" else EPOCHS.get((self.model, self.dataset), 5)
        return min(epochs, SLOW[method]) if method in SLOW and self.dataset in WITH_TEST_SET else epochs


@dataclass(frozen=True)
class Choice:
    """Hyper-parameters of a method."""

    learning_rate: float | None
    optimizer: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return them in words."""
        rate = [] if self.learning_rate is None else [f"rate {self.learning_rate:.2g}"]
        hidden = ("feedback", "basis_every")
        return ", ".join([*rate, *(f"{k} {v}" for k, v in self.optimizer.items() if k not in hidden)])


def entries(options: Options) -> list[Entry]:
    """Return the rows of Table 3 whose data are there, or those asked for: "mnist" (all its networks), "cnn:mnist".

    Raises
    ------
    ProblemError
        If a data set that was asked for is not in Table 3.
    """
    every = [Entry(*key) for key in paper.TABLE_3]
    if options.datasets:
        chosen = [entry for entry in every if {entry.name, entry.dataset} & set(options.datasets)]
        unknown = set(options.datasets) - {name for entry in every for name in (entry.name, entry.dataset)}
        if unknown:
            known = ", ".join(entry.name for entry in every)
            raise ProblemError(f"Table 3 has no {', '.join(sorted(unknown))}; it has {known}")
        return chosen
    if options.quick:
        return [Entry("fcn", "wine"), Entry("cnn", "digits")]
    return [entry for entry in every if is_there(entry.dataset)]


def baseline(method: str, choice: Choice) -> str:
    """Return whose twin DDPNOpt is: that of the method whose curvature it has."""
    if method != "ddpnopt":
        return method
    return "ekfac" if is_kronecker(choice) else "rmsprop"


def is_kronecker(choice: Choice) -> bool:
    """Whether it has EKFAC's curvature for DDPNOpt."""
    return choice.optimizer.get("curvature") == "ekfac"


def choices(entry: Entry, method: str) -> list[Choice]:
    """Return what the search tries: four rates over the range of Table 5, and what else a method has.

    Of DDPNOpt that is the curvature: RMSprop's or, as the paper has for CNNs, a Gauss-Newton one, EKFAC's.
    """
    basis = {} if entry.dataset in ("wine", "digits") and entry.model == "fcn" else {"basis_every": 10}
    adaptive, kronecker = _rates(*paper.TABLE_5["rmsprop"]), _rates(*paper.TABLE_5["ekfac"])
    if method == "sgd-m":  # with momentum 0.9 the steps are ten times as long, so the range begins that much lower
        low, high = paper.TABLE_5["sgd"]
        return [Choice(rate) for rate in _rates(low / 10, high, 6)]
    if method in ("rmsprop", "adam"):
        return [Choice(rate) for rate in adaptive]
    if method == "ekfac":
        return [Choice(rate, basis) for rate in kronecker]
    if method == "emsa":
        return [Choice(None, {"penalty": penalty, "stage_iterations": 3}) for penalty in (0.1, 0.3, 1.0, 3.0, 10.0)]
    if method == "vanilla-ddp":
        return [Choice(rate, {"damping": damping}) for damping in (0.03, 0.3) for rate in (0.1, 0.3, 1.0)]
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


def contest_run(item: str, entry: Entry, method: str, choice: Choice, seed: int, options: Options, **more: Any) -> Run:
    """Return one run of the contest."""
    epochs = entry.epochs(method)
    if entry.model == "cnn" and options.device == "cpu":
        epochs = min(epochs, CPU_EPOCHS)
    shared: dict[str, Any] = {"epochs": epochs, "device": options.device} | (QUICK if options.quick else {}) | more
    return Run(
        item=item,
        dataset=entry.dataset,
        model=entry.model,
        method=method,
        baseline=baseline(method, choice),
        learning_rate=choice.learning_rate,
        epsilon=0.0 if method == "ddpnopt" else None,
        optimizer=choice.optimizer,
        seed=seed,
        batch_size=setting(entry.model, entry.dataset).batch_size,
        **shared,
    )


def best(out: Path, entry: Entry, method: str) -> Choice:
    """Return what the search in OUT has found, or, where it has not been made, the default."""
    return searched(out, entry, method) or default(entry, method)


def default(entry: Entry, method: str) -> Choice:
    """Return what is taken without a search: the second of its choices."""
    return choices(entry, method)[1]


def searched(out: Path, entry: Entry, method: str) -> Choice | None:
    """Return what OUT/search/best.json has for a method, if anything; see `every_choice` for errors."""
    found = every_choice(out).get(entry.name, {}).get(method)
    return None if found is None else Choice(**found)


def every_choice(out: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return OUT/search/best.json: by row and method the keywords of `Choice`; empty before the first search.

    Raises
    ------
    ProblemError
        If it is damaged.
    """
    path = out / "search" / "best.json"
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        for found in [found for row in rows.values() for found in row.values()]:
            Choice(**found)
    except (ValueError, TypeError, AttributeError) as error:
        raise ProblemError(f"{path} is damaged ({error}); delete it and run the search again") from error
    return dict(rows)
