"""The UR5 arm: pick from behind two balls, which neither the arm nor its tool may touch.

    minimize ½ w_T (‖tool(q) − goal‖² + w_r ‖q̇‖²) + Σ ½ Δt (w_u ‖τ − τ_hold‖² + w_v ‖q̇‖²)
    subject to ‖point_k(q) − center_b‖ ≥ radius_b + clearance for points along the arm, and the limits of the torques

State x = (six joint angles [rad], and their rates), control u = (six torques [N m]), parameter p = (goal of the tool
[m]). The torques τ_hold keep the first posture. Source: Universal Robots' description in example-robot-data.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models.task import Task
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint
from ocpkit.robots import drawing
from ocpkit.robots.descriptions import description
from ocpkit.robots.mujoco import MujocoDynamics
from ocpkit.robots.plant import simulated
from ocpkit.robots.robot import Robot, from_urdf

URDF = partial(description, "ur_description/urdf/ur5_robot.urdf")
TIME_STEP, TOOL = 0.02, "tool0"
START, GOAL = (-0.6, -1.2, 1.6, -1.9, -1.57, 0.0), (0.35, 0.45, 0.25)
BALLS = ((0.5, 0.1, 0.35, 0.13), (0.25, 0.2, 0.62, 0.1))
"""Center and radius of every ball [m]."""
POINTS = (("forearm_link", "wrist_1_link", 0.5), ("forearm_link", "wrist_1_link", 1.0), ("wrist_3_link", TOOL, 1.0))
"""Points along the arm: from one link to another, and how far between them."""


@cache
def robot() -> Robot:
    """Read the arm."""
    return from_urdf(URDF())


def points(x: Any) -> list[Any]:
    """Return the places (3,) [m] of `POINTS`."""
    return [(1 - share) * robot().pose(first, x)[0] + share * robot().pose(last, x)[0] for first, last, share in POINTS]


@built_by_call
def build(
    *,
    horizon: int = 60,
    time_step: float = TIME_STEP,
    start: tuple[float, ...] = START,
    goal: tuple[float, float, float] = GOAL,
    balls: tuple[tuple[float, float, float, float], ...] = BALLS,
    clearance: float = 0.06,
    torque_weight: float = 1e-3,
    running_rate_weight: float = 0.1,
    terminal_weight: float = 1e3,
    rate_weight: float = 0.1,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    start
        Joint angles at first [rad].
    goal
        Where the tool shall be [m]; the problem's parameter.
    balls
        Center (three coordinates) and radius of every ball [m].
    clearance
        Radius of the arm around its points [m].
    torque_weight, running_rate_weight
        Running cost per (N m)² away from the torques that hold the first posture, and per (rad/s)², per second.
    terminal_weight, rate_weight
        Cost at the end per m²; that of the joint rates relative to it [m² s²/rad²].
    """
    arm = robot()
    hold = arm.holding(start)

    def cost(x: Any, u: Any) -> Any:
        effort = m.dot(u - hold, u - hold)
        return 0.5 * time_step * (torque_weight * effort + running_rate_weight * m.dot(x[6:], x[6:]))

    def miss(x: Any, p: Any) -> Any:
        return terminal_weight**0.5 * m.concatenate([arm.pose(TOOL, x)[0] - p, rate_weight**0.5 * x[6:]])

    def inside(x: Any) -> Any:
        """(radius + clearance)² − distance² of every point and ball [m²]."""
        offsets = [(place - np.array(ball[:3]), ball[3] + clearance) for place in points(x) for ball in balls]
        return m.stack([reach**2 - m.dot(offset, offset) for offset, reach in offsets])

    return Problem.from_functions(
        dynamics=arm.dynamics(time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=arm.state(start),
        horizon=horizon,
        parameters=goal,
        controls=hold,
        control_bounds=(-arm.tree.effort, arm.tree.effort),
        constraints=(Constraint(lambda x, u: inside(x), name="balls"),) if balls else (),
        name="ur5",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the arm, the balls and the goal."""
    drawing.arm(robot, TOOL, GOAL, axes, x, u)
    for *center, radius in BALLS:
        drawing.ball(axes, center, radius)


def plant(mass: float, friction: float) -> MujocoDynamics:
    """The arm in MuJoCo, with a friction in its joints that the model lacks [0.1 N m s/rad, times the factor]."""
    return simulated(URDF(), time_step=TIME_STEP, steps=10, damping=0.1 * friction).changed(mass=mass)


TASK = Task(
    name="ur5",
    summary="Pick from behind two balls with a UR5 arm",
    source="Universal Robots; example-robot-data",
    build=build,
    time_step=TIME_STEP,
    state_labels=drawing.state_labels(6),
    control_labels=drawing.control_labels(6),
    draw=draw,
    view=(-0.3, 0.9, -0.6, 0.7, 0.0, 1.0),
    solver="al",
    plant=plant,
)
