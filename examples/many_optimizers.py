# %% [markdown]
"""One recursion, many optimizers: ``python examples/many_optimizers.py [folder]``.

A pendulum is pushed from its side towards the top; every method runs the same backward pass
(`ocpkit.recursion.bellman`), with other parts: which derivatives go in, what stands for Q_uu, and whether Q_ux stays.
"""

# %%
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure

import ocpkit.math as m
from ocpkit import DDP, EMSA, ILQR, GradientDescent, Problem, rk4
from ocpkit.solvers.driver import Solver

ITERATIONS = 200

# %% [markdown]
# ## The methods
# Each is a choice of parts.

# %%
METHODS: dict[str, Solver] = {
    "gradient descent": GradientDescent(max_iterations=ITERATIONS),
    "RMSprop": GradientDescent(rule="rmsprop", learning_rate=0.02, line_search=False, max_iterations=ITERATIONS),
    "E-MSA": EMSA(max_iterations=ITERATIONS),
    "stage-wise Newton ($Q_{ux}$ dropped)": DDP(feedback=False, max_iterations=ITERATIONS),
    "iLQR": ILQR(max_iterations=ITERATIONS),
    "DDP": DDP(max_iterations=ITERATIONS),
}


# %% [markdown]
# ## The problem


# %%
def pendulum() -> Problem:
    """State (angle from hanging [rad], rate [rad/s]), control torque [N m], 2 s in 40 steps."""

    def rate(x: np.ndarray, u: np.ndarray) -> np.ndarray:
        angle, speed = x
        return m.stack([speed, u[0] - 9.81 * m.sin(angle)])

    return Problem.from_functions(
        dynamics=rk4(rate, dt=0.05),
        cost=lambda x, u: 0.5 * 0.01 * u[0] ** 2,
        terminal_cost=lambda x: 0.5 * (10 * (x[0] - np.pi) ** 2 + x[1] ** 2),
        x0=[np.pi / 2, 0.0],
        horizon=40,
        control_size=1,
        name="pendulum",
    )


# %% [markdown]
# ## How each gets to the optimum


# %%
def picture(costs: dict[str, np.ndarray]) -> Figure:
    """J − J* against the iteration."""
    best = min(c.min() for c in costs.values())
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for name, cost in costs.items():
        axes.semilogy(np.maximum(cost - best, 1e-12), label=name, lw=1.8)
    axes.set_xscale("symlog", linthresh=10)
    axes.set(xlabel="iteration", ylabel="$J - J^*$", xlim=(0, ITERATIONS), ylim=(1e-10, None))
    axes.set_title("The same backward pass, other parts")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def main(folder: Annotated[Path, typer.Argument()] = Path("docs/images")) -> None:
    """Solve with every method, print a table, write many-optimizers.png."""
    problem, costs = pendulum(), {}
    for name, solver in METHODS.items():
        solution = solver.solve(problem)
        costs[name] = np.array([iteration.cost for iteration in solution.history])
        status = solution.status.value.partition(":")[0]
        print(f"{name:<38} J = {solution.cost:.6f} after {solution.iterations:>3} iterations, {status}")
    folder.mkdir(parents=True, exist_ok=True)
    picture(costs).savefig(folder / "many-optimizers.png", dpi=110, metadata={"Software": None})
    print(f"wrote {folder / 'many-optimizers.png'}")


# %%
if __name__ == "__main__":
    typer.run(main)
