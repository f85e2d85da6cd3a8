"""Beyond the paper: how much does a method depend on its learning rate? Beside today's optimisers, on five tasks.

Every method is trained at rates over three decades, the same window for a baseline and its DDPNOpt twins, and judged
by the area under its curve: the mean over the logarithm of the rate. Tasks: the paper's FCN; a batch 32 times as large;
a residual network with batch norm; a transformer's encoder; a regression.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocpkit.errors import unknown_name
from ocpkit_nn.experiments import trial
from ocpkit_nn.experiments.report import Report
from ocpkit_nn.experiments.robustness_report import compare
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.trial import train
from ocpkit_nn.experiments.twins import QUICK, baseline_run, seeds, twin_run

__all__ = ["TITLE", "report", "runs", "train"]

TITLE = "Beyond the paper: robustness to the learning rate, beside today's optimisers"
DECADES, POINTS = 3, 7
CENTRES = {"sgd": -1.0, "rmsprop": -2.5, "adam": -2.5, "adamw": -2.5, "muon": -2.5, "sgd-cosine": -2.0}
"""log₁₀ of the middle of the window, a customary rate; with momentum 0.9 SGD's steps are ten times as long."""
BASELINES = ("sgd", "rmsprop", "adam")
TODAYS = ("adamw", "sgd-cosine", "muon")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained.

    Attributes
    ----------
    dataset, model, batch_size, epochs, loss, network
        As `Run` has them.
    terminal
        Terminal curvature of the twins: `DDPNOpt`'s default, or, for convolutions, that of ``ocpkit train``.
    """

    dataset: str = "digits"
    model: str = "fcn"
    batch_size: int
    epochs: int
    loss: str = "ce"
    network: dict[str, Any] = field(default_factory=dict)
    terminal: str = "empirical"


TASKS = {
    "digits": Task(batch_size=8, epochs=8),
    "large-batch": Task(batch_size=256, epochs=40),
    "residual": Task(model="residual", batch_size=32, epochs=4, terminal="montecarlo"),
    "transformer": Task(model="transformer", batch_size=32, epochs=8),
    "diabetes": Task(
        dataset="diabetes", batch_size=8, epochs=10, loss="mse", network={"width": 24, "activation": "tanh"}
    ),
}


def rates(method: str, quick: bool = False) -> tuple[float, ...]:
    """Return the learning rates of a method, at equal ratios over three decades; the quick form has the two ends."""
    count = 2 if quick else POINTS
    exponents = (CENTRES[method] + DECADES * (i / (count - 1) - 0.5) for i in range(count))
    return tuple(float(f"{10**exponent:.3g}") for exponent in exponents)


def runs(options: Options) -> list[Run]:
    """Return all methods at all rates on all tasks; `Options.datasets` may name some of the tasks.

    Raises
    ------
    ProblemError
        If there is no such task.
    """
    names = options.datasets or tuple(TASKS)
    for name in names:
        if name not in TASKS:
            raise unknown_name("task", name, TASKS)
    return [run for name in names for seed in seeds(options) for run in _sweeps(TASKS[name], seed, options)]


def _sweeps(task: Task, seed: int, options: Options) -> Iterator[Run]:
    for baseline in BASELINES:
        shared = _shared(task, baseline, options)
        for rate in rates(baseline, options.quick):
            yield baseline_run(shared, rate, seed)
            yield twin_run(shared, rate, seed, "full", terminal=task.terminal)
    for method in TODAYS:
        shared = _shared(task, method, options)
        if method == "sgd-cosine":
            shared["optimizer"] = {"updates": _updates(baseline_run(shared, 0.0, seed))}
        for rate in rates(method, options.quick):
            yield baseline_run(shared, rate, seed)


def _shared(task: Task, baseline: str, options: Options) -> dict[str, Any]:
    return {
        "item": "robustness",
        "dataset": task.dataset,
        "model": task.model,
        "baseline": baseline,
        "batch_size": task.batch_size,
        "loss": task.loss,
        "network": task.network,
        "device": options.device,
        "epochs": task.epochs,
        **(QUICK if options.quick else {}),
    }


def _updates(run: Run) -> int:
    return run.epochs * math.ceil(len(trial.dataset(run).train_inputs) / run.batch_size)


def task_name(run: Run) -> str:
    """Return the name of a run's task."""
    wanted = (run.dataset, run.model, run.batch_size)
    return next(name for name, task in TASKS.items() if (task.dataset, task.model, task.batch_size) == wanted)


def report(results: Sequence[Result], folder: Path) -> Report:
    """Compare the areas of twins with those of their baselines, and of all methods with each other."""
    return compare(TITLE, results, task_name, folder)
