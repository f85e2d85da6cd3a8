"""Long horizons and large states: do they finish, and how much memory does a stage take?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import ocpkit.math as m
from benchmarks.page import markdown
from ocpkit import DDP, Problem

Array = Any
ROOT = Path(__file__).parents[2]

LONG = ((4, 2, 25_000), (4, 2, 50_000), (4, 2, 100_000))
LARGE = ((200, 10, 100), (200, 10, 200), (200, 10, 400))


@dataclass(frozen=True)
class Run:
    """One solve in a process of its own.

    Attributes
    ----------
    megabytes
        What the solve added to the largest memory of the process.
    """

    states: int
    controls: int
    horizon: int
    engine: str
    status: str
    iterations: int
    gradient: float
    seconds: float
    megabytes: float


def problem(n: int, size: int, horizon: int) -> Problem:
    """A rod of n cells that conducts heat and is heated in the first ones, with a wave in the cost."""

    def step(x: Array, u: Array) -> Array:
        left, right = m.concatenate([x[:1], x[:-1]]), m.concatenate([x[1:], x[-1:]])
        return 0.98 * (x + 0.2 * (left - 2 * x + right)) + m.concatenate([0.1 * u, 0 * x[size:]])

    return Problem.from_functions(
        dynamics=step,
        cost=lambda x, u: 0.05 * m.dot(x, x) + 0.5 * m.dot(u, u) + 0.01 * m.cos(x[0]),
        terminal_cost=lambda x: 0.5 * m.dot(x, x),
        x0=np.ones(n),
        horizon=horizon,
        control_size=size,
        name="rod",
    )


def measure(n: int, size: int, horizon: int, engine: str) -> Run:
    """Solve in a fresh process."""
    arguments = [sys.executable, "-m", "benchmarks.reliability.horizon", *map(str, (n, size, horizon, engine))]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _solve(n: int, size: int, horizon: int, engine: str) -> Run:
    DDP(engine=engine).solve(problem(n, size, 2))  # compiled and loaded
    Path("/proc/self/clear_refs").write_text("5")  # forgets the largest memory so far
    before, began = _megabytes(), time.process_time()
    solution = DDP(engine=engine).solve(problem(n, size, horizon))
    seconds, last = time.process_time() - began, solution.history[-1]
    used = _megabytes() - before
    return Run(n, size, horizon, engine, solution.status.name, last.index, last.gradient_norm, seconds, used)


def _megabytes() -> float:
    """Largest resident memory of this process; unlike getrusage's, not that of the process which started it."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def bytes_per_stage(runs: Sequence[Run]) -> list[float]:
    """Memory that each further stage has taken, between one run and the next longer one."""
    return [(b.megabytes - a.megabytes) * 2**20 / (b.horizon - a.horizon) for a, b in pairwise(runs)]


def section(groups: Sequence[Sequence[Run]]) -> str:
    """The table, and what a stage takes, as Markdown."""
    header = ["n", "m", "T", "engine", "status", "iterations", "‖Q_u‖_∞", "CPU s", "MiB"]
    lines, said = [], []
    for runs in groups:
        for r in runs:
            numbers = [f"{r.gradient:.0e}", f"{r.seconds:.1f}", f"{r.megabytes:.0f}"]
            lines.append(
                [*map(str, (r.states, r.controls, r.horizon)), r.engine, r.status.lower(), str(r.iterations), *numbers]
            )
        rates = " and ".join(f"{rate / 1024:.1f}" for rate in bytes_per_stage(runs))
        said.append(
            f"n = {runs[0].states}: {rates} KiB for each further stage; the same number twice is linear growth."
        )
    return "\n\n".join(["## Long horizons and large states", markdown(header, lines), *said])


if __name__ == "__main__":
    print(json.dumps(asdict(_solve(*map(int, sys.argv[1:4]), sys.argv[4]))))
