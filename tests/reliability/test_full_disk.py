"""A full disk: an error, what was saved before is still there, and nothing half-written stays."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

from ocpkit import DDP, Solution, models
from ocpkit.boundary.atomic import write_atomically
from ocpkit_nn.training import checkpoint


@pytest.fixture(params=["fsync fails", "file system of 256 KiB"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on which a file of a megabyte has no room."""
    if request.param == "fsync fails":
        fsync = os.fsync

        def failing(descriptor: int) -> None:
            if os.fstat(descriptor).st_size > 2**17:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", failing)
        yield tmp_path
        return
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by the administrator only")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_solution(small_disk: Path) -> None:
    path = small_disk / "solution.npz"
    small = DDP(max_iterations=0, engine="numpy").solve(models.get("double-integrator").build(horizon=10))
    small.save(path)
    noise = np.random.default_rng(0).normal(size=(2**17, 1))  # no compression makes it small
    with pytest.raises(OSError, match="No space left on device"):
        replace(small, controls=noise).save(path)
    assert np.array_equal(Solution.load(path).states, small.states)
    assert list(small_disk.iterdir()) == [path]


def test_a_checkpoint(small_disk: Path) -> None:
    for epoch in (1, 2):
        checkpoint.save(small_disk, {"epochs_done": epoch})
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save(small_disk, {"epochs_done": 3, "weights": torch.randn(2**18)})
    loaded: Any = checkpoint.load(small_disk)
    assert loaded["epochs_done"] == 2
    assert sorted(path.name for path in small_disk.iterdir()) == [checkpoint.PREVIOUS, checkpoint.LATEST]


def test_what_interrupts_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted(file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_that_write_one_file_leave_one_of_its_contents(tmp_path: Path) -> None:
    """And none of them fails."""

    def write(content: int) -> None:
        for _ in range(20):
            write_atomically(tmp_path / "file", lambda file: file.write(bytes([content]) * 100_000))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    content = (tmp_path / "file").read_bytes()
    assert len(content) == 100_000
    assert len({*content}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
