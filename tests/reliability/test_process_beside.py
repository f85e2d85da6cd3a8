"""The process beside, in surroundings that users have: nothing is left behind, and one structure is built once."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocpkit.engines.c.compiler import find_compiler

LONGEST = 60.0
BUILDS = """
import os, sys, time
from ocpkit import DDP, MPC
from ocpkit.engines.c.build import begin_build
from ocpkit.engines.graphs import trace_problem
from problems import scalar
def begun():
    while not os.path.exists(os.environ["BEGUN"]):
        time.sleep(0.02)
"""


def environment(folder: Path, compiler: str = "") -> dict[str, str]:
    """Return a user's: an empty cache, an empty folder for temporary files, and a compiler that notes its beginning."""
    (folder / "temporary").mkdir()
    found = {name: value for name, value in os.environ.items() if name != "OCPKIT_BUILD_BESIDE"}
    found |= {"OCPKIT_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "temporary")}
    found |= {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        "BEGUN": str(folder / "begun"),
    }
    if compiler:
        script = folder / "cc"
        script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit\necho $$ >> "$BEGUN"\n{compiler}\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        found["CC"] = str(script)
    return found


def nothing_is_left(folder: Path) -> None:
    """Wait until every compiler that began has ended, and look at the files."""
    deadline = time.monotonic() + LONGEST
    for process in (folder / "begun").read_text().split():
        while Path(f"/proc/{process}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    while [path for path in (folder / "cache").iterdir() if path.name.startswith("building-")]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list((folder / "temporary").iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("os._exit(3)", 3),
        ("sys.exit(5)", 5),
        ("os.abort()", -signal.SIGABRT),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGHUP)", -signal.SIGHUP),
    ],
)
def test_however_an_interpreter_ends(ending: str, status: int, tmp_path: Path) -> None:
    """Its exit status is its own, and the compiler ends with it."""
    code = f"import signal{BUILDS}build = begin_build(trace_problem(scalar(0.81)))\nbegun()\n{ending}"
    surroundings = environment(tmp_path, "exec sleep 61.7")
    done = subprocess.run([sys.executable, "-c", code], env=surroundings, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == status
    nothing_is_left(tmp_path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_an_interrupt_while_a_controller_warms_up(tmp_path: Path) -> None:
    code = f"{BUILDS}MPC(scalar(0.82)).warm_up()"
    surroundings = environment(tmp_path, "exec sleep 61.8")
    with subprocess.Popen([sys.executable, "-c", code], env=surroundings, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + LONGEST
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LONGEST)
    assert said.rstrip().endswith(b"KeyboardInterrupt")
    nothing_is_left(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="file descriptors are a POSIX matter")
def test_closed_streams(tmp_path: Path) -> None:
    """Descriptors 0, 1 and 2 may be the files that the process beside is given."""
    code = f"{BUILDS}sys.exit(7 if begin_build(trace_problem(scalar(0.83))).wait(60) is not None else 1)"
    closed = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(closed, env=environment(tmp_path), check=False).returncode == 7


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs locks on files")
def test_cold_processes_build_one_structure_once(tmp_path: Path) -> None:
    code = f"{BUILDS}assert begin_build(trace_problem(scalar(0.84))).wait(60) is not None"
    surroundings = environment(tmp_path, f'exec {shlex.join(find_compiler().command)} "$@"')
    processes = [subprocess.Popen([sys.executable, "-c", code], env=surroundings) for _ in range(4)]
    assert [process.wait(2 * LONGEST) for process in processes] == [0] * 4
    assert len((tmp_path / "begun").read_text().split()) == 1
    assert len(list((tmp_path / "cache").glob("*.so"))) == 1
    nothing_is_left(tmp_path)
