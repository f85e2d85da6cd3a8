"""E7: Fig. 6, 10, 11, 12: does the feedback escape where the gradient vanishes?

A 9-layer sigmoid network on DIGITS with the Max-Mahalanobis centre loss: its gradient vanishes on the way back, and
plain training stays at the loss of the best constant output. Curves of the loss and of the length of the updates,
for the paper's methods and, since that decides more than anything else here, for several dampings γ of the Kronecker
curvature (M + γ I); with cross-entropy instead, with ReLU instead, and over the learning rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit_nn.experiments import trial
from ocpkit_nn.experiments.e7_report import compare
from ocpkit_nn.experiments.report import Report
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.twins import QUICK, seeds
from ocpkit_nn.layers.losses import by_name

__all__ = ["TITLE", "report", "runs", "train"]

TITLE = "E7: a network whose gradient vanishes (Fig. 6, 10, 11, 12)"
DAMPINGS = (1e-2, 1e-4)
RATES = {"sgd-vgr": (0.1, 0.03, 0.3), "kronecker": (0.03, 0.01, 0.1)}
ADAPTIVE = {"rmsprop": 0.01, "adam": 0.01}
POINTS = 30
EPOCHS = 30


def runs(options: Options) -> list[Run]:
    """Return Fig. 6 in every convention; Fig. 11; Fig. 10 (cross-entropy, ReLU) and 12 (rates) at the smaller γ."""
    every = []
    for seed in seeds(options):
        shared = _shared("mmc", "sigmoid", seed, options)
        for gamma in DAMPINGS:
            every += _conventions(shared, gamma)
        for setting in (shared, _shared("ce", "sigmoid", seed, options), _shared("mmc", "relu", seed, options)):
            every += _adaptive(setting) + _main(setting, *(rates[0] for rates in RATES.values()))
        for sgd_rate, rate in zip(*(rates[1:] for rates in RATES.values())):
            every += _main(shared, sgd_rate, rate)
    return list({run.key: run for run in every}.values())


def _shared(loss: str, activation: str, seed: int, options: Options) -> dict[str, Any]:
    return {
        "item": "e7",
        "dataset": "digits",
        "batch_size": 32,
        "loss": loss,
        "network": {"width": 16, "depth": 9, "activation": activation},
        "seed": seed,
        "record_every": 1 if options.quick else 45 * EPOCHS // POINTS,
        "device": options.device,
        **{"epochs": EPOCHS, **(QUICK if options.quick else {})},
    }


def _main(shared: dict[str, Any], sgd_rate: float, rate: float) -> list[Run]:
    """SGD-VGR, EKFAC, KFAC and their twins."""
    damping = {"damping": DAMPINGS[-1]}
    every = [Run(**shared, method="sgd-vgr", baseline="sgd-vgr", learning_rate=sgd_rate)]
    for baseline in ("ekfac", "kfac"):
        every.append(Run(**shared, method=baseline, baseline=baseline, learning_rate=rate, optimizer=damping))
        every.append(_twin(shared, baseline, rate, terminal="ggn", **damping))
    return every


def _conventions(shared: dict[str, Any], gamma: float) -> list[Run]:
    """EKFAC, KFAC and what their twins can be: two terminal Hessians, Q_uu as printed, second-order dynamics."""
    rate, damping = RATES["kronecker"][0], {"damping": gamma}
    every = []
    for baseline in ("ekfac", "kfac"):
        every.append(Run(**shared, method=baseline, baseline=baseline, learning_rate=rate, optimizer=damping))
        for chosen in (
            {"terminal": "empirical"},
            {"terminal": "ggn"},
            {"terminal": "empirical", "control_hessian": "literal"},
        ):
            every.append(_twin(shared, baseline, rate, **chosen, **damping))
    return [*every, _twin(shared, "kfac", rate, terminal="ggn", dynamics="second", **damping)]


def _adaptive(shared: dict[str, Any]) -> list[Run]:
    """Adaptive first-order methods and their twins, DDPNOpt*."""
    every = []
    for baseline, rate in ADAPTIVE.items():
        every.append(Run(**shared, method=baseline, baseline=baseline, learning_rate=rate))
        every.append(_twin(shared, baseline, rate, terminal="empirical"))
    return every


def _twin(shared: dict[str, Any], baseline: str, rate: float, **optimizer: Any) -> Run:
    optimizer = {"feedback": "full", **optimizer}
    return Run(**shared, method="ddpnopt", baseline=baseline, learning_rate=rate, epsilon=0.0, optimizer=optimizer)


def train(run: Run) -> Result:
    """Train; record the mean length of the updates between two points of the curves, and the best constant's loss."""
    data = trial.dataset(run)
    lengths: list[float] = []
    before: list[Tensor] = []

    def watch(update: int, model: nn.Module, stepper: object) -> None:
        after = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        if before:
            lengths.append(float((after - before.pop()).norm()))
        before.append(after)

    result = trial.train(run, watch)
    marks = [int(update) for update in result.curves["update"] if update is not None]
    means = [_mean(lengths[max(0, start - 1) : end - 1]) for start, end in itertools.pairwise(marks)]
    constant = constant_loss(run.loss, data.train_targets, data.classes)
    return replace(result, measures={"update_norm": [None, *means], "constant_loss": constant})


def _mean(lengths: Sequence[float]) -> float | None:
    """Mean of the lengths; None where there are none or the training diverged."""
    mean = sum(lengths) / len(lengths) if lengths else math.nan
    return float(f"{mean:.4g}") if math.isfinite(mean) else None


def constant_loss(name: str, targets: Tensor, classes: int) -> float:
    """Return the smallest mean loss that one output for all samples can have."""
    shares = torch.bincount(targets, minlength=classes).double() / len(targets)
    if name == "ce":
        return float(-torch.special.xlogy(shares, shares).sum())
    loss = by_name(name, classes)
    centres = -loss.gradient(torch.zeros(classes, classes, dtype=torch.float64), torch.arange(classes))
    output = (shares[:, None] * centres).sum(0)
    return float((shares * loss.value(output.expand(classes, -1), torch.arange(classes))).sum())


def report(results: Sequence[Result], folder: Path) -> Report:
    """Say which methods leave the loss of the best constant, and how long their updates are."""
    return compare(TITLE, results, folder)
