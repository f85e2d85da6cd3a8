"""What the item `robustness` says: areas under curves over the learning rate, what the feedback changes, and where."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import FAILS, HOLDS, LINES, PARTLY, Picture, Report, Table, figure, log_scale, save
from ocpkit_nn.experiments.run import Result, Run
from ocpkit_nn.experiments.statistics import Estimate, accuracy, capped_loss, difference, estimate, group, percent

Value = Callable[[Result], float]


def label(run: Run) -> str:
    """Return how reports call the method of a run."""
    if run.method != "ddpnopt":
        return NAMES[run.method]
    return f"twin of {NAMES[run.baseline]}"


class Sweep:
    """The results of one method on one task, over the learning rate.

    Parameters
    ----------
    results
        One for each rate and seed.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self.run = results[0].run
        by_rate = group(results, lambda result: result.run.learning_rate)
        self.rates = sorted(by_rate)
        self.at = {rate: by_rate[rate] for rate in self.rates}

    def areas(self, value: Value) -> dict[int, float]:
        """Return by seed the mean of a value over the logarithm of the rate, by the trapezoidal rule."""
        logarithms = np.log10(self.rates)
        seeds = sorted(set.intersection(*({r.run.seed for r in results} for results in self.at.values())))
        values = {
            seed: [value(r) for rate in self.rates for r in self.at[rate] if r.run.seed == seed] for seed in seeds
        }
        width = logarithms[-1] - logarithms[0]
        weights = np.gradient(logarithms)
        weights[[0, -1]] /= 2
        return {seed: float(weights @ np.array(row) / width) for seed, row in values.items()}

    def area(self, value: Value) -> Estimate:
        return estimate(self.areas(value).values())

    def best_rate(self) -> float:
        """Return the rate with the highest mean accuracy."""
        return max(self.rates, key=lambda rate: accuracy(self.at[rate]).mean)

    def best(self) -> list[Result]:
        """Return the results at that rate."""
        return self.at[self.best_rate()]


@dataclass(frozen=True)
class Comparison:
    """A method minus another, paired by seed.

    Attributes
    ----------
    task, name
        Where, and which method.
    area, loss_area
        Differences of the areas under accuracy and training loss.
    best
        Difference of the accuracies, each at its own best rate.
    time
        Median ratio of the CPU times of trainings at the same rate that did not diverge.
    """

    task: str
    name: str
    area: Estimate
    loss_area: Estimate
    best: Estimate
    time: float

    @classmethod
    def of(cls, task: str, sweep: Sweep, reference: Sweep) -> Comparison:
        """Compare two sweeps."""
        return cls(
            task,
            label(sweep.run),
            _paired(sweep.areas(percent), reference.areas(percent)),
            _paired(sweep.areas(capped_loss), reference.areas(capped_loss)),
            difference(sweep.best(), reference.best(), percent),
            _time_ratio(sweep, reference),
        )


class Standing:
    """All methods on one task."""

    def __init__(self, task: str, results: Sequence[Result]) -> None:
        self.task = task
        self.sweeps = {name: Sweep(rows) for name, rows in group(results, lambda result: label(result.run)).items()}
        self.regression = results[0].run.loss == "mse"

    def reference(self, twin: Sweep) -> Sweep:
        """Return what a twin is compared with, its baseline."""
        return self.sweeps[NAMES[twin.run.baseline]]

    def twins(self) -> dict[str, Sweep]:
        return {name: sweep for name, sweep in self.sweeps.items() if sweep.run.method == "ddpnopt"}

    def comparisons(self) -> list[Comparison]:
        """Return each twin beside its reference."""
        return [Comparison.of(self.task, twin, self.reference(twin)) for twin in self.twins().values()]

    def widest(self) -> str:
        """Return the method with the largest area under its accuracy."""
        return max(self.sweeps, key=lambda name: self.sweeps[name].area(percent).mean)

    def best(self) -> str:
        """Return the method with the highest accuracy at its own best rate."""
        return max(self.sweeps, key=lambda name: accuracy(self.sweeps[name].best()).mean)


def _paired(areas: dict[int, float], others: dict[int, float]) -> Estimate:
    return estimate(areas[seed] - others[seed] for seed in areas.keys() & others.keys())


def _time_ratio(sweep: Sweep, reference: Sweep) -> float:
    others = {(r.run.learning_rate, r.run.seed): r for results in reference.at.values() for r in results}
    pairs = [(r, others.get((r.run.learning_rate, r.run.seed))) for results in sweep.at.values() for r in results]
    ratios = [a.seconds / b.seconds for a, b in pairs if b and b.seconds and not (a.diverged or b.diverged)]
    return statistics.median(ratios) if ratios else math.nan


def compare(title: str, results: Sequence[Result], task_of: Callable[[Run], str], folder: Path) -> Report:
    """Judge, and set all methods beside each other."""
    standings = [Standing(task, rows) for task, rows in group(results, lambda r: task_of(r.run)).items()]
    comparisons = [comparison for standing in standings for comparison in standing.comparisons()]
    verdict, text = _verdict(standings, comparisons)
    tables = (
        _changes("What the feedback changes: twin minus baseline", comparisons),
        _matrix("Area under the accuracy [%]", standings, lambda sweep: sweep.area(percent), 1, max),
        _matrix("Accuracy [%] at a method's own best rate", standings, lambda s: accuracy(s.best()), 1, max, _at),
        _matrix("Area under the training loss", standings, lambda sweep: sweep.area(capped_loss), 3, min),
    )
    pictures = (_draw(standings, folder),)
    return Report(title, verdict, text, tables, pictures, NOTES, notes_heading="How to read it")


NOTES = (
    "An area is the mean over the logarithm of the learning rate, in a window of three decades about a method's "
    "customary rate. A baseline and its twin have the same window; others are comparable with care.",
    "A training that diverged counts as accuracy 0; a final loss above the one before the first update counts as that "
    "one. For the regression the accuracy is R² on the test set, 0 where the mean of the targets does better.",
    "A method's best rate is that of its highest mean test accuracy, for all alike, so those numbers are optimistic.",
    "Twins and baselines have a constant rate; AdamW and Muon too, with torch's default weight decay. Muon trains the "
    "hidden layers' matrices and kernels, AdamW the rest. Shampoo and SOAP are not in torch, and not here.",
    "As stages: batch norm couples the samples of a batch, so it stands between residual blocks; inside a block it is "
    "refused. V_x is differentiated through the statistics, as in back-propagation; V_xx takes them for constants. A "
    "residual block and attention with its skip connection are one stage each, differentiated sample by sample through "
    "torch.func.",
)


def _verdict(standings: Sequence[Standing], comparisons: Sequence[Comparison]) -> tuple[str, str]:
    wider, narrower, neither = _sorted(comparisons, lambda c: c.area)
    led = [standing.task for standing in standings if standing.widest() in standing.twins()]
    often = 2 * len(wider) > len(comparisons)
    all_led = len(led) == len(standings)
    verdict = HOLDS if often and not narrower and all_led else PARTLY if len(wider) > len(narrower) else FAILS
    leaders = ", ".join(f"{standing.task}: {standing.widest()}" for standing in standings)
    text = (
        "The feedback widens the range of usable rates (a larger area under the accuracy, by more than two standard "
        f"errors) in {len(wider)} of {len(comparisons)} pairs: {_listed(wider)}. Among all methods the largest area is "
        f"a twin's on {', '.join(led) or 'no task'} ({leaders}). Where the feedback does not pay: it narrows the range "
        f"for {_listed(narrower)}; no difference beyond two standard errors is seen for {_listed(neither)}. "
        f"{_tuned_sentence(standings, comparisons)} A training takes {_range([c.time for c in comparisons])} times the "
        "CPU time of its baseline. Rule: holds if the range is wider in more than half of the pairs, "
        "narrower in none, and a twin has the largest area on every task; partly if it is wider in more pairs than "
        "narrower."
    )
    return verdict, text


def _tuned_sentence(standings: Sequence[Standing], comparisons: Sequence[Comparison]) -> str:
    """Say what the feedback is worth to someone who tunes the rate."""
    higher, lower, _ = _sorted(comparisons, lambda c: c.best)
    won = [standing.task for standing in standings if standing.best() in standing.twins()]
    return (
        "With each method at its own best rate the feedback raises the accuracy by more than two standard errors for "
        f"{_listed(higher)}, and lowers it for {_listed(lower)}; the highest accuracy of all methods is then a twin's "
        f"on {', '.join(won) or 'no task'}."
    )


def _sorted(
    comparisons: Sequence[Comparison], number: Callable[[Comparison], Estimate]
) -> tuple[list[Comparison], list[Comparison], list[Comparison]]:
    """Return those whose number is clearly above zero, clearly below, and neither."""
    above = [c for c in comparisons if number(c).mean > 0 and number(c).significant]
    below = [c for c in comparisons if number(c).mean < 0 and number(c).significant]
    return above, below, [c for c in comparisons if c not in above and c not in below]


def _listed(comparisons: Sequence[Comparison]) -> str:
    """Return twins by task in words."""
    tasks = dict.fromkeys(c.task for c in comparisons)
    return "; ".join(f"{task} ({', '.join(c.name for c in comparisons if c.task == task)})" for task in tasks) or "none"


def _range(numbers: Sequence[float]) -> str:
    known = [number for number in numbers if math.isfinite(number)]
    return f"{min(known):.1f} to {max(known):.1f}" if known else "an unknown number of"


def _changes(caption: str, comparisons: Sequence[Comparison]) -> Table:
    rows = tuple(
        (
            f"{c.task}, {c.name}",
            c.area.text(2),
            c.loss_area.text(3),
            c.best.text(2),
            "–" if math.isnan(c.time) else f"{c.time:.1f}",
        )
        for c in comparisons
    )
    header = (
        "task and twin",
        "area under the accuracy [%]",
        "area under the loss",
        "accuracy at the best rates [%]",
        "CPU time, ratio",
    )
    return Table(f"{caption}, paired by seed", header, rows)


def _at(sweep: Sweep) -> str:
    return f" at {sweep.best_rate():g}"


def _matrix(
    caption: str,
    standings: Sequence[Standing],
    number: Callable[[Sweep], Estimate],
    digits: int,
    better: Callable[..., float],
    more: Callable[[Sweep], str] = lambda sweep: "",
) -> Table:
    """Return methods by tasks; the best of a task in bold."""
    names = list(dict.fromkeys(name for standing in standings for name in standing.sweeps))
    numbers = [{name: number(sweep) for name, sweep in standing.sweeps.items()} for standing in standings]
    best = [better(mean.mean for mean in column.values()) for column in numbers]

    def cell(name: str, index: int) -> str:
        if name not in numbers[index]:
            return "–"
        mean = numbers[index][name]
        text = f"**{mean.text(digits)}**" if mean.mean == best[index] else mean.text(digits)
        return text + more(standings[index].sweeps[name])

    rows = tuple((name, *(cell(name, index) for index in range(len(standings)))) for name in names)
    return Table(caption, ("method", *(standing.task for standing in standings)), rows)


COLOURS = dict(zip(("sgd", "rmsprop", "adam", "adamw", "sgd-cosine", "muon"), LINES))


def _style(run: Run) -> dict[str, Any]:
    """A baseline and its twins share a colour; twins are full lines."""
    is_twin = run.method == "ddpnopt"
    return {"color": COLOURS[run.baseline], "linestyle": "-" if is_twin else "--", "linewidth": 2 if is_twin else 1.3}


def _draw(standings: Sequence[Standing], folder: Path) -> Picture:
    """Mean accuracy (above) and median capped loss (below) over the learning rate, one column for each task."""
    drawn = figure(3.4 * len(standings) + 1.8, 6.0)
    axes = drawn.subplots(2, len(standings), squeeze=False)
    handles: dict[str, Any] = {}
    for column, standing in enumerate(standings):
        above, below = axes[:, column]
        for name, sweep in standing.sweeps.items():
            means = [accuracy(sweep.at[rate]).mean for rate in sweep.rates]
            losses = [estimate(map(capped_loss, sweep.at[rate])).median for rate in sweep.rates]
            handles[name] = above.plot(sweep.rates, means, **_style(sweep.run))[0]
            below.plot(sweep.rates, losses, **_style(sweep.run))
        log_scale(above, "x")
        log_scale(below, "xy")
        above.set(title=standing.task, ylabel="R² [%]" if standing.regression else "accuracy [%]")
        below.set(xlabel="learning rate", ylabel="training loss")
        for ax in (above, below):
            ax.grid(alpha=0.3)
    drawn.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    caption = (
        "Mean accuracy and median training loss at the end, over the learning rate: twins as full lines, baselines "
        "and today's optimisers dashed; one colour for a baseline and its twin"
    )
    return save(drawn, folder / "robustness.png", caption)
