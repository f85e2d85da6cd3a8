"""The quadrotor through a gate: roll to fit through a narrow, tilted slot at half-time, and hover behind it.

Mechanics and cost are those of `ocpkit.models.quadrotor`, without the flip. At half-time the center of mass is in
the gate's plane x = c₁, and the outermost point of each rotor, p + R r_i, is in the slot:

    |along · (p + R r_i − c)| ≤ half width,   |across · (p + R r_i − c)| ≤ half height

with along = (0, cos γ, sin γ) and across = (0, −sin γ, cos γ). A level quadrotor does not fit. Thrusts are bounded.
State, control and parameter as in `ocpkit.models.quadrotor`.
Source: Falanga, Mueggler, Faessler & Scaramuzza, "Aggressive quadrotor flight through narrow gaps with onboard
sensing and computing using active vision", 2017.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing, quadrotor
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint

GOAL, CENTRE = (2.0, 0.0, 0.0), (1.0, 0.2, 0.4)
TILT, HALF_WIDTH, HALF_HEIGHT = 0.9, 0.45, 0.06
THRUST = 1.8
RIM = quadrotor.ARM + quadrotor.ROTOR


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = quadrotor.TIME_STEP,
    goal: tuple[float, float, float] = GOAL,
    center: tuple[float, float, float] = CENTRE,
    tilt: float = TILT,
    half_width: float = HALF_WIDTH,
    half_height: float = HALF_HEIGHT,
    thrust_limit: float = THRUST,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, the middle one at the gate, and seconds per stage.
    goal
        Where to hover at the end [m].
    center, tilt
        Of the slot: its place c [m], and its angle γ about the x axis [rad].
    half_width, half_height
        Half the length and half the height of the slot [m].
    thrust_limit
        Greatest thrust of each rotor [N]; the least is 0.
    """
    sin, cos = float(np.sin(tilt)), float(np.cos(tilt))
    rims = ((RIM, 0.0), (0.0, RIM), (-RIM, 0.0), (0.0, -RIM))

    def in_slot(x: Any, u: Any) -> Any:
        turn = quadrotor.rotation(x[3], x[4], x[5])
        offsets = [[x[i] - center[i] + a * turn[i, 0] + b * turn[i, 1] for i in (1, 2)] for a, b in rims]
        return m.stack([*(cos * y + sin * z for y, z in offsets), *(cos * z - sin * y for y, z in offsets)])

    half = np.repeat([half_width, half_height], len(rims))
    gate = (
        Constraint(lambda x, u: m.stack([x[0]]), center[0], center[0], "gate's plane"),
        Constraint(in_slot, -half, half, "slot"),
    )
    problem = quadrotor.build(horizon=horizon, time_step=time_step, goal=goal, final_angles=(0.0, 0.0, 0.0))
    flight = replace(problem.stages[0], control_lower=0.0, control_upper=thrust_limit, name="flight")
    passing = replace(flight, constraints=gate, name="gate")
    middle = horizon // 2
    stages = (flight,) * middle + (passing,) + (flight,) * (horizon - middle - 1)
    return problem.replace(stages=stages, name="quadrotor-gate")


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the quadrotor, the slot's frame and the goal."""
    along, across = np.array([0, np.cos(TILT), np.sin(TILT)]), np.array([0, -np.sin(TILT), np.cos(TILT)])
    turns = ((1, 1), (-1, 1), (-1, -1), (1, -1), (1, 1))
    corners: Any = [CENTRE + a * HALF_WIDTH * along + b * HALF_HEIGHT * across for a, b in turns]
    drawing.rod(axes, *corners, color=drawing.GOAL, width=2.0)
    quadrotor.draw(axes, x, u, goal=GOAL)


TASK = replace(
    quadrotor.TASK,
    name="quadrotor-gate",
    summary="Roll a quadrotor through a narrow, tilted gate",
    source="Falanga et al. 2017; Mellinger & Kumar 2011",
    build=build,
    draw=draw,
    view=(-0.3, 2.3, -0.8, 1.0, -0.4, 1.0),
    solver="auto",
)
