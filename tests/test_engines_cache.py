"""Compiled solvers: found again, built once, never half-written, never needed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from problems import BY_NAME, scalar
from typer.testing import CliRunner

import ocpkit.math as m
from ocpkit import DDP, AugmentedLagrangian, Details, Problem, ProblemError, Status, UnsupportedProblem, models
from ocpkit.cli.commands import app
from ocpkit.engines.c import cache, compiler, library, lock
from ocpkit.engines.c.cache import Cache, open_cache
from ocpkit.engines.c.lock import locked
from ocpkit.engines.graphs import trace_problem
from ocpkit.solvers.ddp.compiled import STATUSES, verdict


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a process that has loaded nothing."""
    monkeypatch.setenv("OCPKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_loaded", {})
    return tmp_path / "cache"


def solve(problem: Problem, engine: str = "c") -> Details:
    """Solve and return what is said of the engine."""
    solution = DDP(engine=engine).solve(problem)
    assert solution.success
    assert solution.cost == pytest.approx(DDP(engine="numpy").solve(problem).cost, rel=1e-12)
    return solution.details


def compiled(details: Details) -> bool:
    """Whether the engine was compiled in this process, not loaded."""
    return details.engine == "c" and details.seconds.compile is not None


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process starts with."""
    monkeypatch.setattr(library, "_loaded", {})


def test_compiled_once_then_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled(solve(scalar(0.81)))
    assert compiled(solve(scalar(0.81)))  # the same library, still in memory
    forget(monkeypatch)
    assert not compiled(solve(scalar(0.81)))
    assert [path.suffix for path in sorted(folder.iterdir())] == [".json", ".so"]
    assert compiled(solve(scalar(0.82)))
    assert len(open_cache().entries()) == 2


def test_other_states_parameters_and_horizons_use_the_same_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = BY_NAME["parameters"].problem()
    DDP(engine="c").solve(problem)
    monkeypatch.setattr(library, "c_source", None)
    p = problem.parameters
    others = [
        problem.replace(x0=[1.0, -1.0]),
        problem.replace(parameters=[0.3, 0.2, 0.1]),
        problem.replace(stages=problem.stages[:7], controls=()),
        problem.replace(parameters=np.linspace(p, 2 * p, problem.horizon + 1)),
    ]
    for other in others:
        solve(other)


@pytest.mark.slow
def test_a_damaged_file_is_built_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solve(scalar(0.83))
    (path,) = folder.glob("*.so")
    content = path.read_bytes()
    for damage in (content[: len(content) // 2], b"", content[:-1] + bytes([content[-1] ^ 1])):
        path.unlink()
        path.write_bytes(damage)
        forget(monkeypatch)
        assert compiled(solve(scalar(0.83)))
        assert [entry.path.read_bytes() for entry in open_cache().entries()] == [content]


def test_a_file_that_goes_before_it_is_loaded_is_built_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled(solve(scalar(0.90)))
    forget(monkeypatch)
    monkeypatch.setattr(Cache, "find", lambda self, key: self.folder / f"{key}-gone.so")
    assert compiled(solve(scalar(0.90)))


def _race(folder: str, barrier: Any, results: Any) -> None:
    os.environ["OCPKIT_CACHE"] = folder
    barrier.wait()
    results.put(solve(scalar(0.84)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_several_processes_at_once(folder: Path, count: int) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    workers = [context.Process(target=_race, args=(str(folder), barrier, results)) for _ in range(count)]
    for worker in workers:
        worker.start()
    said = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted(map(compiled, said)) == [*[False] * (count - 1), True]
    assert all(details.engine == "c" for details in said)
    assert [path.suffix for path in sorted(folder.iterdir())] == [".json", ".so"]


def test_several_threads_at_once(folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: solve(scalar(0.93)), range(4)))
    assert all(details.why == said[0].why for details in said)
    assert compiled(said[0])


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    """Also while its file is removed again and again."""
    inside, path = list[int](), tmp_path / "lock"

    def enter(_: int) -> int:
        with locked(path, 60) as held:
            assert held
            inside.append(1)
            time.sleep(0.001)
            alone = len(inside)
            inside.pop()
            return alone

    with ThreadPoolExecutor(8) as pool:
        assert {*pool.map(enter, range(64))} == {1}
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_free(folder: Path) -> None:
    key = library.library_key(trace_problem(scalar(0.94)))
    hold = (
        "import sys, time; from ocpkit.engines.c.cache import open_cache\n"
        "with open_cache().claim(sys.argv[1], 0): print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, key], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        with open_cache().claim(key, 0.05) as held:
            assert not held
        holder.kill()
    assert (folder / f"building-{key}.lock").exists()
    assert compiled(solve(scalar(0.94)))
    assert [path.suffix for path in sorted(folder.iterdir())] == [".json", ".so"]


KILLED = """
import os, signal
from pathlib import Path
from ocpkit.engines.c.cache import open_cache

def build(target):
    target.with_suffix(".c").write_text("half of it")
    print(open_cache().folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

with open_cache().claim("key", 0):
    open_cache().add("key", build)
"""


def killed_in_a_build(environment: dict[str, str]) -> Path:
    """Let a process be killed while it builds, and return its cache."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    return Path(done.stdout.strip())


def test_what_a_killed_build_leaves_goes_with_the_next_one(folder: Path) -> None:
    """But nothing of one that goes on, in this process or another."""
    assert killed_in_a_build({}) == folder
    assert len(list(folder.glob("building-key*"))) == 2
    with open_cache().claim("other", 0):
        (folder / "building-other-1-going-on").mkdir()
        assert compiled(solve(scalar(0.935)))
        assert sorted(path.name for path in folder.glob("building-*")) == [
            "building-other-1-going-on",
            "building-other.lock",
        ]


def test_a_temporary_folder_goes_with_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process that has made it was killed, but not where it lives."""
    temporary, cannot = tmp_path / "temporary", tmp_path / "file" / "cache"
    temporary.mkdir()
    cannot.parent.write_text("")
    environment = {"TMPDIR": str(temporary), "OCPKIT_CACHE": str(cannot)}
    left = killed_in_a_build(environment)
    assert left.parent == temporary
    monkeypatch.setattr(cache.tempfile, "tempdir", str(temporary))
    first, second = cache._open(cannot), cache._open(cannot / "another")
    assert sorted(temporary.iterdir()) == sorted([first.folder, second.folder])


def test_without_locks_everybody_builds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    with open_cache().claim("key", 0) as first, open_cache().claim("key", 0) as second:
        assert first
        assert second
    assert compiled(solve(scalar(0.95)))


def test_c_waits_and_then_compiles_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, done = library.library_key(trace_problem(scalar(0.97))), Event()

    def compile_slowly() -> None:
        with open_cache().claim(key, 0):
            done.wait(60)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(compile_slowly)
        while not (folder / f"building-{key}.lock").exists():
            time.sleep(0.001)
        waiting = pool.submit(solve, scalar(0.97))
        time.sleep(0.2)
        assert not waiting.done()
        monkeypatch.setattr(library, "PATIENCE", 0.0)
        assert compiled(solve(scalar(0.97)))
        done.set()
        assert waiting.result(60).engine == "c"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as root, who may write anywhere: the folder's parent is a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OCPKIT_CACHE", str(tmp_path / "file" / "cache"))
    forget(monkeypatch)
    said = solve(scalar(0.85))
    assert compiled(said)
    assert "cannot be written (Not a directory)" in said.why


def test_least_recently_used_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Cache(tmp_path)
    for i, key in enumerate("abc"):
        path = store.add(key, lambda target, i=i: target.write_bytes(bytes([i]) * 100))
        os.utime(path, (1000 + i, 1000 + i))
    assert store.find("a") is not None  # which makes it the most recently used one
    monkeypatch.setattr(cache, "MAX_BYTES", 300)
    store.add("d", lambda target: target.write_bytes(b"d" * 100))
    assert store.find("b") is None
    assert all(store.find(key) is not None for key in "acd")
    monkeypatch.setattr(cache, "MAX_BYTES", 50)
    store.add("e", lambda target: target.write_bytes(b"e" * 100))
    assert [entry.path.name[0] for entry in store.entries()] == ["e"]


def test_a_build_that_ends_in_another_process_meanwhile_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the folder listed is gone when it is looked at."""
    listed = Path.glob
    gone = {"building-*": [tmp_path / "building-gone"], "*.so": [tmp_path / "gone.so"]}
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*listed(self, pattern), *gone.get(pattern, [])])
    assert Cache(tmp_path).add("a", lambda target: target.write_bytes(b"a")).exists()


def test_the_key_names_what_the_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = trace_problem(scalar(0.86))
    keys = [library.library_key(graph), library.library_key(trace_problem(scalar(0.87)))]
    monkeypatch.setenv("OCPKIT_CFLAGS", "-O0")
    keys.append(library.library_key(graph))
    assert len(set(keys)) == 3
    assert library.library_key(trace_problem(scalar(0.86))) == keys[2]


# ------------------------------------------------------------------------------------------- which compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_every_compiler_builds_what_is_written(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds, stages of several kinds, and the augmented Lagrangian."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("CC", name)
    for case in ("varying-sizes", "parameters"):
        assert compiled(solve(BY_NAME[case].problem()))
    constrained = models.get("minimum-time").build(horizon=10)
    ours, expected = (AugmentedLagrangian(inner=DDP(engine=e)).solve(constrained) for e in ("c", "numpy"))
    assert compiled(ours.details)
    assert ours.status is expected.status
    assert ours.cost == pytest.approx(expected.cost, rel=1e-6)


def test_a_compiler_from_a_package_serves_where_none_is_installed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package like it, whose compiler is the system's, shows how it is called."""
    cc, package = shutil.which("cc"), tmp_path / "packages" / "ziglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(f"import os, sys\nos.execv({cc!r}, [{cc!r}, *sys.argv[2:]])\n")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
    monkeypatch.setattr(compiler, "CANDIDATES", ())
    compiler._find.cache_clear()
    try:
        assert compiler.find_compiler().command == (sys.executable, "-m", "ziglang", "cc")
        assert "-fPIC" in compiler.find_compiler().flags
        assert compiled(solve(scalar(0.99)))
    finally:
        compiler._find.cache_clear()


@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-ffinite-math-only"])
def test_flags_that_drop_nan_are_refused(flag: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCPKIT_CFLAGS", flag)
    with pytest.raises(UnsupportedProblem):
        DDP(engine="c").solve(scalar(0.98))
    assert solve(scalar(0.98), "auto").engine == "vm"


@pytest.mark.parametrize("x0", [1.5, 1e200])
def test_no_success_without_a_finite_cost(x0: float, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a compiler is kept from saying that it takes all numbers for finite."""
    monkeypatch.setenv("OCPKIT_CFLAGS", "-ffinite-math-only -U__FINITE_MATH_ONLY__")
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: m.where(m.greater(x[0], 1.0), np.nan, u[0] ** 2),
        terminal_cost=lambda x: x[0] ** 2,
        x0=[x0],
        horizon=3,
        control_size=1,
    )
    solution = DDP(engine="c").solve(problem)
    assert not np.isfinite(solution.cost)
    assert solution.status in (Status.DIVERGED, Status.INVALID_INPUT)
    for number, status in enumerate(STATUSES):
        assert verdict(number, 1.0) is status
        assert verdict(number, np.nan) in (None, Status.DIVERGED, Status.INVALID_INPUT)


@pytest.mark.parametrize("variable", ["CC", "OCPKIT_CFLAGS"])
def test_unreadable_words_are_an_error(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "cc 'unfinished")
    with pytest.raises(UnsupportedProblem, match=variable):
        DDP(engine="c").solve(scalar(0.81))
    assert solve(scalar(0.81), "auto").engine == "vm"


# ---------------------------------------------------------------------------------------------- no compiler
def broken_compiler(tmp_path: Path) -> str:
    """A program that says its version and compiles nothing."""
    script = tmp_path / "broken-cc"
    script.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit\necho "no room on device" >&2; exit 1\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_without_a_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert solve(scalar(0.88), "auto").why == "no C compiler was found (CC=no-such-compiler)"
    with pytest.raises(ProblemError, match="no C compiler was found"):
        DDP(engine="c").solve(scalar(0.88))


def test_a_compiler_that_fails(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", broken_compiler(tmp_path))
    with pytest.raises(ProblemError, match="no room on device"):
        DDP(engine="c").solve(scalar(0.89))
    assert list(folder.iterdir()) == []


def test_compiler_variable_may_hold_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -DNDEBUG")
    assert compiler.find_compiler().command[1:] == ("-DNDEBUG",)


# --------------------------------------------------------------------------------------------- command line
def test_cache_list_and_clear(folder: Path) -> None:
    solve(scalar(0.92))
    (path,) = folder.glob("*.so")
    listed = json.loads(CliRunner().invoke(app, ["cache", "list", "--json"]).stdout)
    assert listed["folder"] == str(folder)
    assert [(file["file"], file["bytes"]) for file in listed["files"]] == [(path.name, path.stat().st_size)]
    assert path.stem[:20] in CliRunner().invoke(app, ["cache", "list"]).stdout
    (folder / "building-left-behind").mkdir()
    assert "removed 1 compiled" in CliRunner().invoke(app, ["cache", "clear"]).stdout
    assert list(folder.iterdir()) == []


def test_solve_takes_an_engine() -> None:
    for engine in ("numpy", "vm", "c"):
        done = CliRunner().invoke(app, ["solve", "double-integrator", "--engine", engine, "--json"])
        assert done.exit_code == 0
        assert json.loads(done.stdout)["engine"] == engine
    for wrong in (["--engine", "fortran"], ["--engine", "c", "--solver", "gd"]):
        assert CliRunner().invoke(app, ["solve", "double-integrator", *wrong]).exit_code == 2
