"""`ocpkit list`: the tasks and the solvers."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ocpkit import registry
from ocpkit.cli.report import print_json


def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False) -> None:
    """List the tasks that come with ocpkit, and the solvers."""
    from ocpkit import models

    tasks = [_task_record(models.get(name)) for name in (*models.names(), *models.robots())]
    solvers = [{"name": name, "summary": registry.summary(name)} for name in registry.names()]
    if as_json:
        print_json({"tasks": tasks, "solvers": solvers})
        return
    console = Console()
    console.print(_table("task", tasks), _table("solver", solvers), sep="\n")
    console.print("Solve one: [bold]ocpkit solve cartpole --animate[/]", highlight=False)


def _task_record(task: Any) -> dict[str, Any]:
    horizon = inspect.signature(task.build).parameters["horizon"].default
    sizes = {"n": len(task.state_labels), "m": len(task.control_labels), "T": horizon}
    return {"name": task.name, **sizes, "solver": task.solver, "summary": task.summary, "source": task.source}


def _table(kind: str, records: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column(kind, style="cyan", no_wrap=True)
    numbers = [key for key in ("n", "m", "T") if key in records[0]]
    words = [word for word in ("solver", "summary") if word in records[0]]
    for key in numbers:
        table.add_column(key, justify="right")
    for word in words:
        table.add_column(word)
    for record in records:
        table.add_row(record["name"], *(str(record[key]) for key in numbers + words))
    return table
