"""The cart-pole: swing a pole up by pushing the cart that carries it.

    (M + m sin²θ) ÿ     = F + m sin θ (l θ̇² + g cos θ)
    l (M + m sin²θ) θ̈   = −F cos θ − m l θ̇² cos θ sin θ − (M + m) g sin θ

    minimize ½ w_T (‖(y, θ) − (goal, π)‖² + w_r ‖(ẏ, θ̇)‖²) + Σ ½ Δt w_u F²,   |F| ≤ limit

State x = (cart position y [m], pole angle θ from hanging [rad], and their rates), control u = (force F [N],),
parameter p = (goal of the cart [m],). The limit is infinite in the task `cartpole`, and 8 N in `cartpole-bounded`,
which has to swing back and forth at full force.
Source: equations of Tedrake, *Underactuated Robotics*, ch. 3; masses and length of Barto, Sutton & Anderson 1983.
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
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem

TIME_STEP, LENGTH, GOAL = 0.02, 0.5, 0.0
WEAK = 8.0  # [N]


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    cart_mass: float = 1.0,
    pole_mass: float = 0.1,
    length: float = LENGTH,
    gravity: float = 9.81,
    goal: float = GOAL,
    force_limit: float = np.inf,
    force_weight: float = 0.01,
    rate_weight: float = 0.1,
    terminal_weight: float = 100.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    cart_mass, pole_mass, length, gravity
        M and m [kg], l [m] (all of m at the tip), [m/s²].
    goal
        Where the cart shall end [m]; the problem's parameter.
    force_limit
        Largest force in either direction [N].
    force_weight
        Running cost per N², per second.
    terminal_weight, rate_weight
        Cost at the end per m² and per rad²; that of the rates relative to it [s²].
    """

    def rates(x: Any, u: Any) -> Any:
        _, angle, speed, turn = x
        sin, cos = m.sin(angle), m.cos(angle)
        mass = cart_mass + pole_mass * sin * sin
        push = (u[0] + pole_mass * sin * (length * turn**2 + gravity * cos)) / mass
        fall = -u[0] * cos - pole_mass * length * turn**2 * cos * sin - (cart_mass + pole_mass) * gravity * sin
        return m.stack([speed, turn, push, fall / (length * mass)])

    def cost(x: Any, u: Any) -> Any:
        return 0.5 * time_step * force_weight * u[0] ** 2

    def miss(x: Any, p: Any) -> Any:
        slow = rate_weight**0.5
        return terminal_weight**0.5 * m.stack([x[0] - p[0], x[1] - m.pi, slow * x[2], slow * x[3]])

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=[0.0, 0.0, 0.0, 0.0],
        horizon=horizon,
        controls=[0.1],
        parameters=[goal],
        control_bounds=(-force_limit, force_limit),
        name="cartpole-bounded" if np.isfinite(force_limit) else "cartpole",
    )


def draw(axes: Any, x: Any, u: Any, force_limit: float = np.inf) -> None:
    """Draw cart, pole, the force with its bounds, and where the tip shall end."""
    tip = (x[0] + LENGTH * m.sin(x[1]), -LENGTH * m.cos(x[1]))
    drawing.ground(axes)
    drawing.goal(axes, GOAL, LENGTH)
    drawing.box(axes, (x[0], 0.0), (0.3, 0.16))
    drawing.rod(axes, (x[0], 0.0), tip)
    drawing.disc(axes, tip, 0.05)
    drawing.arrow(axes, (x[0], 0.0), (0.03 * u[0], 0.0))
    if np.isfinite(force_limit):
        drawing.gauge(axes, u[0], -force_limit, force_limit, "force [N]")


TASK = Task(
    name="cartpole",
    summary="Swing a pole up by pushing its cart",
    source="Barto, Sutton & Anderson 1983; Tedrake, Underactuated Robotics",
    build=build,
    time_step=TIME_STEP,
    state_labels=("position [m]", "angle [rad]", "speed [m/s]", "turn rate [rad/s]"),
    control_labels=("force [N]",),
    draw=draw,
    view=(-1.25, 1.25, -1.0, 1.0),
)

BOUNDED = replace(
    TASK,
    name="cartpole-bounded",
    summary="Swing a pole up with a weak motor on its cart",
    build=partial(build, force_limit=WEAK),
    draw=partial(draw, force_limit=WEAK),
)
