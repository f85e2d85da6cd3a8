"""SVHN, house numbers cropped to one digit (Netzer et al. 2011): Matlab files."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocpkit.boundary.sizes import refuse_large
from ocpkit_nn.data.dataset import Arrays
from ocpkit_nn.data.errors import DataError, missing


def svhn(root: Path) -> Arrays:
    """73,257 + 26,032 images of 32 × 32 RGB."""
    files = [root / "svhn" / "train_32x32.mat", root / "svhn" / "test_32x32.mat"]
    if not all(path.is_file() for path in files):
        raise missing("svhn", files, "http://ufldl.stanford.edu/housenumbers (format 2, cropped digits)")
    return Arrays(*_read(files[0]), *_read(files[1]))


def _read(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        refuse_large(sum(math.prod(shape) for _, shape, _ in whosmat(path)), "its content")
        content = loadmat(path, variable_names=["X", "y"])
        images, labels = content["X"], content["y"].ravel()
    except KeyError as error:
        raise DataError(f"{path} lacks the variable {error}; SVHN's files hold X and y") from error
    except (
        ValueError,
        TypeError,
        LookupError,
        OSError,
        NotImplementedError,
        MemoryError,
        MatReadError,
        zlib.error,
    ) as error:
        raise DataError(f"{path} cannot be read as a Matlab file ({error}); get it again") from error
    if images.shape != (32, 32, 3, len(labels)):
        raise DataError(f"{path}: X must be (32, 32, 3, {len(labels)}) for its labels, got {images.shape}")
    # The files count the digit 0 as class 10.
    return images.transpose(3, 2, 0, 1), np.where(labels == 10, 0, labels)
