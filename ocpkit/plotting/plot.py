"""Pictures of a solution: trajectories with their units, convergence, and an animation of the task.

matplotlib's object interface only, so that nothing here needs a display or touches the user's own figures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.control.closed_loop import ClosedLoop
from ocpkit.control.mpc import Health
from ocpkit.errors import ProblemError
from ocpkit.models.task import Task
from ocpkit.problem.angles import continued
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Stage
from ocpkit.solution.solution import Solution

try:
    from matplotlib import animation
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError("pictures need matplotlib and pillow: pip install 'ocpkit[plot]'") from error

# Okabe & Ito (2008), distinguishable with color-blindness; yellow left out: too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Group = tuple[str, dict[int, str]]
"""A unit and the entries that share it, index to name."""
MAX_STEPS = 120
"""Longest animation, in frames; at most 25 more hold its end."""
INTERVALS = 4, 10
"""Hundredths of a second between frames (the unit of a GIF): 25 to 10 frames per second."""


def plot_solution(
    solution: Solution,
    task: Task | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    problem: Problem | None = None,
) -> Any:
    """Draw states, controls, gains, costs and convergence; entries of one unit share a panel.

    Parameters
    ----------
    solution
        What to draw.
    task
        Gives labels, units and the time axis; without it entries are numbered and time counts stages.
    path
        Where to save the picture, if anywhere; the suffix chooses the format.
    problem
        Gives the control bounds and the costs of the stages, which are not drawn without it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    states = _table(continued(solution.states, solution.angles if problem is None else problem.angles))
    controls, times = _table(solution.controls), _times(solution, task)
    more = 1 + (solution.feedback_gains is not None) + (problem is not None)
    stages = () if problem is None else problem.stages
    figure, panels = _draw_trajectory(times, states, controls, task, stages, more=more)
    if solution.feedback_gains is not None:
        _draw_gains(next(panels), times, solution.feedback_gains, task)
    if problem is not None:
        _draw_costs(next(panels), times, solution, problem)
    for axes in figure.axes:
        axes.set(xlabel=f"time [{task.time_unit}]" if task else "stage", xlim=(times[0], times[-1]))
    _draw_convergence(next(panels), solution)
    name = solution.problem_name if task is None else task.name
    outcome = solution.status.name.lower().replace("_", " ")
    result = f"J = {solution.cost:.6g}, {solution.iterations} iteration{'s' * (solution.iterations != 1)}, {outcome}"
    return _titled(figure, f"{name} · {solution.solver}: {result}", path)


def plot_closed_loop(
    loop: ClosedLoop,
    task: Task | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    problem: Problem | None = None,
) -> Any:
    """Draw a simulation: states and controls of the plant, and at each tick J, the health and the time of the solve.

    Parameters
    ----------
    loop
        What happened.
    task
        Gives labels and units; without it entries are numbered.
    path
        Where to save the picture, if anywhere; the suffix chooses the format.
    problem
        Gives the control bounds: those of the stage that each tick was, the first for a receding horizon.

    Returns
    -------
    matplotlib.figure.Figure
    """
    times, ticks = (loop.time_step * np.arange(float(n)) for n in (len(loop.states), len(loop.commands)))
    ticks_at = loop.stages or (0,) * len(loop.controls)
    stages = [] if problem is None else [problem.stages[min(t, problem.horizon - 1)] for t in ticks_at]
    plans = (command.plan for command in loop.commands if command.plan is not None)
    angles = next((plan.angles for plan in plans), ()) if problem is None else problem.angles
    states = np.array(continued(loop.states, angles))
    figure, panels = _draw_trajectory(times, states, loop.controls, task, stages, more=2)
    axes = next(panels)
    axes.plot(ticks, [command.cost for command in loop.commands], color=COLORS[0], linewidth=1.6)
    axes.set_ylabel("J of the plan")
    _draw_solve_times(next(panels), ticks, loop)
    for axes in figure.axes:
        axes.set(
            xlabel=f"time [{task.time_unit if task else 's'}]",
            xlim=(0.0, loop.time_step * max(len(loop.states) - 1, 1)),
        )
        axes.grid(alpha=0.3)
    return _titled(figure, f"{task.name if task else 'closed loop'}: {loop}", path)


def _titled(figure: Any, title: str, path: str | os.PathLike[str] | None) -> Any:
    """Put a title above the panels, and save them if there is a path."""
    figure.suptitle(title, fontsize="medium")
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw_trajectory(
    times: Array, states: Array, controls: Array, task: Task | None, stages: Sequence[Stage], *, more: int
) -> tuple[Any, Iterator[Any]]:
    """Draw states and controls, a panel for each unit; return the figure, and the places of `more` panels."""
    state_groups = _by_unit(task.state_labels if task else _numbered("x", states.shape[1]))
    control_groups = _by_unit(task.control_labels if task else _numbered("u", controls.shape[1]))
    figure, panels = _panels(len(state_groups) + len(control_groups) + more)
    for group in state_groups:
        axes = next(panels)
        _draw_states(axes, times, states, group)
        _finish(axes, "states", group)
    for group in control_groups:
        axes = next(panels)
        _draw_controls(axes, times, controls, group, stages)
        _finish(axes, "controls", group)
    return figure, panels


def _draw_solve_times(axes: Any, ticks: Array, loop: ClosedLoop) -> None:
    """Solve time of each tick, colored by health."""
    milliseconds = 1e3 * loop.seconds
    for health, color in zip(Health, (COLORS[2], COLORS[0], COLORS[4], COLORS[1])):
        chosen = np.array([command.health is health for command in loop.commands], dtype=bool)
        if chosen.any():
            axes.semilogy(ticks[chosen], milliseconds[chosen], ".", color=color, label=health.name.lower())
    axes.set_ylabel("solve [ms]")
    if axes.lines:
        axes.legend(fontsize="small", framealpha=0.7)


def _numbered(symbol: str, count: int) -> tuple[str, ...]:
    return tuple(f"{symbol}[{i}]" for i in range(count))


def _table(series: Any) -> Array:
    """Stack vectors of possibly different sizes into one array, NaN where an entry does not exist."""
    table: Array = np.full((len(series), max(len(entry) for entry in series)), np.nan)
    for row, entry in zip(table, series):
        row[: len(entry)] = entry
    return table


def _by_unit(labels: Sequence[str]) -> list[Group]:
    """Group labels such as "angle [rad]" by unit: [("rad", {0: "angle"}), …]; no unit counts as one."""
    groups: dict[str, dict[int, str]] = {}
    for i, label in enumerate(labels):
        match = re.fullmatch(r"(.*\S)\s+\[(.*)\]", label)
        name, unit = match.groups() if match else (label, "")
        groups.setdefault(unit, {})[i] = name
    return list(groups.items())


def _panels(count: int) -> tuple[Any, Iterator[Any]]:
    """Lay out a figure of one or two columns, filled column by column."""
    columns = 1 if count <= 3 else 2
    rows = -(-count // columns)
    figure = Figure(figsize=(6.0 * columns, 0.5 + 2.3 * rows), layout="constrained")
    places = (1 + columns * (i % rows) + i // rows for i in range(count))
    return figure, (figure.add_subplot(rows, columns, place) for place in places)


def _draw_states(axes: Any, times: Array, states: Array, group: Group) -> None:
    for (i, name), style in zip(group[1].items(), _styles()):
        axes.plot(times, states[:, i], label=name, **style)


def _draw_controls(axes: Any, times: Array, controls: Array, group: Group, stages: Sequence[Stage]) -> None:
    """Controls are held over a stage, so they are steps; bounds are dotted."""
    for (i, name), style in zip(group[1].items(), _styles()):
        axes.stairs(controls[:, i], times, baseline=None, label=name, **style)
        for bound in _bounds(stages, i):
            axes.stairs(bound, times, baseline=None, color=style["color"], linestyle=":", linewidth=1)


def _bounds(stages: Sequence[Stage], i: int) -> list[Array]:
    """Lower and upper bound of control i over the stages, if finite anywhere."""
    if not stages:
        return []
    lower = _table([np.asarray(stage.control_lower) for stage in stages])
    upper = _table([np.asarray(stage.control_upper) for stage in stages])
    return [np.where(np.isfinite(b[:, i]), b[:, i], np.nan) for b in (lower, upper) if np.isfinite(b[:, i]).any()]


def _times(solution: Solution | ClosedLoop, task: Task | None) -> Array:
    return np.arange(len(solution.states), dtype=float) * (task.time_step if task else 1.0)


def _styles() -> Any:
    """Colors first, then the same colors dashed and dash-dotted."""
    return cycle([{"color": c, "linestyle": s, "linewidth": 1.6} for s in ("-", "--", "-.") for c in COLORS])


def _finish(axes: Any, what: str, group: Group) -> None:
    unit, entries = group
    alone = next(iter(entries.values())) if len(entries) == 1 else what
    axes.set_ylabel(f"{alone} [{unit}]" if unit else alone)
    axes.grid(alpha=0.3)
    if 1 < len(entries) <= 4:
        axes.legend(fontsize="small", framealpha=0.7)
    elif 4 < len(entries) <= 24:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), ncols=-(-len(entries) // 8))


def _draw_gains(axes: Any, times: Array, gains: Sequence[Array], task: Task | None) -> None:
    """‖K_t[j]‖ of every control j: how strongly the policy reacts to a unit of distance from the plan."""
    norms = _table([np.linalg.norm(K, axis=1) for K in gains])
    labels = task.control_labels if task else _numbered("u", norms.shape[1])
    for norm, label, style in zip(norms.T, labels, _styles()):
        axes.stairs(norm, times, baseline=None, label=label, **style)
    _finish(axes, "gain ‖K‖", ("", dict(enumerate(labels)) if len(labels) > 1 else {}))


def _draw_costs(axes: Any, times: Array, solution: Solution, problem: Problem) -> None:
    """J so far: the running costs summed up, and φ at the end."""
    stages = zip(problem.stages, solution.states, solution.controls)
    running = [stage.cost.value(x, u, problem.parameter(t)) for t, (stage, x, u) in enumerate(stages)]
    total = np.concatenate([[0.0], np.cumsum(running)])
    axes.plot(times, total, color=COLORS[0], linewidth=1.6, label="Σ ℓ")
    axes.plot(times[-1], solution.cost, "o", color=COLORS[1], label="J = Σ ℓ + φ", clip_on=False)
    _finish(axes, "cost", ("", {0: "Σ ℓ", 1: "J"}))


def _draw_convergence(axes: Any, solution: Solution) -> None:
    """Distance to the final cost, gradient and gap (or violation) by iteration; zeros do not show on a log axis."""
    history = solution.history
    curves = {
        "|J − J final|": [abs(row.cost - solution.cost) for row in history],
        r"$\|Q_u\|_\infty$": [row.gradient_norm for row in history],
        "violation" if hasattr(history[-1], "violation") else "gap": [row.infeasibility for row in history],
    }
    for (name, values), style in zip(curves.items(), _styles()):
        shown = np.array(values, dtype=float)
        shown[~(np.isfinite(shown) & (shown > 0))] = np.nan
        if np.isfinite(shown).any():
            marker = "o" if len(history) <= 60 else ""
            axes.semilogy([row.index for row in history], shown, label=name, marker=marker, markersize=3, **style)
    axes.set_xlabel("iteration")
    axes.set_ylabel("convergence")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small", framealpha=0.7)


def picture_formats() -> frozenset[str]:
    """Suffixes that a picture may have."""
    return frozenset(FigureCanvasAgg.filetypes)


def animation_writer(path: str | os.PathLike[str], fps: float = 25.0) -> Any:
    """Choose matplotlib's writer by suffix.

    Raises
    ------
    ProblemError
        If the suffix is none of .gif, .html and .mp4, or .mp4 is asked for and there is no ffmpeg.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".gif", ".html", ".mp4"):
        raise ProblemError(f"cannot write {path}: an animation ends in .gif, .html or .mp4")
    if suffix == ".gif":
        return animation.PillowWriter(fps=fps)
    if suffix == ".html":
        return animation.HTMLWriter(fps=fps, embed_frames=True, default_mode="loop")
    if not animation.FFMpegWriter.isAvailable():
        raise ProblemError(f"cannot write {path}: .mp4 needs the program ffmpeg; install it, or write a .gif or .html")
    return animation.FFMpegWriter(fps=fps)


def animate(solution: Solution | ClosedLoop, task: Task, path: str | os.PathLike[str]) -> None:
    """Film the trajectory with the task's drawing, in real time where frames suffice, and hold its end.

    Parameters
    ----------
    solution
        What to film: a plan, or what happened in a simulation.
    task
        Gives the drawing, the view and the time step.
    path
        A ``.gif``, ``.html`` (a page with controls to pause and step through it) or ``.mp4`` file.

    Raises
    ------
    ProblemError
        If the file ends otherwise, ffmpeg is missing for .mp4, or there is no control, as in a simulation whose
        controller was lost at once.
    """
    if not len(solution.controls):
        raise ProblemError("there is nothing to animate: no control was applied")
    times = _times(solution, task)
    shown, fps = _frames(times, real_time=task.time_unit == "s")
    writer = animation_writer(path, fps)
    controls = [*solution.controls, solution.controls[-1]]
    figure, axes = _stage_for(task)
    stamp = figure.text(0.54, 0.95, "", fontfamily="monospace", horizontalalignment="center")
    empty = set(axes.get_children())
    with writer.saving(figure, os.fspath(path), dpi=100):
        for t in shown:
            for artist in set(axes.get_children()) - empty:  # clear() would build new ticks
                artist.remove()
            axes.set_prop_cycle(None)
            task.draw(axes, solution.states[t], controls[t])
            stamp.set_text(f"{task.name}   {times[t]:.2f} {task.time_unit}")
            writer.grab_frame()


def _stage_for(task: Task) -> tuple[Any, Any]:
    """Make empty axes that show the task's view; their place is fixed, since a layout per frame costs most."""
    left, right, bottom, top, *depth = task.view
    figure = Figure(figsize=(5.0, 4.0))
    axes = figure.add_axes((0.13, 0.13, 0.83, 0.79), projection="3d" if depth else None)
    axes.set(xlim=(left, right), ylim=(bottom, top), **({"zlim": depth} if depth else {}))
    axes.set_aspect("equal")
    return figure, axes


def _frames(times: Array, *, real_time: bool) -> tuple[list[int], float]:
    """Choose the stages to show, the last one held for a second, and the frames per second."""
    last = len(times) - 1
    hundredths = 100 * (times[-1] - times[0]) if real_time else INTERVALS[1] * last
    interval = np.clip(np.ceil(hundredths / min(last, MAX_STEPS)), *INTERVALS)
    steps = round(np.clip(hundredths / interval, 1, min(last, MAX_STEPS)))
    shown = np.linspace(0, last, steps + 1).round().astype(int)
    return [*shown.tolist(), *[last] * round(100 / interval)], float(100 / interval)
