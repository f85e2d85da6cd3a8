"""Paths of the description files of known robots, in the wheel example-robot-data."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

from ocpkit.robots.extra import needs_extra

FOLDER = "cmeel.prefix/share/example-robot-data/robots"


def description(path: str) -> Path:
    """Return a file of example-robot-data, such as ``panda_description/urdf/panda.urdf``.

    Raises
    ------
    ProblemError
        If example-robot-data is not installed.
    """
    with needs_extra():
        return Path(str(distribution("example-robot-data").locate_file(FOLDER))) / path
