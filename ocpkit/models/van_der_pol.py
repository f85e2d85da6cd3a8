"""The van der Pol oscillator, damped by a bounded force while its rate must not fall too far.

    ẋ₁ = (1 − x₂²) x₁ − x₂ + u,   ẋ₂ = x₁

    minimize ∫ (x₁² + x₂² + u²) dt   subject to   −0.3 ≤ u ≤ 1,   x₁ ≥ −0.4,   x(0) = (0, 1)

For 5 s in continuous time J* is 2.86726 without the limit on x₁.
State x = (rate x₁ [1/s], displacement x₂), control u = (force [1/s²],); both are free of units but for the time.
Source: Vassiliadis, Sargent & Pantelides, "Solution of a class of multistage dynamic optimization problems 2", 1994.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.integral import integral
from ocpkit.models.task import Task
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint

TIME_STEP, LOWER, UPPER, SLOWEST = 0.05, -0.3, 1.0, -0.4


def rates(x: Any, u: Any) -> Any:
    """Return ẋ."""
    return m.stack([(1 - x[1] ** 2) * x[0] - x[1] + u[0], x[0]])


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    start: tuple[float, float] = (0.0, 1.0),
    lower: float = LOWER,
    upper: float = UPPER,
    slowest: float = SLOWEST,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage; the source's problem lasts 5 s.
    start
        Initial rate and displacement.
    lower, upper
        Bounds of the control.
    slowest
        Lower bound of the rate x₁.
    """

    def running(x: Any, u: Any) -> Any:
        return x[0] ** 2 + x[1] ** 2 + u[0] ** 2

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=integral(running, rates, time_step),
        terminal_cost=lambda x: 0.0 * x[0],
        x0=start,
        horizon=horizon,
        control_size=1,
        control_bounds=(lower, upper),
        constraints=(Constraint(lambda x, u: m.stack([x[0]]), slowest, np.inf, "rate"),),
        name="van-der-pol",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the phase plane with its flow, the state, the forbidden rates and the control between its bounds."""
    left, _, bottom, top = TASK.view
    axes.fill_betweenx([bottom, top], left, SLOWEST, color=drawing.GROUND, alpha=0.5, linewidth=0)
    drawing.phase_plane(axes, rates, x, u, TASK.view)
    drawing.gauge(axes, u[0], LOWER, UPPER, "force")
    axes.set_xlabel("rate")
    axes.set_ylabel("displacement")


TASK = Task(
    name="van-der-pol",
    summary="Calm an oscillator whose rate must not fall below a limit",
    source="Vassiliadis, Sargent & Pantelides 1994",
    build=build,
    time_step=TIME_STEP,
    state_labels=("rate", "displacement"),
    control_labels=("force",),
    draw=draw,
    view=(-0.8, 0.8, -0.5, 1.2),
    solver="auto",
)
