"""A long horizon finishes, and memory grows with it as a straight line."""

from __future__ import annotations

import sys

import pytest

from benchmarks.reliability import horizon


@pytest.mark.skipif(sys.platform != "linux", reason="the largest memory of a process is read from /proc")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "n", "lengths"), [("c", 4, (25_000, 50_000, 100_000)), ("numpy", 200, (40, 80, 160))]
)
def test_memory_is_linear_in_the_horizon(engine: str, n: int, lengths: tuple[int, ...]) -> None:
    runs = [horizon.measure(n, 2, length, engine) for length in lengths]
    assert all(run.status == "CONVERGED" for run in runs)
    first, second = horizon.bytes_per_stage(runs)
    assert second < 1.5 * first
    assert first > 8 * n * n  # V_xx at the least: it was measured
