"""Sizes that files claim, checked before memory is asked for: a few bytes can say that they are terabytes."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

SHARE = 0.5
"""Part of the machine's memory that the content of one file may take; it is converted, and split, in the rest."""
DEFLATED = 1032
"""Largest ratio by which deflate compresses (zlib's technical details)."""
UNKNOWN = 2**37
"""Memory assumed where the system does not say [bytes]."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files in which Linux says what a container may use."""


class TooLarge(ValueError):
    """A file claims more than fits into memory, or more than it can hold."""


def memory() -> int:
    """Memory of this machine, or of the container [bytes]."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        found = [UNKNOWN]
    for limit in LIMITS:
        try:
            found.append(int(Path(limit).read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return min(found)


def in_words(size: float) -> str:
    """Write bytes with a unit: 8000000000000 is 8.0 TB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000 or unit == "PB":
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def refuse_large(size: int, what: str) -> None:
    """Refuse what would not fit into memory.

    Raises
    ------
    TooLarge
        With both sizes.
    """
    if size > SHARE * memory():
        raise TooLarge(f"{what} claims {in_words(size)}; this machine has {in_words(memory())} of memory")


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises
    ------
    OSError
        If there is none, or it cannot be read.
    TooLarge
        If it does not fit into memory.
    """
    refuse_large(path.stat().st_size, "it")
    return path.read_bytes()


def check_zip(archive: zipfile.ZipFile) -> None:
    """Refuse an archive whose members claim more than fits into memory, or than their compressed bytes can hold.

    Raises
    ------
    TooLarge
        With the sizes.
    """
    refuse_large(sum(member.file_size for member in archive.infolist()), "its content")
    for member in archive.infolist():
        known = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if known and member.file_size > DEFLATED * (member.compress_size + 1):
            raise TooLarge(
                f"{member.filename} claims {in_words(member.file_size)} in {in_words(member.compress_size)} of the file"
            )


def check_npz(file: IO[bytes]) -> None:
    """Refuse an .npz of arrays that claim more than fits into memory, or than the file has of them.

    Parameters
    ----------
    file
        Opened for reading, at its beginning, to which it is put back.

    Raises
    ------
    TooLarge
        With the sizes.
    ValueError, EOFError, OSError, BadZipFile
        If it is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        check_zip(archive)
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as stream:
                    _check_npy(stream, member)
    file.seek(0)


def _check_npy(stream: IO[bytes], member: zipfile.ZipInfo) -> None:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    claimed, held = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    if not dtype.hasobject and claimed != held:
        raise TooLarge(f"{member.filename} of shape {shape} claims {in_words(claimed)} and has {in_words(held)}")
