"""Memory of many different problems, one after the other, is bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from benchmarks.declaration import SOLVERS, remember
print(*remember(800, SOLVERS["numpy"]))
"""
KILOBYTES = 4.0  # per problem; the derivatives of one take more than 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_problems() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    seen = [float(word) for word in done.stdout.split()]
    assert 1000 * (seen[-1] - seen[3]) / 400 < KILOBYTES
