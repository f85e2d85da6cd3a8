"""What a measurement was made on, printed above every table."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe(*packages: str) -> dict[str, str]:
    """Return processor, Python and package versions."""
    info = {"processor": _processor(), "cores": str(os.cpu_count()), "python": platform.python_version()}
    return info | {package: version(package) for package in packages}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
