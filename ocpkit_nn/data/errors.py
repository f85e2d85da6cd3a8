"""Errors of data: not there, or there and unusable."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class DataError(ValueError):
    """The data were found and cannot be used; the message names the file or sample and the way out."""


class DataNotFoundError(DataError, FileNotFoundError):
    """The data were not found; the message names what was looked for, where, and where to get it."""


def missing(name: str, looked_for: Iterable[Path], source: str) -> DataNotFoundError:
    """Return the error for a known data set whose files are not on this machine."""
    places = "\n  ".join(str(path) for path in looked_for)
    return DataNotFoundError(
        f"data set {name!r} is not on this machine, and nothing is downloaded. Looked for\n  {places}\n"
        f"Get the files from {source}, or point OCPKIT_DATA to the folder that holds them."
    )
