"""Description of this machine: processor, versions, compiler, devices."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CORE = ("ocpkit", "numpy", "scipy", "casadi", "typer", "rich")
EXTRAS = {"matplotlib": "plot", "pillow": "plot", "torch": "nn", "scikit-learn": "nn", "joblib": "nn"}
EXTRAS |= {"adam-robotics": "robots", "example-robot-data": "robots", "mujoco": "robots"}


def package_version(name: str) -> str | None:
    """Return the version of an installed package, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor_name() -> str:
    """Name the processor."""
    names = [platform.processor() or platform.machine()]
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")] or names
    return names[0]


def processor() -> str:
    """Name the processor and count the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor_name()}, {cores} cores"


def describe() -> dict[str, str]:
    """Say what a measurement depends on."""
    numeric = {name: package_version(name) or "missing" for name in ("ocpkit", "numpy", "casadi")}
    return {"machine": processor(), "system": platform.platform(), "python": platform.python_version(), **numeric}


def program(*names: str, flag: str = "--version") -> str | None:
    """Find the first of some programs and return the first line that it says of its version."""
    for name in filter(None, names):
        if path := shutil.which(name):
            said = subprocess.run([path, flag], capture_output=True, text=True, timeout=20, check=False)
            return ((said.stdout or said.stderr).strip().splitlines() or [path])[0]
    return None
