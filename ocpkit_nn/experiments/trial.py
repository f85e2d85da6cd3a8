"""One training of an experiment: data, network and method of a `Run` → its `Result`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ocpkit_nn import (
    Loss,
    TrainingMethod,
    fcn,
    is_finite,
    losses,
    machine,
    mean_loss_and_accuracy,
    networks,
    reproducible,
)
from ocpkit_nn.data import ON_DISK, Dataset, batches, load
from ocpkit_nn.experiments.methods import build
from ocpkit_nn.experiments.run import Result, Run

Watch = Callable[[int, nn.Module, TrainingMethod], object]
"""Gets (number of the update, network, method) after every update."""


def train(run: Run, watch: Watch | None = None) -> Result:
    """Train as `run` says, with one thread of the processor, from its seed alone.

    A loss or a weight that is not finite ends the training: it diverged. `ProblemError` for an unknown method,
    `DataError` if the data are not there.
    """
    began, device = time.process_time(), torch.device(run.device)
    with reproducible(device, run.seed):
        torch.set_num_threads(1)
        data = dataset(run)
        model, loss = network(run, data).to(device), losses.by_name(run.loss, data.classes)
        stepper = build(model, loss, run)
        curves, updates = _optimize(run, data, model, loss, stepper, watch)
    train_loss, accuracy = curves["train_loss"][-1], curves["accuracy"][-1]
    seconds = round(time.process_time() - began, 3)
    return Result(run, train_loss, accuracy, updates, seconds, curves, {}, machine(device))


def _optimize(
    run: Run, data: Dataset, model: nn.Module, loss: Loss, stepper: TrainingMethod, watch: Watch | None
) -> tuple[dict[str, list[float | None]], int]:
    """Take all updates; return the curves and the number of updates."""
    order, update, per_epoch = torch.Generator().manual_seed(run.seed), 0, updates_per_epoch(run, data)
    every = run.record_every or per_epoch
    curves: dict[str, list[float | None]] = {"update": [], "train_loss": [], "accuracy": []}

    def record(values: tuple[float | None, float | None]) -> None:
        for name, value in zip(curves, (update, *values)):
            curves[name].append(value)

    record(_measured(model, loss, data))
    for _ in range(run.epochs):
        for inputs, targets in batches(data.train_inputs, data.train_targets, run.batch_size, order):
            model.train()
            finite = _step(stepper, model, inputs, targets)
            update += 1
            if watch is not None:
                watch(update, model, stepper)
            if not finite:
                record((None, None))
                return curves, update
            if update % every == 0 or update == run.epochs * per_epoch:
                record(_measured(model, loss, data))
    return curves, update


def updates_per_epoch(run: Run, data: Dataset) -> int:
    return math.ceil(len(data.train_inputs) / run.batch_size)


def _step(stepper: TrainingMethod, model: nn.Module, inputs: Tensor, targets: Tensor) -> bool:
    """Take one step; return whether its loss is finite."""
    try:
        return math.isfinite(stepper.step(inputs, targets))
    except (RuntimeError, FloatingPointError) as error:
        # Drawing from, or decomposing, what is not finite raises before a loss is returned.
        decomposed = isinstance(error, (torch.linalg.LinAlgError, FloatingPointError))  # type: ignore[attr-defined]
        if not decomposed and is_finite(model, inputs):
            raise
        return False


@torch.no_grad()
def _measured(model: nn.Module, loss: Loss, data: Dataset) -> tuple[float | None, float | None]:
    """Return training loss and test accuracy (for a regression R² in its place), None where they are not finite."""
    model.eval()
    measure = mean_loss_and_explained if isinstance(data, Regression) else mean_loss_and_accuracy
    train_loss, _ = measure(model, loss, data.train_inputs, data.train_targets)
    _, accuracy = measure(model, loss, data.test_inputs, data.test_targets)
    return (float(f"{train_loss:.6g}"), round(accuracy, 3)) if math.isfinite(train_loss) else (None, None)


def network(run: Run, data: Dataset) -> nn.Module:
    if not run.network:
        return networks.build(run.model, data)
    layers = fcn(math.prod(data.input_shape), **{"classes": data.classes, **run.network})
    return layers if len(data.input_shape) == 1 else nn.Sequential(nn.Flatten(), *layers)


def dataset(run: Run) -> Dataset:
    """Return the data of a run on its device; with ``evaluated_on="validation"`` the test set is not touched."""
    data = _loaded(run.dataset, 0 if run.dataset in ON_DISK else run.seed)
    if run.evaluated_on == "validation":
        fit, held = _validation(data.train_targets, run.seed)
        data = _picked(data, fit, data.train_inputs, data.train_targets, held)
    if run.samples is not None:
        generator = torch.Generator().manual_seed(run.seed)
        chosen = (torch.randperm(len(x), generator=generator) for x in (data.train_inputs, data.test_inputs))
        train_index, test_index = (index[: run.samples] for index in chosen)
        data = _picked(data, train_index, data.test_inputs, data.test_targets, test_index)
    parts = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return replace(data, **{part: getattr(data, part).to(run.device) for part in parts})


@lru_cache(maxsize=2)
def _loaded(name: str, seed: int) -> Dataset:
    return diabetes(seed) if name == "diabetes" else load(name, seed=seed)


def _picked(data: Dataset, train: Tensor, inputs: Tensor, targets: Tensor, test: Tensor) -> Dataset:
    """Return some of the training set, and some of other samples in the place of the test set."""
    data = replace(data, train_inputs=data.train_inputs[train], train_targets=data.train_targets[train])
    return replace(data, test_inputs=inputs[test], test_targets=targets[test])


def _validation(targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of four fifths of the samples and of the rest, with the classes' shares kept."""
    from sklearn.model_selection import train_test_split

    index = np.arange(len(targets))
    fit, held = train_test_split(index, test_size=0.2, stratify=targets.numpy(), random_state=seed)
    return torch.from_numpy(fit), torch.from_numpy(held)


class Regression(Dataset):
    """Inputs as in `Dataset`; targets are float32 (N, C), and `classes` is C, the number of outputs."""

    def __post_init__(self) -> None:
        """Let targets be any numbers."""


def diabetes(seed: int) -> Regression:
    """442 patients, 10 features, the disease's progression after a year (scikit-learn); 80/20 by the seed.

    Inputs and targets have mean 0 and deviation 1 over the training samples.
    """
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split

    x, y = load_diabetes(return_X_y=True)
    parts = train_test_split(x, y[:, None], test_size=0.2, random_state=seed)
    train, test, targets, held = (
        torch.from_numpy((part - like.mean(0)) / like.std(0)).float()
        for part, like in zip(parts, (parts[0], parts[0], parts[2], parts[2]))
    )
    return Regression("diabetes", train, targets, test, held, classes=1)


@torch.no_grad()
def mean_loss_and_explained(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the mean loss and R² [%], the share of the targets' variance explained; 0 where the mean does better."""
    outputs = model(inputs)
    mean_loss = float(loss.value(outputs, targets).double().mean())
    residuals, deviations = outputs - targets, targets - targets.mean(0)
    unexplained = float(residuals.square().sum() / deviations.square().sum())
    return mean_loss, 100 * max(0.0, 1 - unexplained)
