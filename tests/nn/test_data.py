"""Loaders on tiny files of the official formats, written here, and on what goes wrong with files."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from torch.testing import assert_close

from ocpkit_nn.data import NAMES, DataError, DataNotFoundError, Dataset, batches, gaussian_clusters, load
from ocpkit_nn.data.dataset import Arrays, standardised
from ocpkit_nn.data.idx import read_idx

few_examples = settings(max_examples=25, deadline=None)
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCPKIT_CACHE", str(tmp_path / "cache"))


def pixels(*shape: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def raw(dataset: Dataset, images: NDArray[np.uint8]) -> torch.Tensor:
    """Standardise training images (N, C, H, W) as the library says it does."""
    axes = (0, 2, 3)
    mean, deviation = images.mean(axes, keepdims=True), images.std(axes, keepdims=True)
    return torch.from_numpy((images - mean) / deviation).to(dataset.train_inputs)


# Installed and generated data


@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [
        ("wine", (142, 13), (36, 13), 3),
        ("digits", (1437, 1, 8, 8), (360, 1, 8, 8), 10),
        ("clusters", (800, 30), (200, 30), 5),
        ("clusters:12", (1920, 30), (480, 30), 12),
    ],
)
def test_data_without_files(name: str, train: tuple[int, ...], test: tuple[int, ...], classes: int) -> None:
    dataset = load(name)
    assert dataset.train_inputs.shape == train
    assert dataset.test_inputs.shape == test
    assert dataset.classes == classes
    shares = [targets.bincount() / len(targets) for targets in (dataset.train_targets, dataset.test_targets)]
    assert_close(shares[0], shares[1], atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["wine", "digits", "clusters:3"])
def test_splits_follow_the_seed(name: str) -> None:
    first, same, other = load(name), load(name, seed=0), load(name, seed=1)
    assert torch.equal(first.train_inputs, same.train_inputs)
    assert not torch.equal(first.train_inputs, other.train_inputs)


def test_split_keeps_every_sample_once() -> None:
    from sklearn.datasets import load_wine

    dataset = load("wine")
    targets = torch.cat([dataset.train_targets, dataset.test_targets])
    assert torch.equal(targets.bincount(), torch.from_numpy(np.bincount(load_wine().target)))
    inputs = torch.cat([dataset.train_inputs, dataset.test_inputs])
    assert len(torch.unique(inputs, dim=0)) == len(np.unique(load_wine().data, axis=0))


def test_clusters_without_spread_are_points() -> None:
    dataset = gaussian_clusters(4, dimension=2, samples_per_cluster=10, spread=0.0)
    assert len(torch.unique(dataset.train_inputs, dim=0)) == 4


@pytest.mark.parametrize("options", [{"clusters": 1}, {"dimension": 0}, {"samples_per_cluster": 4}, {"spread": -1}])
def test_wrong_cluster_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="need clusters >= 2"):
        gaussian_clusters(**options)


# Standardising, flattening, batches


@few_examples
@given(
    features=st.integers(1, 4),
    shift=st.floats(-1e3, 1e3),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**31),
)
def test_standardising_uses_the_training_set_only(features: int, shift: float, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    train, test = (shift + scale * random.standard_normal((n, features)) for n in (20, 7))
    targets = np.arange(20) % 2
    dataset = standardised("own", Arrays(train, targets, test, targets[:7]))
    assert_close(dataset.train_inputs.mean(0), torch.zeros(features), atol=1e-5, rtol=0)
    assert_close(dataset.train_inputs.std(0, correction=0), torch.ones(features), atol=1e-5, rtol=0)
    expected = torch.from_numpy((test - train.mean(0)) / train.std(0)).float()
    assert_close(dataset.test_inputs, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_constant_features_are_centred(constant: float) -> None:
    inputs, targets = np.full((8, 1), constant), np.arange(8) % 2
    dataset = standardised("own", Arrays(inputs, targets, inputs, targets))
    assert_close(dataset.train_inputs, torch.zeros(8, 1), atol=1e-5, rtol=0)


def test_flatten_keeps_values_and_order() -> None:
    dataset = load("digits")
    flat = dataset.flatten()
    assert flat.train_inputs.shape == (1437, 64)
    assert flat.input_shape == (64,)
    assert torch.equal(flat.test_inputs[3].reshape(1, 8, 8), dataset.test_inputs[3])


@few_examples
@given(samples=st.integers(1, 50), batch_size=st.integers(1, 60), seed=st.integers(0, 2**31))
def test_an_epoch_has_every_sample_once_in_the_generators_order(samples: int, batch_size: int, seed: int) -> None:
    inputs = torch.arange(samples).float()[:, None]
    epochs = [
        list(batches(inputs, torch.arange(samples), batch_size, torch.Generator().manual_seed(seed))) for _ in range(2)
    ]
    sizes = [len(x) for x, _ in epochs[0]]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= batch_size
    order = torch.cat([y for _, y in epochs[0]])
    assert order.sort().values.tolist() == list(range(samples))
    assert torch.equal(order, torch.cat([y for _, y in epochs[1]]))
    assert torch.equal(torch.cat([x for x, _ in epochs[0]])[:, 0], order.float())


def test_epochs_of_one_generator_differ() -> None:
    generator, data = torch.Generator().manual_seed(0), torch.arange(100)
    first, second = (torch.cat([y for _, y in batches(data, data, 10, generator)]) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("size", "targets"), [(0, 3), (-1, 3), (2, 4)])
def test_wrong_batches_are_refused_at_once(size: int, targets: int) -> None:
    with pytest.raises(ValueError, match="got"):
        batches(torch.zeros(3, 1), torch.zeros(targets), size, torch.Generator())


# Official files


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


def write_svhn(folder: Path) -> NDArray[np.uint8]:
    folder.mkdir()
    images, labels = pixels(32, 32, 3, 4), np.array([[10], [1], [9], [10]], dtype=np.uint8)
    savemat(folder / "train_32x32.mat", {"X": images, "y": labels})
    savemat(folder / "test_32x32.mat", {"X": images[..., :2], "y": labels[:2]})
    return images


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


# Images


def write_images(folder: Path, *, colour: bool = True, suffix: str = "png") -> Path:
    for index, name in enumerate(["train/cat/0", "train/cat/1", "train/dog/0", "test/dog/0"]):
        file = folder / f"{name}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        values = np.full((4, 5, 3) if colour else (4, 5), 60 * index, dtype=np.uint8)
        Image.fromarray(values).save(file)
    (folder / "train" / "cat" / "notes.txt").write_text("no image")
    return folder


def pack(folder: Path, archive: Path) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(folder))
    return archive


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("suffix", ["png", "jpg", "PNG"])
def test_image_folders(tmp_path: Path, zipped: bool, colour: bool, suffix: str) -> None:
    path = write_images(tmp_path / "own", colour=colour, suffix=suffix)
    dataset = load(pack(path, tmp_path / "own.zip") if zipped else path)
    assert dataset.train_inputs.shape == (3, 3 if colour else 1, 4, 5)
    assert dataset.train_targets.tolist() == [0, 0, 1]
    assert dataset.test_targets.tolist() == [1]
    values = (np.array([0, 60, 120, 180]) - 60) / np.std([0, 60, 120])
    found = torch.cat([dataset.train_inputs, dataset.test_inputs])[:, 0, 2, 2]
    assert_close(found, torch.from_numpy(values).float(), atol=0.02, rtol=0)


@pytest.mark.parametrize("zipped", [True, False])
def test_cifar10_images(tmp_path: Path, zipped: bool) -> None:
    folder = write_images(tmp_path / ("own" if zipped else "cifar10"))
    if zipped:
        pack(folder, tmp_path / "cifar10" / "cifar10-jpeg.zip")
    dataset = load("cifar10", root=tmp_path)
    assert dataset.classes == 10
    assert dataset.train_targets.tolist() == [0, 0, 1]


def test_images_without_a_test_folder_are_split(tmp_path: Path) -> None:
    for index in range(10):
        file = tmp_path / "own" / "train" / f"class{index % 2}" / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(2, 2, 3)).save(file)
    dataset = load(tmp_path / "own")
    assert (len(dataset.train_targets), len(dataset.test_targets)) == (8, 2)


def test_images_are_decoded_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_images(tmp_path / "own")
    first = load(path)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", refuse)
        assert torch.equal(load(path).train_inputs, first.train_inputs)
    Image.fromarray(pixels(4, 5, 3)).save(path / "train" / "cat" / "0.png")
    changed = load(path)
    assert not torch.equal(changed.train_inputs, first.train_inputs)
    Image.fromarray(pixels(4, 5, 3)).save(path / "train" / "cat" / "2.png")
    assert len(load(path).train_targets) == 4


def test_damaged_cache_is_rebuilt(tmp_path: Path) -> None:
    path = write_images(tmp_path / "own")
    first = load(path)
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    assert torch.equal(load(path).train_inputs, first.train_inputs)
    assert list((tmp_path / "cache").iterdir()) == [cached]


def test_unwritable_cache_warns_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("OCPKIT_CACHE", str(blocked))
    with pytest.warns(UserWarning, match="set OCPKIT_CACHE to a writable folder"):
        assert len(load(write_images(tmp_path / "own")).train_targets) == 3


def break_image(folder: Path) -> None:
    (folder / "train" / "dog" / "0.png").write_bytes(b"no image")


def cut_image(folder: Path) -> None:
    file = folder / "train" / "dog" / "0.png"
    file.write_bytes(file.read_bytes()[:45])


def enlarge_image(folder: Path) -> None:
    Image.fromarray(pixels(9, 9, 3)).save(folder / "train" / "dog" / "0.png")


def add_class_to_test(folder: Path) -> None:
    (folder / "train" / "dog" / "0.png").unlink()


def remove_training(folder: Path) -> None:
    (folder / "train").rename(folder / "training")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_image, "train/dog/0.png is damaged or not an image"),
        (cut_image, "train/dog/0.png is damaged or not an image"),
        (enlarge_image, r"train/dog/0.png is .* \(3, 9, 9\), the first image \(3, 4, 5\)"),
        (add_class_to_test, r"\['dog'\] occur in test/ and not in train/"),
        (remove_training, "holds no images; expected train/<class>"),
    ],
)
def test_wrong_image_folders_are_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = write_images(tmp_path / "own")
    damage(path)
    with pytest.raises(DataError, match=message):
        load(path)


def test_damaged_zip_is_refused(tmp_path: Path) -> None:
    archive = pack(write_images(tmp_path / "own"), tmp_path / "own.zip")
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"own\.zip is damaged, encrypted or not a \.zip"):
        load(archive)


# A user's arrays


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
        (arrays(x_train=np.zeros(6)), r"\(N, F\) or \(N, C, H, W\), got \(6,\)"),
        (arrays(x_train=pixels(6, 8, 9, 3)), r"\(6, 8, 9, 3\) have their channels last"),
        (arrays(x_train=np.full((6, 3), "text")), "inputs must be numbers, got <U4"),
        (arrays(x_test=np.zeros((2, 4))), r"shape \(3,\), test samples \(4,\)"),
        (arrays(y_train=np.arange(6) % 3 + 1), "found 1, 2, 3"),
        (arrays(y_train=np.arange(6) % 3 - 1), "found -1, 0, 1"),
        (arrays(y_train=np.arange(6) % 3 * 2), "found 0, 2, 4"),
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


# Names


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
    assert all(known in str(caught.value) for known in NAMES)


@pytest.mark.parametrize("name", ["clusters:x", "clusters:-3", "clusters:1"])
def test_wrong_cluster_names(name: str) -> None:
    with pytest.raises(ValueError, match="clusters"):
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


@pytest.mark.skipif("OCPKIT_DATA" not in os.environ, reason="OCPKIT_DATA names no folder of data sets")
def test_real_mnist_has_the_official_class_counts() -> None:
    try:
        dataset = load("mnist")
    except DataNotFoundError:
        pytest.skip("no MNIST under OCPKIT_DATA")
    official = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.train_targets.bincount().tolist() == official
    assert dataset.test_inputs.shape == (10_000, 1, 28, 28)
