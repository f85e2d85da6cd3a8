"""The command line; see the package's documentation."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks import page, reliability
from benchmarks.machine import describe
from benchmarks.reliability import conditioning, fuzz, horizon


def main() -> None:
    """Measure, print, and write the page if asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability",
        description=reliability.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--count", type=int, default=2000, help="random problems")
    parser.add_argument("--others", type=int, default=200, help="of these, how many by one of the other solvers too")
    parser.add_argument("--known", type=int, default=500, help="random saddles, units and rows")
    parser.add_argument("--kills", type=int, default=100, help="random moments at which a training run is killed")
    parser.add_argument("--jobs", type=int, default=1, help="processes that solve random problems")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew the measured part of a page")
    options = parser.parse_args()
    machine = describe("ocpkit", "numpy", "casadi", "torch")
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    sections = []
    for name in options.only:
        sections.append(PARTS[name](options))
        print(sections[-1], flush=True)
    if options.markdown:
        command = shlex.join(["python", "-m", "benchmarks.reliability", *sys.argv[1:]])
        page.write(options.markdown, "Reliability", command, machine, sections)


def _fuzz(options: argparse.Namespace) -> str:
    os.environ.setdefault("OCPKIT_CFLAGS", "-O1")  # twenty structures are compiled, for a few solves each
    parts = {
        fuzz.solve_and_judge: options.count,
        fuzz.solve_and_judge_others: options.others,
        fuzz.solve_and_judge_kind: options.known,
    }
    quiet = {"initializer": warnings.simplefilter, "initargs": ("ignore",)}  # of the models' own arithmetic
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), **quiet) as pool:
        first = options.first
        found = [list(pool.map(solve, range(first, first + n), chunksize=20)) for solve, n in parts.items()]
        return fuzz.section(*found)


def _kills(options: argparse.Namespace) -> str:
    command = [sys.executable, "-m", "benchmarks.reliability.kills", "--moments", str(options.kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    total = found["moments"] + found["operations"]
    return (
        "## Killed training runs\n\n"
        f"SIGKILL at {found['moments']} random moments of a run of five epochs (seed 0), and before each of the "
        f"{found['operations']} calls that put a file of the run on the disk or in its place. Of these {total} kills "
        f"{found['unsaved']} left no checkpoint, {found['writing']} an unfinished file, {found['over']} a run that was "
        f"over. Resumed, {found['differ']} ended with weights that differ in a bit from those of a run that "
        "was not killed."
    )


def _conditioning(options: argparse.Namespace) -> str:
    return conditioning.section(conditioning.cases(range(10)))


def _horizon(options: argparse.Namespace) -> str:
    groups = ((horizon.LONG, "c"), (horizon.LARGE, "numpy"))
    return horizon.section([[horizon.measure(*sizes, engine) for sizes in runs] for runs, engine in groups])


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "fuzz": _fuzz,
    "kills": _kills,
    "conditioning": _conditioning,
    "horizon": _horizon,
}


if __name__ == "__main__":
    main()
