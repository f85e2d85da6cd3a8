"""From the structure of a problem to a loaded C solver: from memory, from the cache on disk, or compiled."""

from __future__ import annotations

import ctypes
import hashlib
import re
import time
from dataclasses import asdict, dataclass, replace
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
    "../numbers.py",
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


def struct_fields(struct: str, file: str) -> list[tuple[str, Any]]:
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

    _fields_ = struct_fields("ddp", "ddp.c")


class AugmentedState(ctypes.Structure):
    """The struct `augmented` of kernel/units.c."""

    _fields_ = struct_fields("augmented", "units.c")


PATIENCE = 120  # seconds after which somebody else's compiler is not waited for any longer


@dataclass(frozen=True)
class BuildTimes:
    """Seconds that a build took.

    Attributes
    ----------
    generate
        Derivatives, and the C source of them.
    compile
        The compiler.
    """

    generate: float
    compile: float

    def as_record(self) -> dict[str, float]:
        """Return names and numbers, for another process."""
        return asdict(self)


@dataclass(frozen=True)
class Library:
    """A loaded solver.

    Attributes
    ----------
    origin
        Where it came from, for the user: compiled in so many seconds, or loaded from the cache.
    seconds
        What building it took, by this process or beside it; None where it was loaded.
    quick
        Whether it was compiled without optimization, to serve until the other one is ready.
    """

    handle: ctypes.CDLL
    origin: str
    seconds: BuildTimes | None = None
    quick: bool = False

    def scratch_size(self, kind_of_stage: np.ndarray) -> int:
        """Doubles of memory, beside its arrays, that a solve with these kinds of stages needs."""
        state = State(horizon=len(kind_of_stage), kind_of_stage=kind_of_stage.ctypes.data)
        size: int = self.handle.ocpkit_scratch_size(ctypes.byref(state))
        return size


def load_library(graph: ProblemGraph) -> Library:
    """Load the solver of a structure; build it, here and now, if it is not in the cache.

    Raises
    ------
    CompilerError
        If there is no compiler, or it fails.
    UnsupportedProblem
        If an operation has no counterpart in C.
    """
    library = cached_library(graph)
    if library is not None:
        return library
    key, cache = library_key(graph), open_cache()
    with cache.claim(key, PATIENCE):  # after that, also without it
        library = cached_library(graph)
        if library is None:
            began = time.perf_counter()
            text = c_source(graph.structure()).text
            times = BuildTimes(time.perf_counter() - began, 0.0)
            path, times = add_to_cache(graph, key, text, times)
            origin = f"compiled in {times.generate + times.compile:.1f} s"
            library = _load(key, path, f"{origin}, {cache.note}" if cache.note else origin, times)
    return library


def add_to_cache(
    graph: ProblemGraph, key: str, text: str, times: BuildTimes, *, quick: bool = False
) -> tuple[Path, BuildTimes]:
    """Compile the solver of a structure; return its file, and how long it took.

    Parameters
    ----------
    graph, key
        The structure, and where it goes.
    text, times
        Its source, and how long that has taken.
    quick
        Compile without optimization.

    Raises
    ------
    CompilerError
        If there is no compiler, or it fails.
    """
    compiler, cache, began = find_compiler(), open_cache(), time.perf_counter()
    if quick:
        compiler = compiler.quick

    def build(target: Path) -> None:
        source = target.with_suffix(".c")
        source.write_text(text, encoding="utf-8")
        compiler.build(source, target)

    try:
        path = cache.add(key, build)
    except OSError as error:
        raise CompilerError(f"the compiled solver cannot be written to {cache.folder}: {error.strerror}") from error
    times = replace(times, compile=time.perf_counter() - began)
    note_build(path, graph, times.generate + times.compile)
    return path, times


def cached_library(
    graph: ProblemGraph,
    origin: str = "loaded from the cache",
    times: BuildTimes | None = None,
    *,
    quick: bool = False,
) -> Library | None:
    """Load the solver of a structure if it was built before, and can be loaded.

    Parameters
    ----------
    graph
        The structure.
    origin, times
        What the library says of itself, if it is not loaded already.
    quick
        The one without optimization.

    Raises
    ------
    CompilerError
        If there is no compiler; or, where the solver has just been built (`times`), if it cannot be loaded.
    """
    key = library_key(graph, quick=quick)
    if key in _loaded:  # before the cache is looked for, which takes longer than a short solve
        return _loaded[key]
    cache = open_cache()
    path = cache.find(key)
    try:
        note = f"{origin}, {cache.note}" if cache.note and times else origin
        library = None if path is None else _load(key, path, note, times, quick=quick)
    except CompilerError:  # another process has just removed it, or a machine of another kind has built it
        if times is not None:
            raise
        return None
    if path is not None and times is None:
        note_load(path)
    return library


def library_key(graph: ProblemGraph, *, quick: bool = False) -> str:
    """Digest of all that a shared object depends on: structure, generators, compiler, flags, processor."""
    compiler = find_compiler()
    return _key(graph.structure_key, compiler.quick if quick else compiler)


_loaded: dict[str, Library] = {}


def _load(key: str, path: Path, origin: str, seconds: BuildTimes | None, *, quick: bool = False) -> Library:
    try:
        handle = ctypes.CDLL(str(path))
        handle.ocpkit_advance  # noqa: B018 - or it is another library
    except (OSError, AttributeError) as error:
        path.unlink(missing_ok=True)  # a compiler that is mended later must get its turn
        drop_record(path)
        hint = "; OCPKIT_CACHE names a folder whose files may run" if "map segment" in str(error) else ""
        raise CompilerError(f"the compiled solver cannot be loaded: {error}{hint}") from error
    handle.ocpkit_scratch_size.argtypes, handle.ocpkit_scratch_size.restype = [ctypes.c_void_p], ctypes.c_long
    handle.ocpkit_advance.restype = None
    handle.ocpkit_advance.argtypes = [ctypes.c_void_p, ctypes.c_long, *[ctypes.c_double] * 3]
    handle.ocpkit_resume.argtypes, handle.ocpkit_resume.restype = [ctypes.c_void_p], None
    handle.ocpkit_certify.argtypes, handle.ocpkit_certify.restype = [ctypes.c_void_p], ctypes.c_long
    if hasattr(handle, "ocpkit_augmented_advance"):
        handle.ocpkit_augmented_advance.restype = handle.ocpkit_augmented_settle.restype = None
        handle.ocpkit_augmented_advance.argtypes = handle.ocpkit_advance.argtypes
        handle.ocpkit_augmented_settle.argtypes = [ctypes.c_void_p]
    _loaded[key] = Library(handle, origin, seconds, quick)
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
