"""Every option of every command of control changes what comes out, or is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from ocpkit.cli.commands import app

MODEL = """
from ocpkit import Constraint, Problem, math as m
from ocpkit.models.task import Task

def problem(horizon=12):
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + 0.3 * x[1], x[1] + 0.3 * m.sin(u[0]) - 0.3 * m.sin(x[0])]),
        cost=lambda x, u: x[0] ** 2 + 0.1 * u[0] ** 2,
        terminal_cost=lambda x: 10 * (x[0] ** 2 + x[1] ** 2),
        x0=[1.0, 0.0], horizon=horizon, name="cart",
    )

def draw(axes, x, u):
    axes.plot([x[0]], [0], "s")

task = Task(
    name="cart", summary="", source="", build=problem, time_step=0.1, state_labels=("position [m]", "speed [m/s]"),
    control_labels=("angle [rad]",), draw=draw, view=(-1, 1, -1, 1),
)
"""
TASK = "model.py:task"
Line = tuple[list[str], list[str]]
"""A command line, and what is added to it."""
SOLVE, LOOP, COMPARE = ["solve", TASK], ["mpc", TASK, "--ticks", "4"], ["compare", TASK, "-s", "ddp", "--json"]
EXPORT = ["export", TASK, "--c", "code"]
LINES: dict[str, dict[str, Line]] = {
    "solve": {
        "--solver": (SOLVE, ["ilqr"]),
        "--horizon": (SOLVE, ["5"]),
        "--max-iterations": (SOLVE, ["1"]),
        "--time-limit": (SOLVE, ["1e-9"]),
        "--engine": (SOLVE, ["numpy"]),
        "--tolerance": (SOLVE, ["1e6"]),
        "--warm-start": (SOLVE, ["before.npz"]),
        "--plot": (SOLVE, ["out.png"]),
        "--animate": (SOLVE, ["out.html"]),
        "--save": (SOLVE, ["out.npz"]),
        "--profile": (SOLVE, []),
        "--json": (SOLVE, []),
        "--quiet": (SOLVE, []),
    },
    "mpc": {
        "--feedback": (LOOP, []),
        "--iterations": (LOOP, ["1"]),
        "--ticks": (["mpc", TASK], ["2"]),
        "--horizon": (LOOP, ["5"]),
        "--solver": (LOOP, ["msa"]),
        "--mass": (LOOP, ["1.5"]),
        "--friction": (LOOP, ["1.5"]),
        "--measurement-noise": (LOOP, ["0.1"]),
        "--process-noise": (LOOP, ["0.1"]),
        "--seed": ([*LOOP, "--process-noise", "0.1"], ["1"]),
        "--log": (LOOP, ["out.csv"]),
        "--plot": (LOOP, ["out.png"]),
        "--animate": (LOOP, ["out.html"]),
        "--film": (LOOP, ["out.gif"]),
        "--json": (LOOP, []),
    },
    "compare": {
        "--solver": (["compare", TASK, "-s", "ddp"], ["ilqr"]),
        "--max-iterations": (COMPARE, ["1"]),
        "--time-limit": (COMPARE, ["1e-9"]),
        "--json": (COMPARE[:-1], []),
        "--markdown": (COMPARE, ["out.md"]),
    },
    "export": {
        "--c": (EXPORT, ["other"]),
        "--solver": (EXPORT, ["ilqr"]),
        "--horizon": (EXPORT, ["5"]),
        "--max-iterations": (EXPORT, ["3"]),
    },
    "list": {"--json": (["list"], [])},
    "doctor": {"--json": (["doctor"], [])},
}
ENTRIES = [(command, option) for command, lines in LINES.items() for option in lines]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)


def outcome(arguments: list[str]) -> tuple[Any, ...]:
    """Exit status, what was printed but for times, how many lines of progress, and the files."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (0, 1, 2), result.output
    try:
        printed = re.sub(
            r'"seconds": [^,}]*|"phase_seconds": {[^}]*}|\d+\.\d+ s\b', "", json.dumps(json.loads(result.stdout))
        )
    except json.JSONDecodeError:
        printed = re.sub(r"\d+\.\d+ (s|ms)\b|^seconds.*$|\d+\.\d{3}\b", "", result.stdout, flags=re.M)
    texts = {str(path): path.read_text() for path in Path().rglob("*") if path.suffix in (".c", ".h")}
    return result.exit_code, printed, result.stderr.count("\n"), texts, sorted(map(str, Path().rglob("*")))


def test_the_table_holds_every_option() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {*commands} == {*LINES, "train", "reproduce", "cache"}
    for name, lines in LINES.items():
        assert {max(each.opts, key=len) for each in commands[name].params if each.opts[0][0] == "-"} == {*lines}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), ENTRIES)
def test_an_option_changes_what_comes_out(command: str, option: str) -> None:
    line, values = LINES[command][option]
    if option == "--warm-start":
        CliRunner().invoke(app, ["solve", TASK, "--save", "before.npz"])
    assert outcome(line) != outcome([*line, option, *values])


def test_feedback_of_one_plan_takes_no_iterations() -> None:
    assert outcome([*LOOP, "--feedback", "--iterations", "5"])[0] == 2


def test_the_engine_reaches_the_inner_solver_of_a_task() -> None:
    for solver in ([], ["-s", "ip"]):
        result = CliRunner().invoke(app, ["solve", "bryson-denham", "--engine", "numpy", "--json", *solver])
        assert result.exit_code == 0
        assert json.loads(result.stdout)["engine"] == "numpy"


@pytest.mark.parametrize("line", [SOLVE, [*SOLVE, "--json"], LOOP, [*LOOP, "--json"], COMPARE, COMPARE[:-1], EXPORT])
def test_what_comes_out_is_the_same_twice(line: list[str]) -> None:
    """Else the comparison above would find anything."""
    outcome(line)  # which writes its files
    assert outcome(line) == outcome(line)
