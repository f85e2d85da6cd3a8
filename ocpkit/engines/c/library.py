"""From the structure of a problem to a loaded C solver: from memory, from the cache on disk, or compiled."""

from __future__ import annotations

import ctypes
import hashlib
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit.engines.c.cache import open_cache
from ocpkit.engines.c.compiler import Compiler, CompilerError, find_compiler
from ocpkit.engines.c.records import drop_record, note_build, note_load
from ocpkit.engines.c.source import c_source, kernel
from ocpkit.engines.graphs import ProblemGraph

GENERATORS = (
    "../../autodiff/intermediate.py",
    "../../autodiff/differentiable.py",
    "../../recursion/linalg.py",
    "../../problem/part_graphs.py",
    "../graphs.py",
    "emit.py",
    "source.py",
    "kernel/panel.c",
    "kernel/box.c",
    "kernel/sweep.c",
    "kernel/model.c",
    "kernel/stage.c",
    "kernel/slopes.c",
    "kernel/ddp.c",
    "kernel/units.c",
    "kernel/augmented.c",
)


def _fields(struct: str, file: str) -> list[tuple[str, Any]]:
    """Read a struct from the file that declares it."""
    text = re.sub(r"/\*.*?\*/", "", kernel(file), flags=re.S)
    found = re.search(rf"typedef struct \{{(.*?)\}} {struct};", text, re.S)
    assert found is not None
    fields = list[tuple[str, Any]]()
    for declaration in re.sub(r"\bconst\b", "", found[1]).split(";"):
        kind, _, names = declaration.strip().partition(" ")
        scalar = ctypes.c_double if kind == "double" else ctypes.c_long
        fields += [(n.strip("* "), ctypes.c_void_p if "*" in n else scalar) for n in names.split(",") if n]
    return fields


class State(ctypes.Structure):
    """The struct `ddp` of kernel/ddp.c."""

    _fields_ = _fields("ddp", "ddp.c")


class AugmentedState(ctypes.Structure):
    """The struct `augmented` of kernel/units.c."""

    _fields_ = _fields("augmented", "units.c")


PATIENCE = 120  # seconds after which somebody else's compiler is not waited for any longer


class CompilerBusy(CompilerError):
    """Another process is compiling the same solver; it can be loaded later."""


@dataclass(frozen=True)
class Library:
    """A loaded solver.

    Attributes
    ----------
    origin
        Where it came from, for the user: compiled in so many seconds, or loaded from the cache.
    seconds
        What compiling it took in this process; None where it was loaded.
    """

    handle: ctypes.CDLL
    origin: str
    seconds: float | None = None

    def scratch_size(self, kind_of_stage: np.ndarray) -> int:
        """Doubles of memory, beside its arrays, that a solve with these kinds of stages needs."""
        state = State(horizon=len(kind_of_stage), kind_of_stage=kind_of_stage.ctypes.data)
        size: int = self.handle.ocpkit_scratch_size(ctypes.byref(state))
        return size


def load_library(graph: ProblemGraph, patience: float | None = None) -> Library:
    """Load the solver of a structure; compile it if it is not in the cache.

    Parameters
    ----------
    graph
        The structure.
    patience
        Seconds to wait for another process or thread that compiles it; None: `PATIENCE`, and then compile it here too.

    Raises
    ------
    CompilerError
        If there is no compiler, or it fails.
    CompilerBusy
        If another one still compiles it after `patience` seconds.
    """
    library = cached_library(graph)
    if library is not None:
        return library
    with open_cache().claim(library_key(graph), PATIENCE if patience is None else patience) as claimed:
        if not claimed and patience is not None:
            raise CompilerBusy("another process compiles this solver")
        return cached_library(graph) or _compile(graph)


def _compile(graph: ProblemGraph) -> Library:
    compiler, key = find_compiler(), library_key(graph)
    began, cache = time.perf_counter(), open_cache()

    def build(target: Path) -> None:
        source = target.with_suffix(".c")
        source.write_text(c_source(graph).text, encoding="utf-8")
        compiler.build(source, target)

    try:
        path = cache.add(key, build)
    except OSError as error:
        raise CompilerError(f"the compiled solver cannot be written to {cache.folder}: {error.strerror}") from error
    seconds = time.perf_counter() - began
    note_build(path, graph, seconds)
    origin = f"compiled in {seconds:.1f} s"
    return _load(key, path, f"{origin}, {cache.note}" if cache.note else origin, seconds)


def cached_library(graph: ProblemGraph) -> Library | None:
    """Load the solver of a structure if it was compiled before, and can be loaded.

    Raises
    ------
    CompilerError
        If there is no compiler.
    """
    key = library_key(graph)
    if key in _loaded:
        return _loaded[key]
    path = open_cache().find(key)
    try:
        library = None if path is None else _load(key, path, "loaded from the cache")
    except CompilerError:  # another process has just removed it, or a machine of another kind has built it
        return None
    if path is not None:
        note_load(path)
    return library


def library_key(graph: ProblemGraph) -> str:
    """Digest of all that a shared object depends on: structure, generators, compiler, flags, processor."""
    return _key(graph.key, find_compiler())


_loaded: dict[str, Library] = {}


def _load(key: str, path: Path, origin: str, seconds: float | None = None) -> Library:
    try:
        handle = ctypes.CDLL(str(path))
        handle.ocpkit_advance  # noqa: B018 - or it is another library
    except (OSError, AttributeError) as error:
        path.unlink(missing_ok=True)  # a compiler that is mended later must get its turn
        drop_record(path)
        raise CompilerError(f"the compiled solver cannot be loaded: {error}") from error
    handle.ocpkit_scratch_size.argtypes, handle.ocpkit_scratch_size.restype = [ctypes.c_void_p], ctypes.c_long
    handle.ocpkit_advance.restype = None
    handle.ocpkit_advance.argtypes = [ctypes.c_void_p, ctypes.c_long, *[ctypes.c_double] * 3]
    handle.ocpkit_resume.argtypes, handle.ocpkit_resume.restype = [ctypes.c_void_p], None
    handle.ocpkit_certify.argtypes, handle.ocpkit_certify.restype = [ctypes.c_void_p], ctypes.c_long
    if hasattr(handle, "ocpkit_augmented_advance"):
        handle.ocpkit_augmented_advance.restype = handle.ocpkit_augmented_settle.restype = None
        handle.ocpkit_augmented_advance.argtypes = handle.ocpkit_advance.argtypes
        handle.ocpkit_augmented_settle.argtypes = [ctypes.c_void_p]
    _loaded[key] = Library(handle, origin, seconds)
    return _loaded[key]


@lru_cache(maxsize=256)
def _key(structure: str, compiler: Compiler) -> str:
    text = "\n".join([structure, _generators(), compiler.identity])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _generators() -> str:
    digest, folder = hashlib.sha256(), files("ocpkit.engines.c")
    for name in GENERATORS:
        digest.update(folder.joinpath(name).read_bytes())
    return digest.hexdigest()
