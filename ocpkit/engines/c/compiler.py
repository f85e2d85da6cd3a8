"""The system's C compiler: which one, with which flags, and how it builds a shared object."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ocpkit.boundary.deadline import time_left
from ocpkit.errors import UnsupportedProblem

# No -ffast-math: a NaN must stay one. These only drop errno and traps, which nobody looks at, and divide by a number
# that divides often by multiplying with its inverse.
ARITHMETIC = ("-fno-math-errno", "-fno-trapping-math", "-freciprocal-math")
FLAGS = ("-std=gnu11", "-O3", "-march=native", *ARITHMETIC, "-fPIC", "-shared")
# Passes of gcc that take long on straight-line code, which they do not make faster.
WITHOUT = ("-fno-tree-pre", "-fno-tree-slp-vectorize")
CANDIDATES = ("cc", "gcc", "clang")
ZIG = [sys.executable, "-m", "ziglang", "cc"]  # clang from PyPI, for where nothing else is installed
UNCHECKED = ("-fno-sanitize=undefined",)  # which zig adds by itself
ERROR_LINES = 5
LONGEST_MESSAGE, LONGEST_TALK = 2_000, 2**24  # bytes that are read, and that are too many
PATIENCE, SHORT_PATIENCE = 1800.0, 3.0  # seconds after which a compiler hangs, and one that is asked for its version
SHARE = 0.2  # of the time that a solve has left, which finding a compiler may take
INTERVAL = 0.5  # seconds between two looks at a compiler that works


class CompilerError(UnsupportedProblem):
    """There is no C compiler, or it could not build the source."""


@dataclass(frozen=True)
class Compiler:
    """A program and its flags.

    Attributes
    ----------
    command
        The program, with the arguments that ``CC`` gives it.
    flags
        `FLAGS`, of gcc `WITHOUT`, and, later, so that they win, the words of ``OCPKIT_CFLAGS``.
    version
        First line of ``--version``.
    """

    command: tuple[str, ...]
    flags: tuple[str, ...]
    version: str

    @property
    def quick(self) -> Compiler:
        """The same without optimization: ready much sooner, code a few times slower, still far ahead of Python."""
        return replace(self, flags=(*self.flags, "-O0"))

    @property
    def identity(self) -> str:
        """Everything beside the source that the machine code depends on."""
        return "\n".join([self.version, *self.flags, _processor()])

    def build(self, source: Path, target: Path) -> None:
        """Compile one file into a shared object.

        Raises
        ------
        CompilerError
            With the first lines that the compiler said.
        """
        command = [*self.command, *self.flags, "-o", str(target), str(source), "-lm"]
        try:
            status, said = _run(command, PATIENCE, target.parent)
        except OSError as error:
            raise CompilerError(f"the C compiler cannot be run: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise CompilerError(
                f"{shlex.join(self.command)} was not done after {PATIENCE} s, or did not stop talking"
            ) from error
        if status < 0:
            raise CompilerError(f"{shlex.join(self.command)} was killed by signal {-status}")
        if status or not target.exists():
            lines = " | ".join(said.strip().splitlines()[:ERROR_LINES]) or "it says nothing"
            raise CompilerError(f"{shlex.join(self.command)} could not compile the solver: {lines}")


def _run(command: Sequence[str], patience: float, scratch: Path | None = None) -> tuple[int, str]:
    """Run a compiler; return its status and the beginning of what it says.

    A compiler is a family of processes. It is a session of its own, so that Ctrl-C goes to who waits for it, and ends
    with all that it has begun. It talks to a file, which nobody that it leaves behind can keep open.

    Raises
    ------
    OSError
        If it cannot be run.
    subprocess.TimeoutExpired
        If it is not done in time, or does not stop talking.
    """
    environment = os.environ | ({} if scratch is None else {"TMPDIR": str(scratch)})
    with tempfile.TemporaryFile() as said:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said}
        with subprocess.Popen(command, env=environment, start_new_session=True, **streams) as process:
            try:
                deadline = time.monotonic() + patience
                while process.poll() is None:
                    if time.monotonic() > deadline or os.fstat(said.fileno()).st_size > LONGEST_TALK:
                        raise subprocess.TimeoutExpired(command, patience)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(min(INTERVAL, patience))
            finally:
                if hasattr(os, "killpg"):
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)
                process.kill()
        said.seek(0)
        return process.returncode, said.read(LONGEST_MESSAGE).decode(errors="replace")


def find_compiler() -> Compiler:
    """Find the compiler: ``CC`` if it is set, else cc, gcc, clang, or that of the package ziglang.

    Raises
    ------
    CompilerError
        If there is none; says where it was looked for.
    """
    found = _find(os.environ.get("CC", ""), os.environ.get("OCPKIT_CFLAGS", ""), os.environ.get("PATH", ""))
    if isinstance(found, str):
        raise CompilerError(found)
    return found


@lru_cache(maxsize=8)
def _find(cc: str, extra_flags: str, search_path: str) -> Compiler | str:
    """Return the compiler, or why there is none: looked for once."""
    chosen = _words("OCPKIT_CFLAGS", extra_flags)
    zig = [ZIG] if find_spec("ziglang") is not None else []
    for words in [_words("CC", cc)] if cc.strip() else [*([name] for name in CANDIDATES), *zig]:
        program = shutil.which(words[0], path=search_path)
        if program is None:
            continue
        command = (program, *words[1:])
        patience = min(SHORT_PATIENCE, SHARE * time_left())
        try:
            status, said = _run([*command, "--version"], patience)
        except OSError:
            continue
        except subprocess.TimeoutExpired as error:
            if patience < SHORT_PATIENCE:  # a solve with more time asks again
                raise CompilerError(f"{program} has not said its version in {max(patience, 0):.2g} s") from error
            continue
        if status == 0:
            version = (said.strip().splitlines() or [program])[0]
            of_clang = UNCHECKED if words is ZIG else ()
            of_family = of_clang if "clang" in said else WITHOUT
            return Compiler(command, (*FLAGS, *of_family, *chosen), version)
    looked_for = f"CC={cc}" if cc.strip() else f"{', '.join(CANDIDATES)}, the package ziglang"
    return f"no C compiler was found ({looked_for})"


def _words(variable: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise CompilerError(f"{variable}={text} cannot be read: {error}") from error


@lru_cache(maxsize=1)
def _processor() -> str:
    """Processor features that -march=native depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(kept))])
