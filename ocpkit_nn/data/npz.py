"""A user's own arrays in an .npz file."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray

from ocpkit.boundary.sizes import check_npz
from ocpkit_nn.data.dataset import Arrays, split
from ocpkit_nn.data.errors import DataError


def user_arrays(path: Path, seed: int) -> Arrays:
    """Read `x_train, y_train, x_test, y_test`, or `x, y`, which are split 80/20.

    Raises
    ------
    DataError
        If the file is damaged, holds Python objects, or lacks these arrays.
    """
    arrays = read_npz(path)
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        return Arrays(arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"])
    if {"x", "y"} <= arrays.keys():
        return split(str(path), arrays["x"], arrays["y"], seed)
    raise DataError(
        f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; "
        "it needs x_train, y_train, x_test and y_test, or x and y"
    )


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an .npz file.

    Raises
    ------
    DataError
        If the file cannot be read, is damaged, holds Python objects, or claims more than fits into memory.
    """
    try:
        # Opened here, because np.load leaves a file open that it cannot read.
        with path.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                raise ValueError("it holds one array without a name, as .npy does")
            check_npz(file)
            archive = np.load(file, allow_pickle=False)
            return {name: archive[name] for name in archive.files}
    # RuntimeError: encrypted.
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, MemoryError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as .npz of plain arrays: {error}") from error
