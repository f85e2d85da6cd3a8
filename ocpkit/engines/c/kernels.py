"""Kernels for all models: C that takes any sizes, compiled once on a machine, while whoever asks goes on without.

A thread looks for it in the cache, or waits for the compiler, which is a process of its own. It compiles twice, without
optimization for the moment and then with it; whoever asks gets the best that is there.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from ocpkit.engines.c.cache import open_cache
from ocpkit.engines.c.compiler import Compiler, CompilerError, find_compiler
from ocpkit.engines.c.source import kernel

BESIDE = "OCPKIT_BUILD_BESIDE"  # 0: only engine="c" compiles
AT_EXIT = 0.5  # seconds that the end of the process waits for a compiler


class Kernel:
    """A file of ``kernel/``, loaded as soon as it is there.

    Parameters
    ----------
    file
        Its name.
    declare
        Sets the types of its functions.
    """

    def __init__(self, file: str, declare: Callable[[ctypes.CDLL], None]) -> None:
        self.file, self._declare = file, declare
        self._library: ctypes.CDLL | None = None
        self._thread: threading.Thread | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.wait, AT_EXIT)

    def look(self) -> ctypes.CDLL | None:
        """Return the library, at once; None while there is none. The first call begins to look for it."""
        if self._library is None and self._thread is None:
            self._thread = threading.Thread(target=self._prepare, name=f"compile {self.file}", daemon=True)
            self._thread.start()
        return self._library

    def wait(self, seconds: float = 60.0) -> ctypes.CDLL | None:
        """Wait for what has begun; None where it is not there in time, or cannot be."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._library

    def _prepare(self) -> None:
        """Load it from the cache, compiled before if need be; without a compiler everybody does without."""
        with suppress(CompilerError, OSError):
            compiler, cache = find_compiler(), open_cache()
            best = cache.find(self._key(compiler))
            if best is not None:
                self._load(best)
            elif os.environ.get(BESIDE) != "0":
                for each in (compiler.quick, compiler):
                    known = cache.find(self._key(each))
                    self._load(known or cache.add(self._key(each), partial(self._build, each)))
                cache.drop(self._key(compiler.quick))

    def _key(self, compiler: Compiler) -> str:
        return hashlib.sha256("\n".join([kernel(self.file), compiler.identity]).encode()).hexdigest()[:32]

    def _build(self, compiler: Compiler, target: Path) -> None:
        source = target.with_suffix(".c")
        source.write_text(kernel(self.file), encoding="utf-8")
        compiler.build(source, target)

    def _load(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._declare(library)
        self._library = library

    def _forget(self) -> None:
        """Leave a thread to the process that this one was forked from."""
        if self._library is None:
            self._thread = None
