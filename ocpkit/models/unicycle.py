"""The unicycle: move sideways, which its wheel cannot.

    ẋ = v cos θ,   ẏ = v sin θ,   θ̇ = ω

    minimise ½ w_T ‖(x, y, θ) − goal‖² + Σ ½ Δt (w_v v² + w_ω ω²)

State x = (x, y [m], heading θ [rad]), control u = (speed v [m/s], turn rate ω [rad/s]), parameter p = the goal
pose (x, y [m], heading [rad]).
Source: the nonholonomic integrator of Brockett, "Control theory and singular Riemannian geometry", 1982.
"""

from __future__ import annotations

from typing import Any

from ocpkit import math as m
from ocpkit.functions import LeastSquares
from ocpkit.integrate import rk4
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem import Problem

TIME_STEP, GOAL = 0.05, (0.0, 2.0, 0.0)


def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    start: tuple[float, float, float] = (0.0, 0.0, 0.0),
    goal: tuple[float, float, float] = GOAL,
    speed_weight: float = 1.0,
    turn_weight: float = 0.5,
    terminal_weight: float = 100.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    start, goal
        Poses: x, y [m], heading [rad]; the goal is the problem's parameter.
    speed_weight, turn_weight
        Running cost per (m/s)² and per (rad/s)², both per second.
    terminal_weight
        Cost per m² and per rad² at the end.
    """

    def rates(x: Any, u: Any) -> Any:
        return m.stack([u[0] * m.cos(x[2]), u[0] * m.sin(x[2]), u[1]])

    def cost(x: Any, u: Any) -> Any:
        return 0.5 * time_step * (speed_weight * u[0] ** 2 + turn_weight * u[1] ** 2)

    def miss(x: Any, p: Any) -> Any:
        return terminal_weight**0.5 * (x - p)

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=start,
        horizon=horizon,
        controls=[0.5, 0.2],
        parameters=goal,
        name="unicycle",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the robot from above, its wheels and heading, and the goal pose."""
    drawing.goal(axes, *GOAL[:2])
    drawing.arrow(axes, GOAL[:2], drawing.placed([(0.6, 0.0)], (0.0, 0.0), GOAL[2])[0], drawing.GOAL)
    drawing.disc(axes, x[:2], 0.25, drawing.BODY)
    for across in (-0.25, 0.25):
        drawing.box(axes, drawing.placed([(0.0, across)], x[:2], x[2])[0], (0.25, 0.09), x[2], drawing.LINK)
    drawing.arrow(axes, x[:2], drawing.placed([(0.5, 0.0)], (0.0, 0.0), x[2])[0])


TASK = Task(
    name="unicycle",
    summary="Drive a wheeled robot to a pose beside it",
    source="Brockett 1982",
    build=build,
    time_step=TIME_STEP,
    state_labels=("x [m]", "y [m]", "heading [rad]"),
    control_labels=("speed [m/s]", "turn rate [rad/s]"),
    draw=draw,
    view=(-2.0, 3.0, -1.0, 3.0),
)
