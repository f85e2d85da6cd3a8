"""Performance profiles (Dolan & Moré 2002): of how many problems is a system within a factor τ of the best?

ρ_s(τ) = share of all cases with t_s ≤ τ min over all systems of t,   t_s infinite where s fails
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robustness.record import Record
from benchmarks.robustness.verdicts import Table, iterations, seconds, success
from ocpkit.boundary.arrays import Array

RIGHT = 1e3  # τ at the right end of the picture


def ratios(costs: Mapping[str, Sequence[float]]) -> dict[str, Array]:
    """Return t_s over the least t of each case, infinite where s failed; also where all did."""
    names, every = list(costs), np.array(list(costs.values()), float)
    least = every.min(axis=0)
    with np.errstate(invalid="ignore"):
        relative = np.where(np.isfinite(every), every / least, np.inf)
    return dict(zip(names, relative))


def share_within(relative: Array, factors: Array) -> Array:
    """Return ρ (k,) at factors τ (k,)."""
    return np.searchsorted(np.sort(relative), factors, side="right") / len(relative)


def costs_of(table: Table, of: Callable[[Record], float | None]) -> dict[str, list[float]]:
    """Return t of each system on all cases, infinite where it fails or does not apply."""
    runs = {system: {record.case: record for record in table.of("all", system)} for system in table.systems}
    cases = dict.fromkeys(record.case for record in table.records)
    return {system: [_cost(each.get(case), of) for case in cases] for system, each in runs.items()}


def _cost(record: Record | None, of: Callable[[Record], float | None]) -> float:
    return np.inf if record is None or not success(record) else of(record) or np.inf


def draw(path: Path, table: Table) -> None:
    """Write the profiles of time and iterations to a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    for each, of, what in zip(axes, (seconds, iterations), ("time", "iterations")):
        _panel(each, costs_of(table, of), what)
    axes[0].set_ylabel("share of all runs solved")
    axes[1].legend(loc="lower right", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Any, costs: Mapping[str, Sequence[float]], what: str) -> None:
    for system, relative in ratios(costs).items():
        factors = np.unique(np.concatenate([[1.0, RIGHT], relative[relative <= RIGHT]]))
        axes.step(factors, share_within(relative, factors), where="post", label=system)
    axes.set(xscale="log", xlim=(1, RIGHT), ylim=(0, 1.01), title=what)
    axes.set_xlabel(f"τ: {what} over the least of all systems")
    axes.grid(which="major", alpha=0.3)
