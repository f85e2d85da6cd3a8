"""Files that claim more than fits into memory, or than they have, are refused with the size before it is asked for."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ocpkit import DDP, ProblemError, Solution, models
from ocpkit.boundary.sizes import TooLarge, check_npz, in_words, memory
from ocpkit.cli.commands import app

TERABYTES = (10**6, 10**6)


def claiming(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """An .npy file that says it is an array of this shape."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


def altered(content: bytes, **sizes: int) -> bytes:
    """An archive whose directory says other sizes (of up to 4 GB) than its members have."""
    stream, entry = bytearray(content), content.index(b"PK\x01\x02")
    for name, offset in (("compressed", 20), ("plain", 24)):
        if name in sizes:
            stream[entry + offset : entry + offset + 4] = sizes[name].to_bytes(4, "little")
    return bytes(stream)


BOMBS = {
    "a shape of terabytes": (archive(states=claiming(TERABYTES)), "8.0 TB"),
    "a shape of more than 64 bits": (archive(states=claiming((10**12, 10**12, 10**12))), "PB"),
    "a negative one": (archive(states=claiming((-(10**6), 10**6))), "states"),
    "one entry more": (archive(states=claiming((3,), bytes(16))), "24 bytes"),
    "a directory that says gigabytes": (altered(archive(states=claiming((2,), bytes(16))), plain=4 * 10**9), "4.0 GB"),
}


@pytest.mark.parametrize(("content", "size"), BOMBS.values(), ids=BOMBS)
def test_a_solution_that_claims_too_much_is_refused_with_the_size(content: bytes, size: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ProblemError, match=size):
        Solution.load(path)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    outcome = CliRunner().invoke(app, ["solve", "double-integrator", "--warm-start", str(path)])
    assert outcome.exit_code == 2
    assert size in outcome.stderr


def test_what_unpacks_to_more_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, states=np.zeros(10**6))
    solution = tmp_path / "solution.npz"
    DDP(engine="numpy").solve(models.get("double-integrator").build()).save(solution)
    monkeypatch.setattr("ocpkit.boundary.sizes.memory", lambda: 10**7)
    with pytest.raises(ProblemError, match=r"8\.0 MB"):
        Solution.load(path)
    assert Solution.load(solution).success
    monkeypatch.setattr("ocpkit.boundary.sizes.memory", lambda: 10)
    with pytest.raises(ProblemError, match="too large"):
        Solution.load(solution)


@given(
    arrays=st.lists(
        st.tuples(
            st.sampled_from(["f8", "u1", "U7", "c16", "M8[ns]"]),
            st.lists(st.integers(0, 4), max_size=3),
            st.booleans(),
        ),
        max_size=3,
    ),
    compressed=st.booleans(),
)
def test_what_numpy_writes_is_read(arrays: list[tuple[str, list[int], bool]], compressed: bool) -> None:
    made: dict[str, Any] = {
        f"a{i}": np.zeros(shape, dtype, order="F" if fortran else "C")
        for i, (dtype, shape, fortran) in enumerate(arrays)
    }
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **made)
    stream.seek(0)
    check_npz(stream)
    assert stream.tell() == 0
    if made:
        cut = io.BytesIO(stream.getvalue()[: stream.getbuffer().nbytes // 2])
        with pytest.raises(zipfile.BadZipFile):
            check_npz(cut)


def test_sizes_have_units() -> None:
    assert [in_words(size) for size in (12, 1234, 8e12, 3e30)] == [
        "12 bytes",
        "1.2 kB",
        "8.0 TB",
        "3000000000000000.0 PB",
    ]
    assert 10**8 < memory() < 10**15
    assert issubclass(TooLarge, ValueError)
