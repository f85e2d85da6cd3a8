"""`ocpkit compare`: every solver on every task, failures included."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ocpkit import registry
from ocpkit.boundary.machine import describe
from ocpkit.cli.exits import INTERRUPTED
from ocpkit.cli.find import find
from ocpkit.cli.outputs import check_writable
from ocpkit.cli.report import print_json
from ocpkit.errors import ProblemError, UnsupportedProblem
from ocpkit.solution.solution import Status
from ocpkit.solvers.driver import Solver

DEFAULT_SOLVERS = ("ddp", "ilqr", "fddp", "ilqg", "al", "pdip", "msa", "emsa", "gd", "ipopt", "fatrop")
OF_NOISE = "ilqg"  # is ddp where there is none
UNTIMED = "fatrop"  # cannot watch the clock: only its iteration limit ends it
COLUMNS = ("task", "solver", "status", "iterations", "seconds", "cost J")


@dataclass(frozen=True)
class Entry:
    """One solver on one task; `note` says why where it is not converged."""

    task: str
    solver: str
    status: str
    iterations: int | None = None
    seconds: float | None = None
    cost: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """Format the entry as a row of `COLUMNS`."""
        return [
            self.task,
            self.solver,
            self.status,
            "–" if self.iterations is None else str(self.iterations),
            "–" if self.seconds is None else f"{self.seconds:.3f}",
            "–" if self.cost is None else f"{self.cost:.8g}",
        ]


def compare_command(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK…", help="Tasks or model files; `all` means every task.")],
    solver: Annotated[
        list[str] | None,
        typer.Option(
            "--solver",
            "-s",
            help="A solver; repeat it.",
            show_default="all but sqp, ip and auto; ilqg where there is noise",
        ),
    ] = None,
    max_iterations: Annotated[int | None, typer.Option(min=0, help="Iteration limit of each solve.")] = None,
    time_limit: Annotated[float, typer.Option(help="Wall-clock budget of each solve [s].")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE.md", help="Write a Markdown page.")] = None,
) -> None:
    """Compare solvers: iterations, wall-clock time, final cost and status.

    The time is that of one `solve` call from the task's own guess, set-up included.
    """
    check_writable(markdown)
    methods = {
        name: registry.make(name, max_iterations=max_iterations, time_limit=None if name == UNTIMED else time_limit)
        for name in solver or DEFAULT_SOLVERS
    }
    names = _expand(tasks)
    for name in names:
        find(name)
    entries: list[Entry] = []
    for entry in _run(names, methods, chosen=solver is not None):
        typer.echo(f"{entry.task} · {entry.solver}: {entry.status}", err=True)
        entries.append(entry)
    limit = "each solver's own" if max_iterations is None else str(max_iterations)
    header = describe() | {"time limit": f"{time_limit:g} s ({UNTIMED}: none)", "iteration limit": limit}
    header["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "not set")
    if as_json:
        print_json({**header, "results": [asdict(entry) for entry in entries]})
    else:
        _print_table(header, entries)
    if markdown is not None:
        command = shlex.join(["ocpkit", *sys.argv[1:]])
        markdown.write_text(_markdown(header, entries, command), encoding="utf-8")
        typer.echo(f"wrote {markdown}", err=True)
    if any(entry.status == "interrupted" for entry in entries):
        raise typer.Exit(INTERRUPTED)


def _expand(tasks: Iterable[str]) -> list[str]:
    """Replace `all` by the names of all tasks."""
    from ocpkit import models

    return [name for task in tasks for name in (models.names() if task == "all" else (task,))]


def _run(names: list[str], methods: dict[str, Solver], *, chosen: bool) -> Iterator[Entry]:
    """Yield one entry after the other; the first interrupted one is the last."""
    for name in names:
        noisy = any(stage.noise is not None for stage in find(name).problem.stages)
        for method_name, method in methods.items():
            if method_name == OF_NOISE and not (chosen or noisy):
                continue
            entry = _solve(name, method_name, method)
            yield entry
            if entry.status == "interrupted":
                return


def _solve(name: str, method_name: str, method: Solver) -> Entry:
    """Solve a freshly built problem, so that no solver profits from functions that another has compiled."""
    target = find(name)
    began = time.perf_counter()
    try:
        solution = method.solve(target.problem)
    except UnsupportedProblem as error:
        return Entry(target.name, method_name, "unsupported", note=str(error))
    except (ProblemError, ArithmeticError, RuntimeError) as error:
        return Entry(target.name, method_name, "failed", note=f"{type(error).__name__}: {error}")
    status = solution.status.name.lower().replace("_", " ")
    note = "" if solution.status is Status.CONVERGED else str(solution.details.reason or solution.status.value)
    seconds = time.perf_counter() - began
    return Entry(target.name, method_name, status, solution.iterations, seconds, solution.cost, note)


def _print_table(header: dict[str, str], entries: list[Entry]) -> None:
    console = Console()
    for key, text in header.items():
        console.print(f"{key}: {text}", highlight=False, markup=False)
    table = Table(box=None, header_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in COLUMNS[3:] else "left", no_wrap=True)
    for entry in entries:
        table.add_row(*entry.cells(), style="" if entry.status == "converged" else "yellow")
    console.print(table)
    for line in _notes(entries):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _notes(entries: list[Entry]) -> list[str]:
    """Say why the others did not converge, once for all that have the same reason."""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        if entry.note:
            reasons.setdefault(entry.note, []).append(f"{entry.task} · {entry.solver}")
    return [f"{', '.join(who)}: {reason}" for reason, who in reasons.items()]


def _markdown(header: dict[str, str], entries: list[Entry], command: str) -> str:
    """Format a page: what was run and where, the table, and why the solvers in bold did not converge."""
    tasks = len({entry.task for entry in entries})
    notes = _notes([entry for entry in entries if entry.status != "unsupported"])
    solved = sum(entry.status == "converged" for entry in entries)
    text = [
        "# Comparison of solvers",
        f"Written by `{command}`: {len(entries)} runs on {tasks} tasks, of which {solved} converged. The seconds are "
        "those of one `solve` from the task's own guess, with the tracing of the model, whatever else the machine did; "
        "a compiled solver may come from the cache of earlier solves. "
        "A cost without convergence is that of the best iterate; two that converged may be at different minima. "
        "Unsupported means that the solver does not treat the task's bounds or constraints, and says so.",
        "; ".join(f"{key}: {value}" for key, value in header.items()),
        _rows(entries),
        "## What did not converge" if notes else "",
        "\n".join(f"- {note}" for note in notes),
    ]
    return "\n\n".join(filter(None, text)) + "\n"


def _rows(entries: list[Entry]) -> str:
    rows = [[*COLUMNS], ["---", "---", "---", "---:", "---:", "---:"]]
    for entry in entries:
        task, solver, status, *numbers = entry.cells()
        rows.append([task, solver, status if status == "converged" else f"**{status}**", *numbers])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
