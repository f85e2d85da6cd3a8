"""Tiny files of the official formats."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from nn.data.pixels import pixels


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, *, compress: bool, dot: bool = False) -> tuple[NDArray[np.uint8], ...]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = (
        pixels(12, 28, 28),
        np.arange(12, dtype=np.uint8) % 10,
        pixels(5, 28, 28),
        np.full(5, 9, np.uint8),
    )
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for name, array in zip(names, arrays, strict=True):
        file = f"{name.replace('-idx', '.idx') if dot else name}-ubyte{'.gz' if compress else ''}"
        (folder / file).write_bytes(gzip.compress(idx(array)) if compress else idx(array))
    return arrays


def write_svhn(folder: Path) -> NDArray[np.uint8]:
    folder.mkdir()
    images, labels = pixels(32, 32, 3, 4), np.array([[10], [1], [9], [10]], dtype=np.uint8)
    savemat(folder / "train_32x32.mat", {"X": images, "y": labels})
    savemat(folder / "test_32x32.mat", {"X": images[..., :2], "y": labels[:2]})
    return images


def python2_batch(images: NDArray[np.uint8], labels: list[int]) -> bytes:
    """Return a batch as Python 2 and its NumPy wrote the official files: byte strings, protocol 2."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def array(values: NDArray[np.uint8]) -> bytes:
        create = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + integer(0) + b"\x85" + text(b"b") + b"tR"
        dtype = b"cnumpy\ndtype\n(" + text(b"u1") + integer(0) + integer(1) + b"tR"
        state = b"(" + integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
        shape = b"(" + b"".join(map(integer, values.shape)) + b"t"
        return create + b"(" + integer(1) + shape + dtype + state + b"\x89" + text(values.tobytes()) + b"tb"

    entries = text(b"data") + array(images) + text(b"labels") + b"](" + b"".join(map(integer, labels)) + b"e"
    return b"\x80\x02}(" + text(b"batch_label") + text(b"testing batch 1 of 1") + entries + b"u."


def python3_batch(images: NDArray[np.uint8], labels: list[int]) -> bytes:
    return pickle.dumps({"data": images, "labels": labels}, protocol=2)


def write_cifar10(folder: Path, batch: Callable[[NDArray[np.uint8], list[int]], bytes]) -> NDArray[np.uint8]:
    folder.mkdir(parents=True)
    images = pixels(6, 2, 3 * 32 * 32)
    for index, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        (folder / name).write_bytes(batch(images[index], [index, 9 - index]))
    return images
