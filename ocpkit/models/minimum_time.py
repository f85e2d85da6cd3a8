"""The minimum-time double integrator: bring a mass to rest at a goal as fast as a bounded force allows.

    minimize T   subject to   ṗ = v,   v̇ = u,   |u| ≤ a,   (p, v) from (0, 0) to (d, 0) in T seconds

The optimum is known: full force forward until T*/2, then full force backward, T* = 2 √(d/a). With an even number of
stages the switch falls between two of them, and the discrete optimum is T* as well.
State x = (position [m], velocity [m/s], duration T [s]), control u = (acceleration [m/s²],); the duration is one more
control of the first stage, see `ocpkit.problem.free_parameters`.
Source: Bushaw 1952; Pontryagin, Boltyanskii, Gamkrelidze & Mishchenko, *The Mathematical Theory of Optimal
Processes*, 1962, ch. 1, example 1.
"""

from __future__ import annotations

from typing import Any

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.free_parameters import with_free_parameters
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint

STAGES, DISTANCE, LIMIT = 40, 1.0, 1.0


def least_time(distance: float, limit: float) -> float:
    """Return T* [s]."""
    return float(2 * (distance / limit) ** 0.5)


@built_by_call
def build(
    *, horizon: int = STAGES, distance: float = DISTANCE, acceleration_limit: float = LIMIT, duration: float = 4.0
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon
        Number of stages.
    distance
        From the start to the goal [m].
    acceleration_limit
        a, in either direction [m/s²].
    duration
        Guess of T [s].
    """
    goal = [distance, 0.0]
    timed = Problem.from_functions(
        dynamics=rk4(lambda x, u: m.stack([x[1], u[0]]), dt=lambda p: p[0] / horizon),
        cost=lambda x, u: 0.0 * u[0],
        terminal_cost=lambda x, p: p[0],
        x0=[0.0, 0.0],
        horizon=horizon,
        control_size=1,
        control_bounds=(-acceleration_limit, acceleration_limit),
        terminal_constraints=(Constraint(lambda x: x, goal, goal, "rest at the goal"),),
        parameters=[duration],
        name="minimum-time",
    )
    return with_free_parameters(timed, [0], lower=0.01, upper=100.0)


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the mass on its rail, the force on it between its bounds, and the goal."""
    drawing.ground(axes)
    drawing.goal(axes, DISTANCE, -0.2)
    drawing.box(axes, (x[0], 0.1), (0.3, 0.2))
    drawing.arrow(axes, (x[0], 0.1), (0.3 * u[0], 0.0))
    drawing.gauge(axes, u[0], -LIMIT, LIMIT, "push [m/s²]")
    axes.set_yticks([])


TASK = Task(
    name="minimum-time",
    summary="Bring a mass to rest at a goal in the least time",
    source="Pontryagin et al. 1962",
    build=build,
    time_step=least_time(DISTANCE, LIMIT) / STAGES,
    state_labels=("position [m]", "velocity [m/s]", "duration [s]"),
    control_labels=("acceleration [m/s²]", "duration [s]"),
    draw=draw,
    view=(-0.4, 1.6, -0.8, 0.8),
    solver="auto",
)
