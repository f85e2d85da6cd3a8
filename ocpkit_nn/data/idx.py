"""MNIST and Fashion-MNIST: files in the IDX format, gzip-compressed or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
        If the file is not IDX, holds another type, or is cut off.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is damaged or cut off ({error}); get it again") from error
    if len(content) < 4 or content[:2] != b"\x00\x00":
        raise DataError(f"{path} is not an IDX file: it starts with {content[:4]!r}")
    if content[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path} holds IDX type {content[2]:#04x}; only unsigned bytes (0x08) are read")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{path} is cut off inside its header; get it again")
    shape = np.frombuffer(content[4:start], dtype=">u4").tolist()
    if len(content) - start != math.prod(shape):
        raise DataError(f"{path} is damaged: {len(content) - start} bytes for shape {shape}; get it again")
    values: NDArray[np.uint8] = np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
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
