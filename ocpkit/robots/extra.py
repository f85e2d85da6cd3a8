"""Optional packages of the robots, and the error that names those missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ocpkit.errors import ProblemError

INSTALL = "pip install 'ocpkit[robots]'"


@contextmanager
def needs_extra() -> Iterator[None]:
    """Name the extra where an import fails.

    Raises
    ------
    ProblemError
        In place of ImportError.
    """
    try:
        yield
    except ImportError as error:
        raise ProblemError(f"robots need the package {error.name}: {INSTALL}") from error


def load_mujoco() -> Any:
    """Import mujoco, which reads on import how to draw: by EGL, unless there is a screen or MUJOCO_GL says otherwise.

    Raises
    ------
    ProblemError
        If it is not installed.
    """
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")
    with needs_extra():
        import mujoco
    return mujoco
