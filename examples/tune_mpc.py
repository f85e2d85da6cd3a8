# %% [markdown]
"""Tune a controller by gradient through its own closed loop: ``python examples/tune_mpc.py [folder] [--quick]``.

An MPC looks only 0.4 s ahead and its model is too light, so its terminal cost must stand for all that comes after.
The closed loop of N ticks is differentiated as one function of the weights: the plant by torch, every solve by one more
Bellman pass (`torch_layer`). What is minimized is the true cost of the plant over 3 s, not the plan's.
"""

# %%
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure

import ocpkit.math as m
from ocpkit import MPC, Problem, rk4, simulate, torch_layer

TIME_STEP, HORIZON, TICKS = 0.05, 8, 60
START = np.array([np.pi - 0.6, 0.0])
FIRST = np.log([0.1, 0.1])  # logarithms of the weights of angle² and rate² at the end of the plan


# %% [markdown]
# ## The plant, and what it really pays


# %%
def pendulum(mass: float) -> Any:
    """One step of the pendulum; the torque drives a mass on one meter."""

    def rates(x: Any, u: Any) -> Any:
        return m.stack([x[1], -9.81 * m.sin(x[0]) + u[0] / mass - 0.1 * x[1]])

    return rk4(rates, TIME_STEP)


plant = pendulum(1.3)


def stage_cost(x: Any, u: Any) -> Any:
    """What the plant really pays at a tick."""
    return TIME_STEP * ((x[0] - np.pi) ** 2 + 0.1 * x[1] ** 2 + 0.01 * u[0] ** 2)


# %% [markdown]
# ## The controller's model
# Its two parameters weigh where the short plan ends.


# %%
def model() -> Problem:
    """The controller's short problem; its parameters are the weights at the end."""

    def terminal_cost(x: Any, p: Any) -> Any:
        w = m.exp(p)
        return w[0] * (x[0] - np.pi) ** 2 + w[1] * x[1] ** 2

    return Problem.from_functions(
        dynamics=pendulum(1.0),
        cost=stage_cost,
        terminal_cost=terminal_cost,
        x0=START,
        horizon=HORIZON,
        control_size=1,
        parameters=FIRST,
        name="short-sighted",
    )


# %% [markdown]
# ## The closed loop as a function of the weights
# Every tick is a solve, and every solve is differentiated.


# %%
def closed_loop_cost(layer: Any, weights: torch.Tensor) -> torch.Tensor:
    """Cost of the plant under the controller, as a function of the weights."""
    x, total = torch.from_numpy(START), torch.zeros((), dtype=torch.float64)
    for _ in range(TICKS):
        _, controls = layer(x, weights)
        total = total + stage_cost(x, controls[0])
        x = plant(x, controls[0])
    return total


def tune(steps: int) -> tuple[np.ndarray, list[float]]:
    """Return the best logarithms that were met, and the closed-loop costs on the way."""
    layer = torch_layer(model())
    weights = torch.tensor(FIRST, requires_grad=True)
    optimizer, costs, met = torch.optim.Adam([weights], lr=0.15), [], []
    for _ in range(steps):
        cost = closed_loop_cost(layer, weights)
        met.append(weights.detach().numpy().copy())
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(cost.item())
    return met[int(np.argmin(costs))], costs


# %% [markdown]
# ## Before and after, with the real controller


# %%
def replay(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """States, controls and cost of the real controller with these weights, in a simulation."""
    controller = MPC(model().replace(parameters=weights))
    loop = simulate(controller, TICKS, plant=lambda x, u: np.asarray(plant(x, u)))
    return loop.states, loop.controls, float(sum(map(stage_cost, loop.states[:-1], loop.controls)))


def picture(weights: np.ndarray, costs: list[float]) -> Figure:
    """The cost over the steps, and the loop before and after."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(costs, "o-", ms=3, color="tab:blue")
    left.set(xlabel="Adam step", ylabel="cost of the closed loop")
    times = np.arange(TICKS + 1) * TIME_STEP
    for label, values, color in (("before", FIRST, "0.5"), ("tuned", weights, "tab:red")):
        states, controls, cost = replay(values)
        middle.plot(times, states[:, 0], color=color, label=f"{label}: cost {cost:.3f}")
        right.stairs(controls[:, 0], times, baseline=None, color=color, lw=1.5)
    middle.axhline(np.pi, color="0.7", ls=":")
    middle.set(xlabel="time [s]", ylabel="angle [rad]")
    middle.legend(fontsize=8)
    right.set(xlabel="time [s]", ylabel="torque [N m]")
    return figure


def main(folder: Annotated[Path, typer.Argument()] = Path("docs/images"), quick: bool = False) -> None:
    """Write tune-mpc.png, and print the weights and costs before and after."""
    weights, costs = tune(3 if quick else 40)
    for label, values in (("before", FIRST), ("tuned", weights)):
        angle, rate = np.exp(values)
        print(f"{label:<6}: weights {angle:.3f} (angle), {rate:.3f} (rate); closed loop {replay(values)[2]:.4f}")
    folder.mkdir(parents=True, exist_ok=True)
    picture(weights, costs).savefig(folder / "tune-mpc.png", dpi=110, metadata={"Software": None})
    print(f"wrote {folder / 'tune-mpc.png'}")


# %%
if __name__ == "__main__":
    typer.run(main)
