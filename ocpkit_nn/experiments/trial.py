"""One training of an experiment: data, network and method of a `Run` → its `Result`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ocpkit_nn.data import Dataset, batches, load
from ocpkit_nn.data.dataset import split
from ocpkit_nn.experiments.architectures import NETWORKS
from ocpkit_nn.experiments.methods import build
from ocpkit_nn.experiments.regression import Regression, diabetes, mean_loss_and_explained
from ocpkit_nn.experiments.run import Result, Run
from ocpkit_nn.layers.losses import Loss, by_name
from ocpkit_nn.training.networks import build as build_network
from ocpkit_nn.training.networks import fcn
from ocpkit_nn.training.optimizers import Stepper
from ocpkit_nn.training.record import machine
from ocpkit_nn.training.training import is_finite, mean_loss_and_accuracy, reproducible

Watch = Callable[[int, nn.Module, Stepper], object]
"""Gets (number of the update, network, method) after every update."""

WITH_TEST_SET = ("mnist", "fashion-mnist", "svhn", "cifar10")
"""Data sets from files, whose test set is theirs and not drawn by the seed."""


def is_there(name: str) -> bool:
    """Whether a data set needs no files, or has them in `OCPKIT_DATA`."""
    root = os.environ.get("OCPKIT_DATA")
    return name not in WITH_TEST_SET or (bool(root) and (Path(str(root)).expanduser() / name).is_dir())


def train(run: Run, watch: Watch | None = None) -> Result:
    """Train as `run` says, with one thread of the processor, from its seed alone.

    Parameters
    ----------
    run
        What to train.
    watch
        Called after every update.

    Returns
    -------
    Result
        With losses None where the training diverged: a loss or a weight that is not finite ends it.

    Raises
    ------
    ProblemError
        For an unknown method.
    DataError
        If the data are not there.
    """
    began, device = time.process_time(), torch.device(run.device)
    with reproducible(device, run.seed):
        torch.set_num_threads(1)
        data = dataset(run)
        model, loss = network(run, data).to(device), by_name(run.loss, data.classes)
        stepper = build(model, loss, run)
        curves, updates = _optimise(run, data, model, loss, stepper, watch)
    train_loss, accuracy = curves["train_loss"][-1], curves["accuracy"][-1]
    seconds = round(time.process_time() - began, 3)
    return Result(run, train_loss, accuracy, updates, seconds, curves, {}, machine(device))


def _optimise(
    run: Run, data: Dataset, model: nn.Module, loss: Loss, stepper: Stepper, watch: Watch | None
) -> tuple[dict[str, list[float | None]], int]:
    """Take all updates; return the curves and the number of updates."""
    order, update = torch.Generator().manual_seed(run.seed), 0
    per_epoch = math.ceil(len(data.train_inputs) / run.batch_size)
    every = run.record_every or per_epoch
    curves: dict[str, list[float | None]] = {"update": [], "train_loss": [], "accuracy": []}
    _record(curves, update, model, loss, data)
    for _ in range(run.epochs):
        for inputs, targets in batches(data.train_inputs, data.train_targets, run.batch_size, order):
            model.train()
            try:
                finite = math.isfinite(stepper.step(inputs, targets))
            except (RuntimeError, FloatingPointError) as error:
                # Drawing from, or decomposing, what is not finite raises before a loss is returned.
                decomposed = isinstance(error, (torch.linalg.LinAlgError, FloatingPointError))  # type: ignore[attr-defined]
                if not decomposed and is_finite(model, inputs):
                    raise
                finite = False
            update += 1
            if watch is not None:
                watch(update, model, stepper)
            if not finite:
                for name, value in (("update", update), ("train_loss", None), ("accuracy", None)):
                    curves[name].append(value)
                return curves, update
            if update % every == 0 or update == run.epochs * per_epoch:
                _record(curves, update, model, loss, data)
    return curves, update


@torch.no_grad()
def _record(curves: dict[str, list[float | None]], update: int, model: nn.Module, loss: Loss, data: Dataset) -> None:
    model.eval()
    measure = mean_loss_and_explained if isinstance(data, Regression) else mean_loss_and_accuracy
    train_loss, _ = measure(model, loss, data.train_inputs, data.train_targets)
    _, accuracy = measure(model, loss, data.test_inputs, data.test_targets)
    finite = math.isfinite(train_loss)
    curves["update"].append(update)
    curves["train_loss"].append(float(f"{train_loss:.6g}") if finite else None)
    curves["accuracy"].append(round(accuracy, 3) if finite else None)


def network(run: Run, data: Dataset) -> nn.Module:
    """Return the network of a run, its weights drawn by torch's global generator."""
    if run.model in NETWORKS:
        return NETWORKS[run.model](data)
    if not run.network:
        return build_network(run.model, data)
    layers = fcn(math.prod(data.input_shape), **{"classes": data.classes, **run.network})
    return layers if len(data.input_shape) == 1 else nn.Sequential(nn.Flatten(), *layers)


def dataset(run: Run) -> Dataset:
    """Return the data of a run on its device; with ``evaluated_on="validation"`` the test set is not touched."""
    data = _loaded(run.dataset, 0 if run.dataset in WITH_TEST_SET else run.seed)
    if run.evaluated_on == "validation":
        data = _validation(data, run.seed)
    if run.samples is not None:
        data = _subset(data, run.samples, run.seed)
    parts = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return replace(data, **{part: getattr(data, part).to(run.device) for part in parts})


@lru_cache(maxsize=2)
def _loaded(name: str, seed: int) -> Dataset:
    return diabetes(seed) if name == "diabetes" else load(name, seed=seed)


def _validation(data: Dataset, seed: int) -> Dataset:
    """Hold out a fifth of the training set, with the classes' shares kept, in the place of the test set."""
    index = np.arange(len(data.train_inputs))
    parts = split(data.name, index, data.train_targets.numpy(), seed)
    fit, held = torch.from_numpy(parts.train_inputs), torch.from_numpy(parts.test_inputs)
    return replace(
        data,
        train_inputs=data.train_inputs[fit],
        train_targets=data.train_targets[fit],
        test_inputs=data.train_inputs[held],
        test_targets=data.train_targets[held],
    )


def _subset(data: Dataset, samples: int, seed: int) -> Dataset:
    """Draw so many samples of both sets."""
    generator = torch.Generator().manual_seed(seed)

    def draw(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.randperm(len(inputs), generator=generator)[:samples]
        return inputs[index], targets[index]

    train, test = draw(data.train_inputs, data.train_targets), draw(data.test_inputs, data.test_targets)
    return replace(data, train_inputs=train[0], train_targets=train[1], test_inputs=test[0], test_targets=test[1])
