"""The examples run, say what they say, and draw; here with ``quick``, which is what ``--quick`` asks for."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, folder: Path, capsys: Any) -> str:
    """Run an example's main; return what it printed."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(folder, quick=True)
    with Image.open(folder / f"{name.replace('_', '-')}.png") as picture:
        assert min(picture.size) > 200
        assert np.unique(np.asarray(picture.convert("L"))).size > 10  # something is drawn
    return str(capsys.readouterr().out)


def numbers(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, text)]


def test_feedback_survives_noise_that_the_plan_alone_does_not(tmp_path: Path, capsys: Any) -> None:
    said = run("monte_carlo", tmp_path, capsys)
    alone, fed = (numbers(rf"sigma 0\.80  {name} +upright +(\d+)%", said) for name in ("open loop", "feedback of DDP"))
    assert alone[0] <= 50 < 90 <= fed[0]


def test_a_filter_holds_what_differences_of_the_measurements_let_fall(tmp_path: Path, capsys: Any) -> None:
    said = run("estimator", tmp_path, capsys)
    filtered, raw = (numbers(rf"sigma 0\.100  {name} +held +(\d+)%", said) for name in ("Kalman filter", "differences"))
    assert raw[0] <= 20 < 60 <= filtered[0]


def test_a_cost_learnt_for_three_steps_comes_nearer_to_the_experts(tmp_path: Path, capsys: Any) -> None:
    said = run("learn_cost", tmp_path, capsys)
    ((first, last),) = re.findall(r"demonstrations: (\S+) at first, (\S+) at the end", said)
    assert float(last) < float(first)


def test_a_controller_tuned_for_three_steps_costs_less(tmp_path: Path, capsys: Any) -> None:
    before, tuned = numbers(r"closed loop (\S+)", run("tune_mpc", tmp_path, capsys))
    assert tuned < 0.99 * before


@pytest.mark.slow
def test_many_guesses_find_better_than_the_first(tmp_path: Path, capsys: Any) -> None:
    ((first, best),) = re.findall(r"first guess (\S+), median \S+, best (\S+)", run("multi_start", tmp_path, capsys))
    assert float(best) < 0.5 * float(first)


@pytest.mark.parametrize("name", ["monte_carlo", "estimator", "learn_cost", "tune_mpc", "multi_start"])
def test_the_command_line_has_the_flag(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert "[--quick]" in text
    assert "quick: bool = False) -> None" in text
    assert text.endswith("    typer.run(main)\n")


@pytest.mark.slow
def test_help_is_said_and_not_written_into_a_folder_of_that_name(tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLES / "two_passes.py")]
    said = subprocess.run([*script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "Write two-passes.png" in said
    assert not list(tmp_path.iterdir())
