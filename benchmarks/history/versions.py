"""The packages of an old and of the present version, side by side, and processes that time them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import TracebackType

from benchmarks.history import timings

PACKAGES = ("ocpkit", "ocpkit_nn")
SCRIPT = Path(timings.__file__).read_text(encoding="utf-8")
"""As it was when the comparison began, whatever is edited meanwhile."""


def git(repository: Path, *arguments: str) -> bytes:
    """Return what git says.

    Raises
    ------
    ValueError
        If it refuses: no repository, no such revision.
    """
    done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip() or f"git {arguments[0]} failed")
    return done.stdout


def name_of(repository: Path, revision: str) -> str:
    """Return the short name of a commit.

    Raises
    ------
    ValueError
        If there is none.
    """
    try:
        return git(repository, "rev-parse", "--short", "--verify", f"{revision}^{{commit}}").decode().strip()
    except ValueError as error:
        raise ValueError(f"no commit {revision!r} in {repository}; a shallow clone must fetch it first") from error


def present_name(repository: Path) -> str:
    """Return the name of the present version: the last commit's, with a mark where files differ from it."""
    changed = git(repository, "status", "--porcelain", "--", *_packages(repository)).strip()
    return name_of(repository, "HEAD") + "+changes" * bool(changed)


def unpack(repository: Path, revision: str, folder: Path) -> None:
    """Write the packages as they were at a commit."""
    tree = git(repository, "ls-tree", "--name-only", revision).decode().split()
    archive = git(repository, "archive", "--format=tar", revision, *(name for name in PACKAGES if name in tree))
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def copy(repository: Path, folder: Path) -> None:
    """Write the packages as they are now, to be read from the same disk as the old ones."""
    for name in _packages(repository):
        shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def _packages(repository: Path) -> list[str]:
    return [name for name in PACKAGES if (repository / name).is_dir()]


class Timer:
    """Context manager of a fresh process, on one thread, that times the packages in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Timer:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def seconds(self, name: str) -> float | str:
        """Return the time of one of `timings.TIMINGS` [s], or what these packages raised.

        Raises
        ------
        RuntimeError
            If the process ends, or finds the packages elsewhere.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{name}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:  # it has ended before it was asked
            answer = ""
        if not answer:
            self._errors.seek(0)
            raise RuntimeError(f"timing {name} of the {self.folder.name} version failed:\n{self._errors.read()}")
        said = json.loads(answer)
        strange = [file for file in said["files"] if not Path(file).is_relative_to(self.folder)]
        if strange:
            raise RuntimeError(f"timing {self.folder.name} took {strange[0]}, not the packages in {self.folder}")
        return float(said["seconds"]) if isinstance(said["seconds"], float) else str(said["seconds"])
