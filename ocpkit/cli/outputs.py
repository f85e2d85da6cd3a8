"""Output files are checked before anything is computed: nobody loses a long solve to a missing folder."""

from __future__ import annotations

import os
from pathlib import Path

from ocpkit.errors import ProblemError


def check_writable(path: Path | None) -> None:
    """Refuse a file that cannot be written."""
    if path is None:
        return
    folder = path.parent
    if not folder.is_dir():
        raise ProblemError(f"cannot write {path}: there is no folder {folder}")
    if path.is_dir():
        raise ProblemError(f"cannot write {path}: it is a folder")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ProblemError(f"cannot write {path}: no permission")


def check_pictures(plot: Path | None, animation: Path | None) -> None:
    """Refuse pictures that this machine cannot make: no matplotlib, no ffmpeg, unknown format."""
    if plot is None and animation is None:
        return
    try:
        from ocpkit.plotting.plot import animation_writer, picture_formats
    except ImportError as error:
        raise ProblemError(str(error)) from error
    if plot is not None and plot.suffix[1:].lower() not in picture_formats():
        raise ProblemError(f"cannot write {plot}: a picture ends in .png, .pdf or .svg")
    if animation is not None:
        animation_writer(animation)
