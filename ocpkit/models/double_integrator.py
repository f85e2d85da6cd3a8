"""The double integrator: bring a mass to rest at a goal. Linear and quadratic, so one DDP iteration solves it.

    minimize   ½ w_T ((position − goal)² + velocity²) + Σ ½ Δt (w_p (position − goal)² + w_u u²)
    subject to position' = position + Δt velocity + ½ Δt² u,   velocity' = velocity + Δt u

State x = (position [m], velocity [m/s]), control u = (acceleration [m/s²],), parameter p = (goal [m],).
Source: Bryson & Ho, *Applied Optimal Control*, 1975, ch. 5 (the regulator problem).
"""

from __future__ import annotations

from typing import Any

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.problem import Problem

TIME_STEP, GOAL = 0.1, 1.0


@built_by_call
def build(
    *,
    horizon: int = 50,
    time_step: float = TIME_STEP,
    start: float = 0.0,
    goal: float = GOAL,
    position_weight: float = 1.0,
    control_weight: float = 0.1,
    terminal_weight: float = 100.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    start, goal
        Positions [m]; the goal is the problem's parameter.
    position_weight, control_weight
        Running cost per m² and per (m/s²)², both per second.
    terminal_weight
        Cost per m² and per (m/s)² at the end.
    """

    def step(x: Any, u: Any) -> Any:
        return m.stack([x[0] + time_step * x[1] + time_step**2 / 2 * u[0], x[1] + time_step * u[0]])

    def cost(x: Any, u: Any, p: Any) -> Any:
        return 0.5 * time_step * (position_weight * (x[0] - p[0]) ** 2 + control_weight * u[0] ** 2)

    def miss(x: Any, p: Any) -> Any:
        return terminal_weight**0.5 * m.stack([x[0] - p[0], x[1]])

    return Problem.from_functions(
        dynamics=step,
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=[start, 0.0],
        horizon=horizon,
        control_size=1,
        parameters=[goal],
        name="double-integrator",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the mass on its rail, and the force on it."""
    drawing.ground(axes)
    drawing.goal(axes, GOAL, -0.2)
    drawing.box(axes, (x[0], 0.1), (0.3, 0.2))
    drawing.arrow(axes, (x[0], 0.1), (0.1 * u[0], 0.0))
    axes.set_yticks([])


TASK = Task(
    name="double-integrator",
    summary="Bring a mass to rest at a goal: linear dynamics, quadratic cost",
    source="Bryson & Ho 1975",
    build=build,
    time_step=TIME_STEP,
    state_labels=("position [m]", "velocity [m/s]"),
    control_labels=("acceleration [m/s²]",),
    draw=draw,
    view=(-0.4, 1.6, -0.8, 0.8),
)
