"""The packages of an old and of the present version, side by side, and a process that times one of them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

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


def time_version(folder: Path, names: Sequence[str]) -> dict[str, float | str]:
    """Return the times of the packages in a folder [s], or what they raised, from a fresh process on one thread.

    Raises
    ------
    RuntimeError
        If the process fails, or finds the packages elsewhere.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, *names]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"timing {folder.name} failed:\n{done.stderr}")
    said = json.loads(done.stdout.splitlines()[-1])
    strange = [file for file in said["files"] if not Path(file).is_relative_to(folder)]
    if strange:
        raise RuntimeError(f"timing {folder.name} took {strange[0]}, not the packages in {folder}")
    return dict(said["times"])
