"""E8: Fig. 8: has the feedback of the prediction layer as many nontrivial singular values as there are classes?

k Gaussian clusters in R³⁰ are classified; at several stages of the training the backward pass is made on the whole
training set, and the singular values of the prediction layer's (k_t, K_t) (A.6.1) and of K_t alone are recorded, K_t
being the mean gain of the samples.

The rank is bounded by construction. K_t = −Q_uu⁻¹ f_uᵀ V_hh W has at most as many nonzero values as V_hh W has
independent rows, so at most as many as there are outputs; with cross-entropy one less, since (diag p − p pᵀ) 1 = 0.
A control has 20 outputs for all k: there it is the training that has to single out k of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ocpkit_nn.data import Dataset
from ocpkit_nn.experiments import trial
from ocpkit_nn.experiments.methods import build
from ocpkit_nn.experiments.report import FAILS, HOLDS, LINES, PARTLY, Picture, Report, Table, figure, save
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.statistics import Estimate, estimate
from ocpkit_nn.experiments.twins import QUICK, seeds
from ocpkit_nn.layers.losses import by_name
from ocpkit_nn.optim.ddpnopt import DDPNOpt

TITLE = "E8: spectrum of the prediction layer's feedback on k Gaussian clusters (Fig. 8)"
CLUSTERS = (5, 8, 12, 15)
SHARES = (0.0, 0.03, 0.1, 0.3, 1.0)
FLOOR = 1e-12


@dataclass(frozen=True)
class Setting:
    """What is trained on the clusters."""

    loss: str
    terminal: str
    outputs: int | None = None

    @property
    def name(self) -> str:
        outputs = "" if self.outputs is None else f", {self.outputs} outputs"
        return f"{self.loss.upper()}, {self.terminal}{outputs}"

    @property
    def null(self) -> int:
        """Dimension of what the terminal Hessian annihilates: (1, …, 1) with cross-entropy."""
        return 0 if self.loss == "mmc" else 1


SETTINGS = (Setting("ce", "ggn"), Setting("ce", "empirical"), Setting("mmc", "ggn"), Setting("ce", "ggn", 20))
FIRST, CONTROL = SETTINGS[0], SETTINGS[-1]


def runs(options: Options) -> list[Run]:
    """Return a training for each number of clusters, setting and seed."""
    clusters = CLUSTERS[:2] if options.quick else CLUSTERS
    return [
        _run(f"clusters:{k}", setting, seed, options)
        for k in clusters
        for setting in SETTINGS
        for seed in seeds(options)
    ]


def _run(dataset: str, setting: Setting, seed: int, options: Options) -> Run:
    network: dict[str, Any] = {"width": 32, "depth": 5, "activation": "tanh"}
    if setting.outputs is not None:
        network["classes"] = setting.outputs
    return Run(
        item="e8",
        dataset=dataset,
        method="ddpnopt",
        baseline="sgd",
        learning_rate=0.1,
        epsilon=0.0,
        seed=seed,
        batch_size=32,
        loss=setting.loss,
        network=network,
        optimizer={"feedback": "full", "terminal": setting.terminal},
        device=options.device,
        **{"epochs": 10, **(QUICK if options.quick else {})},
    )


def _setting(run: Run) -> Setting:
    return Setting(run.loss, str(run.terminal), run.network.get("classes"))


def _clusters(run: Run) -> int:
    return int(run.dataset.partition(":")[2])


def train(run: Run) -> Result:
    """Train, and measure the spectra after the first update, at the `SHARES` of all updates, and at the end."""
    data = trial.dataset(run)
    updates = run.epochs * math.ceil(len(data.train_inputs) / run.batch_size)
    stages = {max(1, round(share * updates)) for share in SHARES}
    measures: dict[str, list[Any]] = {"update": [], "policy": [], "gain": []}

    def watch(update: int, model: nn.Module, stepper: object) -> None:
        if update in stages:
            k, K = prediction_policy(model, run, data)
            measures["update"].append(update)
            measures["policy"].append(_singular_values(torch.cat([k[:, None], K], dim=1)))
            measures["gain"].append(_singular_values(K))

    return replace(trial.train(run, watch), measures=measures)


def prediction_policy(model: nn.Module, run: Run, data: Dataset) -> tuple[Tensor, Tensor]:
    """Return k (m,) and the mean gain K (m, n) of the last layer on the whole training set, in double precision.

    The policy is that of a copy: without its second forward pass ("value"), the change of the weights *is* k.
    """
    double = copy.deepcopy(model).double()
    options = {**run.optimizer, "feedback": "value"}
    solver = build(double, by_name(run.loss, data.classes), replace(run, optimizer=options))
    assert isinstance(solver, DDPNOpt)
    layer = solver.stages[-1].layer
    before = layer.matrix()
    solver.step(data.train_inputs.double(), data.train_targets)
    gain = solver.policies()[-1]
    assert gain is not None
    U, values, Vt = gain.svd(gain.state.vectors.shape[-1])
    return (layer.matrix() - before).flatten(), (U * values) @ Vt


def _singular_values(matrix: Tensor) -> list[float]:
    return [float(f"{value:.4g}") for value in torch.linalg.svdvals(matrix)]


def nontrivial(values: Sequence[float]) -> int:
    """Return how many values stand before the largest gap on a logarithmic scale.

    Values below `FLOOR` times the largest, which is rounding, count as that much; there must be two values.
    """
    levels = np.log(np.maximum(values, FLOOR * max(*values, np.finfo(float).tiny)))
    return int(np.argmax(levels[:-1] - levels[1:])) + 1


def report(results: Sequence[Result], folder: Path) -> Report:
    """Count the nontrivial values of every run and stage, and compare their size at the end with that at the start."""
    clusters = sorted({_clusters(result.run) for result in results})
    cells = {(setting, k): _of(results, setting, k) for setting in SETTINGS for k in clusters}
    verdict, text = _verdict(cells, clusters)
    tables = (_count_table(cells, clusters), _growth_table(cells, clusters))
    return Report(TITLE, verdict, text, tables, (_draw(cells, clusters, folder),), NOTES)


Cells = dict[tuple[Setting, int], list[Result]]

NOTES = (
    "The paper gives neither the network nor the spread of the clusters. Here: 5 layers, width 32, tanh; centres from "
    "N(0, I), samples from N(centre, I), 200 of each; the SGD twin at 0.1, so that M = I and K_t is not rescaled.",
    "A.6.1 makes the decomposition of (k_t, K_t); both that matrix and K_t alone are shown here.",
    "The number of nontrivial values follows from the number of outputs and the loss, before any training, and shows "
    "nothing of what the network has learned; the control with 20 outputs does.",
)


def _of(results: Sequence[Result], setting: Setting, k: int) -> list[Result]:
    return [r for r in results if _setting(r.run) == setting and _clusters(r.run) == k and r.measures["update"]]


def _counts(results: Sequence[Result], matrix: str, stages: slice = slice(None)) -> list[int]:
    """Return the numbers of nontrivial values; of the control's, where the rank itself would be the largest gap,
    among the values that the formulas let be nonzero."""
    return [
        nontrivial(values[: _rank(result, matrix)]) for result in results for values in result.measures[matrix][stages]
    ]


def _rank(result: Result, matrix: str) -> int | None:
    setting = _setting(result.run)
    if setting.outputs is None:
        return None
    return setting.outputs - setting.null + (matrix == "policy")


def _growth(results: Sequence[Result], stage: int = -1) -> Estimate:
    """Mean over seeds of log₂ of the sum of K's singular values at a stage over that after the first update."""
    least = np.finfo(float).tiny  # K of a dead network is zero
    sums = ([max(least, sum(result.measures["gain"][at])) for at in (0, stage)] for result in results)
    return estimate(math.log2(last / first) for first, last in sums)


def _verdict(cells: Cells, clusters: Sequence[int]) -> tuple[str, str]:
    exact = [count == k for k in clusters for count in _counts(cells[FIRST, k], "policy")]
    alone = [count == k - FIRST.null for k in clusters for count in _counts(cells[FIRST, k], "gain")]
    early, late = (
        [k - count in (0, 1) for k in clusters for count in _counts(cells[CONTROL, k], "gain", stage)]
        for stage in (slice(0, 1), slice(-1, None))
    )
    growing = {s: [k for k in clusters if _growth(cells[s, k]).mean > 0] for s in SETTINGS}
    verdict = FAILS if not (exact and all(exact)) else HOLDS if len(growing[FIRST]) == len(clusters) else PARTLY
    sizes = "; ".join(f"{s.name}: {', '.join(map(str, ks)) or 'none'}" for s, ks in growing.items())
    return verdict, (
        f"With cross-entropy and its exact Hessian, (k_t, K_t) has exactly k nontrivial values in {sum(exact)} of "
        f"{len(exact)} spectra (all k, stages and seeds), and K_t alone k − 1 in {sum(alone)} of {len(alone)}, as the "
        "formulas imply before any training. With 20 outputs, where they do not, the number for K_t is k or k − 1 in "
        f"{sum(early)} of {len(early)} spectra after the first update and in {sum(late)} of {len(late)} at the end. "
        f"The sum of K_t's singular values is larger at the end than after the first update for these k: {sizes}. "
        "Rule: the number is what stands before the largest gap of the logarithms; holds if it is k for (k_t, K_t) "
        "throughout and the values grow for every k, partly if only the number agrees."
    )


def _count_table(cells: Cells, clusters: Sequence[int]) -> Table:
    """Numbers of nontrivial values that were found, as a range over seeds and stages."""
    rows = [
        (setting.name, matrix, *(_range(_counts(cells[setting, k], key)) for k in clusters))
        for setting in SETTINGS
        for matrix, key in (("(k, K)", "policy"), ("K", "gain"))
    ]
    caption = "Number of nontrivial singular values over all stages and seeds (from the fewest to the most)"
    return Table(caption, ("loss, terminal Hessian", "matrix", *(f"k = {k}" for k in clusters)), tuple(rows))


def _range(counts: Sequence[int]) -> str:
    if not counts:
        return "–"
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _growth_table(cells: Cells, clusters: Sequence[int]) -> Table:
    rows = [(setting.name, *(_growth_text(cells[setting, k]) for k in clusters)) for setting in SETTINGS]
    caption = "Sum of K's singular values: log₂ of its growth since the first update, at every later stage"
    return Table(caption, ("loss, terminal Hessian", *(f"k = {k}" for k in clusters)), tuple(rows))


def _growth_text(results: Sequence[Result]) -> str:
    stages = min((len(result.measures["update"]) for result in results), default=0)
    return ", ".join(f"{_growth(results, stage).mean:+.1f}" for stage in range(1, stages)) or "–"


def _draw(cells: Cells, clusters: Sequence[int], folder: Path) -> Picture:
    """Spectra of the first seed at all stages, as Fig. 8: (k, K) in the first row, K of the other settings below."""
    shown = [(FIRST, "policy"), *((setting, "gain") for setting in SETTINGS)]
    drawn = figure(3.2 * len(clusters), 2.4 * len(shown))
    axes = drawn.subplots(len(shown), len(clusters), squeeze=False, sharex=True)
    for row, (setting, matrix) in enumerate(shown):
        for ax, k in zip(axes[row], clusters):
            for result in cells[setting, k][:1]:
                for update, values, colour in zip(result.measures["update"], result.measures[matrix], LINES):
                    levels = np.maximum(values, FLOOR * values[0])
                    ax.semilogy(range(1, len(levels) + 1), levels, ".-", ms=3, lw=1, color=colour, label=f"{update}")
            ax.axvline(k, color="grey", linestyle="--", linewidth=1)
            ax.grid(alpha=0.3)
        axes[row, 0].set_ylabel(f"{'(k, K)' if matrix == 'policy' else 'K'}\n{setting.name}", fontsize=9)
    for ax, k in zip(axes[0], clusters):
        ax.set_title(f"k = {k}")
        ax.legend(title="update", fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("singular value")
    caption = "Singular values of the prediction layer's feedback through training; k is dashed. First seed"
    return save(drawn, folder / "spectra.png", caption)
