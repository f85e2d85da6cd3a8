"""`ocpkit mpc`: close the loop around a plant unlike the model, by planning anew or by one plan's feedback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ocpkit import registry
from ocpkit.cli import exits
from ocpkit.cli.find import Target, find
from ocpkit.cli.outputs import check_pictures, check_writable
from ocpkit.cli.report import print_json
from ocpkit.control.closed_loop import INTERRUPTED, ClosedLoop, Controller, simulate
from ocpkit.control.mpc import MPC, Health
from ocpkit.control.plan_feedback import PlanFeedback
from ocpkit.errors import ProblemError
from ocpkit.problem.constraint_rows import has_rows
from ocpkit.problem.stage import Dynamics

ITERATIONS = 5
"""Per tick, where nobody says how many."""
LONGEST_BUILD = 60.0  # seconds


def mpc_command(
    target: Annotated[
        str, typer.Argument(metavar="TASK", help="A task of `ocpkit list`, or path/to/my_model.py:problem.")
    ],
    feedback: Annotated[bool, typer.Option("--feedback", help="Follow one plan's feedback; plan only once.")] = False,
    iterations: Annotated[int | None, typer.Option(min=1, help="Iterations per tick.", show_default="5")] = None,
    ticks: Annotated[int | None, typer.Option(min=1, help="Length.", show_default="the horizon")] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Number of stages.", show_default="the task's")] = None,
    solver: Annotated[
        str | None, typer.Option("--solver", "-s", help="By which to plan.", show_default="the task's, or ddp")
    ] = None,
    mass: Annotated[float, typer.Option(min=0.01, help="Masses of the plant, as a multiple of the model's.")] = 1.0,
    friction: Annotated[float, typer.Option(min=0.0, help="Frictions, likewise.")] = 1.0,
    measurement_noise: Annotated[float, typer.Option(min=0.0, help="Standard deviation in every state.")] = 0.0,
    process_noise: Annotated[float, typer.Option(min=0.0, help="Likewise, added at every tick.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    log: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write one line per tick.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw what happened.")] = None,
    animate: Annotated[
        Path | None, typer.Option(metavar="FILE.gif|.html|.mp4", help="Show it move, as a drawing.")
    ] = None,
    film: Annotated[Path | None, typer.Option(metavar="FILE.gif", help="Render it, for plants in MuJoCo.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Control a simulated plant by model predictive control, or by the feedback of one plan.

    Exit status: 0 if every tick had a usable plan, 1 if not, 2 wrong input, 130 Ctrl-C (what happened is written).
    """
    if feedback and iterations is not None:
        raise ProblemError("--iterations has no effect with --feedback, which plans only once")
    for path in (log, plot, animate, film):
        check_writable(path)
    check_pictures(plot, animate)
    found = find(target, horizon)
    if animate is not None and found.task is None:
        raise ProblemError(f"{target} has no drawing to animate; make it a Task with a draw function")
    plant = _plant(found, mass, friction)
    if film is not None and plant is None:
        raise ProblemError(f"{target} is not simulated in MuJoCo; use --animate")
    method = registry.make(solver or _usual_solver(found))
    controller: Controller
    if feedback:
        controller = PlanFeedback(found.problem, method.solve(found.problem))
    else:
        controller = MPC(found.problem, replace(method, max_iterations=iterations or ITERATIONS), first_solver=method)
        with Console(stderr=True).status("compiling the controller"):
            _warm_up(controller)
    loop = simulate(
        controller,
        found.problem.horizon if ticks is None else ticks,
        plant=plant,
        measurement_noise=measurement_noise,
        process_noise=process_noise,
        seed=seed,
        time_step=found.task.time_step if found.task else 1.0,
    )
    if loop.broken_off == INTERRUPTED and not loop.commands:
        raise typer.Exit(exits.INTERRUPTED)
    total = loop.cost(found.problem)
    if as_json:
        print_json(_record(loop, total))
    else:
        typer.echo(f"{found.name}, {'feedback of one plan' if feedback else 'MPC'}: {loop}; J paid {total:.6g}")
    _write(loop, found, plant, log, plot, animate, film)
    if loop.broken_off == INTERRUPTED:
        raise typer.Exit(exits.INTERRUPTED)
    raise typer.Exit(exits.NOT_CONVERGED if loop.broken_off or loop.count(Health.HELD) else 0)


def _usual_solver(found: Target) -> str:
    """Name of the solver that plans where nobody chooses one: warm ticks want compiled sweeps."""
    if found.task is not None and found.task.solver != "auto":
        return found.task.solver
    return "al" if has_rows(found.problem) else "ddp"


def _warm_up(controller: MPC) -> None:
    """Wait for the compiler, but not for one that hangs."""
    try:
        controller.warm_up(LONGEST_BUILD)
    except KeyboardInterrupt:
        raise typer.Exit(exits.INTERRUPTED) from None


def _plant(found: Target, mass: float, friction: float) -> Dynamics | None:
    """Return the simulated plant; None: the model itself."""
    if found.task is not None and found.task.plant is not None:
        return found.task.plant(mass, friction)
    if (mass, friction) != (1.0, 1.0):
        raise ProblemError(f"{found.name} has no plant whose mass and friction can differ from the model's")
    return None


def _record(loop: ClosedLoop, total: float) -> dict[str, Any]:
    tally = {health.name.lower(): loop.count(health) for health in Health}
    return {
        "ticks": len(loop.controls),
        **tally,
        "lost_at": loop.lost_at,
        "broken_off": loop.broken_off,
        "cost": total,
        "state": loop.states[-1].tolist(),
    }


def _write(
    loop: ClosedLoop,
    found: Target,
    plant: Any,
    log: Path | None,
    plot: Path | None,
    animate: Path | None,
    film: Path | None,
) -> None:
    """Write the files asked for, and say so."""
    if log is not None:
        loop.write_log(log)
    if plot is not None:
        from ocpkit.plotting.plot import plot_closed_loop

        plot_closed_loop(loop, found.task, plot, problem=found.problem)
    if animate is not None and not len(loop.controls):
        typer.echo("no animation: the controller was lost at once", err=True)
        animate = None
    if animate is not None and found.task is not None:
        from ocpkit.plotting.plot import animate as make_animation

        make_animation(loop, found.task, animate)
    if film is not None:
        from ocpkit.robots.film import film as make_film

        make_film(plant, loop.states, film)
    for path in (log, plot, animate, film):
        if path is not None:
            typer.echo(f"wrote {path}", err=True)
