"""How a data set is named and found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from nn.data.official import python2_batch, write_cifar10, write_mnist, write_svhn
from ocpkit_nn.data import NAMES, DataError, DataNotFoundError, Dataset, is_there, load


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mnist", ["mnist/train-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz"]),
        ("fashion-mnist", ["fashion-mnist/train-labels-idx1-ubyte.gz", "zalandoresearch"]),
        ("svhn", ["svhn/train_32x32.mat", "svhn/test_32x32.mat", "ufldl.stanford.edu"]),
        ("cifar10", ["cifar10/cifar-10-batches-py", "cifar10/cifar10-jpeg.zip", "cs.toronto.edu"]),
    ],
)
def test_missing_files_are_named_with_their_source(tmp_path: Path, name: str, files: list[str]) -> None:
    with pytest.raises(DataNotFoundError) as caught:
        load(name, root=tmp_path)
    for file in files:
        assert file in str(caught.value).replace(os.sep, "/")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_half_a_data_set_is_missing(tmp_path: Path, name: str) -> None:
    if name == "mnist":
        write_mnist(tmp_path / "mnist", compress=True)
        (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    elif name == "cifar10":
        write_cifar10(tmp_path / "cifar-10-batches-py", python2_batch)
        (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    else:
        write_svhn(tmp_path / "svhn")
        (tmp_path / "svhn" / "test_32x32.mat").unlink()
    with pytest.raises(DataNotFoundError, match="not on this machine"):
        load(name, root=tmp_path)


def test_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "mnist", compress=True)
    monkeypatch.setenv("OCPKIT_DATA", str(tmp_path))
    assert load("mnist").name == "mnist"
    monkeypatch.delenv("OCPKIT_DATA")
    with pytest.raises(DataNotFoundError, match="set OCPKIT_DATA"):
        load("mnist")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "did you mean 'mnist'"),
        ("Digits", "did you mean 'digits'"),
        ("fashion_mnist", "did you mean 'fashion-mnist'"),
        ("nowhere/data.npz", "no such file or folder"),
    ],
)
def test_unknown_names_get_suggestions(name: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message) as caught:
        load(name)
    assert "did you mean" in message or all(known in str(caught.value) for known in NAMES)


@pytest.mark.parametrize("name", ["clusters:x", "clusters:-3", "clusters:1"])
def test_wrong_cluster_names(name: str) -> None:
    with pytest.raises(DataError, match="clusters"):
        load(name)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"\.npz, or a folder or \.zip of images"):
        load(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_inputs": torch.zeros(2, 3, dtype=torch.float64)}, "must be float32"),
        ({"train_targets": torch.zeros(2, dtype=torch.int32)}, "must be int64"),
        ({"test_inputs": torch.full((2, 3), torch.nan)}, "test set: inputs are not finite"),
    ],
)
def test_data_set_of_wrong_tensors_is_refused(change: dict[str, Any], message: str) -> None:
    inputs, targets = torch.zeros(2, 3), torch.tensor([0, 1])
    parts: dict[str, Any] = {
        "train_inputs": inputs,
        "train_targets": targets,
        "test_inputs": inputs,
        "test_targets": targets,
    }
    with pytest.raises(DataError, match=message):
        Dataset("own", **{**parts, **change}, classes=2)


def test_data_from_files_are_there_with_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCPKIT_DATA", raising=False)
    (tmp_path / "mnist").mkdir()
    assert is_there("wine")
    assert not is_there("mnist")
    assert is_there("mnist", root=tmp_path)
    assert not is_there("svhn", root=tmp_path)
    monkeypatch.setenv("OCPKIT_DATA", str(tmp_path))
    assert is_there("mnist")


@pytest.mark.skipif(not is_there("mnist"), reason="no MNIST under OCPKIT_DATA")
def test_real_mnist_has_the_official_class_counts() -> None:
    dataset = load("mnist")
    official = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.train_targets.bincount().tolist() == official
    assert dataset.test_inputs.shape == (10_000, 1, 28, 28)
