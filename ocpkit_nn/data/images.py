"""A folder or .zip of images, `train/<class>/*.png` and `test/<class>/*.png`, decoded once, then cached."""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocpkit.boundary.atomic import write_atomically
from ocpkit.boundary.sizes import TooLarge, in_words, refuse_large
from ocpkit_nn.data.dataset import Arrays, split
from ocpkit_nn.data.errors import DataError
from ocpkit_nn.data.npz import read_npz

LARGEST_FILE = 4 * 89_478_485
"""Bytes of four channels of the largest image that Pillow opens without a warning, uncompressed."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_FORM = "as many channels as the most colorful image"  # of what is cached
_OTHER_IMAGES = (".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def image_folder(path: Path, seed: int = 0) -> Arrays:
    """Read images of one size, their classes numbered in alphabetical order; in gray if all of them are.

    Decoded images are kept under `OCPKIT_CACHE` (default `~/.cache/ocpkit`) and read from there as long as
    the files' names, sizes and times stay the same. Without `test/`, training images are split 80/20.

    Parameters
    ----------
    path : Path
        The folder or .zip that holds `train/`.
    seed : int

    Raises
    ------
    DataError
        If there are no images, an image is damaged, of another size or of more than 8 bits a pixel, or a class is in
        `test/` only.
    ImportError
        If Pillow is not installed.
    """
    if path.is_dir():
        files = [file for part in ("train", "test") for file in (path / part).rglob("*") if file.is_file()]
        _refuse_files(path, {file.relative_to(path).as_posix(): file.stat().st_size for file in files})
        stamps = {
            file.relative_to(path).as_posix(): f"{file.stat().st_size} {file.stat().st_mtime_ns}" for file in files
        }
        arrays = _cached(path, stamps, lambda name: (path / name).read_bytes())
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                files_inside = [info for info in archive.infolist() if not info.is_dir()]
                _refuse_files(path, {info.filename: info.file_size for info in files_inside})
                stamps = {info.filename: f"{info.file_size} {info.CRC}" for info in files_inside}
                arrays = _cached(path, stamps, archive.read)
        except (zipfile.BadZipFile, RuntimeError) as error:
            raise DataError(f"{path} is damaged, encrypted or not a .zip file: {error}") from error
    if len(arrays.test_targets) == 0:
        return split(str(path), arrays.train_inputs, arrays.train_targets, seed)
    return arrays


def _refuse_files(path: Path, sizes: dict[str, int]) -> None:
    """Refuse files that are larger than the largest image could be; in a .zip they can be small."""
    for name, size in sizes.items():
        if _is_sample(name) and size > LARGEST_FILE:
            raise DataError(f"{path}: {name} claims {in_words(size)}, an image has at most {in_words(LARGEST_FILE)}")


def _cached(path: Path, stamps: dict[str, str], read: Callable[[str], bytes]) -> Arrays:
    """Return the images whose names are keys of `stamps`, from the cache if the stamps are those cached."""
    images = sorted(name for name in stamps if _is_sample(name))
    _warn_of_strays(path, [name for name in stamps if not _is_sample(name)])
    key = hashlib.sha256("\n".join([_FORM, *(f"{name} {stamps[name]}" for name in images)]).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("OCPKIT_CACHE") or Path.home() / ".cache" / "ocpkit")
    file = folder / f"images-{path.stem}-{key}.npz"
    try:
        return Arrays(**read_npz(file))
    except (DataError, TypeError):
        arrays = _decode_all(path, images, read)
    try:
        _write(file, arrays)
    except OSError as error:
        warnings.warn(f"decoded images are not cached, set OCPKIT_CACHE to a writable folder: {error}", stacklevel=4)
    return arrays


def _is_sample(name: str) -> bool:
    """Whether a file is an image of a class; hidden files and folders are left by systems and editors."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    inside = len(path.parts) == 3 and path.parts[0] in ("train", "test")
    return inside and not hidden and path.suffix.lower() in _SUFFIXES


def _warn_of_strays(path: Path, names: list[str]) -> None:
    """Say how many files that somebody may take for samples are none."""
    parts = {name: PurePosixPath(name).parts for name in names}
    strays = [
        name
        for name in sorted(names)
        if parts[name][0] in ("train", "test")
        and not any(part.startswith(".") for part in parts[name])
        and PurePosixPath(name).suffix.lower() in (*_SUFFIXES, *_OTHER_IMAGES)
    ]
    if strays:
        warnings.warn(
            f"{path}: {len(strays)} images are no samples, {strays[0]} for one; samples are "
            f"train/<class>/* and test/<class>/* of {', '.join(_SUFFIXES)}",
            stacklevel=5,
        )


def _decode_all(path: Path, names: list[str], read: Callable[[str], bytes]) -> Arrays:
    parts = {part: [name for name in names if name.startswith(f"{part}/")] for part in ("train", "test")}
    if not parts["train"]:
        raise DataError(f"{path} holds no images; expected train/<class>/*{' *'.join(_SUFFIXES)}")
    classes = sorted({name.split("/")[1] for name in parts["train"]})
    unknown = {name.split("/")[1] for name in parts["test"]} - set(classes)
    if unknown:
        raise DataError(f"{path}: classes {sorted(unknown)} occur in test/ and not in train/ ({classes})")
    first = _decode(path, parts["train"][0], read)
    _refuse_together(path, len(names), first.shape)  # before the others are decoded
    images = {name: _decode_alike(path, name, read, first.shape[1:]) for part in parts.values() for name in part}
    channels = max(len(image) for image in images.values())  # gray among colors: three equal channels
    _refuse_together(path, len(names), (channels, *first.shape[1:]))
    arrays: list[NDArray[Any]] = []
    for selected in parts.values():
        inputs = np.empty((len(selected), channels, *first.shape[1:]), dtype=np.uint8)
        for index, name in enumerate(selected):
            inputs[index] = images.pop(name)
        arrays += [inputs, np.array([classes.index(name.split("/")[1]) for name in selected], dtype=np.int64)]
    return Arrays(*arrays)


def _refuse_together(path: Path, count: int, shape: tuple[int, ...]) -> None:
    """Refuse as many images of one shape (C, H, W) as do not fit into memory."""
    try:
        refuse_large(4 * count * math.prod(shape), f"{count} images of {shape}, as float32,")
    except TooLarge as error:
        raise DataError(f"{path} is too large: {error}") from error


def _decode_alike(path: Path, name: str, read: Callable[[str], bytes], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return one image as (C, H, W) if it has the height and width of the first."""
    image = _decode(path, name, read)
    if image.shape[1:] != size:
        raise DataError(
            f"{path}: {name} is (H, W) = {image.shape[1:]}, the first image {size}; resize them to one size"
        )
    return image


def _decode(path: Path, name: str, read: Callable[[str], bytes]) -> NDArray[np.uint8]:
    """Return one image as (C, H, W): gray images have one channel and others get three."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("images are read by Pillow, which is not installed: pip install pillow") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(read(name)))
        with opened as image:
            if image.mode.startswith(("I", "F")):  # converted to 8 bits all of it would be white
                raise DataError(
                    f"{path}: {name} has more than 8 bits a pixel; save 8-bit images, or give arrays as .npz"
                )
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: {name} is too large: {error}; resize it") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: {name} is damaged or not an image: {error}") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _write(file: Path, arrays: Arrays) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # compiled solvers lie there too
    write_atomically(file, lambda stream: np.savez(stream, **arrays._asdict()))
