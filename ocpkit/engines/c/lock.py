"""A lock between processes and threads, on a file: one does the work, the others wait or do without.

The system frees what a process that dies held. Where files cannot be locked, everybody gets the lock: what is done
under it must stay right when several do it at once, and only cost more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

INTERVAL = 0.02  # seconds between two looks


@contextmanager
def locked(path: Path, patience: float, *, otherwise: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, which exists only meanwhile.

    Parameters
    ----------
    path
        The file, in a folder that nobody else can write.
    patience
        Seconds to wait for whoever holds the lock.
    otherwise
        What to say where files cannot be locked.

    Yields
    ------
    held
        False where another one held it all the time.
    """
    handle, held = None, otherwise
    with suppress(OSError):  # no locks on this file system, or no room
        handle = _acquire(path, time.monotonic() + patience)
        held = handle is not None
    try:
        yield held
    finally:
        if handle is not None:
            _release(path, handle)


def hold(path: Path) -> None:
    """Hold the lock of a file for as long as this process lives, or one forked from it; where files can be locked."""
    with suppress(OSError):
        _acquire(path, time.monotonic())


def _acquire(path: Path, deadline: float) -> int | None:
    """Return the file's descriptor, or None after the deadline."""
    if fcntl is None:
        raise OSError("this system has no flock")
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(handle, path):
                return handle
        except BlockingIOError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if time.monotonic() >= deadline:
            return None
        time.sleep(INTERVAL)


def _is(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name; the lock of a removed one keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _release(path: Path, handle: int) -> None:
    """Remove the file first: who opens it afterwards makes a new one."""
    try:
        path.unlink(missing_ok=True)
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # also for a process forked meanwhile, which has the descriptor too
        os.close(handle)
