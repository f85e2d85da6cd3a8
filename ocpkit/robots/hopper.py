"""The hopper: a one-legged robot in a plane rises from a squat on its foot and stands (MuJoCo).

    minimize ½ w_T e(x_T) + Σ ½ Δt (e(x) + w_u ‖u‖²),   e(x) = Σ w_i (q_i − standing_i)² + Σ w'_i v_i²

The floor holds the foot by friction; the model lies beside this file, assets/hopper.xml, with contacts that are soft
within 2 cm. The guess are the torques of springs and dampers that keep the squat.

State x = (place, height of the torso [m], pitch, hip, knee, ankle [rad], and their rates), control u = (hip, knee,
ankle torque, as shares of 80, 80 and 40 N m). Source: the planar hopper of Erez, Tassa & Todorov, "Infinite-horizon
model predictive control for periodic tasks with contacts", 2011, with numbers of our own.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.arrays import whole_number
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models.task import Task
from ocpkit.problem.problem import Problem
from ocpkit.robots import drawing
from ocpkit.robots.mujoco import MujocoDynamics, from_mujoco, spring_torques

TIME_STEP, HORIZON = 0.02, 75
SQUAT, STANDING = (0.0, 0.6147, 0.35, -1.5, 2.3, -1.15), (0.0, 1.1, 0.0, 0.0, 0.0, 0.0)
POSITIONS, RATES = (1.0, 10.0, 3.0, 0.3, 0.3, 0.3), (0.1, 0.1, 0.1, 0.02, 0.02, 0.02)


@cache
def model() -> MujocoDynamics:
    """Read the model; four of MuJoCo's steps make one of the problem's."""
    return from_mujoco(Path(__file__).with_name("assets") / "hopper.xml", steps=4)


@built_by_call
def build(
    *,
    horizon: int = HORIZON,
    start: tuple[float, ...] = SQUAT,
    torque_weight: float = 0.1,
    terminal_weight: float = 2.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon
        Number of stages of 0.02 s.
    start
        Positions at first: place, height [m], pitch, hip, knee and ankle [rad].
    torque_weight
        Running cost per squared share of the greatest torques, per second.
    terminal_weight
        Weight of the posture at the end [s].
    """
    horizon = whole_number(horizon, "horizon")
    hopper, x0 = model(), np.array([*start, *np.zeros(6)])

    def posture(x: Any) -> Any:
        off = x[:6] - np.array(STANDING)
        return 0.5 * (m.sum(np.array(POSITIONS) * off**2) + m.sum(np.array(RATES) * x[6:] ** 2))

    return Problem.from_functions(
        dynamics=hopper,
        cost=lambda x, u: TIME_STEP * (posture(x) + 0.5 * torque_weight * m.dot(u, u)),
        terminal_cost=lambda x: terminal_weight * posture(x),
        x0=x0,
        horizon=horizon,
        controls=spring_torques(hopper, x0, horizon, stiffness=150.0, damping=5.0),
        control_bounds=hopper.control_bounds,
        name="hopper",
    )


def plant(mass: float, friction: float) -> MujocoDynamics:
    """Return the model with its masses and frictions times a factor each."""
    return model().changed(mass=mass, friction=friction)


TASK = Task(
    name="hopper",
    summary="Rise from a squat on one foot and stand, in MuJoCo",
    source="Erez, Tassa & Todorov 2011",
    build=build,
    time_step=TIME_STEP,
    state_labels=(
        *("place [m]", "height [m]", "pitch [rad]", "hip [rad]", "knee [rad]", "ankle [rad]"),
        *("speed [m/s]", "climb [m/s]", "pitch rate [rad/s]", "hip rate [rad/s]", "knee rate [rad/s]"),
        "ankle rate [rad/s]",
    ),
    control_labels=("hip [80 N m]", "knee [80 N m]", "ankle [40 N m]"),
    draw=partial(drawing.model, model, (0, 2)),
    view=(-0.9, 0.9, -0.1, 1.5),
    solver="ilqr",
    plant=plant,
)
