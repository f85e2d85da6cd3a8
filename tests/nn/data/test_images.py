"""Folders and archives of images, their cache, and what goes wrong with them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from nn.data.pixels import pixels, raw
from ocpkit_nn.data import DataError, load


def write_images(folder: Path, *, color: bool = True, suffix: str = "png") -> Path:
    for index, name in enumerate(["train/cat/0", "train/cat/1", "train/dog/0", "test/dog/0"]):
        file = folder / f"{name}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        values = np.full((4, 5, 3) if color else (4, 5), 60 * index, dtype=np.uint8)
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
@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize("suffix", ["png", "jpg", "PNG"])
def test_image_folders(tmp_path: Path, zipped: bool, color: bool, suffix: str) -> None:
    path = write_images(tmp_path / "own", color=color, suffix=suffix)
    dataset = load(pack(path, tmp_path / "own.zip") if zipped else path)
    assert dataset.train_inputs.shape == (3, 3 if color else 1, 4, 5)
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


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("gray", ["train/cat/0", "train/dog/0", "test/dog/0"])
def test_one_gray_image_costs_the_others_no_color(tmp_path: Path, zipped: bool, gray: str) -> None:
    """Whichever it is; in it the three channels are alike."""
    path = write_images(tmp_path / "own")
    names = ("train/cat/0", "train/cat/1", "train/dog/0", "test/dog/0")
    images = np.stack([pixels(4, 5, 3) for _ in names])
    for name, image in zip(names, images):
        image[..., 1:] = image[..., :1] if name == gray else image[..., 1:]
        Image.fromarray(image[..., 0] if name == gray else image).save(path / f"{name}.png")
    dataset = load(pack(path, tmp_path / "own.zip") if zipped else path)
    assert_close(dataset.train_inputs, raw(dataset, images[:3].transpose(0, 3, 1, 2)), atol=1e-4, rtol=0)


def test_what_systems_and_editors_leave_is_no_sample(tmp_path: Path) -> None:
    path = write_images(tmp_path / "own")
    expected = load(path)
    for name in ("train/cat/._0.png", "train/.ipynb_checkpoints/0.png", "train/cat/.thumbnails/0.png"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"no image")
    (path / "train" / "cat" / "folder.png").mkdir()
    found = load(path)
    assert found.classes == expected.classes
    assert torch.equal(found.train_inputs, expected.train_inputs)


@pytest.mark.parametrize("name", ["train/0.png", "train/cat/more/0.png", "test/dog/0.gif"])
def test_images_that_are_no_samples_are_counted(tmp_path: Path, name: str) -> None:
    path = write_images(tmp_path / "own")
    (path / name).parent.mkdir(exist_ok=True)
    Image.fromarray(pixels(4, 5, 3)).save(path / name)
    with pytest.warns(UserWarning, match=rf"1 images are no samples, {name} for one"):
        assert len(load(path).train_targets) == 3


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


def deepen_image(folder: Path) -> None:
    Image.fromarray(np.full((4, 5), 40_000, dtype=np.uint16)).save(folder / "train" / "dog" / "0.png")


def add_class_to_test(folder: Path) -> None:
    (folder / "train" / "dog" / "0.png").unlink()


def remove_training(folder: Path) -> None:
    (folder / "train").rename(folder / "training")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_image, "train/dog/0.png is damaged or not an image"),
        (cut_image, "train/dog/0.png is damaged or not an image"),
        (enlarge_image, r"train/dog/0.png is .* \(9, 9\), the first image \(4, 5\)"),
        (deepen_image, r"train/dog/0.png has more than 8 bits a pixel; .* \.npz"),
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
