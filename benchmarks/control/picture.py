"""One figure: iterations against Crocoddyl by size, solves by task, and growth with the horizon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import colormaps

from benchmarks.control import sweeps
from benchmarks.control.row import Row

SWEEPS = (*sweeps.HORIZON_SWEEPS, sweeps.SIZE_SWEEP)


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write the figure to a file of any kind that matplotlib knows."""
    timed = [row for row in rows if row.per_iteration_us is not None]
    names = list(dict.fromkeys(row.system for row in timed))
    palette = colormaps["tab20"]
    colors = {name: palette(i % 20) for i, name in enumerate(names)}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(17, 6), layout="constrained")
    _iterations(left, [row for row in timed if row.task == sweeps.SIZE_SWEEP], colors)
    _solves(middle, [row for row in timed if row.task not in SWEEPS], colors)
    _horizons(right, [row for row in timed if row.task in sweeps.HORIZON_SWEEPS], colors)
    handles = [plt.Line2D([], [], linestyle="", color=colors[name], label=name, **_marker(name)) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(7, max(1, len(names))), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _marker(system: str) -> dict[str, Any]:
    """Stars for ocpkit, dots for the others."""
    ours = system.startswith("ocpkit")
    return {"marker": "*" if ours else "o", "markersize": 11 if ours else 6, "zorder": 3 if ours else 2}


def _iterations(axes: Any, rows: Sequence[Row], colors: dict[str, Any]) -> None:
    for name in dict.fromkeys(row.system for row in rows):
        points = [(row.n, row.per_iteration_us) for row in rows if row.system == name]
        axes.loglog(*zip(*points), "o-", color=colors[name])
    sizes = sorted({row.n for row in rows})
    axes.set(title="One iteration, linear-quadratic, T = 100, m = n/4", xlabel="state size n", ylabel="µs")
    axes.set_xticks(sizes, [str(n) for n in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(which="both", alpha=0.2)


def _solves(axes: Any, rows: Sequence[Row], colors: dict[str, Any]) -> None:
    """Dots: milliseconds from guess to the same optimum; systems that ended elsewhere are left out."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    for row in rows:
        if row.solve_ratio is not None:
            axes.semilogx(row.solve_ms, tasks.index(row.task), color=colors[row.system], **_marker(row.system))
    axes.set(title="From the guess to the same optimum", xlabel="ms", yticks=range(len(tasks)), yticklabels=tasks)
    axes.invert_yaxis()
    axes.grid(which="both", alpha=0.2)


def _horizons(axes: Any, rows: Sequence[Row], colors: dict[str, Any]) -> None:
    for task, style in zip(sweeps.HORIZON_SWEEPS, ("o-", "s--")):
        for name in dict.fromkeys(row.system for row in rows):
            points = [(row.horizon, row.per_iteration_us) for row in rows if (row.task, row.system) == (task, name)]
            if points:
                axes.loglog(*zip(*points), style, color=colors[name])
                axes.annotate(task.removeprefix("horizon-"), points[-1], ha="right", va="bottom", fontsize=8)
    axes.set(title="One iteration, growth with the horizon", xlabel="horizon T", ylabel="µs")
    axes.grid(which="both", alpha=0.2)
