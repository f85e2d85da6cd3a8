"""E8: Fig. 8: has the feedback of the prediction layer as many nontrivial singular values as there are classes?

The rank is bounded by construction. K_t = −Q_uu⁻¹ f_uᵀ V_hh W has at most as many nonzero values as V_hh W has
independent rows, so at most as many as there are outputs; with cross-entropy one less, since (diag p − p pᵀ) 1 = 0.
A control has 20 outputs for all k: there it is the training that has to single out k of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ocpkit_nn import DDPNOpt, losses
from ocpkit_nn.data import Dataset
from ocpkit_nn.experiments import trial
from ocpkit_nn.experiments.methods import build
from ocpkit_nn.experiments.report import LINES, Page, Picture, Report, panels
from ocpkit_nn.experiments.results import Estimate, Results, estimate
from ocpkit_nn.experiments.run import Options, Result, Run, common, twin_run

CLUSTERS = (5, 8, 12, 15)
SHARES = (0.0, 0.03, 0.1, 0.3, 1.0)
FLOOR = 1e-12
PAGE = Page("e8")


SETTINGS = (("ce", "ggn", None), ("ce", "empirical", None), ("mmc", "ggn", None), ("ce", "ggn", 20))
"""Loss, terminal Hessian, and the number of outputs where it is not that of the classes."""


def runs(options: Options) -> list[Run]:
    every = []
    for k in CLUSTERS[:2] if options.quick else CLUSTERS:
        for loss, terminal, outputs in SETTINGS:
            network = {"width": 32, "depth": 5, "activation": "tanh"} | ({"classes": outputs} if outputs else {})
            more = {"epochs": 10, "batch_size": 32, "loss": loss, "network": network}
            shared = common("e8", f"clusters:{k}", "sgd", options, **more)
            every += [twin_run(shared, 0.1, seed, "full", terminal=terminal) for seed in options.seed_range]
    return every


def _name(loss: str, terminal: str | None, outputs: int | None) -> str:
    return f"{loss.upper()}, {terminal}" + ("" if outputs is None else f", {outputs} outputs")


def _name_of(run: Run) -> str:
    return _name(run.loss, run.terminal, run.network.get("classes"))


def _clusters(run: Run) -> int:
    return int(run.dataset.partition(":")[2])


def train(run: Run) -> Result:
    """Train, and measure the spectra after the first update, at the `SHARES` of all updates, and at the end."""
    data = trial.dataset(run)
    updates = run.epochs * trial.updates_per_epoch(run, data)
    stages = {max(1, round(share * updates)) for share in SHARES}
    measures: dict[str, list[Any]] = {"update": [], "policy": [], "gain": []}

    def watch(update: int, model: nn.Module, stepper: object) -> None:
        if update in stages:
            k, K = prediction_policy(model, run, data)
            measures["update"].append(update)
            for name, matrix in (("policy", torch.cat([k[:, None], K], dim=1)), ("gain", K)):
                measures[name].append([float(f"{value:.4g}") for value in torch.linalg.svdvals(matrix)])

    return replace(trial.train(run, watch), measures=measures)


def prediction_policy(model: nn.Module, run: Run, data: Dataset) -> tuple[Tensor, Tensor]:
    """Return k (m,) and the mean gain K (m, n) of the last layer on the whole training set, in double precision.

    The policy is that of a copy: without its second forward pass ("value"), the change of the weights *is* k.
    """
    double = copy.deepcopy(model).double()
    value = replace(run, optimizer={**run.optimizer, "feedback": "value"})
    solver = build(double, losses.by_name(run.loss, data.classes), value)
    assert isinstance(solver, DDPNOpt)
    layer = solver.stages[-1].layer
    before = layer.matrix()
    solver.step(data.train_inputs.double(), data.train_targets)
    gain = solver.policies()[-1]
    assert gain is not None
    U, values, Vt = gain.svd(gain.state.vectors.shape[-1])
    return (layer.matrix() - before).flatten(), (U * values) @ Vt


def nontrivial(values: Sequence[float]) -> int:
    """Return how many values stand before the largest gap on a logarithmic scale.

    Values below `FLOOR` times the largest, which is rounding, count as that much; there must be two values.
    """
    levels = np.log(np.maximum(values, FLOOR * max(*values, np.finfo(float).tiny)))
    return int(np.argmax(levels[:-1] - levels[1:])) + 1


Cells = dict[tuple[str, int], Results]
MATRICES = {"policy": "(k, K)", "gain": "K"}


def report(results: Sequence[Result], folder: Path) -> Report:
    """Count the nontrivial values of every run and stage, and compare their size at the end with that at the start."""
    names = [_name(*setting) for setting in SETTINGS]
    clusters = sorted({_clusters(result.run) for result in results})
    found = Results(result for result in results if result.measures["update"]).by(_name_of, _clusters)
    cells: Cells = {(name, k): found.get((name, k), Results()) for name in names for k in clusters}
    counts = [
        (name, shown, *(_range(_counts(cells[name, k], matrix)) for k in clusters))
        for name in names
        for matrix, shown in MATRICES.items()
    ]
    growths = [(name, *(_growth_text(cells[name, k]) for k in clusters)) for name in names]
    columns = [f"k = {k}" for k in clusters]
    tables = (PAGE.table("Counts", counts, columns), PAGE.table("Growths", growths, columns))
    return PAGE.report(_verdict(cells, names, clusters), tables, [_draw(cells, names, clusters, folder)])


def _counts(results: Results, matrix: str, stages: slice = slice(None)) -> list[int]:
    """Return the numbers of nontrivial values; of the control's, where the rank itself would be the largest gap,
    among the values that the formulas let be nonzero: cross-entropy's Hessian annihilates (1, …, 1)."""
    counts = []
    for result in results:
        outputs = result.run.network.get("classes")
        rank = None if outputs is None else outputs - 1 + (matrix == "policy")
        counts += [nontrivial(values[:rank]) for values in result.measures[matrix][stages]]
    return counts


def _growth(results: Results, stage: int = -1) -> Estimate:
    """Mean over seeds of log₂ of the sum of K's singular values at a stage over that after the first update."""
    least = np.finfo(float).tiny  # K of a dead network is zero
    sums = ([max(least, sum(result.measures["gain"][at])) for at in (0, stage)] for result in results)
    return estimate(math.log2(last / first) for first, last in sums)


def _growth_text(results: Results) -> str:
    stages = min((len(result.measures["update"]) for result in results), default=0)
    return ", ".join(f"{_growth(results, stage).mean:+.1f}" for stage in range(1, stages)) or "–"


def _range(counts: Sequence[int]) -> str:
    if not counts:
        return "–"
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _verdict(cells: Cells, names: Sequence[str], clusters: Sequence[int]) -> tuple[str, str]:
    first, control = names[0], names[-1]
    exact = [count == k for k in clusters for count in _counts(cells[first, k], "policy")]
    alone = [count == k - 1 for k in clusters for count in _counts(cells[first, k], "gain")]
    early, late = (
        [k - count in (0, 1) for k in clusters for count in _counts(cells[control, k], "gain", stage)]
        for stage in (slice(0, 1), slice(-1, None))
    )
    growing = {name: [k for k in clusters if _growth(cells[name, k]).mean > 0] for name in names}
    agrees = bool(exact) and all(exact)
    counts = {"exact": exact, "alone": alone, "early": early, "late": late}
    sizes = "; ".join(f"{name}: {', '.join(map(str, ks)) or 'none'}" for name, ks in growing.items())
    said = {name: f"{sum(own)} of {len(own)}" for name, own in counts.items()}
    holds = agrees and len(growing[first]) == len(clusters)
    return PAGE.judged(holds=holds, partly=agrees, growing=sizes, **said)


def _draw(cells: Cells, names: Sequence[str], clusters: Sequence[int], folder: Path) -> Picture:
    shown = [(names[0], "policy"), *((name, "gain") for name in names)]
    drawn, axes = panels(3.2 * len(clusters), 2.4 * len(shown), len(shown), len(clusters), sharex=True)
    for row, (name, matrix) in zip(axes, shown):
        for ax, k in zip(row, clusters):
            for result in cells[name, k][:1]:
                for update, values, color in zip(result.measures["update"], result.measures[matrix], LINES):
                    levels = np.maximum(values, FLOOR * values[0])
                    ax.semilogy(range(1, len(levels) + 1), levels, ".-", ms=3, lw=1, color=color, label=f"{update}")
            ax.axvline(k, color="gray", linestyle="--", linewidth=1)
        row[0].set_ylabel(f"{MATRICES[matrix]}\n{name}", fontsize=9)
    for ax, k in zip(axes[0], clusters):
        ax.set_title(f"k = {k}")
        ax.legend(title="update", fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("singular value")
    return PAGE.figure("Figure", drawn, folder / "spectra.png")
