"""The command line; see the package's documentation."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from benchmarks import control, page
from benchmarks.control import table
from benchmarks.control.clock import pin_to_one_core
from benchmarks.control.page import sections
from benchmarks.control.run import run
from benchmarks.control.targets import judge_targets
from benchmarks.machine import describe

PACKAGES = ("ocpkit", "numpy", "casadi", "scipy", "crocoddyl", "pin", "pycddp")


def main() -> None:
    """Measure, print, and write the files that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.control",
        description=control.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few turns, small tasks; under a minute without --only")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="tasks whose name contains a word")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a list of objects")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the rows")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew the measured part of a page")
    options = parser.parse_args()
    pin_to_one_core()
    console = Console(width=None if sys.stdout.isatty() else 120)
    machine = describe(*(name for name in PACKAGES if _installed(name)))
    if "OCPKIT_CFLAGS" in os.environ:
        machine["OCPKIT_CFLAGS"] = os.environ["OCPKIT_CFLAGS"]
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()))
    rows = run(
        quick=options.quick,
        only=options.only,
        report=lambda line: console.print(line, style="dim"),
        show=lambda new: table.print_rows(console, new),
    )
    verdicts = judge_targets(rows)
    table.print_verdicts(console, verdicts)
    if options.json:
        lines = [asdict(row) | {"machine": machine} for row in rows]
        options.json.write_text(json.dumps(lines, indent=1) + "\n")
    if options.picture:
        from benchmarks.control import picture  # matplotlib is an extra

        picture.draw(options.picture, rows)
    if options.markdown:
        command = shlex.join(["python", "-m", "benchmarks.control", *(["--quick"] if options.quick else [])])
        command = f"{command} {_only(options.only)}".strip()
        page.write(options.markdown, "Benchmarks", command, machine, sections(rows, verdicts))


def _only(words: list[str]) -> str:
    return shlex.join(["--only", *words]) if words else ""


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
