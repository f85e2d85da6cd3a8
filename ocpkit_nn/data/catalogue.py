"""Data sets by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ocpkit.errors import unknown_name
from ocpkit_nn.data.cifar10 import cifar10
from ocpkit_nn.data.dataset import Arrays, Dataset, standardized
from ocpkit_nn.data.errors import DataError, DataNotFoundError
from ocpkit_nn.data.idx import fashion_mnist, mnist
from ocpkit_nn.data.images import image_folder
from ocpkit_nn.data.npz import user_arrays
from ocpkit_nn.data.svhn import svhn
from ocpkit_nn.data.tables import digits, gaussian_clusters, wine

_INSTALLED: dict[str, Callable[[int], Arrays]] = {"wine": wine, "digits": digits}
_ON_DISK: dict[str, Callable[[Path], Arrays]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "svhn": svhn,
    "cifar10": cifar10,
}
ON_DISK = tuple(_ON_DISK)
"""Data sets from files, whose test set is theirs and not drawn by a seed."""
NAMES = (*_INSTALLED, *ON_DISK, "clusters")


def load(name_or_path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None, seed: int = 0) -> Dataset:
    """Load a data set by its name, or a user's own from a file or folder.

    Parameters
    ----------
    name_or_path : str or path
        One of `NAMES`; `"clusters:k"` for k clusters; or a path to an .npz, an image folder or a .zip of one.
        A name wins over a file of the same name; write `./mnist` for the file.
    root : str or path, optional
        Folder that holds `mnist/`, `cifar10/`, …; without it, the environment variable `OCPKIT_DATA`.
    seed : int
        Of the random split, where the data have none, and of the clusters.

    Returns
    -------
    Dataset
        Inputs float32, standardized with the training set's statistics, (N, F) or images (N, C, H, W);
        targets int64 (N,).

    Raises
    ------
    DataNotFoundError
        If no data set has this name, or its files are not there.
    DataError
        If the files are damaged, empty, not finite, or have wrong labels.
    """
    name = os.fspath(name_or_path)
    kind, _, clusters = name.partition(":")
    if kind == "clusters":
        return gaussian_clusters(_count(clusters), seed=seed) if clusters else gaussian_clusters(seed=seed)
    if name in _INSTALLED:
        return standardized(name, _INSTALLED[name](seed))
    if name in _ON_DISK:
        return standardized(name, _ON_DISK[name](_root(name, root)), classes=10)
    return standardized(name, _read_path(Path(name).expanduser(), seed))


def is_there(name: str, *, root: str | os.PathLike[str] | None = None) -> bool:
    """Whether a data set needs no files, or has a folder under `root`, without it `OCPKIT_DATA`."""
    folder = root or os.environ.get("OCPKIT_DATA")
    return name not in ON_DISK or (bool(folder) and (Path(str(folder)).expanduser() / name).is_dir())


def _read_path(path: Path, seed: int) -> Arrays:
    if not path.exists():
        raise DataNotFoundError(f"no such file or folder, and {unknown_name('data set', str(path), NAMES)}")
    if path.is_dir() or path.suffix == ".zip":
        return image_folder(path, seed)
    if path.suffix == ".npz":
        return user_arrays(path, seed)
    raise DataError(f"{path} is not a kind of data that is read: .npz, or a folder or .zip of images")


def _root(name: str, root: str | os.PathLike[str] | None) -> Path:
    folder = root or os.environ.get("OCPKIT_DATA")
    if not folder:
        raise DataNotFoundError(
            f"data set {name!r} needs a folder: set OCPKIT_DATA, or give root, to the one that holds {name}/"
        )
    return Path(folder).expanduser()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise DataError(f"the number of clusters must follow 'clusters:', as in 'clusters:8', got {text!r}")
    return int(text)
