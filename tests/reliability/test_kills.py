"""SIGKILL at random moments of a training run, and before each of its file operations: resumed, it ends the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra nn")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights() -> None:
    command = [sys.executable, "-m", "benchmarks.reliability.kills", "--moments", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout)
    assert found["differ"] == 0, done.stderr
    assert found["moments"] == 20
    assert found["operations"] > 40  # six savings of three files, of which two are renamed once and one twice
    assert 0 < found["unsaved"] < 20
    assert found["writing"] > 10
