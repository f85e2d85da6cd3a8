# %% [markdown]
"""Learn a cost from demonstrations (inverse optimal control): ``python examples/learn_cost.py [folder] [--quick]``.

An expert swings a pendulum to rest from several starts, with weights that we do not know. `torch_layer` turns our own
solver into a layer (x0, weights) ↦ (states, controls), so that the weights are learnt by Adam on the distance to the
demonstrations; each gradient is one more Bellman pass. A start that was not shown tests the result.
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
from ocpkit import DDP, Problem, rk4, torch_layer

TIME_STEP, HORIZON = 0.1, 20
NAMES = ("angle", "rate", "torque")
EXPERT = np.array([2.0, 0.1, 0.5])  # only ratios can be seen in the demonstrations
STARTS = np.array([[1.0, 0.0], [-1.5, 1.0], [0.5, -2.0], [2.0, 0.0]])
UNSEEN = np.array([-1.0, -1.5])


# %% [markdown]
# ## The problem, with weights as parameters


# %%
def problem() -> Problem:
    """Bring the pendulum to rest at angle 0.7 rad; the parameters are the logarithms of the weights."""

    def rates(x: Any, u: Any) -> Any:
        return m.stack([x[1], -9.81 * m.sin(x[0]) + u[0] - 0.3 * x[1]])

    def cost(x: Any, u: Any, p: Any) -> Any:
        w = m.exp(p)
        return 0.5 * TIME_STEP * (w[0] * (x[0] - 0.7) ** 2 + w[1] * x[1] ** 2 + w[2] * 0.1 * u[0] ** 2)

    return Problem.from_functions(
        dynamics=rk4(rates, TIME_STEP),
        cost=cost,
        terminal_cost=lambda x, p: m.exp(p[0]) * (x[0] - 0.7) ** 2,
        x0=STARTS[0],
        horizon=HORIZON,
        parameters=np.zeros(3),
        name="demonstrated",
    )


# %% [markdown]
# ## What the expert shows


# %%
def demonstrations(seed: int = 0, noise: float = 0.02) -> torch.Tensor:
    """The expert's states from every start, measured with noise, (4, T + 1, 2)."""
    expert = problem().replace(parameters=np.log(EXPERT))
    states = np.stack([DDP().solve(expert.replace(x0=x0)).states for x0 in STARTS])
    return torch.from_numpy(states + noise * np.random.default_rng(seed).normal(size=states.shape))


# %% [markdown]
# ## Learning
# `torch_layer` maps starts and weights to optimal states, and can be differentiated.


# %%
def learn(steps: int) -> tuple[np.ndarray, list[float]]:
    """Return the learnt weights, scaled so that the first is the expert's, and the losses."""
    layer, shown = torch_layer(problem()), demonstrations()
    free = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # the first weight fixes the scale
    optimizer, losses = torch.optim.Adam([free], lr=0.1), []
    for _ in range(steps):
        weights = torch.cat([torch.zeros(1, dtype=torch.float64), free])
        states, _ = layer(torch.from_numpy(STARTS), weights)
        loss = ((states - shown) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return EXPERT[0] * np.exp([0.0, *free.detach().numpy()]), losses


# %% [markdown]
# ## The test, from a start that was not shown


# %%
def on_unseen(weights: np.ndarray) -> np.ndarray:
    """States from the start that was not shown."""
    return DDP().solve(problem().replace(x0=UNSEEN, parameters=np.log(weights))).states


def picture(weights: np.ndarray, losses: list[float]) -> Figure:
    """The loss, and the angle and rate from the unseen start."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.semilogy(losses, color="tab:blue")
    left.axhline(0.02**2, color="0.6", ls=":")
    left.set(xlabel="Adam step", ylabel="mean squared distance", title="to the demonstrations (dotted: noise)")
    paths = {"equal weights": np.full(3, EXPERT[0]), "learnt": weights, "expert": EXPERT}
    styles = {"equal weights": ("0.6", "-"), "learnt": ("tab:red", "-"), "expert": ("k", ":")}
    times = np.arange(HORIZON + 1) * TIME_STEP
    for axes, i, label in ((middle, 0, "angle [rad]"), (right, 1, "rate [rad/s]")):
        for name, values in paths.items():
            color, style = styles[name]
            axes.plot(times, on_unseen(values)[:, i], color=color, ls=style, lw=2.0, label=name)
        axes.set(xlabel="time [s]", ylabel=label, title="from a start that was not shown")
    right.legend(fontsize=8)
    return figure


def main(folder: Annotated[Path, typer.Argument()] = Path("docs/images"), quick: bool = False) -> None:
    """Write learn-cost.png, and print the weights and the distances from the unseen start."""
    weights, losses = learn(3 if quick else 100)
    for name, learnt, true in zip(NAMES, weights, EXPERT):
        print(f"weight of the {name:<7} learnt {learnt:.3f}, expert's {true:.3f}")
    print(f"mean squared distance to the demonstrations: {losses[0]:.2e} at first, {losses[-1]:.2e} at the end")
    for name, values in (("equal weights", np.full(3, EXPERT[0])), ("learnt", weights)):
        error = np.abs(on_unseen(values) - on_unseen(EXPERT)).max()
        print(f"largest distance to the expert from the unseen start, {name:<13}: {error:.3f}")
    folder.mkdir(parents=True, exist_ok=True)
    picture(weights, losses).savefig(folder / "learn-cost.png", dpi=110, metadata={"Software": None})
    print(f"wrote {folder / 'learn-cost.png'}")


# %%
if __name__ == "__main__":
    typer.run(main)
