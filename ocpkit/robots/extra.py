"""What the robots need beside ocpkit's own dependencies, and the error that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
