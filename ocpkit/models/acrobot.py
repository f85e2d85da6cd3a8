"""The acrobot: a gymnast on a bar, driven at the waist only, swings up to a handstand.

    M(q) q̈ + c(q, q̇) + G(q) = (0, τ)      (see `ocpkit.models.two_link`)

    minimize ½ w_T (‖q − (π, 0)‖² + w_r ‖q̇‖²) + Σ ½ Δt (w_u τ² + w_q ‖q̇‖²),   |τ| ≤ limit

State x = (q₁ from hanging, q₂ relative to the first link [rad], and their rates), control u = (torque τ [N m],).
The limit is infinite in the task `acrobot`, and 6 N m in `acrobot-bounded`.
Source: Spong, "The swing up control problem for the Acrobot", 1995; two uniform rods of 1 kg and 1 m.
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
from ocpkit.models.two_link import TwoLink
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem

TIME_STEP = 0.04
WEAK = 6.0  # [N m]
LINKS = TwoLink(masses=(1.0, 1.0), lengths=(1.0, 1.0), centers=(0.5, 0.5), inertias=(1 / 3, 1 / 3))


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    links: TwoLink = LINKS,
    torque_limit: float = np.inf,
    torque_weight: float = 0.01,
    running_rate_weight: float = 0.05,
    rate_weight: float = 0.1,
    terminal_weight: float = 100.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    links
        Masses, lengths, inertias, friction and gravity.
    torque_limit
        Largest torque in either direction [N m].
    torque_weight, running_rate_weight
        Running cost per (N m)² and per (rad/s)², both per second.
    terminal_weight, rate_weight
        Cost per rad² at the end; that of the rates relative to it [s²].
    """

    def rates(x: Any, u: Any) -> Any:
        return links.rates(x, (0.0, u[0]))

    def cost(x: Any, u: Any) -> Any:
        return 0.5 * time_step * (torque_weight * u[0] ** 2 + running_rate_weight * (x[2] ** 2 + x[3] ** 2))

    def miss(x: Any) -> Any:
        slow = rate_weight**0.5
        return terminal_weight**0.5 * m.stack([x[0] - m.pi, x[1], slow * x[2], slow * x[3]])

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=[0.0, 0.0, 0.0, 0.0],
        horizon=horizon,
        controls=[0.1],
        control_bounds=(-torque_limit, torque_limit),
        name="acrobot-bounded" if np.isfinite(torque_limit) else "acrobot",
    )


def draw(axes: Any, x: Any, u: Any, torque_limit: float = np.inf) -> None:
    """Draw both links, the handstand's tip and the torque between its bounds."""
    waist, feet = LINKS.joints(x)
    drawing.goal(axes, 0.0, sum(LINKS.lengths))
    drawing.rod(axes, (0.0, 0.0), waist, feet)
    drawing.disc(axes, (0.0, 0.0), 0.06, drawing.LINK)
    drawing.disc(axes, waist, 0.09)
    if np.isfinite(torque_limit):
        drawing.gauge(axes, u[0], -torque_limit, torque_limit, "torque [N m]")


TASK = Task(
    name="acrobot",
    summary="Swing a two-link gymnast to a handstand by the waist alone",
    source="Spong 1995",
    build=build,
    time_step=TIME_STEP,
    state_labels=("shoulder [rad]", "waist [rad]", "shoulder rate [rad/s]", "waist rate [rad/s]"),
    control_labels=("torque [N m]",),
    draw=draw,
    view=(-2.9, 2.9, -2.3, 2.3),
)

BOUNDED = replace(
    TASK,
    name="acrobot-bounded",
    summary="Swing a two-link gymnast with a weak waist to a handstand",
    build=partial(build, torque_limit=WEAK),
    draw=partial(draw, torque_limit=WEAK),
)
