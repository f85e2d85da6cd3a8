"""The command line; see the package's documentation."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import first_solve, page
from benchmarks.first_solve import cases, verdicts
from benchmarks.first_solve.race import Row, measure
from benchmarks.machine import describe
from benchmarks.suite.nlp import IPOPT
from ocpkit.boundary.atomic import write_atomically

HEADER = (
    *(
        "problem",
        "n",
        "m",
        "T",
        "first s",
        "IPOPT s",
        "ratio",
        "second ms",
        "IPOPT ms",
        "ratio",
        "in C ms",
        "C ready s",
    ),
    *("J", "J of IPOPT", "J is", "published J", "status", "status of IPOPT"),
)


def main() -> None:
    """Measure, print, and write the files that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_solve",
        description=first_solve.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="tasks and suite/… problems")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds, whose medians count")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the rows, and go on from those in it")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew the measured part of a page")
    options = parser.parse_args()
    machine = describe("ocpkit", "casadi", "numpy") | {"IPOPT": ", ".join(f"{k}={v}" for k, v in IPOPT.items())}
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    rows = list(_rows(options.only or cases.names(), options.repeat, options.json))
    found = list(verdicts.judge(rows))
    for verdict in found:
        print(f"{verdict.target}: {verdict.measured:.3g}, limit {verdict.limit:g}, {_met(verdict)}")
    if options.markdown:
        only = ["--only", *options.only] if options.only else []
        command = shlex.join(["python", "-m", "benchmarks.first_solve", "--repeat", str(options.repeat), *only])
        page.write(options.markdown, "The first solve", command, machine, _sections(rows, found))


def _rows(names: Iterable[str], rounds: int, file: Path | None) -> Iterator[Row]:
    """Measure what the file does not have yet; print and keep every row."""
    known = {row["name"]: Row(**row) for row in json.loads(file.read_text())} if file and file.exists() else {}
    for name in names:
        row = known[name] = known[name] if name in known else measure(name, rounds)
        if file:
            _keep(file, known.values())
        print("  ".join(_cells(row)), flush=True)
        yield row


def _keep(file: Path, rows: Iterable[Row]) -> None:
    text = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
    write_atomically(file, lambda stream: stream.write(text.encode()))


def _cells(row: Row) -> list[str]:
    ours, theirs = row.answer("ocpkit"), row.answer("ipopt")
    first, second = verdicts.FIRST_PARTS
    return [
        row.name,
        *(["–"] * 3 if row.sizes is None else map(str, row.sizes)),
        _number(row.seconds("ocpkit", *first)),
        _number(row.seconds("ipopt", *second)),
        _number(verdicts.first_ratio(row)),
        _number(row.seconds("ocpkit", "second"), 1e3),
        _number(row.seconds("ipopt", "second"), 1e3),
        _number(verdicts.second_ratio(row)),
        _number(row.seconds("ocpkit", "in C"), 1e3),
        _number(row.seconds("c", "declare", "build")),
        *("–" if each is None else f"{each['J']:.8g}" for each in (ours, theirs)),
        verdicts.compare_costs(row) or "–",
        "–" if row.optimum is None else f"{row.optimum:.8g}",
        "ended" if ours is None else ours["status"].lower().replace("_", " "),
        "ended" if theirs is None else theirs["status"].lower().replace("_", " "),
    ]


def _number(value: float | None, factor: float = 1.0) -> str:
    return "–" if value is None else f"{factor * value:.3g}"


def _met(verdict: verdicts.Verdict) -> str:
    return "met" if verdict.met else "NOT met"


def _sections(rows: Sequence[Row], found: Sequence[verdicts.Verdict]) -> Iterator[str]:
    lines = [[each.target, f"{each.limit:g}", f"{each.measured:.3g}", _met(each)] for each in found]
    yield "## Targets\n\n" + page.markdown(["target", "limit", "measured", "met"], lines)
    yield "## Measurements\n\n" + page.markdown(HEADER, [_cells(row) for row in rows])


if __name__ == "__main__":
    main()
