"""Bryson and Denham's problem: turn a mass around before it reaches a wall, with the least effort.

    minimize   Σ ½ Δt u²
    subject to position' = position + Δt velocity + ½ Δt² u,   velocity' = velocity + Δt u,
               position ≤ l,   (position, velocity) from (0, 1) to (0, −1) in 1 s

In continuous time the optimum is known: for l ≤ 1/6 the mass touches the wall from t = 3l to 1 − 3l and
J* = 4 / (9 l); for 1/6 ≤ l ≤ 1/4 it touches it once and J* = 2 + 6 (1 − 4 l)²; beyond that the wall does not
matter and J* = 2.
State x = (position [m], velocity [m/s]), control u = (acceleration [m/s²],).
Source: Bryson, Denham & Dreyfus, "Optimal programming problems with inequality constraints I", 1963; the values in
Bryson & Ho, *Applied Optimal Control*, 1975, sec. 3.11.
"""

from __future__ import annotations

from typing import Any

from ocpkit import math as m
from ocpkit.boundary.arrays import whole_number
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint

TIME_STEP, WALL = 0.02, 1 / 9


@built_by_call
def build(*, horizon: int = 50, time_step: float = TIME_STEP, wall: float = WALL, speed: float = 1.0) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage; the source's problem lasts 1 s.
    wall
        l, where the wall stands [m].
    speed
        At the start to the right and at the end to the left [m/s].
    """

    duration = whole_number(horizon, "horizon") * time_step

    def step(x: Any, u: Any) -> Any:
        return m.stack([x[0] + time_step * x[1] + time_step**2 / 2 * u[0], x[1] + time_step * u[0]])

    return Problem.from_functions(
        dynamics=step,
        cost=lambda x, u: 0.5 * time_step * u[0] ** 2,
        terminal_cost=lambda x: 0.0 * x[0],
        x0=[0.0, speed],
        horizon=horizon,
        controls=[-2 * speed / duration],
        constraints=(Constraint(lambda x, u: m.stack([x[0]]), upper=wall, name="wall"),),
        terminal_constraints=(Constraint(lambda x: x, [0.0, -speed], [0.0, -speed], "end"),),
        name="bryson-denham",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the mass, whose front is at its position, the force on it and the wall."""
    drawing.ground(axes)
    axes.fill_between([WALL, 0.2], [0.06, 0.06], color=drawing.GROUND)
    drawing.box(axes, (x[0] - 0.02, 0.01), (0.04, 0.02))
    drawing.arrow(axes, (x[0] - 0.02, 0.01), (0.01 * u[0], 0.0))
    axes.plot([0.0, 0.0], [-0.01, 0.0], color=drawing.GOAL, linewidth=2.0)
    axes.annotate("start and end", (0.0, -0.02), color=drawing.GOAL, ha="center")
    axes.set_xticks([0.0, 0.05, 0.1])
    axes.set_yticks([])


TASK = Task(
    name="bryson-denham",
    summary="Turn a mass around before it reaches a wall",
    source="Bryson, Denham & Dreyfus 1963; Bryson & Ho 1975",
    build=build,
    time_step=TIME_STEP,
    state_labels=("position [m]", "velocity [m/s]"),
    control_labels=("acceleration [m/s²]",),
    draw=draw,
    view=(-0.08, 0.14, -0.08, 0.1),
    solver="auto",
)
