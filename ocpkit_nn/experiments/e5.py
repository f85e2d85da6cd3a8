"""E5: Fig. 4b: do the twins converge faster and vary less from seed to seed? Training curves with bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocpkit_nn.experiments.cells import Cells
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import COLOURS, FAILS, HOLDS, PARTLY, Picture, Report, Table, figure, log_scale, save
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.statistics import estimate, quartiles
from ocpkit_nn.experiments.trial import train
from ocpkit_nn.experiments.twins import baseline_run, common, seeds, twin_run

__all__ = ["TITLE", "report", "runs", "train"]

TITLE = "E5: training curves with bands (Fig. 4b)"
RATES = {"sgd": (0.4, 0.7), "rmsprop": (0.01, 0.03), "ekfac": (0.05, 0.1), "adam": (0.01, 0.02)}
RECORD_EVERY = 20
LABELS = {None: "baseline", "full": "full", "value": "value"}


def runs(options: Options) -> list[Run]:
    """Return the baselines and their twins at ε = 0, with curves of many points."""
    every = []
    for dataset in options.datasets or ("digits",):
        for baseline, rates in RATES.items():
            shared = common("e5", dataset, baseline, options)
            shared["record_every"] = 2 if options.quick else RECORD_EVERY
            for rate in rates[-1:] if options.quick else rates:
                for seed in seeds(options):
                    every.append(baseline_run(shared, rate, seed))
                    every += [twin_run(shared, rate, seed, feedback) for feedback in ("full", "value")]
    return every


@dataclass(frozen=True)
class Bundle:
    """The curves of one method over the seeds.

    Attributes
    ----------
    updates
        (N,).
    losses
        (seeds, N), inf from where a training diverged.
    """

    updates: NDArray[np.float64]
    losses: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        return self.losses.mean(0)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation over the seeds, inf where a training diverged."""
        if len(self.losses) == 1:
            return np.zeros(self.losses.shape[1])
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(self.mean), self.losses.std(0, ddof=1), np.inf)

    def reaches(self, loss: float) -> float:
        """Return the first update from which on the mean is finite and at most `loss`; inf if there is none."""
        above = np.flatnonzero(~((self.mean <= loss) & np.isfinite(self.mean)))
        first = above[-1] + 1 if len(above) else 0
        return float(self.updates[first]) if first < len(self.updates) else math.inf


def bundle(results: Sequence[Result]) -> Bundle:
    """Put the curves of all seeds on the longest one's updates."""
    curves = [result.curves for result in results]
    updates = np.array(max((curve["update"] for curve in curves), key=len), dtype=float)
    losses = np.full((len(curves), len(updates)), np.inf)
    for row, curve in zip(losses, curves):
        values = [math.inf if value is None else value for value in curve["train_loss"]]
        row[: len(values)] = values
    return Bundle(updates, losses)


def report(results: Sequence[Result], folder: Path) -> Report:
    """Compare the spread over the seeds, and when a twin has reached the baseline's final loss."""
    every = Cells.each(results)
    verdict, text = _verdict(every[0])
    return Report(
        TITLE,
        verdict,
        text,
        tuple(_table(cells) for cells in every),
        tuple(_draw(cells, folder) for cells in every),
        NOTES,
    )


NOTES = (
    "The paper gives neither the rates of Fig. 4b nor ε; here two of the rates of Table 9 for each baseline, ε = 0.",
)


def _panels(cells: Cells) -> list[tuple[str, float, dict[str | None, Bundle]]]:
    return [
        (
            name,
            rate,
            {
                None: bundle(cells.of(name, rate, name)),
                **{feedback: bundle(cells.twin(name, rate, feedback)) for feedback in ("full", "value")},
            },
        )
        for name in cells.baselines
        for rate in cells.rates(name)
    ]


def _verdict(cells: Cells) -> tuple[str, str]:
    panels = _panels(cells)
    steadier = sum(bool(b["full"].deviation[-1] < b[None].deviation[-1]) for _, _, b in panels)
    faster = sum(b["full"].reaches(b[None].mean[-1]) < b[None].updates[-1] for _, _, b in panels)
    verdict = HOLDS if steadier == faster == len(panels) else PARTLY if steadier + faster > len(panels) else FAILS
    text = (
        f"On {cells.name} the full twin's final training loss varies less over the seeds in {steadier} of "
        f"{len(panels)} panels, and the twin has reached the baseline's final mean loss for good before the end in "
        f"{faster}. Rule: holds if both are so in all panels, partly if they are so in more than half of all cases."
    )
    return verdict, text


def _table(cells: Cells) -> Table:
    rows = []
    for name, rate, bundles in _panels(cells):
        goal = bundles[None].mean[-1]
        for feedback, curve in bundles.items():
            when = curve.reaches(goal)
            reached = f"{when:.0f}" if math.isfinite(when) else "never"
            final = estimate(curve.losses[:, -1])
            numbers = (final.short(4), final.median_text(4), _deviation(curve), reached)
            rows.append((NAMES[name], f"{rate:g}", LABELS[feedback], *numbers))
    header = (
        "baseline",
        "rate",
        "feedback",
        "final training loss",
        "its median",
        "deviation over seeds",
        "at the baseline's loss",
    )
    caption = f"Final training loss on {cells.name}, and the update from which its mean stays below the baseline's"
    return Table(caption, header, tuple(rows))


def _deviation(curve: Bundle) -> str:
    last = curve.deviation[-1]
    return f"{last:.4f}" if math.isfinite(last) else "diverged"


def _draw(cells: Cells, folder: Path) -> Picture:
    panels = _panels(cells)
    columns = max(len(cells.rates(name)) for name in cells.baselines)
    drawn = figure(3.6 * len(cells.baselines), 2.8 * columns)
    axes = drawn.subplots(columns, len(cells.baselines), squeeze=False)
    for name, rate, bundles in panels:
        ax = axes[cells.rates(name).index(rate), cells.baselines.index(name)]
        for feedback, curve in bundles.items():
            colour = COLOURS[feedback or "none"]
            low, middle, high = np.transpose([quartiles(losses) for losses in curve.losses.T])
            ax.plot(curve.updates, middle, color=colour, label=LABELS[feedback])
            ax.fill_between(curve.updates, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.set(title=f"{NAMES[name]}, rate {rate:g}")
        log_scale(ax)
        ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("update")
    for ax in axes[:, 0]:
        ax.set_ylabel("training loss")
    axes[0, 0].legend(title="feedback", loc="upper right")
    caption = f"Training loss, median and the middle half of the seeds, {cells.name}, ε = 0"
    return save(drawn, folder / f"curves-{cells.stem}.png", caption)
