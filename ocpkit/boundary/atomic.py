"""Files that are there in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import get_ident
from typing import IO

TEMPORARY = ".tmp"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], keep: Path | None = None) -> None:
    """Write another file, put it on the disk, then rename it: no reader, crash or kill meets half a file.

    Where writing fails, a full disk for one, what was there before stays and the other file goes.

    Parameters
    ----------
    path
        What to write.
    write
        Gets the open file.
    keep
        Where the file that is replaced goes, if anywhere.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    writer = f"{os.getpid()}-{get_ident()}"  # several processes and threads may write one file
    temporary = path.with_name(f"{path.name}.{writer}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the file that was asked for
        raise
