"""Groups of results and what is said of them: means with standard errors, and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocpkit_nn.experiments.run import Result


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes
    ----------
    mean
        inf where a training diverged, nan without seeds or where both of a pair diverged.
    median
        Over the same seeds; one outlier, or one training that diverged, does not move it far.
    error
        Standard error of the mean; nan for fewer than two seeds.
    seeds
        How many.
    """

    mean: float
    error: float
    seeds: int
    median: float = math.nan

    @property
    def significant(self) -> bool:
        """Whether the mean is more than two standard errors from zero."""
        return abs(self.mean) > 2 * self.error

    def short(self, digits: int = 3) -> str:
        """Return the mean alone."""
        return Estimate(self.mean, math.nan, self.seeds).text(digits)

    def median_text(self, digits: int = 3) -> str:
        """Return the median alone."""
        return Estimate(self.median, math.nan, self.seeds).text(digits)

    def text(self, digits: int = 3) -> str:
        """Return mean ± error, without the error where there is none."""
        if not math.isfinite(self.mean):
            return "–" if math.isnan(self.mean) else "diverged" if self.mean > 0 else "−∞"
        form = f".{digits}f" if abs(self.mean) < 1000 else ".2e"
        error = f" ± {self.error:{form}}" if math.isfinite(self.error) else ""
        return f"{self.mean:{form}}{error}"

    def marked(self, digits: int = 3) -> str:
        """Return mean ± error, in bold where it is significant."""
        return f"**{self.text(digits)}**" if self.significant else self.text(digits)


def estimate(values: Iterable[float]) -> Estimate:
    """Return the mean of one value per seed and its standard error."""
    array = np.array(list(values), dtype=float)
    if not len(array):
        return Estimate(math.nan, math.nan, 0)
    if np.isnan(array).any():
        return Estimate(math.nan, math.nan, len(array))
    ordered = np.sort(array)
    low, high = float(ordered[(len(array) - 1) // 2]), float(ordered[len(array) // 2])
    median = low if low == high else (low + high) / 2  # one infinity in the middle stays one
    if not np.isfinite(array).all():
        total = float(array.sum()) if not (array.max() == math.inf and array.min() == -math.inf) else math.nan
        return Estimate(total, math.nan, len(array), median)
    error = float(array.std(ddof=1)) / math.sqrt(len(array)) if len(array) > 1 else math.nan
    return Estimate(float(array.mean()), error, len(array), median)


def group(results: Iterable[Result], key: Callable[[Result], Any]) -> dict[Any, list[Result]]:
    """Return results by key, in the order of their first member."""
    groups: dict[Any, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def loss(results: Sequence[Result]) -> Estimate:
    """Mean final training loss."""
    return estimate(result.loss for result in results)


def capped_loss(result: Result) -> float:
    """Return the final training loss, or that before the first update where training made it worse or diverged."""
    before = result.curves["train_loss"][0]
    return min(result.loss, math.inf if before is None else before)


def percent(result: Result) -> float:
    """Accuracy [%]; 0 for a training that diverged."""
    return 0.0 if result.accuracy is None else result.accuracy


def accuracy(results: Sequence[Result]) -> Estimate:
    """Mean accuracy [%]; a training that diverged counts as 0."""
    return estimate(map(percent, results))


def difference(
    results: Sequence[Result], reference: Sequence[Result], value: Callable[[Result], float] = lambda r: r.loss
) -> Estimate:
    """Mean of value(result) − value(reference with the same seed).

    −inf says that a reference diverged where the result did not, +inf the reverse; nan that both did.
    """
    others = {result.run.seed: result for result in reference}
    pairs = [(value(result), value(others[result.run.seed])) for result in results if result.run.seed in others]
    return estimate(a - b if math.isfinite(a) or math.isfinite(b) else math.nan for a, b in pairs)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile, each of them inf where it is no finite loss."""
    if not len(values):
        return (math.nan,) * 3
    low, high = np.quantile(np.array(values), [0.25, 0.75], method="nearest")
    return float(low), estimate(values).median, float(high)
