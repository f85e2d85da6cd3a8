"""Data sets for training: by name or from a user's own files, read and standardized, never downloaded.

|                       | what it loads                                                                               |
| --------------------- | ------------------------------------------------------------------------------------------- |
| `load("wine")`        | scikit-learn's, with `"digits"`; split 80/20, stratified, by the seed                       |
| `load("clusters:8")`  | eight Gaussian clusters in R^30, drawn by the seed                                          |
| `load("mnist")`       | the official files in the folder `OCPKIT_DATA`; so `"fashion-mnist"`, `"svhn"`, `"cifar10"` |
| `load("my/data.npz")` | arrays `x_train, y_train, x_test, y_test`, or `x, y`, which are split 80/20                 |
| `load("my/images")`   | a folder or .zip of `train/<class>/*.png` and `test/<class>/*.png`                          |
"""

from __future__ import annotations

from ocpkit_nn.data.catalogue import NAMES, ON_DISK, is_there, load
from ocpkit_nn.data.dataset import Dataset, batches
from ocpkit_nn.data.errors import DataError, DataNotFoundError
from ocpkit_nn.data.tables import gaussian_clusters

__all__ = [
    "NAMES",
    "ON_DISK",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "batches",
    "gaussian_clusters",
    "is_there",
    "load",
]
