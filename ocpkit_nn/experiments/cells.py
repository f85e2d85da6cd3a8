"""Results of baselines, twins and rivals by the cell (baseline, learning rate) that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocpkit_nn.experiments.run import Result, Run
from ocpkit_nn.experiments.statistics import Estimate, difference, loss

DEFAULT_TERMINAL = "empirical"


@dataclass(frozen=True)
class Source:
    """Where the gain of a twin comes from: the parts of its training loss.

    Attributes
    ----------
    baseline
        Loss of the baseline.
    noise
        ``"none"`` minus baseline: the same method by other code, so rounding and what training makes of it.
    value
        ``"value"`` minus baseline: what the value recursion does.
    feedback
        ``"full"`` minus ``"value"``: what K δx adds.
    total
        ``"full"`` minus baseline.
    """

    baseline: Estimate
    noise: Estimate
    value: Estimate
    feedback: Estimate
    total: Estimate


class Cells:
    """The results of one network on one data set.

    Parameters
    ----------
    results
        Of any networks and data sets.
    model, dataset
        Which of them are kept.
    """

    def __init__(self, results: Sequence[Result], model: str, dataset: str) -> None:
        self.model, self.dataset = model, dataset
        self.results = [r for r in results if (r.run.model, r.run.dataset) == (model, dataset)]
        self.baselines = list(dict.fromkeys(result.run.baseline for result in self.results))

    @classmethod
    def each(cls, results: Sequence[Result]) -> list[Cells]:
        """Return the cells of every network and data set, in the order of their first result."""
        return [cls(results, *key) for key in dict.fromkeys((r.run.model, r.run.dataset) for r in results)]

    @property
    def name(self) -> str:
        """What they are called in reports."""
        return f"{self.dataset} ({self.model.upper()})"

    @property
    def stem(self) -> str:
        """The same as a part of a file's name."""
        return f"{self.model}-{Path(self.dataset).stem.replace(':', '-')}"

    def terminals(self) -> list[str]:
        """Return the terminal curvatures of the twins."""
        return list(dict.fromkeys(r.run.terminal for r in self.results if r.run.terminal is not None))

    def rates(self, baseline: str) -> list[float]:
        """Return the learning rates of a baseline."""
        runs = (result.run for result in self.results if result.run.baseline == baseline)
        return sorted({run.learning_rate for run in runs if run.learning_rate is not None})

    def epsilons(self, baseline: str, terminal: str = DEFAULT_TERMINAL) -> list[float]:
        """Return ε of a baseline's twins."""
        runs = (result.run for result in self.results if result.run.baseline == baseline)
        return sorted({run.epsilon for run in runs if run.epsilon is not None and run.terminal == terminal})

    def of(self, baseline: str, rate: float, method: str) -> list[Result]:
        """Return the results of a baseline or a rival."""
        return self._where(baseline, rate, lambda run: run.method == method)

    def twin(
        self, baseline: str, rate: float, feedback: str, epsilon: float = 0.0, terminal: str = DEFAULT_TERMINAL
    ) -> list[Result]:
        """Return the results of a twin; ``"none"`` has neither ε nor terminal curvature."""
        if feedback == "none":
            return self._where(baseline, rate, lambda run: run.feedback == "none")
        wanted = (feedback, epsilon, terminal)
        return self._where(baseline, rate, lambda run: (run.feedback, run.epsilon, run.terminal) == wanted)

    def _where(self, baseline: str, rate: float, chosen: Callable[[Run], bool]) -> list[Result]:
        cell = (r for r in self.results if (r.run.baseline, r.run.learning_rate) == (baseline, rate))
        return [result for result in cell if chosen(result.run)]

    def gain(
        self, baseline: str, rate: float, epsilon: float = 0.0, terminal: str = DEFAULT_TERMINAL, feedback: str = "full"
    ) -> Estimate:
        """Training loss of a twin minus that of the baseline; negative is an improvement."""
        return difference(self.twin(baseline, rate, feedback, epsilon, terminal), self.of(baseline, rate, baseline))

    def source(self, baseline: str, rate: float, epsilon: float = 0.0, terminal: str = DEFAULT_TERMINAL) -> Source:
        """Return where a twin's gain comes from."""
        own, none = self.of(baseline, rate, baseline), self.twin(baseline, rate, "none")
        value, full = (self.twin(baseline, rate, feedback, epsilon, terminal) for feedback in ("value", "full"))
        return Source(
            loss(own), difference(none, own), difference(value, own), difference(full, value), difference(full, own)
        )
