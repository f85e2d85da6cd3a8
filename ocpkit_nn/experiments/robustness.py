"""Beyond the paper: how much does a method depend on its learning rate? Beside today's optimizers, on five tasks.

A method is judged by the area under its curve over the rates, as its page says, on each of the `TASKS`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import trapezoid

from ocpkit.errors import unknown_name
from ocpkit_nn.experiments import trial
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import LINES, Page, Picture, Report, Table, log_scale, panels
from ocpkit_nn.experiments.results import Estimate, Results, Value, bold, capped_loss, estimate, percent
from ocpkit_nn.experiments.run import Options, Result, Run, baseline_run, common, twin_run

DECADES, POINTS = 3, 7
CENTRES = {"sgd": -1.0, "rmsprop": -2.5, "adam": -2.5, "adamw": -2.5, "muon": -2.5, "sgd-cosine": -2.0}
"""log₁₀ of the middle of the window, a customary rate; with momentum 0.9 SGD's steps are ten times as long."""
BASELINES = ("sgd", "rmsprop", "adam")
TODAYS = ("adamw", "sgd-cosine", "muon")
COLORS = dict(zip((*BASELINES, *TODAYS), LINES))
DIGITS: dict[str, Any] = {"dataset": "digits", "model": "fcn", "loss": "ce", "network": {}}
NETWORK = {"width": 24, "activation": "tanh"}
TASKS: dict[str, dict[str, Any]] = {
    "digits": {**DIGITS, "batch_size": 8, "epochs": 8},
    "large-batch": {**DIGITS, "batch_size": 256, "epochs": 40},
    "residual": {**DIGITS, "model": "residual", "batch_size": 32, "epochs": 4},
    "transformer": {**DIGITS, "model": "transformer", "batch_size": 32, "epochs": 8},
    "diabetes": {**DIGITS, "dataset": "diabetes", "loss": "mse", "network": NETWORK, "batch_size": 8, "epochs": 10},
}
"""Fields of the runs by task."""
TERMINAL = {"residual": "montecarlo"}
"""Terminal curvature of the twins, for convolutions that of ``ocpkit train``; elsewhere `DDPNOpt`'s default."""
PAGE = Page("robustness")


def rates(method: str, quick: bool = False) -> tuple[float, ...]:
    """Return the learning rates of a method, at equal ratios over three decades; the quick form has the two ends."""
    count = 2 if quick else POINTS
    exponents = (CENTRES[method] + DECADES * (i / (count - 1) - 0.5) for i in range(count))
    return tuple(float(f"{10**exponent:.3g}") for exponent in exponents)


def runs(options: Options) -> list[Run]:
    """Return all methods at all rates on all tasks; `Options.datasets` may name some of the tasks.

    `ProblemError` if there is no such task.
    """
    names = options.datasets or tuple(TASKS)
    for name in names:
        if name not in TASKS:
            raise unknown_name("task", name, TASKS)
    return [run for name in names for seed in options.seed_range for run in _sweeps(name, seed, options)]


def _sweeps(task: str, seed: int, options: Options) -> Iterator[Run]:
    def shared(baseline: str) -> dict[str, Any]:
        return common("robustness", TASKS[task]["dataset"], baseline, options, **TASKS[task])

    for baseline in BASELINES:
        for rate in rates(baseline, options.quick):
            yield baseline_run(shared(baseline), rate, seed)
            yield twin_run(shared(baseline), rate, seed, "full", terminal=TERMINAL.get(task, "empirical"))
    for method in TODAYS:
        more: dict[str, Any] = {}
        if method == "sgd-cosine":
            run = baseline_run(shared(method), 0.0, seed)
            more["updates"] = run.epochs * trial.updates_per_epoch(run, trial.dataset(run))
        for rate in rates(method, options.quick):
            yield baseline_run(shared(method), rate, seed, **more)


def task_name(run: Run) -> str:
    names = ("dataset", "model", "batch_size")
    return next(name for name, task in TASKS.items() if all(task[each] == getattr(run, each) for each in names))


def label(run: Run) -> str:
    return f"twin of {NAMES[run.baseline]}" if run.method == "ddpnopt" else NAMES[run.method]


def areas(results: Results, value: Value) -> dict[int, float]:
    """Return by seed the mean of a value over the logarithm of the rate, by the trapezoidal rule."""
    by_rate = dict(sorted(results.by("learning_rate").items()))
    logarithms = np.log10(list(by_rate))
    width = logarithms[-1] - logarithms[0]
    by_seed = [{r.run.seed: value(r) for r in members} for members in by_rate.values()]
    seeds = sorted(set.intersection(*map(set, by_seed)))
    return {seed: float(trapezoid([values[seed] for values in by_seed], logarithms) / width) for seed in seeds}


def area(results: Results, value: Value) -> Estimate:
    return estimate(areas(results, value).values())


def best(results: Results) -> Results:
    """Return the results at the rate with the highest mean accuracy."""
    return max((own for _, own in sorted(results.by("learning_rate").items())), key=lambda own: own.accuracy.mean)


def is_twin(results: Results) -> bool:
    return results[0].run.method == "ddpnopt"


class Comparison(NamedTuple):
    """A twin minus its baseline, paired by seed."""

    task: str
    name: str
    area: Estimate  # difference of the areas under the accuracy
    loss_area: Estimate  # and under the training loss
    best: Estimate  # difference of the accuracies, each at its own best rate
    time: float  # median ratio of the CPU times of trainings at the same rate that did not diverge


def _compare(task: str, twin: Results, own: Results) -> Comparison:
    pairs = [(areas(twin, value), areas(own, value)) for value in (percent, capped_loss)]
    change, loss_change = (estimate(a[seed] - b[seed] for seed in a.keys() & b.keys()) for a, b in pairs)
    place = attrgetter("run.learning_rate", "run.seed")
    seconds = {place(r): r.seconds for r in own if not r.diverged and r.seconds}
    ratios = [r.seconds / seconds[place(r)] for r in twin if not r.diverged and place(r) in seconds]
    time = statistics.median(ratios) if ratios else math.nan
    return Comparison(task, label(twin[0].run), change, loss_change, best(twin).minus(best(own), percent), time)


Tasks = dict[str, dict[str, Results]]
Number = Callable[[Results], Estimate]


def report(results: Sequence[Result], folder: Path) -> Report:
    tasks: Tasks = {task: own.by(label) for task, own in Results(results).by(task_name).items()}
    comparisons = [
        _compare(task, twin, methods[NAMES[twin[0].run.baseline]])
        for task, methods in tasks.items()
        for twin in filter(is_twin, methods.values())
    ]
    tables = (
        _changes(comparisons),
        _matrix("Area under the accuracy [%]", tasks, lambda own: area(own, percent), 1, max),
        _matrix(
            "Accuracy [%] at a method's own best rate", tasks, lambda own: best(own).accuracy, 1, max, at_best=True
        ),
        _matrix("Area under the training loss", tasks, lambda own: area(own, capped_loss), 3, min),
    )
    return PAGE.report(_verdict(tasks, comparisons), tables, [_draw(tasks, folder)])


def _first(tasks: Tasks, number: Callable[[Results], float]) -> dict[str, tuple[str, bool]]:
    """Return by task the method with the largest number, and whether it is a twin."""
    names = {task: max(methods, key=lambda name: number(methods[name])) for task, methods in tasks.items()}
    return {task: (name, is_twin(tasks[task][name])) for task, name in names.items()}


def _verdict(tasks: Tasks, comparisons: Sequence[Comparison]) -> tuple[str, str]:
    wider, narrower = [c for c in comparisons if c.area.above], [c for c in comparisons if c.area.below]
    neither = [c for c in comparisons if c not in wider and c not in narrower]
    higher, lower = [c for c in comparisons if c.best.above], [c for c in comparisons if c.best.below]
    widest = _first(tasks, lambda own: area(own, percent).mean)
    led = [task for task, (_, twin) in widest.items() if twin]
    won = [task for task, (_, twin) in _first(tasks, lambda own: best(own).accuracy.mean).items() if twin]
    leaders = ", ".join(f"{task}: {name}" for task, (name, _) in widest.items())
    times = [c.time for c in comparisons if math.isfinite(c.time)]
    holds = 2 * len(wider) > len(comparisons) and not narrower and len(led) == len(tasks)
    groups = {"wider": wider, "narrower": narrower, "neither": neither, "higher": higher, "lower": lower}
    said = {name: _listed(own) for name, own in groups.items()}
    said |= {"led": ", ".join(led) or "no task", "won": ", ".join(won) or "no task", "leaders": leaders}
    said["times"] = f"{min(times):.1f} to {max(times):.1f}" if times else "an unknown number of"
    partly = len(wider) > len(narrower)
    return PAGE.judged(holds=holds, partly=partly, gains=len(wider), pairs=len(comparisons), **said)


def _listed(comparisons: Sequence[Comparison]) -> str:
    tasks = dict.fromkeys(c.task for c in comparisons)
    return "; ".join(f"{task} ({', '.join(c.name for c in comparisons if c.task == task)})" for task in tasks) or "none"


def _changes(comparisons: Sequence[Comparison]) -> Table:
    times = ["–" if math.isnan(c.time) else f"{c.time:.1f}" for c in comparisons]
    numbers = [(c.area.text(2), c.loss_area.text(3), c.best.text(2)) for c in comparisons]
    rows = [(f"{c.task}, {c.name}", *texts, time) for c, texts, time in zip(comparisons, numbers, times)]
    return PAGE.table("Changes", rows)


def _matrix(
    what: str, tasks: Tasks, number: Number, digits: int, better: Callable[..., float], at_best: bool = False
) -> Table:
    """Return methods by tasks; the best of a task in bold, with a method's best rate behind every number if asked."""
    columns = []
    for methods in tasks.values():
        numbers = {name: number(own) for name, own in methods.items()}
        lead = better(mean.mean for mean in numbers.values())
        texts = {name: bold(mean.text(digits), mean.mean == lead) for name, mean in numbers.items()}
        if at_best:
            texts = {name: f"{text} at {best(methods[name])[0].run.learning_rate:g}" for name, text in texts.items()}
        columns.append(texts)
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, *(column.get(name, "–") for column in columns)) for name in names]
    return PAGE.table("Methods", rows, tasks, what=what)


def _draw(tasks: Tasks, folder: Path) -> Picture:
    drawn, axes = panels(3.4 * len(tasks) + 1.8, 6.0, 2, len(tasks))
    handles: dict[str, Any] = {}
    for (above, below), (task, methods) in zip(axes.T, tasks.items()):
        for name, own in methods.items():
            by_rate = dict(sorted(own.by("learning_rate").items()))
            means = [members.accuracy.mean for members in by_rate.values()]
            losses = [estimate(map(capped_loss, members)).median for members in by_rate.values()]
            line, width = ("-", 2.0) if is_twin(own) else ("--", 1.3)
            style = {"color": COLORS[own[0].run.baseline], "linestyle": line, "linewidth": width}
            handles[name] = above.plot(list(by_rate), means, **style)[0]
            below.plot(list(by_rate), losses, **style)
        log_scale(above, "x")
        log_scale(below, "xy")
        above.set(title=task, ylabel="R² [%]" if TASKS[task]["loss"] == "mse" else "accuracy [%]")
        below.set(xlabel="learning rate", ylabel="training loss")
    drawn.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    return PAGE.figure("Figure", drawn, folder / "robustness.png")
