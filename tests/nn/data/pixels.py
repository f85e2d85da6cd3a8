"""Images of random pixels, and what the library makes of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ocpkit_nn.data import Dataset

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def raw(dataset: Dataset, images: NDArray[np.uint8]) -> torch.Tensor:
    """Standardize training images (N, C, H, W) as the library says it does."""
    axes = (0, 2, 3)
    mean, deviation = images.mean(axes, keepdims=True), images.std(axes, keepdims=True)
    return torch.from_numpy((images - mean) / deviation).to(dataset.train_inputs)
