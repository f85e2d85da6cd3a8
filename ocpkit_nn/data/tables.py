"""Small data sets that need no files: scikit-learn's wine and digits, and Gaussian clusters."""

from __future__ import annotations

import numpy as np

from ocpkit_nn.data.dataset import Arrays, Dataset, split, standardized
from ocpkit_nn.data.errors import DataError


def wine(seed: int) -> Arrays:
    """178 wines, 13 features, 3 classes (scikit-learn)."""
    from sklearn.datasets import load_wine

    inputs, targets = load_wine(return_X_y=True)
    return split("wine", inputs, targets, seed)


def digits(seed: int) -> Arrays:
    """1797 images of 8 × 8, 10 classes (scikit-learn)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return split("digits", data.images, data.target, seed)


def gaussian_clusters(
    clusters: int = 5,
    *,
    dimension: int = 30,
    samples_per_cluster: int = 200,
    spread: float = 1.0,
    seed: int = 0,
) -> Dataset:
    """Return samples of Gaussian clusters, one class each (Liu et al. 2021, A.6.2; k = 5, 8, 12, 15).

    Centers are drawn from N(0, I), samples from N(center, spread² I); 80 % train, 20 % test.

    Raises
    ------
    DataError
        If there are fewer than 2 clusters or 5 samples for each, no dimension, or the spread is negative.
    """
    if clusters < 2 or dimension < 1 or samples_per_cluster < 5 or not spread >= 0:
        raise DataError(
            "need clusters >= 2, dimension >= 1, samples_per_cluster >= 5, spread >= 0, "
            f"got {clusters}, {dimension}, {samples_per_cluster}, {spread}"
        )
    random = np.random.default_rng(seed)
    centers = random.standard_normal((clusters, dimension))
    targets = np.repeat(np.arange(clusters), samples_per_cluster)
    inputs = centers[targets] + spread * random.standard_normal((len(targets), dimension))
    name = f"clusters:{clusters}"
    return standardized(name, split(name, inputs, targets, seed))
