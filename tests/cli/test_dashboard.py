"""What `ocpkit train` shows: true numbers, in any window, rarely enough, and a terminal left as it was."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live
from typer.testing import CliRunner

from ocpkit.cli import dashboard
from ocpkit.cli.commands import app
from ocpkit.cli.dashboard import COLUMNS, REFRESH_SECONDS, Dashboard
from ocpkit.cli.sparkline import ASCII_BLOCKS, BLOCKS, sparkline
from ocpkit_nn.training.record import Row, Step

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
percent = st.floats(0, 100)
rows = st.builds(Row, st.integers(1, 999), positive, positive, percent, positive, percent | st.none())
steps = st.builds(
    Step,
    epoch=st.integers(1, 99),
    epochs=st.just(99),
    batch=st.integers(1, 938),
    batches=st.just(938),
    samples=st.integers(1, 256),
    loss=positive,
    learning_rate=positive | st.none(),
    update_length=positive | st.none(),
)


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(dashboard.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    return Clock(monkeypatch)


def window(width: int = 100, height: int = 30) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, record=True, force_terminal=True)


def drawn(shown: Dashboard) -> str:
    """What the window holds, without colors."""
    console = window(shown.console.width, shown.console.height)
    console.print(shown)
    return console.export_text()


def step(batch: int, **changes: Any) -> Step:
    values = {"epoch": 1, "epochs": 3, "batches": 40, "samples": 16, "loss": 0.5, "learning_rate": 0.01}
    return Step(**{**values, "batch": batch, "update_length": None, **changes})


@given(st.lists(finite, max_size=80), st.integers(0, 60), st.booleans())
def test_a_curve_has_a_character_for_each_value_that_finds_room(
    values: list[float], width: int, ascii_only: bool
) -> None:
    line = sparkline(values, width, ascii_only=ascii_only)
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    assert len(line) == min(len(values), width)
    assert set(line) <= set(blocks)
    if 0 < len(values) <= width:
        levels = [blocks.index(character) for character in line]
        assert levels[int(np.argmin(values))] == 0
        assert levels[int(np.argmax(values))] == (len(blocks) - 1 if max(values) > min(values) else 0)
        assert all(a <= b for a, b in zip(np.take(levels, np.argsort(values)), np.sort(levels)))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.integers(1, 8), st.integers(-99, 99))
def test_a_curve_shows_shape_alone(values: list[int], factor: int, shift: int) -> None:
    power = [2.0**factor * value for value in values]  # exact, so that no rounding tips over
    assert sparkline(power, 60) == sparkline(values, 60) == sparkline([value + shift for value in values], 60)


@settings(deadline=None)
@given(st.lists(rows, max_size=20), st.none() | steps, st.integers(40, 160), st.integers(12, 60))
def test_it_fits_the_window(epochs: list[Row], last: Step | None, width: int, height: int) -> None:
    shown = Dashboard("a title of some length, " * 5, console=window(width, height))
    for row in epochs:
        shown.add(row)
    shown.step = last
    lines = drawn(shown).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < height
    if last is not None:
        assert f"epoch {last.epoch}/99, batch {last.batch}/938" in "\n".join(lines)
        assert f"batch loss {last.loss:.4g}" in "\n".join(lines)


@settings(deadline=None, max_examples=30)
@given(st.lists(rows, min_size=1, max_size=20))
def test_the_last_epochs_are_shown_with_their_numbers(epochs: list[Row]) -> None:
    shown = Dashboard("title", console=window(100, 40))
    for row in epochs:
        shown.add(row)
    lines = drawn(shown).splitlines()
    for row, line in zip(epochs[-dashboard.ROWS :], lines[3:]):
        assert line.split() == " ".join(dashboard.cells(row)).split()
    best = max(row.test_accuracy for row in epochs)
    assert f"best {best:.2f} %" in drawn(shown)


@pytest.mark.parametrize("begun", [1, 25])  # 25: the run was resumed there
def test_speed_and_time_left_are_those_of_the_session(begun: int, clock: Clock) -> None:
    """Ten batches of 16 samples in 2.5 s: 64 samples/s, and a quarter of a second for each that is left."""
    shown = Dashboard("title", console=window())
    for batch in range(begun, begun + 11):
        shown.advance(step(batch))
        clock.now += 0.25
    clock.now -= 0.25
    left = round((3 * 40 - begun - 10) * 0.25)
    assert f"0:00:{left:02d} left, 64 samples/s" in drawn(shown)


def test_the_update_that_was_measured_last_stays(clock: Clock) -> None:
    shown = Dashboard("title", console=window())
    shown.advance(step(1, update_length=0.125))
    shown.advance(step(2))
    assert "learning rate 0.01, update length 0.125" in drawn(shown)
    assert "learning rate" not in drawn(replaced(shown, learning_rate=None))


def replaced(shown: Dashboard, **changes: Any) -> Dashboard:
    shown.step = step(3, **changes)
    return shown


def test_it_is_drawn_and_measures_rarely(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    monkeypatch.setattr(Live, "refresh", lambda self: times.append(clock.now))
    with Dashboard("title", console=window()) as shown:
        times.clear()
        asked = 0
        for i in range(1000):
            asked += shown.advance(step(i))
            clock.now += REFRESH_SECONDS / 8
        assert len(times) == asked == 1000 // 8
        assert min(np.diff(times)) >= REFRESH_SECONDS


def test_what_nobody_sees_is_neither_drawn_nor_measured(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Live, "refresh", lambda self: pytest.fail("drawn"))
    for shown in (Dashboard("", visible=False, console=window()), Dashboard("", console=Console(force_terminal=False))):
        with shown:
            assert not any(shown.advance(step(i)) for i in range(3))


def small_run(folder: Path) -> list[str]:
    targets = np.arange(60) % 3
    inputs = np.random.default_rng(0).standard_normal((60, 4)) + 2 * np.eye(4)[targets]
    np.savez(folder / "data.npz", x=inputs, y=targets)
    return ["train", str(folder / "data.npz"), "--batch-size", "8", "--out", str(folder / "run")]


@pytest.mark.slow
def test_a_file_gets_plain_lines_whatever_the_colors(tmp_path: Path) -> None:
    """FORCE_COLOR, as notebooks and servers set it, asks for colors; it does not make a file a terminal."""
    result = CliRunner(env={"FORCE_COLOR": "1"}).invoke(app, [*small_run(tmp_path), "--epochs", "3"])
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("epoch ")]
    assert "\x1b" not in result.stderr
    assert [re.sub(r" [-\d.e%]+( %)?", "", line).split(", ") for line in lines] == [list(COLUMNS)] * 3


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_leaves_the_epochs_and_the_cursor(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    script = Path(sys.executable).with_name("ocpkit")
    process = subprocess.Popen(
        [script, *small_run(tmp_path), "--epochs", "100000"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "40", "LINES": "24", "TERM": "xterm"},
    )
    os.close(theirs)
    said, asked, deadline = "", False, time.monotonic() + 120
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        assert time.monotonic() < deadline, said
        if select.select([ours], [], [], 0.1)[0]:
            try:
                said += os.read(ours, 65536).decode(errors="ignore")
            except OSError:  # the other side has closed
                break
        if not asked and "samples/s" in said and "test accuracy" in said:
            process.send_signal(signal.SIGINT)
            asked = True
    assert process.wait(120) == 130
    os.close(ours)
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")  # the cursor is shown again
    after = said[said.rindex("\x1b[?25h") :]
    assert "interrupted in epoch" in after
    assert "--resume" in after.replace("\r\n", "")
    assert "samples/s" not in said[said.rindex("\x1b[1A") : said.rindex("\x1b[?25h")]  # the bar is gone, epochs stay
