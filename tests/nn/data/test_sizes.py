"""Data that claim more than fits into memory are refused with the size, by every reader and by `ocpkit train`."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from ocpkit.cli.commands import app
from ocpkit_nn.data import DataError, load
from ocpkit_nn.data.idx import read_idx
from ocpkit_nn.training import checkpoint


def png(width: int, height: int) -> bytes:
    """A PNG that says it has this size, and has one row of it."""
    chunks = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(3 * width + 1))), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return chunks


def small_png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(stream, "png")
    return stream.getvalue()


def images(folder: Path, zipped: bool, content: bytes) -> Path:
    """Two classes of two images each."""
    names = [f"train/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(2)]
    if zipped:
        with zipfile.ZipFile(folder / "own.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for name in names:
                file.writestr(name, content)
        return folder / "own.zip"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def npz(folder: Path) -> Path:
    path, header = folder / "own.npz", io.BytesIO()
    claim = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, claim)
    np.savez(path, y=np.zeros(3, int))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x.npy", header.getvalue())
    return path


BOMBS = {
    "an .npz": (npz, "8.0 TB"),
    "a huge image": (lambda folder: images(folder, False, png(60_000, 60_000)), "3600000000 pixels"),
    "a large image": (lambda folder: images(folder, False, png(12_000, 8_000)), "96000000 pixels"),
    "a .zip of huge images": (lambda folder: images(folder, True, png(60_000, 60_000)), "3600000000 pixels"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_data_that_claim_too_much_are_refused_with_the_size(bomb: str, tmp_path: Path) -> None:
    make, size = BOMBS[bomb]
    path = make(tmp_path)
    with pytest.raises(DataError, match=size):
        load(path)
    outcome = CliRunner().invoke(app, ["train", str(path), "--out", str(tmp_path / "run")])
    assert outcome.exit_code == 2
    assert size in outcome.stderr


@pytest.mark.parametrize("zipped", [True, False])
def test_images_that_together_exceed_the_memory_are_refused(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = images(tmp_path, zipped, small_png())
    monkeypatch.setattr("ocpkit.boundary.sizes.memory", lambda: 100_000)
    with pytest.raises(DataError, match=r"96\.0 kB"):
        load(path)


def test_an_image_that_unpacks_to_more_than_the_largest_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocpkit_nn.data.images.LARGEST_FILE", 10**6)
    with pytest.raises(DataError, match=r"2\.0 MB"):
        load(images(tmp_path, True, bytes(2 * 10**6)))


@pytest.mark.parametrize("compress", [True, False])
def test_idx_files_that_claim_too_much_are_refused(compress: bool, tmp_path: Path) -> None:
    content = struct.pack(">HBB3I", 0, 8, 3, 10**6, 10**4, 10**4) + bytes(100)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(DataError, match=r"100\.0 TB"):
        read_idx(path)


def test_an_idx_file_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 100) + bytes(10**8), compresslevel=1))
    with pytest.raises(DataError, match="damaged: more than 100 bytes"):
        read_idx(path)


def test_other_official_files_that_claim_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "svhn").mkdir()
    for name in ("train", "test"):
        content = {"X": np.zeros((32, 32, 3, 50), np.uint8), "y": np.ones((50, 1), np.uint8)}
        savemat(tmp_path / "svhn" / f"{name}_32x32.mat", content, do_compression=True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.PROTO + b"\x04" + pickle.BINBYTES8 + struct.pack("<Q", 2**62) + b"short")
    with pytest.raises(DataError, match="data_batch_1"):
        load("cifar10", root=tmp_path)
    assert len(load("svhn", root=tmp_path).train_inputs) == 50
    monkeypatch.setattr("ocpkit.boundary.sizes.memory", lambda: 10**5)
    with pytest.raises(DataError, match=r"153\.7 kB"):
        load("svhn", root=tmp_path)


def test_a_checkpoint_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/data.pkl", b"N.")
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (4 * 10**9).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"4\.0 GB"):
        checkpoint.load_model(path)
