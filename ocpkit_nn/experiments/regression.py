"""A regression problem for the experiments, and the share of the targets' variance that a network explains."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ocpkit_nn.data import Dataset
from ocpkit_nn.layers.losses import Loss


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

    inputs, targets = load_diabetes(return_X_y=True)
    train, test, train_targets, test_targets = train_test_split(
        inputs, targets[:, None], test_size=0.2, random_state=seed
    )

    def scaled(values: np.ndarray, like: np.ndarray) -> Tensor:
        return torch.from_numpy((values - like.mean(0)) / like.std(0)).float()

    return Regression(
        "diabetes",
        scaled(train, train),
        scaled(train_targets, train_targets),
        scaled(test, train),
        scaled(test_targets, train_targets),
        classes=1,
    )


@torch.no_grad()
def mean_loss_and_explained(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the mean loss and R² [%], the share of the targets' variance explained; 0 where the mean does better.

    In the place of `training.mean_loss_and_accuracy`.
    """
    outputs = model(inputs)
    mean_loss = float(loss.value(outputs, targets).double().mean())
    residuals, deviations = outputs - targets, targets - targets.mean(0)
    unexplained = float(residuals.square().sum() / deviations.square().sum())
    return mean_loss, 100 * max(0.0, 1 - unexplained)
