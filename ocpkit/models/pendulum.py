"""The pendulum: swing a rod with a point mass from hanging to upright, and stop there.

    m l² θ̈ = τ − b θ̇ − m g l sin θ

    minimize ½ w_T ((θ − π)² + θ̇²) + Σ ½ Δt (w_u τ² + w_r θ̇²)

State x = (angle θ from hanging [rad], rate θ̇ [rad/s]), control u = (torque τ [N m],).
Source: the torque-limited swing-up of Doya, "Reinforcement learning in continuous time and space", 2000;
here the torque costs instead of being limited.
"""

from __future__ import annotations

from typing import Any

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem

TIME_STEP, LENGTH = 0.05, 1.0


@built_by_call
def build(
    *,
    horizon: int = 80,
    time_step: float = TIME_STEP,
    mass: float = 1.0,
    length: float = LENGTH,
    damping: float = 0.05,
    gravity: float = 9.81,
    torque_weight: float = 0.1,
    rate_weight: float = 0.01,
    terminal_weight: float = 100.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    mass, length, damping, gravity
        Point mass [kg], massless rod [m], viscous friction of the hinge [N m s/rad], [m/s²].
    torque_weight, rate_weight
        Running cost per (N m)² and per (rad/s)², both per second.
    terminal_weight
        Cost per rad² and per (rad/s)² at the end.
    """
    inertia = mass * length**2

    def rates(x: Any, u: Any) -> Any:
        return m.stack([x[1], (u[0] - damping * x[1] - mass * gravity * length * m.sin(x[0])) / inertia])

    def cost(x: Any, u: Any) -> Any:
        return 0.5 * time_step * (torque_weight * u[0] ** 2 + rate_weight * x[1] ** 2)

    def miss(x: Any) -> Any:
        return terminal_weight**0.5 * m.stack([x[0] - m.pi, x[1]])

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=[0.0, 0.0],
        horizon=horizon,
        controls=[0.1],
        name="pendulum",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the rod, its bob and the upright goal."""
    bob = (LENGTH * m.sin(x[0]), -LENGTH * m.cos(x[0]))
    drawing.goal(axes, 0.0, LENGTH)
    drawing.rod(axes, (0.0, 0.0), bob)
    drawing.disc(axes, bob, 0.1)
    drawing.disc(axes, (0.0, 0.0), 0.04, drawing.LINK)


TASK = Task(
    name="pendulum",
    summary="Swing a pendulum from hanging to upright",
    source="Doya 2000",
    build=build,
    time_step=TIME_STEP,
    state_labels=("angle [rad]", "rate [rad/s]"),
    control_labels=("torque [N m]",),
    draw=draw,
    view=(-1.7, 1.7, -1.35, 1.35),
)
