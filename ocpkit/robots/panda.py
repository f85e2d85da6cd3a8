"""The Panda arm: bring the hand to a point, pointing down, within the limits of the torques, and stop there.

    M(q) q̈ + c(q, q̇) = τ      (seven joints, the fingers held; gravity 9.81 m/s²)

    minimize ½ w_T (‖hand(q) − goal‖² + w_R ‖R(q) − R*‖² + w_r ‖q̇‖²) + Σ ½ Δt (w_u ‖τ‖² + w_v ‖q̇‖²)

State x = (seven joint angles [rad], and their rates), control u = (seven torques [N m]), parameter p = (goal of the
hand [m]). Source: Franka Emika's description in example-robot-data.
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
from ocpkit.robots import drawing
from ocpkit.robots.descriptions import description
from ocpkit.robots.mujoco import MujocoDynamics
from ocpkit.robots.plant import simulated
from ocpkit.robots.robot import Robot, from_urdf

URDF, JOINTS = partial(description, "panda_description/urdf/panda.urdf"), [f"panda_joint{i}" for i in range(1, 8)]
TIME_STEP, HAND = 0.01, "panda_hand_tcp"
START = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)
GOAL = (0.25, 0.5, 0.3)
DOWN = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))


@cache
def robot() -> Robot:
    """Read the arm, without fingers."""
    return from_urdf(URDF(), JOINTS)


def plant(mass: float, friction: float) -> MujocoDynamics:
    """The arm in MuJoCo, with a friction in its joints that the model lacks [0.1 N m s/rad, times the factor]."""
    arm = simulated(URDF(), JOINTS, time_step=TIME_STEP, steps=5, damping=0.1 * friction)
    return arm.changed(mass=mass)


@built_by_call
def build(
    *,
    horizon: int = 80,
    time_step: float = TIME_STEP,
    start: tuple[float, ...] = START,
    goal: tuple[float, float, float] = GOAL,
    torque_weight: float = 1e-4,
    running_rate_weight: float = 0.1,
    terminal_weight: float = 1e3,
    turn_weight: float = 0.1,
    rate_weight: float = 0.1,
    effort: float = 0.4,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    start
        Joint angles at first [rad].
    goal
        Where the hand shall be [m]; the problem's parameter.
    torque_weight, running_rate_weight
        Running cost per (N m)² and per (rad/s)², per second.
    terminal_weight
        Cost per m² at the end.
    turn_weight, rate_weight
        That of the hand's rotation [m²], and of the joint rates [m² s²/rad²], relative to it.
    effort
        Share of the URDF's torque limits that may be used.
    """
    arm = robot()

    def cost(x: Any, u: Any) -> Any:
        return 0.5 * time_step * (torque_weight * m.dot(u, u) + running_rate_weight * m.dot(x[7:], x[7:]))

    def miss(x: Any, p: Any) -> Any:
        place, turn = arm.pose(HAND, x)
        off = (turn - np.array(DOWN)).reshape(-1)
        return terminal_weight**0.5 * m.concatenate([place - p, turn_weight**0.5 * off, rate_weight**0.5 * x[7:]])

    return Problem.from_functions(
        dynamics=arm.dynamics(time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=arm.state(start),
        horizon=horizon,
        parameters=goal,
        controls=arm.holding(start),
        control_bounds=(-effort * arm.tree.effort, effort * arm.tree.effort),
        name="panda",
    )


TASK = Task(
    name="panda",
    summary="Reach a point with a Panda arm, hand down",
    source="Franka Emika; example-robot-data",
    build=build,
    time_step=TIME_STEP,
    state_labels=drawing.state_labels(7),
    control_labels=drawing.control_labels(7),
    draw=partial(drawing.arm, robot, HAND, GOAL),
    view=(-0.6, 0.8, -0.5, 0.9, 0.0, 1.1),
    solver="ilqr",
    plant=plant,
)
