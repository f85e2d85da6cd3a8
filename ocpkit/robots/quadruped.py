"""The falling quadruped: let go on its side, it turns its feet down in the air, as a cat does.

    minimize ½ (w_a² ‖axis‖² + w_q² ‖q − legs‖² + w_ω² ‖ω‖² + w_v² ‖q̇‖²)  at the end
           + Σ ½ Δt (w_u ‖τ‖² + w_l ‖q − legs‖² + w_r ‖q̇‖²)

Nothing but gravity acts from outside, so the angular momentum about the center of mass stays zero: the body turns by
what the legs do, and they end where they began. `axis` is the vector part of the quaternion.

State x = (place [m], quaternion (w, x, y, z), twelve joint angles [rad], velocity [m/s] and rates [rad/s] of the body
in its own frame, twelve joint rates), control u = (twelve torques [N m]).
Source: Solo of the Open Dynamic Robot Initiative (Grimminger et al. 2020), in example-robot-data; Kane & Scher, "A
dynamical explanation of the falling cat phenomenon", 1969.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models.task import Task
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.problem import Problem
from ocpkit.robots import drawing
from ocpkit.robots.descriptions import description
from ocpkit.robots.robot import Robot, from_urdf

TIME_STEP, TORQUE, HEIGHT = 0.01, 2.7, 2.6
LEGS = (0.0, 0.8, -1.6) * 2 + (0.0, -0.8, 1.6) * 2
FEET = ("FL_FOOT", "FR_FOOT", "HL_FOOT", "HR_FOOT")


@cache
def robot() -> Robot:
    """Read the robot."""
    return from_urdf(description("solo_description/robots/solo12.urdf"), free_base=True)


@built_by_call
def build(
    *,
    horizon: int = 70,
    time_step: float = TIME_STEP,
    roll: float = np.pi / 2,
    height: float = HEIGHT,
    torque_limit: float = TORQUE,
    torque_weight: float = 0.1,
    leg_weight: float = 0.05,
    leg_rate_weight: float = 1e-3,
    turn_residual: float = 30.0,
    leg_residual: float = 3.0,
    spin_residual: float = 1.0,
    leg_rate_residual: float = 0.3,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    roll, height
        Of the body when it is let go [rad], [m].
    torque_limit
        Of every motor [N m].
    torque_weight, leg_weight, leg_rate_weight
        Running cost per (N m)², per rad² away from the legs' posture, and per (rad/s)², per second.
    turn_residual, leg_residual, spin_residual, leg_rate_residual
        w_a, w_q, w_ω and w_v.
    """
    solo, legs = robot(), np.array(LEGS)
    x0 = solo.state(LEGS, place=(0, 0, height), quaternion=(np.cos(roll / 2), np.sin(roll / 2), 0, 0))

    def cost(x: Any, u: Any) -> Any:
        off, rates = x[7:19] - legs, x[25:]
        moved = leg_weight * m.dot(off, off) + leg_rate_weight * m.dot(rates, rates)
        return 0.5 * time_step * (torque_weight * m.dot(u, u) + moved)

    def miss(x: Any) -> Any:
        posture = [turn_residual * x[4:7], leg_residual * (x[7:19] - legs)]
        return m.concatenate([*posture, spin_residual * x[22:25], leg_rate_residual * x[25:]])

    return Problem.from_functions(
        dynamics=solo.dynamics(time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=x0,
        horizon=horizon,
        control_bounds=(-torque_limit, torque_limit),
        control_size=12,
        name="quadruped",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the legs, and the body as the lines between their hips, in a frame that falls with the robot."""
    at_rest = np.array(x)
    at_rest[:3] = 0
    drawing.skeleton(robot(), axes, at_rest, FEET)
    drawing.label(axes)


TASK = Task(
    name="quadruped",
    summary="Turn a falling quadruped's feet down by its legs",
    source="Grimminger et al. 2020; Kane & Scher 1969",
    build=build,
    time_step=TIME_STEP,
    state_labels=(
        *("x [m]", "y [m]", "z [m]", "quaternion w", "quaternion x", "quaternion y", "quaternion z"),
        *(f"leg {leg} joint {joint} [rad]" for leg in range(1, 5) for joint in range(1, 4)),
        *("velocity x [m/s]", "velocity y [m/s]", "velocity z [m/s]"),
        *("rate x [rad/s]", "rate y [rad/s]", "rate z [rad/s]"),
        *(f"leg {leg} rate {joint} [rad/s]" for leg in range(1, 5) for joint in range(1, 4)),
    ),
    control_labels=tuple(f"leg {leg} torque {joint} [N m]" for leg in range(1, 5) for joint in range(1, 4)),
    draw=draw,
    view=(-0.4, 0.4, -0.4, 0.4, -0.4, 0.4),
    solver="ilqr",
)
