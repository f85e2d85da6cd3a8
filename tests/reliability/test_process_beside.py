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
    usual = "signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # whatever the tests themselves are run under
    code = f"import signal\n{usual}\n{BUILDS}build = begin_build(trace_problem(scalar(0.81)))\nbegun()\n{ending}"
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
    assert len((tmp_path / "begun").read_text().split()) == 2  # without optimization, and with
    assert len(list((tmp_path / "cache").glob("*.so"))) == 1
    nothing_is_left(tmp_path)


def run(code: str, surroundings: dict[str, str], *arguments: str, cwd: Path | None = None) -> str:
    """Run a script in its surroundings; return what it prints."""
    command = [sys.executable, *arguments, "-c", BUILDS + code]
    done = subprocess.run(command, env=surroundings, cwd=cwd, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_compiler_that_hangs_when_asked_for_its_version(tmp_path: Path) -> None:
    """It is asked once, but in the time of a solve that has little of it."""
    surroundings = environment(tmp_path, "exit")
    Path(surroundings["CC"]).write_text("#!/bin/sh\necho asked >> asked\nsleep 62.1\n")
    said = run(
        "hurried = DDP(time_limit=1.0).solve(scalar(0.85))\n"
        "print(hurried.success, hurried.details.why)\n"
        "for _ in range(3): print(DDP().solve(scalar(0.85)).details.why)",
        surroundings,
        cwd=tmp_path,
    )
    hurried, *whys = said.splitlines()
    assert hurried.startswith("True")
    assert "has not said its version in" in hurried
    assert len(whys) == 3
    assert all("no C compiler was found" in why for why in whys)
    assert len((tmp_path / "asked").read_text().split()) == 2


def test_a_compiler_that_does_not_stop_talking(tmp_path: Path) -> None:
    surroundings = environment(tmp_path, "exec yes")
    said = run(
        "from ocpkit import UnsupportedProblem\ntry: DDP(engine='c').solve(scalar(0.86))\n"
        "except UnsupportedProblem as error: print(error)",
        surroundings,
    )
    assert "did not stop talking" in said
    assert len(said) < 500
    nothing_is_left(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_builds_for_itself(tmp_path: Path) -> None:
    """What it has inherited is its parent's, also where the parent's controller is stepped in it."""
    said = run(
        "controller = MPC(scalar(0.87), DDP(max_iterations=2))\nchild = os.fork()\n"
        "if child == 0:\n    print(controller.warm_up(60), flush=True)\n    os._exit(0)\n"
        "os.waitpid(child, 0)\nprint(controller.warm_up(60))",
        environment(tmp_path),
    )
    assert said.split() == ["True", "True"]


def test_files_in_the_current_folder_are_no_modules_of_the_builder(tmp_path: Path) -> None:
    """Where the interpreter that asks for a build is isolated from them."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "json.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path[:0] = {[str(Path(__file__).parents[1]), *sys.path]!r}\n{BUILDS}"
        "assert begin_build(trace_problem(scalar(0.88))).wait(60) is not None"
    )
    command = [sys.executable, "-I", str(script)]
    assert subprocess.run(command, env=environment(tmp_path), cwd=folder, check=False).returncode == 0
    assert not (tmp_path / "ran").exists()


def test_an_interpreter_that_prints_when_it_starts(tmp_path: Path) -> None:
    packages, surroundings = tmp_path / "packages", environment(tmp_path)
    packages.mkdir()
    (packages / "sitecustomize.py").write_text("print('hello', flush=True)\n")
    surroundings["PYTHONPATH"] = os.pathsep.join([str(packages), surroundings["PYTHONPATH"]])
    assert run("print(begin_build(trace_problem(scalar(0.89))).wait(60).quick)", surroundings).split() == [
        "hello",
        "False",
    ]


@pytest.mark.parametrize("program", ["''", "None"])
def test_an_interpreter_that_does_not_know_itself(program: str, tmp_path: Path) -> None:
    said = run(
        f"from ocpkit.solvers.ddp import switch\nswitch.WORTH = 0.0\nsys.executable = {program}\n"
        "print(DDP().solve(scalar(0.90)).details.why)",
        environment(tmp_path),
    )
    assert "does not know its own program" in said


def test_no_folder_for_files_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    surroundings = environment(tmp_path) | {"OCPKIT_CACHE": str(tmp_path / "file" / "cache")}
    said = run(
        "import tempfile\ndef refuse(*_, **__): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile.mkdtemp = refuse\nprint(DDP().solve(scalar(0.91)).details.why)",
        surroundings,
    )
    assert "there is no folder for compiled solvers" in said
