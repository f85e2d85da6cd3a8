"""The unicycle: move sideways, which its wheel cannot.

    ẋ = v cos θ,   ẏ = v sin θ,   θ̇ = ω

    minimize ½ w_T ‖(x, y, θ) − goal‖² + Σ ½ Δt (w_v v² + w_ω ω²),   ‖(x, y) − c_i‖ ≥ r_i + robot radius

State x = (x, y [m], heading θ [rad]), control u = (speed v [m/s], turn rate ω [rad/s]), parameter p = the goal
pose (x, y [m], heading [rad]). The task `unicycle-obstacles` drives among discs with centers c_i and radii r_i [m].
Source: the nonholonomic integrator of Brockett, "Control theory and singular Riemannian geometry", 1982.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint

TIME_STEP, GOAL, RADIUS = 0.05, (0.0, 2.0, 0.0), 0.25
FAR_GOAL = (4.0, 1.0, 0.0)
DISCS = ((0.9, 0.55, 0.3), (1.9, -0.35, 0.35), (2.6, 1.1, 0.4))
"""Goal pose and obstacles (x, y, radius [m]) of the task among obstacles."""

Disc = tuple[float, float, float]


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    start: tuple[float, float, float] = (0.0, 0.0, 0.0),
    goal: tuple[float, float, float] = GOAL,
    obstacles: tuple[Disc, ...] = (),
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
    obstacles
        Discs that the robot, a disc of 0.25 m, must not touch: x, y, radius [m].
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

    def distances(x: Any, u: Any) -> Any:
        return m.stack([(x[0] - a) ** 2 + (x[1] - b) ** 2 for a, b, _ in obstacles])

    nearest = [(radius + RADIUS) ** 2 for _, _, radius in obstacles]
    apart = (Constraint(distances, nearest, float("inf"), "squared distance to the obstacles"),)
    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=start,
        horizon=horizon,
        controls=[0.5, 0.2],
        parameters=goal,
        constraints=apart if obstacles else (),
        name="unicycle-obstacles" if obstacles else "unicycle",
    )


def draw(axes: Any, x: Any, u: Any, goal: tuple[float, ...] = GOAL, obstacles: tuple[Disc, ...] = ()) -> None:
    """Draw the robot from above, its wheels and heading, the goal pose and the obstacles."""
    for a, b, radius in obstacles:
        drawing.disc(axes, (a, b), radius, drawing.GROUND)
    drawing.goal(axes, *goal[:2])
    drawing.arrow(axes, goal[:2], drawing.placed([(0.6, 0.0)], (0.0, 0.0), goal[2])[0], drawing.GOAL)
    drawing.disc(axes, x[:2], RADIUS, drawing.BODY)
    for across in (-RADIUS, RADIUS):
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

OBSTACLES = replace(
    TASK,
    name="unicycle-obstacles",
    summary="Drive a wheeled robot among obstacles without touching one",
    build=partial(build, goal=FAR_GOAL, obstacles=DISCS),
    draw=partial(draw, goal=FAR_GOAL, obstacles=DISCS),
    view=(-0.8, 5.2, -2.0, 2.8),
    solver="auto",
)
