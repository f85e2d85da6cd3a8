"""A compiler or a cache that fails costs a solve its speed and nothing else; what others may write is never loaded."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from problems import scalar

from ocpkit import DDP, Problem, UnsupportedProblem
from ocpkit.engines.c import cache, compiler
from ocpkit.engines.c.build import begin_build
from ocpkit.engines.c.compiler import CompilerError
from ocpkit.engines.graphs import trace_problem

FACTORS = iter(range(1, 100))  # another structure for every test


def another() -> Problem:
    return scalar(0.5 + next(FACTORS) / 1000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds_beside: None) -> Path:
    """An empty cache."""
    monkeypatch.setenv("OCPKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def use_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, build: str) -> None:
    """Let a shell script compile; the words after -o are its target."""
    script = tmp_path / "cc"
    target = 'while [ "$1" != -o ]; do shift; done; target=$2'
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {build!r} && exit\n{target}\n{build}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(script))


def raises(reason: str) -> None:
    """Check that "c" says as an error why it did not compile."""
    with pytest.raises(UnsupportedProblem, match=reason):
        DDP(engine="c").solve(another())


def goes_on_without(reason: str) -> None:
    """Check that "auto" solves and says why it did not compile, and that "c" says the same."""
    problem = another()
    with suppress(CompilerError):
        begin_build(trace_problem(problem)).wait(60)
    for _ in range(2):
        solution = DDP().solve(problem)
        assert solution.success
        assert solution.details.engine == "vm"
        assert reason in solution.details.why
    with pytest.raises(UnsupportedProblem, match=reason):
        DDP(engine="c").solve(problem)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        ("kill -9 $$", "was killed by signal 9"),
        ("exit 0", "could not compile the solver"),
        ("echo rubbish > $target", "cannot be loaded"),
        (": > $target", "cannot be loaded"),
        ('printf "\\377\\376" >&2; exit 1', "could not compile the solver"),
    ],
    ids=["killed", "writes nothing", "writes rubbish", "writes an empty file", "says what is no text"],
)
def test_a_compiler_that_fails(
    build: str, reason: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_compiler(monkeypatch, tmp_path, build)
    goes_on_without(reason)
    assert list(folder.iterdir()) == []  # a mended compiler starts afresh


def test_a_compiler_that_hangs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_compiler(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(compiler, "PATIENCE", 0.2)
    raises("was not done after 0.2 s")


def test_a_solve_killed_while_it_compiles(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves is no entry, harms nobody, and goes with the next build; a day later where nothing is locked."""
    use_compiler(monkeypatch, tmp_path, f"touch {tmp_path}/begun; echo half > $target; exec sleep 60")
    code = "from ocpkit import DDP; from problems import scalar; DDP(engine='c').solve(scalar(0.4))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (leftover,) = (path for path in folder.iterdir() if path.is_dir())  # beside the file that processes lock
    monkeypatch.delenv("CC")
    assert DDP(engine="c").solve(another()).success
    assert not leftover.exists()
    leftover.mkdir()
    assert DDP(engine="c").solve(another()).success
    assert leftover.exists()
    os.utime(leftover, (0, 0))
    assert DDP(engine="c").solve(another()).success
    assert not leftover.exists()
    assert len(list(folder.glob("*.so"))) == 3


@pytest.mark.parametrize("call", ["mkdtemp", "replace"])
def test_a_full_disk(call: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.open_cache()

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache.tempfile if call == "mkdtemp" else cache.os, call, full)
    raises("No space left on device")


def test_a_folder_removed_meanwhile(folder: Path) -> None:
    cache.open_cache()
    folder.rmdir()
    assert DDP(engine="c").solve(another()).details.seconds.compile > 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


# -------------------------------------------------------------------------------------------------- privacy
def test_the_folder_is_made_for_its_user_alone(folder: Path) -> None:
    assert cache.open_cache() == cache.Cache(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_write_is_not_used(mode: int, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(mode)
    assert "can be written by others" in DDP(engine="c").solve(another()).details.why
    assert list(folder.iterdir()) == []


def test_a_folder_of_somebody_else_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(cache.os, "getuid", lambda: folder.stat().st_uid + 1)
    assert cache.open_cache().note.endswith("belongs to another user")
