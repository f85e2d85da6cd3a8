"""The system's C compiler: which one, with which flags, and how it builds a shared object."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ocpkit.errors import UnsupportedProblem

# No -ffast-math: a NaN must stay one. These only drop errno and traps, which nobody looks at, and divide by a number
# that divides often by multiplying with its inverse.
ARITHMETIC = ("-fno-math-errno", "-fno-trapping-math", "-freciprocal-math")
FLAGS = ("-std=gnu11", "-O3", "-march=native", *ARITHMETIC, "-fPIC", "-shared")
# Passes of gcc that take a tenth of its time on long straight-line code, which they do not make faster.
WITHOUT = ("-fno-tree-pre", "-fno-tree-slp-vectorize")
CANDIDATES = ("cc", "gcc", "clang")
ZIG = [sys.executable, "-m", "ziglang", "cc"]  # clang from PyPI, for where nothing else is installed
UNCHECKED = ("-fno-sanitize=undefined",)  # which zig adds by itself
ERROR_LINES = 5
PATIENCE = 1800  # seconds after which a compiler hangs


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
        """The same without optimization: a fifth of the time, code a few times slower, still far ahead of Python."""
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
            done = _run(command, target.parent)
        except OSError as error:
            raise CompilerError(f"the C compiler cannot be run: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise CompilerError(f"{shlex.join(self.command)} was not done after {PATIENCE} s") from error
        if done.returncode < 0:
            raise CompilerError(f"{shlex.join(self.command)} was killed by signal {-done.returncode}")
        if done.returncode or not target.exists():
            said = " | ".join(done.stderr.strip().splitlines()[:ERROR_LINES])
            raise CompilerError(f"{shlex.join(self.command)} could not compile the solver: {said}")


def _run(command: list[str], scratch: Path) -> subprocess.CompletedProcess[str]:
    """Run a compiler with its temporary files in a folder; where the wait is broken off, it ends with all it has begun.

    A compiler is a family of processes. It is a session of its own, so that Ctrl-C goes to who waits for it.
    """
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen(
        command, text=True, errors="replace", env=environment, start_new_session=True, **streams
    ) as process:
        try:
            _, said = process.communicate(timeout=PATIENCE)
        except BaseException:
            if hasattr(os, "killpg"):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, "", said)


def find_compiler() -> Compiler:
    """Find the compiler: ``CC`` if it is set, else cc, gcc, clang, or that of the package ziglang.

    Raises
    ------
    CompilerError
        If there is none; says where it was looked for.
    """
    return _find(os.environ.get("CC", ""), os.environ.get("OCPKIT_CFLAGS", ""), os.environ.get("PATH", ""))


@lru_cache(maxsize=8)
def _find(cc: str, extra_flags: str, search_path: str) -> Compiler:
    chosen = _words("OCPKIT_CFLAGS", extra_flags)
    zig = [ZIG] if find_spec("ziglang") is not None else []
    for words in [_words("CC", cc)] if cc.strip() else [*([name] for name in CANDIDATES), *zig]:
        program = shutil.which(words[0], path=search_path)
        if program is None:
            continue
        command = (program, *words[1:])
        try:
            said = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if said.returncode == 0:
            version = (said.stdout.strip().splitlines() or [program])[0]
            of_clang = UNCHECKED if words is ZIG else ()
            of_family = of_clang if "clang" in said.stdout else WITHOUT
            return Compiler(command, (*FLAGS, *of_family, *chosen), version)
    looked_for = f"CC={cc}" if cc.strip() else f"{', '.join(CANDIDATES)}, the package ziglang"
    raise CompilerError(f"no C compiler was found ({looked_for})")


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
