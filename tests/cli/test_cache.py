"""`ocpkit cache`: what each compiled solver is, what it cost, and what it has saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from problems import scalar
from typer.testing import CliRunner

from ocpkit import DDP
from ocpkit.cli.commands import app
from ocpkit.engines.c import library
from ocpkit.engines.c.cache import open_cache
from ocpkit.engines.c.records import Record, note_build, note_load, read_record
from ocpkit.engines.graphs import trace_problem


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a process that has loaded nothing."""
    monkeypatch.setenv("OCPKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_loaded", {})
    return tmp_path / "cache"


def entry(key: str, content: bytes = b"code") -> Path:
    """Put a file into the cache."""
    return open_cache().add(key, lambda target: target.write_bytes(content) and None)


def listed() -> dict[str, Any]:
    """What the command prints as JSON."""
    done = CliRunner().invoke(app, ["cache", "list", "--json"])
    assert done.exit_code == 0
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def shown(*words: str) -> str:
    """What the command prints for people."""
    done = CliRunner().invoke(app, ["cache", *words])
    assert done.exit_code == 0
    return done.stdout


def test_a_build_and_its_loads_are_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = scalar(0.71)
    for _ in range(3):
        monkeypatch.setattr(library, "_loaded", {})  # a new process
        assert DDP(engine="c").solve(problem).success
    (file,) = listed()["files"]
    assert (file["problem"], file["states"], file["controls"]) == (problem.name, 1, 1)
    assert (file["engine"], file["kinds"], file["loads"]) == ("ddp", 1, 2)
    assert file["seconds"] > 0
    assert file["saved"] == pytest.approx(2 * file["seconds"])


def test_total_is_the_sum(folder: Path) -> None:
    graph = trace_problem(scalar(0.72))
    for key, seconds, loads in (("a" * 32, 2.0, 3), ("b" * 32, 0.5, 0)):
        path = entry(key)
        note_build(path, graph, seconds)
        for _ in range(loads):
            note_load(path)
    entry("c" * 32, b"without a record")
    total = listed()["total"]
    assert (total["seconds"], total["loads"], total["saved"]) == (2.5, 3, 6.0)
    assert total["bytes"] == 2 * len(b"code") + len(b"without a record")
    for words in ([], ["list"]):
        (last,) = (line for line in shown(*words).splitlines() if "total of 3" in line)
        assert last.split()[3:] == ["0", "2.5", "3", "6.0"]


def test_names_are_no_markup(folder: Path) -> None:
    path = entry("d" * 32)
    note_build(path, trace_problem(scalar(0.73)), 1.0)
    record = json.loads(path.with_suffix(".json").read_text()) | {"problem": "[/red]"}
    path.with_suffix(".json").write_text(json.dumps(record))
    assert "[/red]" in shown("list")


SOUND = {"problem": "p", "states": 1, "controls": 1, "kinds": 1, "engine": "ddp", "seconds": 1.0, "loads": 0}


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b"null",
        b"{",
        b"[" * 100_000,
        json.dumps(SOUND | {"more": 1}).encode(),
        json.dumps({"problem": "p"}).encode(),
        json.dumps(SOUND | {"seconds": "1"}).encode(),
        json.dumps(SOUND | {"seconds": float("nan")}).encode(),
        json.dumps(SOUND | {"loads": 10**400}).encode(),
        json.dumps(SOUND | {"loads": -1}).encode(),
        json.dumps(SOUND | {"states": None}).encode(),
        json.dumps(SOUND | {"problem": 3}).encode(),
    ],
)
def test_damaged_records_are_none(folder: Path, damaged: bytes) -> None:
    path = entry("e" * 32)
    path.with_suffix(".json").write_bytes(json.dumps(SOUND).encode())
    assert read_record(path) == Record(**SOUND)
    path.with_suffix(".json").write_bytes(damaged)
    note_load(path)
    assert path.with_suffix(".json").read_bytes() == damaged
    assert "unknown" in shown("list")
    assert listed()["files"] == [{"file": path.name, "bytes": 4, "used": listed()["files"][0]["used"]}]


def test_a_record_that_cannot_be_written_is_no_error(folder: Path) -> None:
    path = entry("f" * 32)
    path.with_suffix(".json").mkdir()
    note_build(path, trace_problem(scalar(0.74)), 1.0)
    assert sorted(each.suffix for each in folder.iterdir()) == [".json", ".so"]
    assert "unknown" in shown("list")
    shown("clear")
    assert list(folder.iterdir()) == []


def test_clear_removes_records(folder: Path) -> None:
    note_build(entry("a" * 32), trace_problem(scalar(0.75)), 1.0)
    assert "removed 1 compiled" in shown("clear")
    assert list(folder.iterdir()) == []


def test_a_record_goes_with_its_file(folder: Path) -> None:
    path = entry("a" * 32)
    note_build(path, trace_problem(scalar(0.76)), 1.0)
    path.unlink()
    kept = entry("b" * 32)
    assert list(folder.iterdir()) == [kept]
