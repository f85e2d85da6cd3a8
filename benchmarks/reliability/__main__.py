"""The command line; see the package's documentation."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks import page, reliability
from benchmarks.machine import describe
from benchmarks.reliability import fuzz

Report = Callable[[str], object]


def main() -> None:
    """Measure, print, and write the page if asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability",
        description=reliability.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--count", type=int, default=2000, help="random problems")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew the measured part of a page")
    options = parser.parse_args()
    machine = describe("ocpkit", "numpy", "casadi", "scipy")
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    sections = [PARTS[name](options) for name in options.only]
    print("\n\n".join(sections))
    if options.markdown:
        command = shlex.join(["python", "-m", "benchmarks.reliability", *sys.argv[1:]])
        page.write(options.markdown, "Reliability", command, machine, sections)


def _fuzz(options: argparse.Namespace) -> str:
    os.environ.setdefault("OCPKIT_CFLAGS", "-O1")  # twenty structures are compiled, for a few solves each
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(options.first, options.first + options.count):
            outcomes.append(fuzz.solve_and_judge(seed))
            if outcomes[-1].verdict in fuzz.FAILURES:
                print(outcomes[-1], flush=True)
    return fuzz.section(outcomes)


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {"fuzz": _fuzz}


if __name__ == "__main__":
    main()
