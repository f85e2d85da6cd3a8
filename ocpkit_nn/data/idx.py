"""MNIST and Fashion-MNIST: files in the IDX format, gzip-compressed or not."""

from __future__ import annotations

import gzip
import math
import zlib
from contextlib import nullcontext
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocpkit.boundary.sizes import TooLarge, refuse_large
from ocpkit_nn.data.dataset import Arrays
from ocpkit_nn.data.errors import DataError, missing

_UNSIGNED_BYTE = 0x08


def mnist(root: Path) -> Arrays:
    """60,000 + 10,000 images of 28 × 28 digits (LeCun, Cortes, Burges)."""
    source = "http://yann.lecun.com/exdb/mnist, or by torchvision.datasets.MNIST(folder, download=True)"
    return _read_folder("mnist", (root / "mnist", root / "MNIST" / "raw"), source)


def fashion_mnist(root: Path) -> Arrays:
    """60,000 + 10,000 images of 28 × 28 pieces of clothing (Xiao, Rasul, Vollgraf 2017)."""
    source = "https://github.com/zalandoresearch/fashion-mnist"
    return _read_folder("fashion-mnist", (root / "fashion-mnist", root / "FashionMNIST" / "raw"), source)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, big-endian sizes: 0, 0, type, rank, sizes, data.

    Raises
    ------
    DataError
        If the file is not IDX, holds another type, is cut off, or claims more than fits into memory.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            with gzip.open(file) if packed else nullcontext(file) as stream:
                return _read(path, stream)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is damaged or cut off ({error}); get it again") from error
        except (TooLarge, MemoryError) as error:
            raise DataError(f"{path} is too large: {error}") from error


def _read(path: Path, stream: BufferedIOBase) -> NDArray[np.uint8]:
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\x00\x00":
        raise DataError(f"{path} is not an IDX file: it starts with {start!r}")
    if start[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path} holds IDX type {start[2]:#04x}; only unsigned bytes (0x08) are read")
    sizes = stream.read(4 * start[3])
    if len(sizes) < 4 * start[3]:
        raise DataError(f"{path} is cut off inside its header; get it again")
    shape = np.frombuffer(sizes, dtype=">u4").tolist()
    refuse_large(math.prod(shape), f"its shape {shape}")
    content = stream.read(math.prod(shape) + 1)
    if len(content) != math.prod(shape):
        more = "more than " * (len(content) > math.prod(shape))
        raise DataError(
            f"{path} is damaged: {more}{min(len(content), math.prod(shape))} bytes for shape {shape}; get it again"
        )
    values: NDArray[np.uint8] = np.frombuffer(content, dtype=np.uint8).reshape(shape)
    return values


def _read_folder(name: str, folders: tuple[Path, ...], source: str) -> Arrays:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for folder in folders:
        found = [_find(folder, part) for part in parts]
        if any(found):
            files = [path for path in found if path is not None]
            if len(files) < len(parts):
                raise missing(name, (folder / f"{part}-ubyte.gz" for part in parts), source)
            return Arrays(*(read_idx(path) for path in files))
    raise missing(name, (folders[0] / f"{part}-ubyte.gz" for part in parts), source)


def _find(folder: Path, part: str) -> Path | None:
    for stem in (f"{part}-ubyte", f"{part.replace('-idx', '.idx')}-ubyte"):
        for path in (folder / f"{stem}.gz", folder / stem):
            if path.is_file():
                return path
    return None
