"""CIFAR-10 (Krizhevsky 2009): the official pickles, or a folder or .zip of its images.

The pickles are read without trusting them: a pickle can name any function to be called, so the names it may
use are those of NumPy's arrays, and stand-ins of our own answer to them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ocpkit_nn.data.dataset import Arrays
from ocpkit_nn.data.errors import DataError, missing
from ocpkit_nn.data.images import image_folder

_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-10 python version)"
_DAMAGE = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError)
_LENGTH = (MemoryError, OverflowError)
"""Of a part of the file, by what it claims."""
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))


def cifar10(root: Path) -> Arrays:
    """50,000 + 10,000 images of 32 × 32 RGB; the pickles' classes are alphabetical, as a folder's."""
    pickles = (root / "cifar10" / "cifar-10-batches-py", root / "cifar-10-batches-py")
    for folder in pickles:
        if folder.is_dir():
            return _read_pickles(folder)
    archive, images = root / "cifar10" / "cifar10-jpeg.zip", root / "cifar10"
    if archive.is_file():
        return image_folder(archive)
    if (images / "train").is_dir():
        return image_folder(images)
    raise missing("cifar10", (*pickles, archive, images / "train"), _SOURCE)


def _read_pickles(folder: Path) -> Arrays:
    files = [folder / name for name in (*_TRAIN, "test_batch")]
    if not all(path.is_file() for path in files):
        raise missing("cifar10", files, _SOURCE)
    *train, test = map(_read_batch, files)
    return Arrays(np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]), *test)


def _read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        with path.open("rb") as file:
            content = _BytesUnpickler(file, encoding="latin1").load()
        images, labels = content["data"].values, np.asarray(content["labels"], dtype=np.int64)
    except (*_DAMAGE, *_LENGTH) as error:
        raise DataError(f"{path} is not a batch of CIFAR-10 ({type(error).__name__}: {error})") from error
    if images.shape != (len(labels), 3072):
        raise DataError(f"{path}: data must be ({len(labels)}, 3072) for its labels, got {images.shape}")
    return images.reshape(-1, 3, 32, 32), labels


class _UnsignedByte:
    """Stands for `numpy.dtype("u1")`."""

    def __init__(self, code: str, *flags: Any) -> None:
        if code != "u1":
            raise pickle.UnpicklingError(f"arrays must be of unsigned bytes, got type {code!r}")

    def __setstate__(self, state: Any) -> None:
        """Ignore the byte order, which bytes do not have."""


class _Array:
    """Stands for `numpy.ndarray`: the values once the pickle has told them."""

    def __init__(self, *prototype: Any) -> None:
        self.values = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, _, is_fortran, data = state
        # Python 2's byte strings arrive as text, by the unpickler's encoding.
        content = data.encode("latin1") if isinstance(data, str) else data
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")


def _latin1(text: str, encoding: str) -> bytes:
    """Stand for `_codecs.encode`, by which Python 3 writes bytes into Python 2's protocol."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not admitted")
    return text.encode(encoding)


class _BytesUnpickler(pickle.Unpickler):
    """An unpickler that builds containers and, by the stand-ins above, arrays of bytes: nothing else."""

    _admitted: ClassVar[dict[str, Callable[..., Any] | None]] = {
        "numpy.ndarray": None,
        "numpy.dtype": _UnsignedByte,
        "numpy.core.multiarray._reconstruct": _Array,
        "numpy._core.multiarray._reconstruct": _Array,
        "_codecs.encode": _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._admitted[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted in a data file") from None
