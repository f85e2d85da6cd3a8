# %% [markdown]
"""What many guesses find: ``python examples/multi_start.py [folder] [--quick]``.

A unicycle has to pass a field of smooth hills to its goal. Each gap between hills is a local minimum of its own, and
which one DDP finds depends on the guess. `solve_batch` tries hundreds of guesses at once; the best is polished by DDP.
"""

# %%
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

import ocpkit.math as m
from ocpkit import DDP, ILQR, Problem, euler, solve_batch

HILLS = np.array([[1.2, 0.25], [2.0, -0.7], [2.2, 1.1], [3.0, 0.2], [3.7, -0.9], [3.8, 1.0]])
WIDTH, HEIGHT, GOAL, HORIZON = 0.3, 0.6, np.array([5.0, 0.0]), 40


# %% [markdown]
# ## Hills, and a unicycle among them


# %%
def height(x: Any, y: Any) -> Any:
    """Sum of Gaussian hills."""
    return sum(HEIGHT * m.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * WIDTH**2)) for a, b in HILLS)


def problem() -> Problem:
    """x = (position [m], heading [rad]), u = (speed [m/s], turn rate [rad/s]), 40 steps of 0.1 s."""
    return Problem.from_functions(
        dynamics=euler(lambda x, u: m.stack([u[0] * m.cos(x[2]), u[0] * m.sin(x[2]), u[1]]), 0.1),
        cost=lambda x, u: 0.02 * (u[0] - 1.5) ** 2 + 0.01 * u[1] ** 2 + height(x[0], x[1]),
        terminal_cost=lambda x: 10 * m.dot(x[:2] - GOAL, x[:2] - GOAL),
        x0=[0.0, 0.0, 0.0],
        horizon=HORIZON,
        controls=[1.25, 0.0],
        control_bounds=([0.0, -2.5], [2.5, 2.5]),
        name="hills",
    )


# %% [markdown]
# ## The guesses, and all of them at once


# %%
def guesses(count: int) -> np.ndarray:
    """Forward at the needed speed, turning as a random walk does (count, T, 2); the first one goes straight."""
    noise = np.random.default_rng(0).normal(size=(count, HORIZON))
    turn = 0.6 * np.cumsum(noise, 1) / np.sqrt(np.arange(1, HORIZON + 1))
    turn[0] = 0.0
    return np.stack([np.full_like(turn, 1.25), turn], -1)


# %% [markdown]
# ## The picture


# %%
def picture(states: np.ndarray, cost: np.ndarray, best: Any) -> Figure:
    """Draw all ends over the hills, by cost, and how often each cost was found."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes, bars = figure.subplots(1, 2, width_ratios=(2.4, 1))
    x, y = np.meshgrid(np.linspace(-0.3, 5.4, 200), np.linspace(-2.2, 2.2, 160))
    axes.contourf(x, y, height(x, y), levels=12, cmap="Greys", alpha=0.7)
    order = np.argsort(-cost)
    limits = float(cost.min()), float(np.quantile(cost, 0.9))
    lines = LineCollection(list(states[order, :, :2]), array=cost[order], cmap="viridis", alpha=0.5, linewidths=0.9)
    lines.set_clim(*limits)
    axes.add_collection(lines)
    axes.plot(*np.asarray(best)[:, :2].T, color="tab:red", lw=2.5, label="best")
    axes.plot(*GOAL, "k*", ms=12, label="goal")
    axes.set(xlabel="x [m]", ylabel="y [m]", ylim=(-2.2, 2.2), title="Where the guesses end")
    axes.set_aspect("equal")
    axes.legend(loc="upper left", fontsize=8)
    counts, edges = np.histogram(cost.clip(*limits), bins=30)
    shades = colormaps["viridis"]((edges[:-1] - limits[0]) / (limits[1] - limits[0]))
    bars.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=shades)
    bars.set(xlabel="cost (the worst tenth in the last bar)", ylabel="guesses", title="How often each cost is found")
    return figure


def main(folder: Annotated[Path, typer.Argument()] = Path("docs/images"), quick: bool = False) -> None:
    """Write multi-start.png, and print what was found."""
    hills = problem()
    batch = solve_batch(hills, controls=guesses(24 if quick else 200), solver=ILQR(max_iterations=60 if quick else 200))
    best = DDP().solve(hills, controls=batch.controls[batch.best])
    found = np.unique(batch.cost[batch.converged].round(4))
    print(f"{batch.converged.sum()} of {len(batch)} guesses converged, to {len(found)} different costs")
    print(f"cost: first guess {batch.cost[0]:.4f}, median {np.median(batch.cost):.4f}, best {best.cost:.4f}")
    folder.mkdir(parents=True, exist_ok=True)
    figure = picture(batch.states, batch.cost, best.states)
    figure.savefig(folder / "multi-start.png", dpi=130, metadata={"Software": None})
    print(f"wrote {folder / 'multi-start.png'}")


# %%
if __name__ == "__main__":
    typer.run(main)
