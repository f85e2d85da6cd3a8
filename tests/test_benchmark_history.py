"""The benchmarks' memory: a true slow-down is flagged, noise is not, and every run leaves one line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.history import __main__ as history
from benchmarks.history import timings, versions
from benchmarks.history.paired import Verdict, compare, least_pairs

PAIRS, MARGIN, WRONG = 15, 0.05, 2
"""Of 15 pairs the interval lets two be wrong at either end."""

times = st.lists(st.floats(1e-4, 10), min_size=PAIRS, max_size=PAIRS)
seeds = st.integers(0, 2**32 - 1)


@given(times, st.lists(st.floats(-0.05, 0.05), min_size=PAIRS, max_size=PAIRS), st.permutations(range(PAIRS)), times)
def test_a_slow_down_by_a_fifth_is_flagged(
    old: list[float], noise: list[float], order: list[int], anything: list[float]
) -> None:
    """Under noise of 5 % with two pairs that say anything at all, and under any drift that a pair shares."""
    new = 1.2 * np.array(old) * np.exp(noise)
    new[order[:WRONG]] = anything[:WRONG]
    assert compare(old, new).verdict(MARGIN) is Verdict.SLOWER
    assert compare(new, old).verdict(MARGIN) is Verdict.FASTER


@given(times, st.lists(st.floats(-0.048, 0.048), min_size=PAIRS, max_size=PAIRS), st.permutations(range(PAIRS)), times)
def test_the_same_code_is_not(old: list[float], noise: list[float], order: list[int], anything: list[float]) -> None:
    new = np.array(old) * np.exp(noise)
    new[order[:WRONG]] = anything[:WRONG]
    assert compare(old, new).verdict(MARGIN) is Verdict.SAME


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_however_wild_the_noise_the_same_code_is_rarely_flagged(spread: float) -> None:
    """Both versions draw from one distribution, with no margin to help: at most half of 1 % is called slower."""
    rng = np.random.default_rng(0)
    draws = np.exp(spread * rng.standard_t(2, size=(4000, 2, PAIRS)))
    flagged = np.mean([compare(old, new).verdict(0.0) is Verdict.SLOWER for old, new in draws])
    assert flagged < 0.5 * 0.01 + 3 * np.sqrt(0.005 / 4000)


@given(seeds, st.integers(least_pairs(), 40), st.floats(0.5, 2.0))
def test_the_interval_holds_the_median_and_turns_with_the_sides(seed: int, pairs: int, factor: float) -> None:
    old, new = np.random.default_rng(seed).lognormal(size=(2, pairs))
    there, back = compare(old, factor * new), compare(factor * new, old)
    assert there.low <= there.median <= there.high
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))


@pytest.mark.parametrize("pairs", [least_pairs() - 1, 0])
def test_too_few_pairs_are_refused(pairs: int) -> None:
    compare([1.0] * least_pairs(), [1.0] * least_pairs())
    with pytest.raises(ValueError, match=f"at least {least_pairs()} pairs"):
        compare([1.0] * pairs, [1.0] * pairs)


@dataclass(eq=False)
class Told:
    """Takes the seconds that it is told, in the place of a process, and writes down who was asked for what."""

    version: str
    answer: Callable[[], float | str]
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *error: object) -> None:
        self.asked.append("end")

    def seconds(self, name: str) -> float | str:
        self.asked.append(f"{self.version} {name}")
        return self.answer()


def test_versions_take_turns_and_the_first_round_does_not_count() -> None:
    asked: list[str] = []
    old, new = (lambda v=v: Told(v, lambda: float(len(asked)), asked) for v in ("old", "new"))
    measured, missing = history.in_pairs(old, new, ["a", "b"], 2)  # type: ignore[arg-type]
    rounds = ["new a, old a, new b, old b", "old a, new a, old b, new b", "new a, old a, new b, old b"]
    assert ", ".join(asked) == ", end, end, ".join([*rounds, ""]).removesuffix(", ")
    assert measured == {"a": ([7.0, 14.0], [8.0, 13.0]), "b": ([9.0, 16.0], [10.0, 15.0])}
    assert missing == {}


def test_what_only_the_new_version_can_do_is_said_and_the_reverse_fails() -> None:
    able, unable = (lambda: Told("", lambda: 1.0)), (lambda: Told("", lambda: "AttributeError: no a"))
    assert history.in_pairs(unable, able, ["a"], 2) == ({}, {"a": "AttributeError: no a"})  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="a: AttributeError"):
        history.in_pairs(able, unable, ["a"], 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "quadrotor" in name else ()) for name in timings.TIMINGS]
)
def test_every_timing_can_be_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "SECONDS", 0.0)
    assert timings.seconds_of(name) >= 0.0


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=folder, check=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of a package that says how long it takes: 1 s, then 1.5 s."""
    folder = tmp_path / "repository"
    (folder / "ocpkit").mkdir(parents=True)
    git(folder, "init", "-q")
    for seconds in ("1.0", "1.5"):
        (folder / "ocpkit" / "__init__.py").write_text(f"DDP = {seconds}\n", encoding="utf-8")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", f"take {seconds}")
    return folder


@pytest.fixture
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the seconds that a version's file says, in the place of a measurement."""

    def timer(folder: Path) -> Told:
        text = (folder / "ocpkit" / "__init__.py").read_text(encoding="utf-8")
        return Told("", lambda: float(text.partition("=")[2]))

    monkeypatch.setattr(history, "Timer", timer)


@pytest.mark.usefixtures("_told")
def test_a_slower_commit_fails_and_every_run_is_remembered(repository: Path, capsys: Any) -> None:
    file = repository / "deep" / "history.jsonl"
    common = ["--only", "import", "--history", str(file)]
    assert history.main(["--against", "HEAD~1", *common], repository) == 1
    assert "slower by more than 5 % beyond noise: import" in capsys.readouterr().out
    assert history.main(["--against", "HEAD", *common], repository) == 0
    assert history.main(["--against", "HEAD~1", "--margin", "0.6", *common], repository) == 0
    (repository / "ocpkit" / "__init__.py").write_text("DDP = 1.0\n", encoding="utf-8")  # not committed
    assert history.main(["--against", "HEAD", *common], repository) == 0
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [record["timings"][0] for record in records]
    assert [row["verdict"] for row in rows] == ["slower", "same", "same", "faster"]
    assert [row["ratio"] for row in rows] == [1.5, 1.0, 1.5, 0.6667]
    first, *_, last = records
    assert last["against"] == first["revision"] == last["revision"].removesuffix("+changes") != last["revision"]
    assert {"numpy", "casadi", "processor", "python"} <= set(first["machine"])


def test_a_version_is_timed_from_its_own_folder(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    versions.unpack(repository, "HEAD~1", tmp_path / "old")
    assert (tmp_path / "old" / "ocpkit" / "__init__.py").read_text(encoding="utf-8") == "DDP = 1.0\n"
    with versions.Timer(tmp_path / "old") as timer:
        assert 0 <= float(timer.seconds("import")) < 1
        assert str(timer.seconds("cart-pole, DDP in C")).startswith("ImportError")  # that version has no models
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "strange.py").touch()
    borrowing = f"__path__.append({str(tmp_path / 'elsewhere')!r})\nimport ocpkit.strange\nDDP = 1.0\n"
    (tmp_path / "old" / "ocpkit" / "__init__.py").write_text(borrowing, encoding="utf-8")
    with versions.Timer(tmp_path / "old") as timer:
        with pytest.raises(RuntimeError, match=r"took .*strange\.py, not the packages in"):
            timer.seconds("import")
        timer._process.kill()
        timer._process.wait()
        with pytest.raises(RuntimeError, match="timing import of the old version failed"):
            timer.seconds("import")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--against", "no-such-revision"], "no commit 'no-such-revision'"),
        (["--against", "HEAD", "--rounds", "3"], f"at least {least_pairs()} pairs"),
    ],
)
def test_what_cannot_be_compared_is_said(arguments: list[str], said: str, repository: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        history.main([*arguments, "--history", str(repository / "history.jsonl")], repository)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert not (repository / "history.jsonl").exists()
