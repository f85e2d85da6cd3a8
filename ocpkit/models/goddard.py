"""Goddard's rocket: reach the greatest height with a given amount of fuel, against drag.

    ḣ = v,   v̇ = (u − D(h, v)) / m − 1/h²,   ṁ = −u / c,   D = D_c v² exp(−500 (h − 1))

    minimize −h_T   subject to   0 ≤ u ≤ 3.5,   (h, v, m) from (1, 0, 1) to m = 0.6,   T free

The optimum burns at full thrust, then along a singular arc that trades drag against gravity, then coasts:
h_T = 1.01283. Units: Earth's radius, its gravity there and the initial mass are 1, so the unit of time is 806 s.
State x = (height h from Earth's center, velocity v, mass m, duration T), control u = (thrust,), with the duration
as one more control of the first stage, see `ocpkit.problem.free_parameters`; c = ½ and D_c = 310.
Source: Goddard, "A method of reaching extreme altitudes", 1919; numbers and optimum of Dolan, Moré & Munson,
"Benchmarking optimization software with COPS 3.0", 2004, problem 10.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.free_parameters import with_free_parameters
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint

STAGES, DURATION, UNIT_OF_TIME = 100, 0.1989, 806.0  # the duration is the optimum's; the unit in seconds
THRUST, EMPTY = 3.5, 0.6
DRAG, SCALE, EXHAUST = 310.0, 500.0, 0.5


@built_by_call
def build(
    *,
    horizon: int = STAGES,
    thrust_limit: float = THRUST,
    empty_mass: float = EMPTY,
    drag: float = DRAG,
    decay: float = SCALE,
    exhaust_speed: float = EXHAUST,
    duration: float = 0.1,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon
        Number of stages.
    thrust_limit
        Greatest thrust.
    empty_mass
        Mass when all fuel is burnt, which it must be at the end.
    drag, decay
        D_c, and by how many e-foldings the air thins over one Earth's radius.
    exhaust_speed
        c.
    duration
        Guess of T.
    """

    def rates(x: Any, u: Any) -> Any:
        height, velocity, mass = x[0], x[1], x[2]
        resistance = drag * velocity**2 * m.exp(-decay * (height - 1))
        return m.stack([velocity, (u[0] - resistance) / mass - 1 / height**2, -u[0] / exhaust_speed])

    timed = Problem.from_functions(
        dynamics=rk4(rates, dt=lambda p: p[0] / horizon),
        cost=lambda x, u: 0.0 * u[0],
        terminal_cost=lambda x: -x[0],
        x0=[1.0, 0.0, 1.0],
        horizon=horizon,
        controls=[2.0],
        control_bounds=(0.0, thrust_limit),
        terminal_constraints=(Constraint(lambda x: m.stack([x[2]]), empty_mass, empty_mass, "fuel"),),
        parameters=[duration],
        name="goddard",
    )
    return with_free_parameters(timed, [0], lower=0.01, upper=1.0)


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the rocket over the ground, its jet, the fuel left and the thrust between its bounds."""
    axes.set_aspect("auto")
    height, size = x[0] - 1, 1.2e-3
    drawing.ground(axes)
    axes.fill_between([-0.04, 0.04], height, height + size, color=drawing.BODY)
    fuel = size * (x[2] - EMPTY) / (1 - EMPTY)
    axes.fill_between([-0.025, 0.025], height, height + fuel, color=drawing.GOAL)
    axes.fill([-0.04, 0.0, 0.04], height + size * np.array([1.0, 1.4, 1.0]), color=drawing.ACCENT)
    axes.fill([-0.025, 0.0, 0.025], height - size * np.array([0.0, 0.3 * u[0], 0.0]), color=drawing.THRUST)
    drawing.gauge(axes, u[0], 0.0, THRUST, "thrust")
    axes.set_xticks([])
    axes.annotate("height over the ground [Earth's radii]", (0.02, 0.94), xycoords="axes fraction")


TASK = Task(
    name="goddard",
    summary="Reach the greatest height with a rocket's fuel",
    source="Goddard 1919; Dolan, Moré & Munson 2004",
    build=build,
    time_step=UNIT_OF_TIME * DURATION / STAGES,
    state_labels=("height", "velocity", "mass", "duration"),
    control_labels=("thrust", "duration"),
    draw=draw,
    view=(-1.0, 1.0, -0.003, 0.0175),
    solver="auto",
)
