"""Hager's problem: approach zero at a limited speed, with the least of distance and speed squared.

    minimize   ½ ∫₀¹ (x² + u²) dt   subject to   ẋ = u,   u ≤ 1,   x(0) = (1 + 3e) / (2 (1 − e))

discretized exactly: x' = x + Δt u and ℓ = ∫ ½ ((x + s u)² + u²) ds. In continuous time the optimum is known: the
limit holds back until t = ½, and then u = (e^t − e^(2−t)) / (√e (1 − e)); J* = `optimal_cost`.
State x = (position [m],), control u = (speed [m/s],).
Source: Hager, "Multiplier methods for nonlinear optimal control", 1990; Dontchev, Hager & Veliov, "Second-order
Runge-Kutta approximations in control constrained optimal control", 2000.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.problem import Problem

TIME_STEP, LIMIT = 0.02, 1.0
START = (1 + 3 * np.e) / (2 * (1 - np.e))


def optimal_cost() -> float:
    """Return J* of the continuous problem: ½ (x³/3 from x(0) to x(½), ½, and (e + 1) / (e − 1))."""
    return float(0.5 * (((START + 0.5) ** 3 - START**3) / 3 + 0.5 + (np.e + 1) / (np.e - 1)))


@built_by_call
def build(
    *, horizon: int = 50, time_step: float = TIME_STEP, start: float = START, speed_limit: float = LIMIT
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage; the source's problem lasts 1 s.
    start
        Initial position [m].
    speed_limit
        Largest speed [m/s]; there is no limit backwards.
    """

    def cost(x: Any, u: Any) -> Any:
        square = x[0] ** 2 + time_step * x[0] * u[0] + time_step**2 / 3 * u[0] ** 2
        return 0.5 * time_step * (square + u[0] ** 2)

    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + time_step * u[0]]),
        cost=cost,
        terminal_cost=lambda x: 0.0 * x[0],
        x0=[start],
        horizon=horizon,
        control_size=1,
        control_bounds=(-np.inf, speed_limit),
        name="hager",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the point on its line, its speed, and zero."""
    drawing.ground(axes)
    drawing.goal(axes, 0.0, 0.0, label="zero")
    drawing.disc(axes, (x[0], 0.0), 0.08, drawing.BODY)
    drawing.arrow(axes, (x[0], 0.0), (0.5 * u[0], 0.0))
    drawing.gauge(axes, u[0], 0.0, LIMIT, "speed [m/s]")
    axes.set_yticks([])


TASK = Task(
    name="hager",
    summary="Approach zero at a limited speed",
    source="Hager 1990; Dontchev, Hager & Veliov 2000",
    build=build,
    time_step=TIME_STEP,
    state_labels=("position [m]",),
    control_labels=("speed [m/s]",),
    draw=draw,
    view=(-3.0, 0.5, -1.4, 1.4),
)
