"""A data set: training and test samples as tensors, standardized, and checked where it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocpkit_nn.data.errors import DataError


class Arrays(NamedTuple):
    """Samples as their files hold them: any numeric type, (N, F), (N, H, W) or (N, C, H, W)."""

    train_inputs: NDArray[Any]
    train_targets: NDArray[Any]
    test_inputs: NDArray[Any]
    test_targets: NDArray[Any]


@dataclass(frozen=True)
class Dataset:
    """A classification problem, ready to train on.

    Attributes
    ----------
    name : str
        Name or path it was loaded by.
    train_inputs, test_inputs : Tensor
        float32, (N, F) for features or (N, C, H, W) for images.
    train_targets, test_targets : Tensor
        int64, (N,), values 0 … classes − 1.
    classes : int
        Number of classes.

    Raises
    ------
    DataError
        If a part is empty, not finite, of another type or shape, or has a label out of range.
    """

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    classes: int

    def __post_init__(self) -> None:
        for part, inputs, targets in (
            ("training", self.train_inputs, self.train_targets),
            ("test", self.test_inputs, self.test_targets),
        ):
            where = f"{self.name}, {part} set"
            _check_inputs(where, inputs)
            _check_targets(where, targets, len(inputs), self.classes)
        if self.train_inputs.shape[1:] != self.test_inputs.shape[1:]:
            raise DataError(
                f"{self.name}: training samples have shape {tuple(self.train_inputs.shape[1:])}, "
                f"test samples {tuple(self.test_inputs.shape[1:])}; they must agree"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (F,) or (C, H, W)."""
        return tuple(self.train_inputs.shape[1:])

    def flatten(self) -> Dataset:
        """Return the same data with inputs of shape (N, F), F = C·H·W for images."""
        return replace(self, train_inputs=self.train_inputs.flatten(1), test_inputs=self.test_inputs.flatten(1))


def batches(
    inputs: Tensor, targets: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return an iterator over one epoch in an order drawn from `generator`, each sample once.

    The last batch is smaller where `batch_size` does not divide the number of samples.

    Parameters
    ----------
    inputs, targets : Tensor
        (N, ...) and (N, ...).
    batch_size : int
        Samples per batch, at least 1.
    generator : torch.Generator
        On the CPU; the same seed gives the same batches on every device.

    Raises
    ------
    ValueError
        If the batch size is below 1 or the lengths differ.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if len(inputs) != len(targets):
        raise ValueError(f"inputs and targets must pair up, got {len(inputs)} and {len(targets)}")
    order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    return ((inputs[index], targets[index]) for index in torch.split(order, batch_size))


def standardized(name: str, arrays: Arrays, classes: int | None = None) -> Dataset:
    """Return the data set with inputs of mean 0 and deviation 1 over the training samples.

    One mean and deviation per index of axis 1: per feature in tables, per channel in images. What is
    constant over the training samples is centerd only.

    Parameters
    ----------
    name : str
    arrays : Arrays
    classes : int, optional
        Number of classes; without it, the training labels must be 0 … k − 1, k > 1, each occurring.

    Raises
    ------
    DataError
        See `Dataset`; also where labels have gaps or images have their channels last.
    """
    train, test = _floats(f"{name}, training set", arrays[0]), _floats(f"{name}, test set", arrays[2])
    train_targets, test_targets = _labels(name, arrays.train_targets), _labels(name, arrays.test_targets)
    if classes is None:
        classes = _count_classes(name, train_targets)
    if train.shape[1:] == test.shape[1:]:
        axes = [axis for axis in range(train.ndim) if axis != 1]
        deviation, mean = torch.std_mean(train, dim=axes, correction=0, keepdim=True)
        deviation[deviation <= torch.finfo(train.dtype).eps * mean.abs()] = 1.0
        for inputs in (train, test):
            inputs.sub_(mean).div_(deviation)
    return Dataset(name, train.float(), train_targets, test.float(), test_targets, classes)


def split(name: str, inputs: NDArray[Any], targets: NDArray[Any], seed: int) -> Arrays:
    """Split 80/20 at random with the classes' shares kept.

    Raises
    ------
    DataError
        If there are too few samples for every class to be in both parts.
    """
    from sklearn.model_selection import train_test_split

    try:
        train, test, train_targets, test_targets = train_test_split(
            inputs, targets, test_size=0.2, stratify=targets, random_state=seed
        )
    except (ValueError, TypeError) as error:
        raise DataError(f"{name}: cannot be split 80/20 with every class in both parts: {error}") from error
    return Arrays(train, train_targets, test, test_targets)


def _floats(where: str, array: NDArray[Any]) -> Tensor:
    """Return a copy in floating point, double where single would lose digits; images as (N, C, H, W)."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: inputs must be numbers, got {array.dtype}")
    if array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        raise DataError(
            f"{where}: inputs of shape {array.shape} have their channels last; give (N, C, H, W), "
            "for example x.transpose(0, 3, 1, 2)"
        )
    if array.ndim < 2:
        raise DataError(f"{where}: inputs must be (N, F) or (N, C, H, W), got {array.shape}; x[:, None] is one feature")
    if array.size == 0:
        raise DataError(f"{where}: empty, inputs have shape {array.shape}")
    inputs = torch.from_numpy(array.astype(np.result_type(array.dtype, np.float32)))
    inputs = inputs.unsqueeze(1) if inputs.ndim == 3 else inputs
    if not _is_finite(inputs):
        # Here and not in Dataset: standardizing would spread one NaN over all samples.
        sample = int((~torch.isfinite(inputs)).flatten(1).any(1).nonzero()[0])
        raise DataError(f"{where}: input {sample} is not finite; remove or fill such samples first")
    return inputs


def _labels(name: str, array: NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "iu":
        raise DataError(
            f"{name}: labels must be integers 0 … k − 1, got {array.dtype}; "
            "np.unique(y, return_inverse=True)[1] makes them"
        )
    column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    return torch.from_numpy(column.astype(np.int64))


def _count_classes(name: str, targets: Tensor) -> int:
    found: list[int] = torch.unique(targets).tolist()
    if found != list(range(len(found))):
        shown = ", ".join(map(str, found[:10])) + (", …" if len(found) > 10 else "")
        raise DataError(
            f"{name}: training labels must be 0 … k − 1, each occurring; found {shown}. "
            "np.unique(y, return_inverse=True)[1] renumbers them"
        )
    if len(found) == 1 and targets.ndim == 1:
        raise DataError(f"{name}: all training labels are 0; a classifier needs two classes or more")
    return len(found)


def _check_inputs(where: str, inputs: Tensor) -> None:
    if inputs.ndim not in (2, 4):
        raise DataError(f"{where}: inputs must be (N, F) or (N, C, H, W), got {tuple(inputs.shape)}")
    if inputs.numel() == 0:
        raise DataError(f"{where}: empty, inputs have shape {tuple(inputs.shape)}")
    if inputs.dtype != torch.float32:
        raise DataError(f"{where}: inputs must be float32, got {inputs.dtype}")
    if not _is_finite(inputs):
        raise DataError(f"{where}: inputs are not finite")


def _is_finite(inputs: Tensor) -> bool:
    # The extremes show every NaN and infinity without a second array of the inputs' size.
    return bool(torch.stack(inputs.aminmax()).isfinite().all())


def _check_targets(where: str, targets: Tensor, samples: int, classes: int) -> None:
    if targets.shape != (samples,):
        raise DataError(f"{where}: {samples} inputs need targets ({samples},), got {tuple(targets.shape)}")
    if targets.dtype != torch.int64:
        raise DataError(f"{where}: targets must be int64, got {targets.dtype}")
    wrong = ((targets < 0) | (targets >= classes)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise DataError(f"{where}: label {int(targets[index])} of sample {index} is not in 0 … {classes - 1}")
