"""Loaders on tiny files of the official formats, written here, and on what goes wrong with files."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch.testing import assert_close

from nn.data.official import idx, python2_batch, python3_batch, write_cifar10, write_mnist, write_svhn
from nn.data.pixels import pixels, raw
from ocpkit_nn.data import DataError, load
from ocpkit_nn.data.idx import read_idx


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("dot", [True, False])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
    ],
)
def test_idx_files(tmp_path: Path, name: str, folder: str, compress: bool, dot: bool) -> None:
    images, labels, test_images, test_labels = write_mnist(tmp_path / folder, compress=compress, dot=dot)
    dataset = load(name, root=tmp_path)
    assert dataset.classes == 10
    assert dataset.test_inputs.shape == (*test_images.shape[:1], 1, 28, 28)
    assert dataset.train_targets.tolist() == labels.tolist()
    assert dataset.test_targets.tolist() == test_labels.tolist()
    assert_close(dataset.train_inputs, raw(dataset, images[:, None]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-5], "bytes for shape"),
        (lambda content: content + b"more", "bytes for shape"),
        (lambda content: content[:7], "cut off inside its header"),
        (lambda content: b"", "not an IDX file"),
        (lambda content: b"<htm" + content, "not an IDX file"),
        (lambda content: b"\0\0\x0d" + content[3:], "type 0x0d; only unsigned bytes"),
        (lambda content: gzip.compress(content)[:-9], "damaged or cut off"),
        (lambda content: gzip.compress(content)[:12], "damaged or cut off"),
        (lambda content: b"\x1f\x8b" + b"x" * 30, "damaged or cut off"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    file = tmp_path / "images"
    file.write_bytes(damage(idx(pixels(3, 4, 4))))
    with pytest.raises(DataError, match=message):
        read_idx(file)


def test_idx_labels_must_fit_the_images(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", compress=False)
    labels = tmp_path / "mnist" / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(11, np.uint8)))
    with pytest.raises(DataError, match=r"12 inputs need targets \(12,\), got \(11,\)"):
        load("mnist", root=tmp_path)
    labels.write_bytes(idx(np.full(12, 10, np.uint8)))
    with pytest.raises(DataError, match=r"mnist, training set: label 10 of sample 0 is not in 0 … 9"):
        load("mnist", root=tmp_path)


def test_svhn_files(tmp_path: Path) -> None:
    images = write_svhn(tmp_path / "svhn")
    dataset = load("svhn", root=tmp_path)
    assert dataset.train_targets.tolist() == [0, 1, 9, 0]
    assert_close(dataset.train_inputs, raw(dataset, images.transpose(3, 2, 0, 1)), atol=1e-5, rtol=1e-5)
    assert torch.equal(dataset.test_inputs, dataset.train_inputs[:2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no Matlab file at all", "cannot be read as a Matlab file"),
        (b"", "cannot be read as a Matlab file"),
        ({"X": np.zeros((32, 32, 3, 2))}, "lacks the variable 'y'"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.zeros(3)}, r"\(32, 32, 3, 3\) for its labels"),
    ],
)
def test_damaged_svhn_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    write_svhn(tmp_path / "svhn")
    file = tmp_path / "svhn" / "test_32x32.mat"
    file.write_bytes(content) if isinstance(content, bytes) else savemat(file, content)
    with pytest.raises(DataError, match=message):
        load("svhn", root=tmp_path)


def test_cut_off_svhn_file_is_refused(tmp_path: Path) -> None:
    write_svhn(tmp_path / "svhn")
    file = tmp_path / "svhn" / "train_32x32.mat"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be read as a Matlab file"):
        load("svhn", root=tmp_path)


@pytest.mark.parametrize("folder", ["cifar10/cifar-10-batches-py", "cifar-10-batches-py"])
@pytest.mark.parametrize("batch", [python2_batch, python3_batch])
def test_cifar10_pickles(tmp_path: Path, folder: str, batch: Any) -> None:
    images = write_cifar10(tmp_path / folder, batch)
    dataset = load("cifar10", root=tmp_path)
    assert dataset.train_targets.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert dataset.test_targets.tolist() == [5, 4]
    expected = raw(dataset, images[:5].reshape(10, 3, 32, 32))
    assert_close(dataset.train_inputs, expected, atol=1e-5, rtol=1e-5)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "call",
    [
        lambda trace: Call(os.mkdir, trace),
        lambda trace: Call(eval, f"__import__('os').mkdir({trace!r})"),
        lambda trace: Call(exec, f"import os; os.mkdir({trace!r})"),
        lambda trace: Call(getattr, trace, "encode"),
    ],
)
def test_cifar10_pickles_cannot_call_functions(tmp_path: Path, call: Callable[[str], Call], protocol: int) -> None:
    folder, trace = tmp_path / "cifar-10-batches-py", tmp_path / "trace"
    write_cifar10(folder, python2_batch)
    content = {"data": call(str(trace)), "labels": [0]}
    (folder / "data_batch_3").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(DataError, match=r"data_batch_3 is not a batch .*is not admitted in a data file"):
        load("cifar10", root=tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "EOFError"),
        (b"no pickle", "is not a batch of CIFAR-10"),
        (python2_batch(pixels(2, 3072), [0, 1])[:-2000], "is not a batch of CIFAR-10"),
        (python2_batch(pixels(2, 3071), [0, 1]), r"\(2, 3072\) for its labels, got \(2, 3071\)"),
        (python2_batch(pixels(2, 3072), [0]), r"\(1, 3072\) for its labels, got \(2, 3072\)"),
        (pickle.dumps({"labels": []}), "KeyError: 'data'"),
        (pickle.dumps({"data": "text", "labels": []}), "has no attribute 'values'"),
        (pickle.dumps([1, 2]), "TypeError"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}, 2), "type 'f8'"),
        (pickle.dumps({"data": np.zeros(3, object), "labels": [0]}, 2), "type 'O8'"),
    ],
)
def test_damaged_cifar10_pickles_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder, python2_batch)
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load("cifar10", root=tmp_path)
