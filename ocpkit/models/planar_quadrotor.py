"""The planar quadrotor: fly to a goal with two rotors, and hover there.

    mass p̈ = (u₁ + u₂) R(θ) (0, 1) − mass (0, g),     inertia θ̈ = arm (u₁ − u₂)

    minimize ½ w_T (‖(p, θ) − (goal, 0)‖² + w_r ‖rates‖²) + Σ ½ Δt (w_u ‖u − hover‖² + w_v ‖rates‖²)

State x = (position to the right and up [m], tilt θ [rad], and the rates of all three), control u = (thrusts of the
right and left rotor [N]), parameter p = (goal to the right and up [m]).
Source: Tedrake, *Underactuated Robotics*, ch. 3, with its numbers.
"""

from __future__ import annotations

from typing import Any

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing, planar_body
from ocpkit.models.task import Task
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem

TIME_STEP, ARM, GOAL = 0.02, 0.25, (2.0, 1.0)


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    mass: float = 0.486,
    inertia: float = 0.00383,
    arm: float = ARM,
    gravity: float = 9.81,
    start: tuple[float, float] = (0.0, 0.0),
    goal: tuple[float, float] = GOAL,
    thrust_weight: float = 1.0,
    running_rate_weight: float = 0.1,
    rate_weight: float = 0.1,
    terminal_weight: float = 1000.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    mass, inertia, arm, gravity
        [kg], [kg m²], distance of a rotor from the center [m], [m/s²].
    start, goal
        Places of hover, to the right and up [m]; the goal is the problem's parameter.
    thrust_weight, running_rate_weight
        Running cost per N² away from hover, and per (m/s)² and (rad/s)², each per second.
    terminal_weight, rate_weight
        Cost at the end per m² and rad²; that of the rates relative to it [s²].
    """
    hover = mass * gravity / 2

    def rates(x: Any, u: Any) -> Any:
        torque = arm * (u[0] - u[1])
        return planar_body.rates(x, 0.0, u[0] + u[1], torque, mass=mass, inertia=inertia, gravity=gravity)

    def cost(x: Any, u: Any) -> Any:
        effort = (u[0] - hover) ** 2 + (u[1] - hover) ** 2
        return 0.5 * time_step * (thrust_weight * effort + running_rate_weight * m.dot(x[3:], x[3:]))

    def miss(x: Any, p: Any) -> Any:
        return terminal_weight**0.5 * m.concatenate([x[:2] - p, x[2], rate_weight**0.5 * x[3:]])

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=[*start, 0.0, 0.0, 0.0, 0.0],
        horizon=horizon,
        controls=[hover, hover],
        parameters=goal,
        name="planar-quadrotor",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the frame, both rotors and their thrusts, and the goal."""
    drawing.goal(axes, *GOAL)
    drawing.rod(axes, *drawing.placed([(-ARM, 0.0), (ARM, 0.0)], x[:2], x[2]))
    for side, thrust in ((ARM, u[0]), (-ARM, u[1])):
        drawing.rod(axes, *drawing.placed([(side - 0.12, 0.08), (side + 0.12, 0.08)], x[:2], x[2]), width=2.0)
        start, end = drawing.placed([(side, 0.08), (side, 0.08 + 0.1 * thrust)], x[:2], x[2])
        drawing.arrow(axes, start, end - start)


TASK = Task(
    name="planar-quadrotor",
    summary="Fly a two-rotor craft to a goal and hover there",
    source="Tedrake, Underactuated Robotics",
    build=build,
    time_step=TIME_STEP,
    state_labels=("right [m]", "up [m]", "tilt [rad]", "speed right [m/s]", "speed up [m/s]", "tilt rate [rad/s]"),
    control_labels=("right rotor [N]", "left rotor [N]"),
    draw=draw,
    view=(-0.6, 2.6, -0.8, 1.8),
)
