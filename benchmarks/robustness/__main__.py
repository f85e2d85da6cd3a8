"""The command line; see the package's documentation."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import page, robustness
from benchmarks.machine import describe
from benchmarks.robustness import groups, guesses, pool, profile, record, systems, verdicts
from benchmarks.robustness.family import Family
from benchmarks.robustness.record import Record
from benchmarks.robustness.verdicts import Table
from ocpkit.errors import ProblemError, unknown_name

SOLVERS = "default,al,ipopt,ipopt-adaptive,fatrop,crocoddyl"
HEADER = (
    *("group", "system", "runs", "success %", "best optimum %", "false claims", "time / IPOPT's", "time / fatrop's"),
    *("iterations, mean", "median"),
)


def main(
    chosen: Annotated[str, typer.Option("--groups", help="Groups, with commas.")] = ",".join(groups.GROUPS),
    guess_count: Annotated[int, typer.Option("--guesses", min=1, max=7, help="Given, zeros, then random ones.")] = 3,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems of each group.", show_default="all")] = None,
    only: Annotated[str, typer.Option(help="Families, with commas.", show_default="all")] = "",
    solvers: Annotated[str, typer.Option(help="Systems, with commas: default, peers, or names of ocpkit's.")] = SOLVERS,
    judged: Annotated[str, typer.Option(help="Whose targets are judged.", show_default="the first")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Processes that solve at once.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Limit of one solve [s].")] = 10.0,
    records: Annotated[Path | None, typer.Option(metavar="FILE.json.gz", help="Keep the runs, and go on.")] = None,
    renew: Annotated[str, typer.Option(help="Systems whose kept runs are done again, with commas.")] = "",
    failures: Annotated[str, typer.Option(help="Systems whose failures are listed, with commas.")] = "",
    markdown: Annotated[Path | None, typer.Option(metavar="PAGE", help="Renew the measured part of a page.")] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the performance profile.")] = None,
) -> None:
    """Run, print, and write the files that were asked for."""
    names = _listed(solvers)
    for name in names:
        systems.get(name)
    missing = [name for name in names if not systems.installed(name)]
    names = [name for name in names if name not in missing]
    machine = describe("ocpkit", "casadi", "numpy")
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for name in missing:
        print(f"{name} left out: not installed")
    plan = pool.Plan(guesses.names(guess_count), names, seconds)
    families = [family for group in _groups(chosen) for family in groups.some(group, limit)]
    families = [family for family in families if not only or family.name in _listed(only)]
    table = Table(_wanted(families, plan, _run(families, plan, records, _listed(renew), jobs)))
    print(page.markdown(HEADER, map(_cells, verdicts.lines(table))))
    for target in verdicts.targets(table, judged or names[0]):
        print(f"{target.name}: {target.measured:.3g}, limit {target.limit:.3g}, {_met(target)}")
    _list_failures(table, _listed(failures))
    if picture:
        profile.draw(picture, table)
    if markdown:
        command = shlex.join(["python", "-m", "benchmarks.robustness", *sys.argv[1:]])
        page.write(markdown, "Who arrives", command, machine, _sections(table, judged or names[0]))


def _listed(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _groups(chosen: str) -> list[str]:
    names = _listed(chosen)
    if unknown := [name for name in names if name not in groups.GROUPS]:
        raise unknown_name("group", unknown[0], groups.GROUPS)
    return names


def _run(
    families: Sequence[Family], plan: pool.Plan, file: Path | None, renew: Sequence[str], jobs: int
) -> dict[record.Key, Record]:
    """Run what the file does not have, keep it family by family, and return all of it."""
    known = {key: each for key, each in record.read(file).items() if each.system not in renew}
    began = time.perf_counter()
    for number, found in enumerate(pool.run(families, plan, frozenset(known), jobs), 1):
        known |= {each.key: each for each in found}
        if file and found:
            record.write(file, known.values())
        if found:
            print(f"[{number}/{len(families)}, {time.perf_counter() - began:.0f} s] {_summary(found)}", flush=True)
    return known


def _summary(found: Sequence[Record]) -> str:
    """Say how many runs of a family each system has solved."""
    table = Table(found)
    counts = [f"{s} {sum(map(verdicts.success, table.of(verdicts.ALL, s)))}" for s in table.systems]
    runs = len(found) // len(table.systems)
    return f"{found[0].group}/{found[0].family}: of {runs} " + ", ".join(counts)


def _wanted(families: Sequence[Family], plan: pool.Plan, known: dict[record.Key, Record]) -> list[Record]:
    """Return the records of this plan, in its order."""
    keys = [each.key for family in families for each in pool.planned(family, plan)]
    return [known[key] for key in keys]


def _cells(line: verdicts.Line) -> list[str]:
    return [
        line.group,
        line.system,
        str(line.runs),
        f"{100 * line.success:.1f}",
        f"{100 * line.best:.1f}",
        str(line.false_claims),
        f"{line.of_ipopt:.3g}",
        f"{line.of_fatrop:.3g}",
        f"{line.mean_iterations:.1f}",
        f"{line.median_iterations:g}",
    ]


def _met(target: verdicts.Target) -> str:
    return "met" if target.met else "NOT met"


def _list_failures(table: Table, names: Sequence[str]) -> None:
    for name in names:
        for run in table.of(verdicts.ALL, name):
            if not verdicts.success(run) or table.false_claim(run) or not table.best_reached(run):
                print(f"{name}: {' '.join(run.key[:4])}: {_say(table, run)}")


def _say(table: Table, run: Record) -> str:
    best, numbers = table.best.get(run.problem), (run.cost, run.violation, run.slope)
    J, violation, slope = ("–" if value is None else f"{value:.8g}" for value in numbers)
    word = "FALSE CLAIM" if table.false_claim(run) else "other optimum" if verdicts.success(run) else "failure"
    reference = "–" if best is None else f"{best:.8g}"
    return f"{word}, {run.status}, J {J}, best {reference}, violation {violation}, slope {slope}, {run.iterations} it."


def _sections(table: Table, judged: str) -> Iterator[str]:
    found = verdicts.targets(table, judged)
    rows = [[each.name, f"{each.limit:.3g}", f"{each.measured:.3g}", _met(each)] for each in found]
    yield f"## Targets of `{judged}`\n\n" + page.markdown(["target", "limit", "measured", "met"], rows)
    yield "## Groups\n\n" + page.markdown(HEADER, map(_cells, verdicts.lines(table)))


if __name__ == "__main__":
    application = typer.Typer(add_completion=False)
    application.command(help=robustness.__doc__)(main)
    try:
        application()
    except ProblemError as error:
        sys.exit(str(error))
