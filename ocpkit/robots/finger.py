"""The finger: two links push a disc over a table to its goal, and leave it there (MuJoCo).

    minimize ½ w_T (‖disc − goal‖² + w_r ‖v_disc‖²)
           + Σ ½ Δt (w_d ‖disc − goal‖² + w_n ‖tip − disc‖² + w_v ‖q̇‖² + w_u ‖u‖²)

Nothing but w_n tells the finger, which starts away from the disc, that touching it is worth while. The table brakes
the disc in proportion to its speed; the model lies beside this file, assets/finger.xml, with contacts that are soft
within 3 cm.

State x = (angles of the base and the middle joint [rad], place [m] and turn [rad] of the disc, and their rates),
control u = (torques, as shares of 1 and 0.6 N m), parameter p = (goal of the disc [m]).
Source: Mordatch, Popović & Todorov, "Contact-invariant optimization for hand manipulation", 2012, for w_n.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models.task import Task
from ocpkit.problem.problem import Problem
from ocpkit.robots import drawing
from ocpkit.robots.mujoco import MujocoDynamics, from_mujoco

TIME_STEP, HORIZON = 0.02, 75
START, GOAL = (-1.3, 1.7, 0.2, 0.0, 0.0), (0.22, 0.16)
NEAR, FAR = 0.2, 0.18


@cache
def model() -> MujocoDynamics:
    """Read the model; four of MuJoCo's steps make one of the problem's."""
    return from_mujoco(Path(__file__).with_name("assets") / "finger.xml", steps=4)


def tip(x: Any) -> Any:
    """Return the place of the finger's tip (2,) [m]."""
    angles = (x[0], x[0] + x[1])
    return m.stack([NEAR * turn(angles[0]) + FAR * turn(angles[1]) for turn in (m.cos, m.sin)])


@built_by_call
def build(
    *,
    horizon: int = HORIZON,
    start: tuple[float, ...] = START,
    goal: tuple[float, float] = GOAL,
    disc_weight: float = 20.0,
    near_weight: float = 5.0,
    rate_weight: float = 1e-3,
    torque_weight: float = 1e-2,
    terminal_weight: float = 200.0,
    terminal_rate_weight: float = 0.01,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon
        Number of stages of 0.02 s.
    start
        Joint angles [rad], place [m] and turn [rad] of the disc at first.
    goal
        Where the disc shall be [m]; the problem's parameter.
    disc_weight, near_weight
        Running cost per m² between disc and goal, and between tip and disc, per second.
    rate_weight, torque_weight
        Running cost per (rad/s)² of the joints, and per squared share of the greatest torques, per second.
    terminal_weight, terminal_rate_weight
        Cost at the end per m² between disc and goal; that of the disc's speed relative to it [s²].
    """
    finger = model()

    def cost(x: Any, u: Any, p: Any) -> Any:
        off, apart = x[2:4] - p, tip(x) - x[2:4]
        wanted = disc_weight * m.dot(off, off) + near_weight * m.dot(apart, apart)
        return 0.5 * TIME_STEP * (wanted + rate_weight * m.dot(x[5:7], x[5:7]) + torque_weight * m.dot(u, u))

    def miss(x: Any, p: Any) -> Any:
        off = x[2:4] - p
        return 0.5 * terminal_weight * (m.dot(off, off) + terminal_rate_weight * m.dot(x[7:9], x[7:9]))

    return Problem.from_functions(
        dynamics=finger,
        cost=cost,
        terminal_cost=miss,
        x0=[*start, *np.zeros(5)],
        horizon=horizon,
        parameters=goal,
        control_bounds=finger.control_bounds,
        name="finger",
    )


def plant(mass: float, friction: float) -> MujocoDynamics:
    """Return the model with its masses and frictions times a factor each."""
    return model().changed(mass=mass, friction=friction)


TASK = Task(
    name="finger",
    summary="Push a disc to its goal with a finger, in MuJoCo",
    source="Mordatch, Popović & Todorov 2012",
    build=build,
    time_step=TIME_STEP,
    state_labels=(
        *("base [rad]", "middle [rad]", "disc x [m]", "disc y [m]", "disc turn [rad]"),
        *("base rate [rad/s]", "middle rate [rad/s]", "disc velocity x [m/s]", "disc velocity y [m/s]"),
        "disc turn rate [rad/s]",
    ),
    control_labels=("base [1 N m]", "middle [0.6 N m]"),
    draw=partial(drawing.model, model, (0, 1), goal=GOAL),
    view=(-0.2, 0.5, -0.28, 0.28),
    solver="ilqr",
    plant=plant,
)
