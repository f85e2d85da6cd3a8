"""Compiled solvers on disk, shared by all processes of a user.

An entry is one file, ``KEY-DIGEST.so``: the key says what it was built from, the digest what it must contain.
Files appear by an atomic rename, so that several processes may build the same entry at once, which a lock beside it
spares them where files can be locked; a file whose content does not match its name is removed and built again. The
least recently used ones go when the cache is full.
What is loaded from there runs: the folder is made for its user alone, and one that others can write is not used.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ocpkit.engines.c.compiler import CompilerError
from ocpkit.engines.c.lock import hold, locked

MAX_BYTES = 256 * 2**20
DIGEST_LENGTH = 16
TEMPORARY, ALIVE = "ocpkit-", "alive.lock"  # temporary folders, and what is locked in them as long as they are used
ABANDONED = 24 * 3600  # seconds after which a build that is not over was killed


@dataclass(frozen=True)
class Entry:
    """A file of the cache."""

    path: Path
    bytes: int
    used: float


@dataclass(frozen=True)
class Cache:
    """A folder of compiled solvers.

    Attributes
    ----------
    folder
        Where the files are; a temporary folder where the usual one cannot be written.
    note
        Why the folder is not the usual one, or an empty string.
    """

    folder: Path
    note: str = ""

    def find(self, key: str) -> Path | None:
        """Return the entry of a key, or None; a damaged one is removed."""
        for path in sorted(self.folder.glob(f"{key}-*.so")):
            try:
                if path.name == _name(key, path.read_bytes()):
                    os.utime(path)
                    return path
            except OSError:
                pass  # it went away, or is unreadable
            path.unlink(missing_ok=True)
        return None

    def claim(self, key: str, patience: float) -> AbstractContextManager[bool]:
        """Enter as the only one who builds the entry of a key; false where another one did all of `patience` [s]."""
        with suppress(OSError):
            self._make()
        return locked(self.folder / f"building-{key}.lock", patience)

    def add(self, key: str, build: Callable[[Path], None]) -> Path:
        """Build the entry of a key: `build` writes the shared object to the path that it is given."""
        self._make()
        with tempfile.TemporaryDirectory(
            dir=self.folder, prefix=f"building-{key}-{os.getpid()}-", ignore_cleanup_errors=True
        ) as scratch:
            built = Path(scratch) / "solver.so"
            build(built)
            target = self.folder / _name(key, built.read_bytes())
            os.replace(built, target)
        self._evict(target)
        return target

    def entries(self) -> list[Entry]:
        """All files, the most recently used first."""
        entries = []
        for path in self.folder.glob("*.so"):
            try:
                status = path.stat()
            except OSError:
                continue  # another process has just removed it
            entries.append(Entry(path, status.st_size, status.st_mtime))
        return sorted(entries, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Remove all files, and what interrupted builds left; return their number."""
        entries = self.entries()
        for entry in entries:
            entry.path.unlink(missing_ok=True)
        for leftover in self.folder.glob("building-*"):
            _remove(leftover)
        self._drop_records()
        return len(entries)

    def _drop_records(self) -> None:
        """Remove the records (see `records`) of files that are gone."""
        for record in self.folder.glob("*.json"):
            if not record.with_suffix(".so").exists():
                _remove(record)

    def drop(self, key: str) -> None:
        """Remove the entry of a key; who has loaded it keeps it."""
        for path in self.folder.glob(f"{key}-*"):
            with suppress(OSError):  # Windows, while it is loaded
                path.unlink()

    def sweep(self, process: int) -> None:
        """Remove what a process that was ended in the middle of a build has left behind."""
        for leftover in self.folder.glob(f"building-*-{process}-*"):
            _remove(leftover)

    def _make(self) -> None:
        """Make the folder, which may have been removed meanwhile."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _sweep_abandoned(self) -> None:
        """Remove what builds have left whose processes were killed: nobody holds their locks any more."""
        for lock in self.folder.glob("building-*.lock"):
            with locked(lock, 0, otherwise=False) as held:
                for leftover in self.folder.glob(f"{lock.stem}-*") if held else ():
                    _remove(leftover)

    def _evict(self, newest: Path) -> None:
        self._sweep_abandoned()
        for leftover in self.folder.glob("building-*"):
            with suppress(OSError):  # another process has just finished it
                if leftover.stat().st_mtime < time.time() - ABANDONED:
                    _remove(leftover)
        total = 0
        for entry in self.entries():
            total += entry.bytes
            if total > MAX_BYTES and entry.path != newest:
                entry.path.unlink(missing_ok=True)
        self._drop_records()


def open_cache() -> Cache:
    """Open the cache of this user: ``OCPKIT_CACHE``, else ``XDG_CACHE_HOME/ocpkit``, else ``~/.cache/ocpkit``."""
    chosen = os.environ.get("OCPKIT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return _open(Path(chosen) if chosen else Path(base) / "ocpkit")


@lru_cache(maxsize=8)
def _open(folder: Path) -> Cache:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            obstacle = _exposed(folder)
    except OSError as error:
        obstacle = f"{folder} cannot be written ({error.strerror})"
    if not obstacle:
        return Cache(folder)
    try:
        _sweep_temporary()
        temporary = tempfile.mkdtemp(prefix=TEMPORARY)
        hold(Path(temporary, ALIVE))
    except OSError as error:
        raise CompilerError(f"there is no folder for compiled solvers: {obstacle}, and {error}") from error
    atexit.register(_remove_own, temporary, os.getpid())
    return Cache(Path(temporary), f"kept for this process only: {obstacle}")


def _sweep_temporary() -> None:
    """Remove the temporary folders of processes that were killed: nobody holds their locks any more."""
    for lock in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*/{ALIVE}"):
        with suppress(OSError), locked(lock, 0, otherwise=False) as held:
            if held:
                shutil.rmtree(lock.parent, ignore_errors=True)


def _remove_own(folder: str, owner: int) -> None:
    """Remove a temporary folder at the exit of the process that has made it, not of one forked from it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _exposed(folder: Path) -> str:
    """Say why somebody else could put code into a folder, or nothing."""
    status = folder.stat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return f"{folder} belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{folder} can be written by others (chmod go-w makes it yours)"
    return ""


def _remove(leftover: Path) -> None:
    """Remove what a build left behind: its folder, or its lock."""
    if leftover.is_dir():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


def _name(key: str, content: bytes) -> str:
    return f"{key}-{hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]}.so"
