# %% [markdown]
"""How good must a sensor be? ``python examples/estimator.py [folder] [--quick]``.

A weak motor holds a pendulum up against random pushes, by the feedback of one plan. The policy is given the state, the
estimate of a Kalman filter that sees only the angle, or that angle and its differences over a time step (the same
filter with the gains 1 and 1/Δt, a dead-beat observer). A run succeeds if the pendulum never leaves the upright by more
than 0.5 rad; rates of success over many runs, with Wilson's 95 % bands.
"""

# %%
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.figure import Figure

import ocpkit.math as m
from ocpkit import DDP, KalmanFilter, Problem, rk4, sample, without_noise

TIME_STEP, HORIZON, PUSH, STRONGEST, FALLEN = 0.05, 80, 0.02, 4.0, 0.5
COLORS = {"state": "0.45", "Kalman filter": "tab:blue", "differences": "tab:red"}
Rates = dict[str, list[tuple[float, float, float, float]]]
"""For each source and sensor noise: rate of success, lower and upper end of its band, mean cost."""


# %% [markdown]
# ## The problem
# A pendulum that is to stay upright, with a push at every step.


# %%
def upright() -> Problem:
    """x = (angle from upright [rad], rate [rad/s]), u = (torque [N m],), unit mass and length."""
    return Problem.from_functions(
        dynamics=rk4(lambda x, u: m.stack([x[1], 9.81 * m.sin(x[0]) + u[0]]), TIME_STEP),
        cost=lambda x, u: 0.5 * TIME_STEP * (x[0] ** 2 + 0.1 * x[1] ** 2 + 0.02 * u[0] ** 2),
        terminal_cost=lambda x: x[0] ** 2 + 0.1 * x[1] ** 2,
        x0=[0.0, 0.0],
        horizon=HORIZON,
        control_bounds=(-STRONGEST, STRONGEST),
        noise=lambda x, u: PUSH * np.eye(2),
    )


# %% [markdown]
# ## What the policy is given
# The state itself, or one of two estimates. A filter is a list of gains; differences are one too.


# %%
def sources(problem: Problem, sigma: float) -> dict[str, KalmanFilter | None]:
    """What the policy is given, for a sensor of the angle with deviation σ [rad]."""
    kalman = KalmanFilter(problem, lambda x: x[:1], sigma, PUSH**2)
    differences = [np.array([[1.0], [0.0]]), *[np.array([[1.0], [1.0 / TIME_STEP]])] * HORIZON]
    return {"state": None, "Kalman filter": kalman, "differences": replace(kalman, gains=differences)}


# %% [markdown]
# ## The experiment
# One plan for all: only what it is told of the state changes.


# %%
def held(states: np.ndarray) -> bool:
    """Whether a run stayed near the upright."""
    return bool(np.abs(states[:, 0]).max() < FALLEN)


def experiment(sigmas: list[float], runs: int) -> tuple[Rates, dict[str, Any]]:
    """Return the rate and its band for every source and σ, and the runs at the middle σ for the picture."""
    problem, rates, shown = upright(), Rates(), dict[str, Any]()
    plan = DDP().solve(without_noise(problem))
    for sigma in sigmas:
        for name, estimator in sources(problem, sigma).items():
            outcome = sample(problem, plan.policy, runs, seed=1, estimator=estimator)
            rate, low, high = outcome.confidence(held)
            rates.setdefault(name, []).append((rate, low, high, float(outcome.costs.mean())))
            cost = f"J = {outcome.costs.mean():7.3f} ± {outcome.costs.std() / runs**0.5:.3f}"
            print(f"sigma {sigma:5.3f}  {name:<14} held {rate:4.0%}  95 % band {low:4.0%} to {high:4.0%}  {cost}")
            if sigma == sigmas[len(sigmas) // 2]:
                shown[name] = outcome
    return rates, shown


# %% [markdown]
# ## The picture


# %%
def picture(sigmas: list[float], rates: Rates, shown: dict[str, Any]) -> Figure:
    """Success with bands and mean cost over σ, and the rate of one run with what the policy was given of it."""
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    left, price, run = figure.subplots(1, 3)
    for name, values in rates.items():
        rate, low, high, cost = np.transpose(values)
        left.semilogx(sigmas, 100 * rate, "o-", color=COLORS[name], label=name, ms=4)
        left.fill_between(sigmas, 100 * low, 100 * high, color=COLORS[name], alpha=0.2, lw=0)
        price.loglog(sigmas, cost, "o-", color=COLORS[name], ms=4)
    left.set(xlabel=r"sensor noise $\sigma$ [rad]", ylabel="stays upright [%]", ylim=(-3, 103))
    left.legend(fontsize=8)
    price.set(xlabel=r"sensor noise $\sigma$ [rad]", ylabel="mean cost J")
    times = np.arange(HORIZON + 1) * TIME_STEP
    for name in ("differences", "Kalman filter"):
        run.plot(times, shown[name].estimates[0, :, 1], color=COLORS[name], lw=0.9, label=f"{name}: estimate")
    run.plot(times, shown["Kalman filter"].states[0, :, 1], color="black", lw=1.2, label="Kalman filter: truth")
    run.set(xlabel="time [s]", ylabel="rate [rad/s]", title=rf"$\sigma$ = {sigmas[len(sigmas) // 2]:g} rad")
    run.legend(fontsize=8)
    return figure


def main(folder: Annotated[Path, typer.Argument()] = Path("docs/images"), quick: bool = False) -> None:
    """Write estimator.png and print the rates."""
    sigmas, runs = ([0.01, 0.1], 10) if quick else ([0.003, 0.01, 0.03, 0.1, 0.3], 100)
    rates, shown = experiment(sigmas, runs)
    folder.mkdir(parents=True, exist_ok=True)
    picture(sigmas, rates, shown).savefig(folder / "estimator.png", dpi=110, metadata={"Software": None})
    print(f"wrote {folder / 'estimator.png'}")


# %%
if __name__ == "__main__":
    typer.run(main)
