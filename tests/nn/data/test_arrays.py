"""A user's own arrays, and what goes wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nn.data.pixels import RANDOM, pixels
from ocpkit_nn.data import DataError, load


def arrays(**changes: Any) -> dict[str, Any]:
    whole = {
        "x_train": RANDOM.standard_normal((6, 3)),
        "y_train": np.arange(6) % 3,
        "x_test": RANDOM.standard_normal((2, 3)),
        "y_test": np.array([2, 0]),
    }
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (3,)),
        ({"y_train": np.arange(6, dtype=np.uint8)[:, None] % 3}, (3,)),
        ({"x_train": pixels(6, 4, 5), "x_test": pixels(2, 4, 5)}, (1, 4, 5)),
        ({"x_train": pixels(6, 3, 4, 5), "x_test": pixels(2, 3, 4, 5)}, (3, 4, 5)),
    ],
)
def test_npz_of_four_arrays(tmp_path: Path, changes: dict[str, Any], shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "own.npz", **arrays(**changes))
    dataset = load(tmp_path / "own.npz")
    assert dataset.input_shape == shape
    assert dataset.classes == 3
    assert dataset.test_targets.tolist() == [2, 0]


def test_npz_of_two_arrays_is_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=RANDOM.standard_normal((20, 3)), y=np.arange(20) % 2)
    dataset = load(tmp_path / "own.npz")
    assert (len(dataset.train_targets), len(dataset.test_targets)) == (16, 4)


def with_nan(value: float) -> NDArray[np.float64]:
    inputs = RANDOM.standard_normal((6, 3))
    inputs[4, 1] = value
    return inputs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (arrays(x_train=with_nan(np.nan)), "training set: input 4 is not finite"),
        (arrays(x_train=with_nan(-np.inf)), "training set: input 4 is not finite"),
        (arrays(x_train=np.zeros((0, 3)), y_train=np.zeros(0, int)), "empty"),
        (arrays(x_test=np.zeros((0, 3)), y_test=np.zeros(0, int)), r"test set: empty.*\(0, 3\)"),
        (arrays(x_train=np.full(6, np.nan)), r"\(N, F\) or \(N, C, H, W\), got \(6,\)"),
        (arrays(x_train=np.zeros(6)), r"\(N, F\) or \(N, C, H, W\), got \(6,\)"),
        (arrays(x_train=pixels(6, 8, 9, 3)), r"\(6, 8, 9, 3\) have their channels last"),
        (arrays(x_train=np.full((6, 3), "text")), "inputs must be numbers, got <U4"),
        (arrays(x_test=np.zeros((2, 4))), r"shape \(3,\), test samples \(4,\)"),
        (arrays(y_train=np.arange(6) % 3 + 1), "found 1, 2, 3"),
        (arrays(y_train=np.arange(6) % 3 - 1), "found -1, 0, 1"),
        (arrays(y_train=np.arange(6) % 3 * 2), "found 0, 2, 4"),
        (
            arrays(y_train=np.zeros(6, int), y_test=np.zeros(2, int)),
            "all training labels are 0; a classifier needs two",
        ),
        (arrays(y_train=np.arange(6) / 2), "labels must be integers 0 … k − 1, got float64"),
        (arrays(y_train=np.arange(5) % 3), r"6 inputs need targets \(6,\), got \(5,\)"),
        (arrays(y_train=np.zeros((6, 2), int)), "need targets"),
        (arrays(y_test=np.array([0, 3])), "test set: label 3 of sample 1 is not in 0 … 2"),
        ({"x": np.zeros((3, 2)), "y": np.array([0, 1, 1])}, "cannot be split 80/20"),
        ({"x": np.zeros((3, 2)), "y": np.array([0, 1])}, "cannot be split 80/20"),
        ({"x": np.array(1.0), "y": np.array(0)}, "cannot be split 80/20"),
        (arrays(x_train=np.array(1.0)), r"\(N, F\) or \(N, C, H, W\), got \(\)"),
        ({"a": np.zeros(2), "b": np.zeros(2)}, "holds a, b; it needs x_train"),
        ({"x": np.array([{}, {}]), "y": np.zeros(2, int)}, "cannot be read as .npz of plain arrays"),
        (b"no archive", "cannot be read as .npz"),
        (b"", "cannot be read as .npz"),
    ],
)
def test_wrong_npz_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "own.npz"
    file.write_bytes(content) if isinstance(content, bytes) else np.savez(file, **content)
    with pytest.raises(DataError, match=message):
        load(file)


def test_cut_off_npz_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.npz"
    np.savez(file, **arrays())
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"own\.npz cannot be read"):
        load(file)


def test_single_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.zeros(3))
    (tmp_path / "own.npy").rename(tmp_path / "own.npz")
    with pytest.raises(DataError, match=r"own\.npz cannot be read"):
        load(tmp_path / "own.npz")
