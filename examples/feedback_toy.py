# %% [markdown]
"""Draw why feedback helps (after Fig. 2 of the paper): ``python examples/feedback_toy.py [folder]``.

Left: a loss L(x, u) in one state and one control. Without the mixed derivative the update of u is the same
wherever x ends up; with it the update is a line that stays in the valley.
Middle and right: three stages move a point in the plane towards a target. Gradient descent computes three
corrections as if each were the only one, and together they overshoot. With feedback each stage looks where
the earlier ones have brought the state.
"""

# %%
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ocpkit.math as m
from ocpkit import DDP, Damping, Problem
from ocpkit.engines.numpy import NumpyEngine, Policy
from ocpkit.recursion.curvature import Identity, Proximal
from ocpkit.solution.trajectory import Trajectory

LEARNING_RATE = 0.65
TARGET = np.array([2.0, 1.0])
GRAY, BLUE, GREEN, RED = "0.45", "tab:blue", "tab:green", "tab:red"


# %% [markdown]
# ## One state, one control
# Along the bottom of this valley the best u depends on x: that is what the mixed derivative L_ux knows.


# %%
def valley(x: float, u: float) -> tuple[float, float, float, float]:
    """L = ½(u + sin x)² + x²/20, with L_u, L_ux and L_uu."""
    return 0.5 * (u + np.sin(x)) ** 2 + x**2 / 20, u + np.sin(x), np.cos(x), 1.0


def draw_valley(axes: Axes, x0: float = -0.5, u0: float = -1.1) -> None:
    """Contours of L, the step −L_u/L_uu and the line −L_u/L_uu − (L_ux/L_uu) δx."""
    x, u = np.meshgrid(np.linspace(-2, 1.5, 200), np.linspace(-1.7, 1.6, 200))
    axes.contourf(x, u, valley(x, u)[0] ** 0.5, levels=18, cmap="Blues")
    _, Lu, Lux, Luu = valley(x0, u0)
    for dx in (-0.8, -0.4, 0.0, 0.4, 0.8):
        axes.annotate(
            "", (x0 + dx, u0 - Lu / Luu), (x0 + dx, u0), arrowprops={"arrowstyle": "->", "color": GREEN, "lw": 1.6}
        )
    dx = np.array([-1.0, 1.0])
    axes.plot(x0 + dx, u0 - Lu / Luu + 0 * dx, color=GREEN, lw=2, ls="--", label="without feedback: $k$")
    axes.plot(x0 + dx, u0 - (Lu + Lux * dx) / Luu, color=RED, lw=2.5, label=r"with feedback: $k + K\,\delta x$")
    axes.plot(x0, u0, "ko")
    axes.annotate("$(x_0, u_0)$", (x0, u0), (x0 + 0.1, u0 - 0.3))
    axes.set(xlabel="state $x$", ylabel="control $u$", title="A valley of the loss $L(x, u)$")
    axes.legend(loc="upper right", fontsize=8)


# %% [markdown]
# ## Three stages in the plane


# %%
def toy() -> Problem:
    """Three stages in the plane: x' = x + R(x) u, where R turns u by an angle that depends on the state."""

    def step(x: np.ndarray, u: np.ndarray) -> np.ndarray:
        angle = 0.4 * m.sin(x[0]) - 0.3 * x[1]
        return m.stack(
            [x[0] + m.cos(angle) * u[0] - m.sin(angle) * u[1], x[1] + m.sin(angle) * u[0] + m.cos(angle) * u[1]]
        )

    return Problem.from_functions(
        dynamics=step,
        cost=lambda x, u: 0.0 * u[0],
        terminal_cost=lambda x: 0.5 * m.dot(x - TARGET, x - TARGET),
        x0=[0.0, 0.0],
        horizon=3,
        controls=[[0.45, -0.1], [0.45, 0.15], [0.35, -0.15]],
    )


# %% [markdown]
# ## One iteration, with feedback and without
# Both are the same backward pass with other parts.


# %%
def one_iteration(problem: Problem, feedback: bool) -> tuple[Trajectory, Policy, Trajectory]:
    """Gradient descent (Q_ux dropped, Q_uu = I/η), or the same with V_xx, Q_ux and Q_uu = I/η + f_uᵀV_xx f_u."""
    rate = Identity(LEARNING_RATE)
    engine = NumpyEngine(problem)
    nominal = engine.rollout(problem.controls)
    stages, terminal = engine.expand(nominal, second_order=False)
    policy = engine.backward_pass(
        stages, terminal, Proximal(rate) if feedback else rate, feedback=feedback, tikhonov=0.0
    )
    return nominal, policy, engine.forward_pass(nominal, policy, 1.0)


# %% [markdown]
# ## The pictures


# %%
def draw_path(axes: Axes, states: list[np.ndarray], color: str, label: str) -> None:
    x, y = np.transpose(states)
    axes.plot(x, y, "o-", color=color, ms=5, lw=1.8, label=label)


def draw_proposals(axes: Axes, problem: Problem) -> None:
    """The nominal path, and what back-propagation proposes at each of its states."""
    nominal, policy, _ = one_iteration(problem, feedback=False)
    draw_path(axes, nominal.states, GRAY, r"nominal $\bar x$")
    for t, step in enumerate(policy.steps):
        stage, x, u = problem.stages[t], nominal.states[t], nominal.controls[t]
        moved = stage.dynamics.step(x, u + step.k, np.zeros(0))
        axes.annotate("", moved, nominal.states[t + 1], arrowprops={"arrowstyle": "->", "color": BLUE, "lw": 2})
    axes.plot([], [], color=BLUE, lw=2, label=r"proposed: $-\eta\,\nabla_{u_t}\,J$")
    axes.set_title("Each stage corrects as if it were alone")


def draw_cascade(axes: Axes, problem: Problem) -> None:
    """The paths after one iteration, with and without feedback."""
    for feedback, color, label in ((False, GREEN, "gradient descent"), (True, RED, "with feedback")):
        nominal, _, new = one_iteration(problem, feedback)
        draw_path(axes, new.states, color, f"{label}: $J$ = {new.cost:.3f}")
    draw_path(axes, nominal.states, GRAY, f"nominal: $J$ = {nominal.cost:.3f}")
    axes.set_title("Together they overshoot")


def picture() -> Figure:
    """All three panels."""
    problem, figure = toy(), Figure(figsize=(12, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_valley(left)
    draw_proposals(middle, problem)
    draw_cascade(right, problem)
    for axes in (middle, right):
        axes.plot(*TARGET, "k*", ms=14)
        axes.text(TARGET[0] + 0.08, TARGET[1] - 0.28, "target")
        axes.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-0.3, 3.3), ylim=(-0.7, 2.3), aspect="equal")
        axes.legend(loc="upper left", fontsize=8)
    return figure


def main(folder: Annotated[Path, typer.Argument()] = Path("docs/images")) -> None:
    """Write feedback-toy.png, and say how far from the target each method ends."""
    for feedback in (False, True):
        _, _, new = one_iteration(toy(), feedback)
        name = "with feedback" if feedback else "gradient descent"
        print(f"{name:<17} J = {new.cost:.4f}, {np.linalg.norm(new.states[-1] - TARGET):.3f} from the target")
    print(f"{'optimum':<17} J = {DDP(damping=Damping(initial=1.0)).solve(toy()).cost:.4f}")
    folder.mkdir(parents=True, exist_ok=True)
    picture().savefig(folder / "feedback-toy.png", dpi=110, metadata={"Software": None})
    print(f"wrote {folder / 'feedback-toy.png'}")


# %%
if __name__ == "__main__":
    typer.run(main)
