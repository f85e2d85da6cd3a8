"""What a measurement was made on, printed above every table."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

from ocpkit.boundary.machine import processor_name


def describe(*packages: str) -> dict[str, str]:
    """Return processor, Python and package versions."""
    info = {"processor": processor_name(), "cores": str(os.cpu_count()), "python": platform.python_version()}
    return info | {package: version(package) for package in packages}
