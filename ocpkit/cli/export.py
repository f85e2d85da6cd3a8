"""`ocpkit export`: a solver for one problem as C source, for where there is no Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ocpkit import registry
from ocpkit.cli.find import find
from ocpkit.errors import ProblemError
from ocpkit.solvers.ddp.ddp import DDP


def export_command(
    target: Annotated[
        str, typer.Argument(metavar="TASK", help="A task of `ocpkit list`, or path/to/my_model.py:problem.")
    ],
    c: Annotated[Path, typer.Option("--c", metavar="DIR", help="Folder for the C files.")],
    solver: Annotated[str, typer.Option("--solver", "-s", help="ddp or ilqr.")] = "ddp",
    horizon: Annotated[int | None, typer.Option(min=1, help="Number of stages.", show_default="the task's")] = None,
    max_iterations: Annotated[int | None, typer.Option(min=0, help="Iteration limit of the small main.")] = None,
) -> None:
    """Write a dependency-free C solver and controller: a header, a source, small mains and a CMakeLists.

    It needs gcc or clang and the mathematical library, no heap, and gives the answers that Python gives.
    """
    from ocpkit.control.export import export_c

    method = registry.make(solver, max_iterations=max_iterations)
    if not isinstance(method, DDP):
        raise ProblemError(f"the solver {solver!r} has no C code; take 'ddp' or 'ilqr'")
    found = find(target, horizon)
    for path in export_c(found.problem, method, c, found.name):
        typer.echo(f"wrote {path}", err=True)
