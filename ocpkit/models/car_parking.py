"""Car parking: back and forth into a parking place, a pose of the rear axle at rest.

With rolling distance f = Δt v of the front wheels and wheelbase d, the rear wheels roll
b = d + f cos w − √(d² − f² sin² w), and

    x' = x + b cos θ,   y' = y + b sin θ,   θ' = θ + arcsin(f sin w / d),   v' = v + Δt a

    minimize Σ_i c_i z(x_T[i], s_i) + Σ (0.01 w² + 0.0001 a² + 0.001 (z(x, 0.1) + z(y, 0.1)))

with the smooth absolute value (pseudo-Huber) z(e, s) = √(e² + s²) − s. The place is at the origin, heading 0.
The task `car-parking-bounded` keeps the source's limits |w| ≤ 0.5 rad and |a| ≤ 2 m/s², `car-parking` has none.
State x = (x, y [m], heading θ [rad], speed v [m/s]), control u = (front wheel angle w [rad], acceleration a [m/s²]).
Source: Tassa, Mansard & Todorov, "Control-limited differential dynamic programming", 2014, with their numbers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.problem import Problem

TIME_STEP, WHEELBASE = 0.03, 2.0
TERMINAL_WEIGHTS, TERMINAL_SCALES = (0.1, 0.1, 1.0, 0.3), (0.01, 0.01, 0.01, 1.0)
LOWER, UPPER = (-0.5, -2.0), (0.5, 2.0)


def smooth_abs(error: Any, scale: float) -> Any:
    """Return √(e² + s²) − s: quadratic within the scale, linear beyond."""
    return m.sqrt(error**2 + scale**2) - scale


@built_by_call
def build(
    *,
    horizon: int = 500,
    time_step: float = TIME_STEP,
    wheelbase: float = WHEELBASE,
    start: tuple[float, float, float, float] = (1.0, 1.0, 1.5 * np.pi, 0.0),
    steering_weight: float = 1e-2,
    acceleration_weight: float = 1e-4,
    position_weight: float = 1e-3,
    terminal_weights: tuple[float, float, float, float] = TERMINAL_WEIGHTS,
    bounded: bool = False,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    wheelbase
        Distance d between the axles [m].
    start
        Initial state: x, y [m], heading [rad], speed [m/s].
    steering_weight, acceleration_weight, position_weight
        Running cost per rad², per (m/s²)² and per m, each per stage.
    terminal_weights
        Cost at the end per m, m, rad and m/s.
    bounded
        Keep |w| ≤ 0.5 rad and |a| ≤ 2 m/s², as in the source.
    """

    def step(x: Any, u: Any) -> Any:
        roll = time_step * x[3]
        across = roll * m.sin(u[0])
        back = wheelbase + roll * m.cos(u[0]) - m.sqrt(wheelbase**2 - across**2)
        turn = m.arcsin(across / wheelbase)
        return m.stack([x[0] + back * m.cos(x[2]), x[1] + back * m.sin(x[2]), x[2] + turn, x[3] + time_step * u[1]])

    def cost(x: Any, u: Any) -> Any:
        near = position_weight * (smooth_abs(x[0], 0.1) + smooth_abs(x[1], 0.1))
        return steering_weight * u[0] ** 2 + acceleration_weight * u[1] ** 2 + near

    def terminal_cost(x: Any) -> Any:
        return sum(w * smooth_abs(x[i], s) for i, (w, s) in enumerate(zip(terminal_weights, TERMINAL_SCALES)))

    return Problem.from_functions(
        dynamics=step,
        cost=cost,
        terminal_cost=terminal_cost,
        x0=start,
        horizon=horizon,
        controls=[0.1, 0.1],
        control_bounds=(LOWER, UPPER) if bounded else None,
        name="car-parking-bounded" if bounded else "car-parking",
    )


def draw(axes: Any, x: Any, u: Any, bounded: bool = False) -> None:
    """Draw the car, its four wheels with the steering angle between its bounds, and the parking place."""
    if bounded:
        drawing.gauge(axes, u[0], LOWER[0], UPPER[0], "steering [rad]")
    place = drawing.placed([(-0.5, -0.6), (2.5, -0.6), (2.5, 0.6), (-0.5, 0.6), (-0.5, -0.6)], (0.0, 0.0), 0.0)
    axes.plot(*place.T, color=drawing.GOAL, linestyle="--", linewidth=1.5)
    axes.annotate("goal", (2.7, 0.0), color=drawing.GOAL, va="center")
    drawing.box(axes, drawing.placed([(WHEELBASE / 2, 0.0)], x[:2], x[2])[0], (2.8, 1.0), x[2])
    for along, across, turn in ((0.0, 0.5, 0.0), (0.0, -0.5, 0.0), (WHEELBASE, 0.5, u[0]), (WHEELBASE, -0.5, u[0])):
        center = drawing.placed([(along, across)], x[:2], x[2])[0]
        drawing.box(axes, center, (0.5, 0.18), x[2] + turn, drawing.LINK)


TASK = Task(
    name="car-parking",
    summary="Park a car in a given pose, at rest",
    source="Tassa, Mansard & Todorov 2014",
    build=build,
    time_step=TIME_STEP,
    state_labels=("x [m]", "y [m]", "heading [rad]", "speed [m/s]"),
    control_labels=("front wheel angle [rad]", "acceleration [m/s²]"),
    draw=draw,
    view=(-5.3, 5.2, -5.2, 3.2),
)

BOUNDED = replace(
    TASK,
    name="car-parking-bounded",
    summary="Park a car that steers and accelerates within limits",
    build=partial(build, bounded=True),
    draw=partial(draw, bounded=True),
    view=(-8.6, 5.2, -9.2, 3.2),
)
