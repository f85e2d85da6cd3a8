"""Builds of C solvers in a process beside: a solve goes on with what is there, and takes what has been built.

Deriving, writing C and compiling take seconds, in which a thread would hold the interpreter. So another interpreter
does it (`ocpkit.engines.c.builder`), at a lower priority, and puts the result into the cache on disk. It ends when this
process does, also if that is killed. One runs at a time; the next one begins where somebody still asks for it.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import IO, Any

from ocpkit.engines.c.cache import open_cache
from ocpkit.engines.c.compiler import CompilerError
from ocpkit.engines.c.library import BuildTimes, Library, cached_library, library_key, load_library
from ocpkit.engines.graphs import ProblemGraph

START = "import sys; sys.path[:] = sys.argv[1].split(chr(10)); from ocpkit.engines.c.builder import main; main()"
FLAGS = {"isolated": "-I", "ignore_environment": "-E", "no_user_site": "-s"}  # the builder sees what this one sees
INTERVAL = 0.01  # seconds between two looks of somebody who waits
PATIENCE = 1.0  # seconds that a builder has to end by itself
REMEMBERED = 256  # structures whose builds have failed

_log = logging.getLogger("ocpkit")
_lock = RLock()
_builds = dict[str, "Build"]()
_failed = OrderedDict[str, str]()


class Build:
    """A build in progress, or waiting for its turn.

    Attributes
    ----------
    graph, key
        The structure, and its key in the cache.
    quick, library
        The solver without optimization, which is ready first, and the one with; None as long as they are not.
    """

    def __init__(self, graph: ProblemGraph, key: str) -> None:
        self.graph, self.key = graph, key
        self.process: subprocess.Popen[bytes] | None = None
        self.answer: IO[bytes] | None = None
        self.quick: Library | None = None
        self.library: Library | None = None
        self.read = 0  # bytes of the answer

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy as a build that has not begun: a process belongs to who has started it."""
        return type(self), (self.graph, self.key)

    @property
    def sizes(self) -> str:
        """Sizes of the states and controls, for people."""
        sizes = sorted({(stage.state_size, stage.control_size) for stage in self.graph.stage_types})
        return ", ".join(f"n = {n}, m = {m}" for n, m in sizes)

    def look(self) -> Library | None:
        """Return the best solver that is ready, at once; None while there is none.

        Raises
        ------
        CompilerError
            If the build has failed, now or earlier in this process.
        """
        with _lock:
            if self.library is None:
                if self.key in _failed:
                    raise CompilerError(_failed[self.key])
                if self.process is None:
                    self._begin()
                else:
                    ended = self.process.poll() is not None
                    self._listen()
                    if ended:
                        self._end()
            return self.library or self.quick

    def wait(self, seconds: float = float("inf")) -> Library | None:
        """Wait for the solver with optimization; None where it is not ready in time.

        Raises
        ------
        CompilerError
            If the build fails.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.look()
            left = deadline - time.monotonic()
            if self.library is not None or left <= 0:
                return self.library
            time.sleep(min(INTERVAL, left))

    def _begin(self) -> None:
        """Start the process when it is this one's turn."""
        self.library = cached_library(self.graph)
        if self.library is not None:
            return
        self.quick = self.quick or cached_library(self.graph, quick=True)
        for other in list(_builds.values()):
            if other.process is not None and other.process.poll() is None:
                return
            with suppress(CompilerError):
                other.look()
        _builds[self.key] = self
        try:
            self._start()
        except OSError as error:  # no memory, no room for the file, or no processes here
            raise self._failure(f"no process can be started beside: {error.strerror}") from error
        except BaseException:  # Ctrl-C
            self.end()
            raise
        _log.info("a process beside compiles a solver for %s", self.sizes)

    def _start(self) -> None:
        if not sys.executable:
            raise FileNotFoundError(2, "this interpreter does not know its own program")
        path = [*(entry for entry in sys.path if isinstance(entry, str)), str(Path(__file__).parents[3])]
        flags = [flag for name, flag in FLAGS.items() if getattr(sys.flags, name)]
        with tempfile.TemporaryFile() as task:
            pickle.dump((self.graph, self.key, library_key(self.graph, quick=True)), task)
            task.seek(0)
            self.answer = tempfile.TemporaryFile("ab+")  # noqa: SIM115 - both sides have a place of their own in it
            self.process = subprocess.Popen(
                [sys.executable, *flags, "-c", START, "\n".join(path)],
                stdin=task,
                stdout=self.answer,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"OCPKIT_CACHE": str(open_cache().folder)},
                start_new_session=True,  # a terminal's Ctrl-C is this process's to answer
            )

    def _listen(self) -> None:
        """Load what the process says that it has built."""
        assert self.answer is not None
        if os.fstat(self.answer.fileno()).st_size == self.read:
            return
        self.answer.seek(self.read)
        for line in self.answer.read().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return  # the rest of it comes
            self.read += len(line)
            try:
                said = json.loads(line)
            except ValueError:  # from a sitecustomize that talks
                continue
            if "error" in said:
                raise self._failure(said["error"])
            times = BuildTimes(**said["seconds"])
            origin = f"compiled beside in {times.generate + times.compile:.1f} s"
            try:
                if said["quick"]:
                    self.quick = cached_library(self.graph, f"{origin} without optimization", times, quick=True)
                else:
                    self.library = cached_library(self.graph, origin, times)
            except CompilerError as error:
                raise self._failure(str(error)) from error

    def _end(self) -> None:
        """Take what has been built, here or by another process."""
        assert self.process is not None
        _builds.pop(self.key, None)
        if self.answer is not None:
            self.answer.close()
        self.library = self.library or cached_library(self.graph)
        code = self.process.returncode
        if self.library is None and code == 0:
            raise self._failure("the compiled solver cannot be loaded, or was removed at once")
        if self.library is None:
            ending = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            raise self._failure(f"the process that compiled {ending}")

    def _failure(self, why: str) -> CompilerError:
        """Remember it, so that it is not tried again in this process."""
        self.end()
        _failed[self.key] = why
        while len(_failed) > REMEMBERED:
            _failed.popitem(last=False)
        return CompilerError(why)

    def end(self) -> None:
        """End the process, if it is still there, with the compiler that it runs."""
        with _lock:
            _builds.pop(self.key, None)
            if self.answer is not None:
                self.answer.close()
            if self.process is None or self.process.poll() is not None:
                return
            with suppress(OSError):
                self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:  # deep inside CasADi
                self.process.kill()
                self.process.wait()
            with suppress(CompilerError):
                open_cache().sweep(self.process.pid)
            self.process = self.answer = None  # whoever still asks for it begins it again


def begin_build(graph: ProblemGraph) -> Build:
    """Begin to build the solver of a structure beside, if it is not ready; or return the build that has begun.

    Raises
    ------
    CompilerError
        If there is no compiler, or the build has failed before.
    """
    key = library_key(graph)
    with _lock:
        build = _builds.get(key) or Build(graph, key)
        build.look()
    return build


def ready_library(graph: ProblemGraph) -> Library | None:
    """Return the solver of a structure if it has been built, here, beside or in another process; begins nothing.

    Raises
    ------
    CompilerError
        If there is no compiler, or the build has failed.
    """
    key = library_key(graph)
    with _lock:
        if key in _failed:
            raise CompilerError(_failed[key])
        build = _builds.get(key)
        return (cached_library(graph) or cached_library(graph, quick=True)) if build is None else build.look()


def library_within(graph: ProblemGraph, seconds: float) -> Library | None:
    """Return the solver of a structure, built here; where time is limited beside, and None if it takes longer."""
    return load_library(graph) if seconds == float("inf") else begin_build(graph).wait(seconds)


def _end_all() -> None:
    for build in list(_builds.values()):
        build.end()


def _forget() -> None:
    """Leave the builds to the process that this one was forked from."""
    global _lock
    _lock = RLock()
    for build in _builds.values():
        if build.process is not None:
            build.process.returncode = 0
        build.process = build.answer = None
    _builds.clear()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
