"""`ocpkit solve`: solve one problem, watch it converge, save and draw the result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from typer.core import TyperCommand

from ocpkit import registry
from ocpkit.cli.exits import exit_status
from ocpkit.cli.find import Target, find
from ocpkit.cli.live import IterationTable
from ocpkit.cli.outputs import check_pictures, check_writable
from ocpkit.cli.report import as_record, print_json, print_profile
from ocpkit.engines.interface import ENGINES
from ocpkit.errors import ProblemError
from ocpkit.solution.solution import Solution

NAMED_AFTER_TASK = Path("TASK.gif")


class SolveCommand(TyperCommand):
    """Lets ``--animate`` stand alone: what follows it is its file only if it looks like one (``out.gif``)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for i in range(len(args) - 1, -1, -1):
            if args[i] == "--animate" and not re.search(r"\.\w+$", "".join(args[i + 1 : i + 2])):
                args = [*args[: i + 1], str(NAMED_AFTER_TASK), *args[i + 1 :]]
        return super().parse_args(ctx, args)


def solve_command(
    target: Annotated[
        str, typer.Argument(metavar="TASK", help="A task of `ocpkit list`, or path/to/my_model.py:problem.")
    ],
    solver: Annotated[
        str | None,
        typer.Option(
            "--solver", "-s", help=f"One of {', '.join(registry.names())}.", show_default="the task's, or auto"
        ),
    ] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Number of stages.", show_default="the task's")] = None,
    max_iterations: Annotated[int | None, typer.Option(min=0, help="Iteration limit.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Wall-clock budget [s].")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help=f"What computes the sweeps of DDP, inside al, ip and ilqg too: {', '.join(ENGINES)}.",
            show_default="auto",
        ),
    ] = None,
    tolerance: Annotated[float | None, typer.Option(help="The solver's main tolerance, in natural units.")] = None,
    warm_start: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Start from a saved solution.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the trajectory.")] = None,
    animate: Annotated[
        Path | None, typer.Option(metavar="[FILE.gif|.html|.mp4]", help="Show it move; without a file: TASK.gif.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Save the solution.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Print the seconds of each phase.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show the iterations.")] = False,
) -> None:
    """Solve a task or your own model.

    Exit status: 0 converged, 1 not converged, 2 wrong input, 130 Ctrl-C (the best iterate is still printed and saved).
    """
    options: dict[str, Any] = {"max_iterations": max_iterations, "time_limit": time_limit, "tolerance": tolerance}
    if engine is not None:
        options["engine"] = engine
    if profile and as_json:
        raise ProblemError("--profile has no effect with --json, which has the seconds as phase_seconds")
    found = find(target, horizon)
    solver = solver or (found.task.solver if found.task else "auto")
    method = registry.make(solver, **options)
    for path in (plot, animate, save):
        check_writable(path)
    check_pictures(plot, animate)
    guess = None if warm_start is None else Solution.load(warm_start)
    if animate is not None and found.task is None:
        raise ProblemError(f"{target} has no drawing to animate; --plot works, or make it a Task with a draw function")
    title = f"{found.name}, {solver}, horizon {found.problem.horizon}"
    with IterationTable(title, visible=not (quiet or as_json)) as table:
        solution = method.solve(found.problem, guess, callback=table)
    if as_json:
        print_json(as_record(solution))
    else:
        typer.echo(str(solution))
        if profile:
            print_profile(solution)
    _write(solution, found, save, plot, animate)
    raise typer.Exit(exit_status(solution))


def _write(solution: Solution, found: Target, save: Path | None, plot: Path | None, animate: Path | None) -> None:
    """Write the files asked for, and say so."""
    if save is not None:
        solution.save(save)
        _say(f"saved {save}")
    if plot is None and animate is None:
        return
    if not all(np.isfinite(x).all() for x in solution.states):
        _say("no pictures: the trajectory is not finite")
        return
    from ocpkit.plotting.plot import animate as make_animation
    from ocpkit.plotting.plot import plot_solution

    if plot is not None:
        plot_solution(solution, found.task, plot, problem=found.problem)
        _say(f"wrote {plot}")
    if animate is not None and found.task is not None:
        path = Path(f"{found.name}.gif") if animate == NAMED_AFTER_TASK else animate
        make_animation(solution, found.task, path)
        _say(f"wrote {path}")


def _say(text: str) -> None:
    typer.echo(text, err=True)
