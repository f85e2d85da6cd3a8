"""The climb of an aircraft by linear model predictive control, within limits on its state.

    ẋ = A x + B u,   minimize ½ Σ Δt (w_h (altitude − target)² + w_θ pitch² + w_u u²) + ½ w_T (last three errors)²

    |elevator| ≤ 0.262 rad,   |pitch| ≤ 0.349 rad,   |climb rate| ≤ 30 m/s,   |u| ≤ 0.524 rad/s

A Cessna Citation 500 at 5 000 m and 128.2 m/s, linearized; the step is exact (matrix exponential), the problem a
convex quadratic program. The climb rate is 128.2 (pitch − angle of attack).
State x = (angle of attack, pitch [rad], pitch rate [rad/s], altitude [m], elevator angle [rad]), control
u = (rate of the elevator [rad/s],), parameter p = (target altitude [m],).
Source: Maciejowski, *Predictive Control with Constraints*, 2002, sec. 2.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import expm

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint

TIME_STEP, TARGET, SPEED = 0.25, 400.0, 128.2
ELEVATOR, PITCH, CLIMB, ELEVATOR_RATE = 0.262, 0.349, 30.0, 0.524
A = np.array(
    [
        [-1.2822, 0.0, 0.98, 0.0, -0.3],
        [0.0, 0.0, 1.0, 0.0, 0.0],
        [-5.4293, 0.0, -1.8366, 0.0, -17.0],
        [-SPEED, SPEED, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
B = np.array([0.0, 0.0, 0.0, 0.0, 1.0])


def climb_rate(x: Any) -> Any:
    """Return the rate of the altitude [m/s]."""
    return SPEED * (x[1] - x[0])


@built_by_call
def build(
    *,
    horizon: int = 80,
    time_step: float = TIME_STEP,
    target: float = TARGET,
    elevator_limit: float = ELEVATOR,
    pitch_limit: float = PITCH,
    climb_limit: float = CLIMB,
    rate_limit: float = ELEVATOR_RATE,
    altitude_weight: float = 1e-3,
    pitch_weight: float = 1.0,
    rate_weight: float = 100.0,
    terminal_weight: float = 10.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    target
        Altitude to reach [m]; the problem's parameter.
    elevator_limit, pitch_limit, climb_limit, rate_limit
        Largest elevator angle and pitch [rad], climb rate [m/s] and elevator rate [rad/s], in either direction.
    altitude_weight, pitch_weight, rate_weight
        Running cost per m², per rad² and per (rad/s)², all per second.
    terminal_weight
        Cost at the end, relative to the running cost of the altitude, and per rad² of pitch and angle of attack [s].
    """
    held = expm(time_step * np.block([[A, B[:, None]], [np.zeros((1, 6))]]))
    transition, effect = held[:5, :5].tolist(), held[:5, 5].tolist()

    def step(x: Any, u: Any) -> Any:
        return m.stack([sum(a * b for a, b in zip(row, x)) + gain * u[0] for row, gain in zip(transition, effect)])

    def cost(x: Any, u: Any, p: Any) -> Any:
        off = altitude_weight * (x[3] - p[0]) ** 2 + pitch_weight * x[1] ** 2 + rate_weight * u[0] ** 2
        return 0.5 * time_step * off

    def miss(x: Any, p: Any) -> Any:
        return terminal_weight**0.5 * m.stack([altitude_weight**0.5 * (x[3] - p[0]), x[1], x[0]])

    def shares(x: Any, u: Any) -> Any:
        return m.stack([x[4] / elevator_limit, x[1] / pitch_limit, climb_rate(x) / climb_limit])

    return Problem.from_functions(
        dynamics=step,
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=np.zeros(5),
        horizon=horizon,
        control_size=1,
        parameters=[target],
        control_bounds=(-rate_limit, rate_limit),
        constraints=(Constraint(shares, -1.0, 1.0, "flight envelope"),),
        name="aircraft-climb",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the aircraft at its altitude with its pitch, the target, and the climb rate between its bounds."""
    axes.set_aspect("auto")
    outline = [(1.0, 0.0), (0.7, 0.12), (-0.6, 0.12), (-1.0, 0.5), (-1.0, 0.0), (-0.6, -0.1), (0.7, -0.1)]
    body = drawing.placed(outline, (0.0, 0.0), x[1]) * (0.5, 60.0) + (0.0, x[3])
    axes.axhline(TARGET, color=drawing.GOAL, linestyle="--", linewidth=1.5)
    axes.annotate("target", (-1.4, TARGET + 12), color=drawing.GOAL)
    axes.fill(*body.T, color=drawing.BODY)
    drawing.gauge(axes, climb_rate(x), -CLIMB, CLIMB, "climb [m/s]")
    axes.set_xticks([])
    axes.annotate("altitude [m]", (0.02, 0.94), xycoords="axes fraction")


TASK = Task(
    name="aircraft-climb",
    summary="Climb within an aircraft's limits: linear MPC",
    source="Maciejowski 2002",
    build=build,
    time_step=TIME_STEP,
    state_labels=(*("angle of attack [rad]", "pitch [rad]", "pitch rate [rad/s]", "altitude [m]", "elevator [rad]"),),
    control_labels=("elevator rate [rad/s]",),
    draw=draw,
    view=(-1.5, 1.5, -120.0, 480.0),
    solver="auto",
)
