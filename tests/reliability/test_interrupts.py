"""Ctrl-C in every command: exit status 130 and no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ocpkit.cli.commands import app
from ocpkit.cli.exits import INTERRUPTED


def _commands(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for command in group.registered_commands:
        yield (*path, command.name or command.callback.__name__), command
    for inner in group.registered_groups:
        yield from _commands(inner.typer_instance, (*path, inner.name))


COMMANDS = dict(_commands(app))


def test_there_are_commands() -> None:
    assert {("solve",), ("compare",), ("train",), ("export",), ("cache", "list")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS[path], "callback", interrupted)
    done = CliRunner().invoke(app, [*path])
    assert done.exit_code == INTERRUPTED
    assert "Traceback" not in done.output


def test_a_comparison_ends_with_the_solver_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And shows what it has."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(
        "from ocpkit import Problem\ncalls = []\n"
        "def step(x, u):\n"
        "    calls.append(x)\n"
        "    if len(calls) == 200:\n"
        "        raise KeyboardInterrupt\n"
        "    return x + 0.1 * u\n"
        "problem = Problem.from_functions(dynamics=step, cost=lambda x, u: float(u[0] ** 4 + u[0] ** 2),\n"
        "    terminal_cost=lambda x: float(x[0] ** 4), x0=[1.0], horizon=20, control_size=1, derivatives='central')\n"
    )
    done = CliRunner().invoke(app, ["compare", "model.py", "-s", "ddp", "-s", "ilqr"])
    assert done.exit_code == INTERRUPTED
    assert "ddp: interrupted" in done.output
    assert "ilqr" not in done.output
