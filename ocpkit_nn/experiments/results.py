"""Results chosen, grouped and summed up: means over seeds with standard errors, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit_nn.experiments.run import DEFAULT_TERMINAL, Result, Run

PARTS = ("none − baseline", "value − baseline", "full − value", "full − baseline")


@dataclass(frozen=True)
class Estimate:
    mean: float  # inf where a training diverged, nan without seeds or where both of a pair diverged
    error: float  # standard error of the mean; nan for fewer than two seeds
    seeds: int  # how many
    median: float = math.nan  # one outlier, or one training that diverged, does not move it far

    @property
    def below(self) -> bool:
        """Whether the mean is more than two standard errors below zero."""
        return self.mean < -2 * self.error

    @property
    def above(self) -> bool:
        """Whether the mean is more than two standard errors above zero."""
        return self.mean > 2 * self.error

    def short(self, digits: int = 3) -> str:
        return Estimate(self.mean, math.nan, self.seeds).text(digits)

    def median_text(self, digits: int = 3) -> str:
        return Estimate(self.median, math.nan, self.seeds).text(digits)

    def text(self, digits: int = 3) -> str:
        if not math.isfinite(self.mean):
            return "–" if math.isnan(self.mean) else "diverged" if self.mean > 0 else "−∞"
        form = f".{digits}f" if abs(self.mean) < 1000 else ".2e"
        error = f" ± {self.error:{form}}" if math.isfinite(self.error) else ""
        return f"{self.mean:{form}}{error}"

    def marked(self, digits: int = 3) -> str:
        return bold(self.text(digits), self.below or self.above)


def bold(text: str, condition: bool) -> str:
    return f"**{text}**" if condition else text


def estimate(values: Iterable[float]) -> Estimate:
    """Return the mean of one value per seed and its standard error."""
    array = np.array(list(values), dtype=float)
    if not len(array) or np.isnan(array).any():
        return Estimate(math.nan, math.nan, len(array))
    ordered = np.sort(array)
    low, high = float(ordered[(len(array) - 1) // 2]), float(ordered[len(array) // 2])
    median = low if low == high else (low + high) / 2  # one infinity in the middle stays one
    if not np.isfinite(array).all():
        total = float(array.sum()) if not (array.max() == math.inf and array.min() == -math.inf) else math.nan
        return Estimate(total, math.nan, len(array), median)
    error = float(array.std(ddof=1)) / math.sqrt(len(array)) if len(array) > 1 else math.nan
    return Estimate(float(array.mean()), error, len(array), median)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile, each of them inf where it is no finite loss."""
    if not len(values):
        return (math.nan,) * 3
    low, high = np.quantile(np.array(values), [0.25, 0.75], method="nearest")
    return float(low), estimate(values).median, float(high)


Value = Callable[[Result], float]
loss_of: Value = attrgetter("loss")
percent: Value = attrgetter("percent")
capped_loss: Value = attrgetter("capped_loss")


class Results(list[Result]):
    """Results of any runs, to choose from by the fields of their `Run`."""

    def where(self, **wanted: Any) -> Results:
        return Results(r for r in self if all(getattr(r.run, name) == value for name, value in wanted.items()))

    def by(self, *names: str | Callable[[Run], Any]) -> dict[Any, Results]:
        """Return groups, in the order of their first member, by fields of the runs or functions of them."""
        groups: dict[Any, Results] = {}
        for result in self:
            key = tuple(getattr(result.run, name) if isinstance(name, str) else name(result.run) for name in names)
            groups.setdefault(key if len(names) > 1 else key[0], Results()).append(result)
        return groups

    @property
    def loss(self) -> Estimate:
        return estimate(map(loss_of, self))

    @property
    def accuracy(self) -> Estimate:
        """Mean accuracy [%]; a training that diverged counts as 0."""
        return estimate(map(percent, self))

    def minus(self, reference: Results, value: Value = loss_of, on: Sequence[str] = ("seed",)) -> Estimate:
        """Return the mean of value(result) − value(reference with the same seed), or the same other fields.

        −inf says that a reference diverged where the result did not, +inf the reverse; nan that both did.
        """
        place = attrgetter(*(f"run.{name}" for name in on))
        others = {place(result): value(result) for result in reference}
        pairs = [(value(result), others[place(result)]) for result in self if place(result) in others]
        return estimate(a - b if math.isfinite(a) or math.isfinite(b) else math.nan for a, b in pairs)


@dataclass(frozen=True)
class Cell:
    """A baseline, its twins and its rivals at one learning rate, on one data set."""

    baseline: str
    rate: float
    results: Results

    @property
    def own(self) -> Results:
        return self.results.where(method=self.baseline)

    def twin(self, feedback: str, epsilon: float = 0.0, terminal: str = DEFAULT_TERMINAL) -> Results:
        """Return the results of a twin; ``"none"`` has neither ε nor terminal curvature."""
        more = {} if feedback == "none" else {"epsilon": epsilon, "terminal": terminal}
        return self.results.where(feedback=feedback, **more)

    def gain(self, epsilon: float = 0.0) -> Estimate:
        return self.twin("full", epsilon).minus(self.own)

    def source(self, terminal: str = DEFAULT_TERMINAL) -> dict[str, Estimate]:
        """Return the parts of a twin's gain at ε = 0, each by its name in `PARTS`.

        "none − baseline" is the same method by other code: rounding, and what training makes of it.
        """
        own, none = self.own, self.twin("none")
        value, full = self.twin("value", terminal=terminal), self.twin("full", terminal=terminal)
        return dict(zip(PARTS, (none.minus(own), value.minus(own), full.minus(value), full.minus(own))))


class Cells:
    """The results of one network on one data set, by baseline and learning rate."""

    def __init__(self, model: str, dataset: str, results: Results) -> None:
        self.data, self.results = (model, dataset), results
        self.name = f"{dataset} ({model.upper()})"  # in reports
        self.stem = f"{model}-{Path(dataset).stem.replace(':', '-')}"  # in names of files
        self.terminals = [terminal for terminal in results.by("terminal") if terminal is not None]
        own = {name: members.by("learning_rate") for name, members in results.by("baseline").items()}
        self.cells = {
            name: [Cell(name, rate, members[rate]) for rate in sorted(r for r in members if r is not None)]
            for name, members in own.items()
        }

    @classmethod
    def each(cls, results: Sequence[Result]) -> list[Cells]:
        """Return the cells of every network and data set, in the order of their first result."""
        groups = Results(results).by("model", "dataset").items()
        return [cls(model, dataset, members) for (model, dataset), members in groups]

    def __iter__(self) -> Iterator[Cell]:
        return (cell for row in self.cells.values() for cell in row)

    def epsilons(self, baseline: str, terminal: str = DEFAULT_TERMINAL) -> list[float]:
        own = self.results.where(baseline=baseline, terminal=terminal)
        return sorted(epsilon for epsilon in own.by("epsilon") if epsilon is not None)
