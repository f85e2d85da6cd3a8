# %% [markdown]
"""How much noise does a plan survive? ``python examples/monte_carlo.py [folder] [--quick]``.

A pendulum swings up while its motor shakes: the noise grows with the torque, x' = f(x, u) + σ h u ε. The same plan is
played as it is, with the feedback gains of DDP, and replanned by iLQG, which knows of the noise. A run succeeds if the
pendulum ends nearly upright; rates of success over many runs, with Wilson's 95 % bands. What iLQG lowers is the mean
cost: where the noise is so strong that trying costs more than hanging, it stays down.
"""

# %%
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.figure import Figure

import ocpkit.math as m
from ocpkit import DDP, ILQG, Problem, rk4, sample, without_noise

TIME_STEP, HORIZON, TOLERANCE = 0.05, 50, 0.25
COLORS = {"open loop": "0.45", "feedback of DDP": "tab:blue", "iLQG": "tab:red"}
Rates = dict[str, list[tuple[float, float, float, float]]]
"""For each policy and σ: rate of success, lower and upper end of its band, mean cost."""


# %% [markdown]
# ## The problem
# The noise enters through the motor: no torque, no noise.


# %%
def swing_up(sigma: float) -> Problem:
    """x = (angle from hanging [rad], rate [rad/s]), u = (torque [N m],), unit mass and length."""

    def rates(x: Any, u: Any) -> Any:
        return m.stack([x[1], -9.81 * m.sin(x[0]) + u[0] - 0.1 * x[1]])

    return Problem.from_functions(
        dynamics=rk4(rates, TIME_STEP),
        cost=lambda x, u: 0.5 * TIME_STEP * (0.02 * u[0] ** 2 + 0.1 * (1 + m.cos(x[0]))),
        terminal_cost=lambda x: 20 * (1 + m.cos(x[0])) + 1.0 * x[1] ** 2,
        x0=[0.0, 0.0],
        horizon=HORIZON,
        controls=[1.0],
        noise=lambda x, u: m.stack([m.stack([0.0 * u[0]]), m.stack([sigma * TIME_STEP * u[0]])]),
    )


# %% [markdown]
# ## Three policies
# `ILQG` plans with the noise in its model; the other two are one plan of `DDP`, played in two ways.


# %%
def upright(states: np.ndarray) -> bool:
    """Whether a run ended near the top, to whichever side it swung."""
    return bool(abs(abs(states[-1, 0]) - np.pi) < TOLERANCE)


def policies(problem: Problem) -> dict[str, Callable[[int, Any], Any]]:
    """Plan without and with the noise; the plan without is played in two ways."""
    plan = DDP().solve(without_noise(problem))
    knowing = ILQG().solve(problem, plan)
    return {"open loop": lambda t, x: plan.controls[t], "feedback of DDP": plan.policy, "iLQG": knowing.policy}


# %% [markdown]
# ## The experiment


# %%
def experiment(sigmas: list[float], runs: int) -> tuple[Rates, dict[str, np.ndarray]]:
    """Return the rate and its band for every policy and σ, and the runs at the middle σ for the picture."""
    rates, shown = Rates(), dict[str, np.ndarray]()
    for sigma in sigmas:
        problem = swing_up(sigma)
        for name, policy in policies(problem).items():
            outcome = sample(problem, policy, runs, seed=1)
            rate, low, high = outcome.confidence(upright)
            rates.setdefault(name, []).append((rate, low, high, float(outcome.costs.mean())))
            cost = f"J = {outcome.costs.mean():6.2f} ± {outcome.costs.std() / runs**0.5:.2f}"
            print(f"sigma {sigma:4.2f}  {name:<16} upright {rate:4.0%}  95 % band {low:4.0%} to {high:4.0%}  {cost}")
            if sigma == sigmas[len(sigmas) // 2]:
                shown[name] = outcome.states
    return rates, shown


# %% [markdown]
# ## The picture


# %%
def picture(sigmas: list[float], rates: Rates, shown: dict[str, np.ndarray]) -> Figure:
    """Success with bands and mean cost over σ, and the angle in some runs."""
    figure = Figure(figsize=(14, 3.4), layout="constrained")
    left, price, *others = figure.subplots(1, 2 + len(shown))
    for name, values in rates.items():
        rate, low, high, cost = np.transpose(values)
        price.semilogy(sigmas, cost, "o-", color=COLORS[name], ms=4)
        left.plot(sigmas, 100 * rate, "o-", color=COLORS[name], label=name, ms=4)
        left.fill_between(sigmas, 100 * low, 100 * high, color=COLORS[name], alpha=0.2, lw=0)
    left.set(xlabel=r"noise $\sigma$ per torque", ylabel="ends upright [%]", ylim=(-3, 103))
    left.legend(fontsize=8)
    price.set(xlabel=r"noise $\sigma$ per torque", ylabel="mean cost J")
    times = np.arange(HORIZON + 1) * TIME_STEP
    for axes, (name, states) in zip(others, shown.items()):
        axes.plot(times, states[:40, :, 0].T, color=COLORS[name], alpha=0.35, lw=0.8)
        axes.axhspan(np.pi - TOLERANCE, np.pi + TOLERANCE, color="tab:green", alpha=0.2, lw=0)
        axes.set(xlabel="time [s]", title=rf"{name}, $\sigma$ = {sigmas[len(sigmas) // 2]:g}", ylim=(-3.0, 6.5))
    others[0].set_ylabel("angle [rad]")
    return figure


def main(folder: Annotated[Path, typer.Argument()] = Path("docs/images"), quick: bool = False) -> None:
    """Write monte-carlo.png and print the rates."""
    sigmas, runs = ([0.2, 0.8], 10) if quick else ([0.1, 0.4, 1.0, 1.5, 2.0, 2.5], 200)
    rates, shown = experiment(sigmas, runs)
    folder.mkdir(parents=True, exist_ok=True)
    picture(sigmas, rates, shown).savefig(folder / "monte-carlo.png", dpi=110, metadata={"Software": None})
    print(f"wrote {folder / 'monte-carlo.png'}")


# %%
if __name__ == "__main__":
    typer.run(main)
