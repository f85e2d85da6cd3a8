"""The rate of exported controllers: ``python -m benchmarks.mpc_in_c [--ticks N] [--markdown PAGE]``.

Each plant is exported as by ``ocpkit export --c``, built with the flags that ocpkit uses itself, and its program
``closed_loop`` is run: the exported controller holds the model against random pushes at every tick. Times are the
processor's for one call of ``NAME_mpc_step`` (one thread, resolution 1 µs), so that other jobs on the machine count
less. The first tick, a whole solve from the guess, is told apart. Exits with 1 where a tick had no usable plan.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import page
from benchmarks.machine import describe
from benchmarks.mpc import bounded_quadrotor, cartpole
from ocpkit import DDP, Problem
from ocpkit.control.export import export_c
from ocpkit.engines.c.compiler import find_compiler

ROUNDS = 5
USABLE = (0, 1)  # NAME_OPTIMAL, NAME_IMPROVING
TIME, HEALTH, STATE = 0, 1, 7  # columns of what closed_loop prints, the first of the state
HEADER = ("plant", "T", "ticks at a bound", "first tick ms", "median µs", "99 % µs", "most µs", "ticks per s", "usable")


@dataclass(frozen=True)
class Case:
    """A plant, the iterations of a tick, and the largest push of a state per tick."""

    name: str
    build: Callable[[], Problem]
    iterations: int
    push: float


CASES = (
    Case("bounded quadrotor, one iteration", lambda: bounded_quadrotor(30, 0.02), 1, 0.01),
    Case("bounded quadrotor, one iteration", lambda: bounded_quadrotor(50, 0.02), 1, 0.01),
    Case("bounded quadrotor, up to five", lambda: bounded_quadrotor(50, 0.02), 5, 0.01),
    Case("bounded cart-pole, one iteration", cartpole, 1, 0.002),
)


def build(problem: Problem, folder: Path) -> Path:
    """Export the controller of a problem and compile its closed loop; return the program."""
    export_c(problem, DDP(), folder, "plant")
    compiler, program = find_compiler(), folder / "closed_loop"
    flags = [flag for flag in compiler.flags if flag not in ("-shared", "-fPIC")]
    sources = [str(folder / name) for name in ("plant.c", "closed_loop.c")]
    subprocess.run([*compiler.command, *flags, "-o", str(program), *sources, "-lm"], check=True)
    return program


def run(program: Path, case: Case, ticks: int) -> np.ndarray:
    """Return what the closed loop printed, a row for each tick."""
    words = [str(program), str(ticks), str(case.iterations), str(case.push)]
    printed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return np.array([[float(word) for word in line.split()] for line in printed.splitlines()])


def measure(case: Case, ticks: int, rounds: int = ROUNDS) -> tuple[list[str], bool]:
    """Return a line of the table, and whether every tick had a usable plan."""
    problem = case.build()
    with tempfile.TemporaryDirectory() as folder:
        program = build(problem, Path(folder))
        runs = [run(program, case, ticks) for _ in range(rounds)]
    rows, stage = runs[0], problem.stages[0]
    controls = rows[:, STATE + len(problem.x0) :]
    held = ((controls == stage.control_lower) | (controls == stage.control_upper)).any(axis=1).sum()
    usable = int(np.isin(rows[:, HEALTH], USABLE).sum())
    times = np.concatenate([run[1:, TIME] for run in runs])
    first = np.median([run[0, TIME] for run in runs])
    middle, late, most = np.median(times), np.percentile(times, 99), times.max()
    line = [case.name, str(problem.horizon), f"{held} of {ticks}", f"{first / 1e3:.1f}"]
    line += [f"{middle:.0f}", f"{late:.0f}", f"{most:.0f}", f"{1e6 / middle:.0f}", f"{usable} of {ticks}"]
    return line, usable == ticks


def main(ticks: int, markdown: Path | None) -> int:
    """Print the table, and write it into a page."""
    lines, usable = zip(*(measure(case, ticks) for case in CASES))
    machine = describe("casadi", "numpy") | {"compiler": find_compiler().version, "ticks": f"{ROUNDS} times {ticks}"}
    table = page.markdown(HEADER, lines)
    print(", ".join(f"{key} {value}" for key, value in machine.items()), table, sep="\n\n")
    if markdown is not None:
        command = f"python -m benchmarks.mpc_in_c --ticks {ticks} --markdown {markdown}"
        page.write(markdown, "Model predictive control", command, machine, [table])
    return 0 if all(usable) else 1


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=400)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(**vars(_arguments(sys.argv[1:]))))
