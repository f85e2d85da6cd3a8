"""The two-link arm: reach a point with the hand by torques at shoulder and elbow, and stop there.

    M(q) q̈ + c(q, q̇) + b q̇ = τ      in a horizontal plane, without gravity (see `ocpkit.models.two_link`)

    minimize ½ w_T (‖hand(q) − goal‖² + w_r ‖q̇‖²) + Σ ½ Δt w_u ‖τ‖²

State x = (shoulder, elbow angle [rad], and their rates), control u = (two torques [N m]), parameter p = (goal of the
hand, two coordinates [m]).
Source: Li & Todorov, "Iterative linear quadratic regulator design for nonlinear biological movement systems", 2004,
with their human arm.
"""

from __future__ import annotations

from typing import Any

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.models.two_link import TwoLink
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem

TIME_STEP, GOAL = 0.01, (-0.1, 0.4)
ARM = TwoLink(
    masses=(1.4, 1.0),
    lengths=(0.30, 0.33),
    centers=(0.11, 0.16),
    inertias=(0.025, 0.045),
    friction=0.05,
    gravity=0.0,
)


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    arm: TwoLink = ARM,
    start: tuple[float, float] = (1.2, 1.0),
    goal: tuple[float, float] = GOAL,
    torque_weight: float = 1.0,
    rate_weight: float = 0.01,
    terminal_weight: float = 1e5,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    arm
        Masses, lengths, inertias and friction.
    start
        Shoulder and elbow angle [rad].
    goal
        Where the hand shall be [m]; the problem's parameter.
    torque_weight
        Running cost per (N m)², per second.
    terminal_weight, rate_weight
        Cost per m² at the end; that of the joint rates relative to it [m² s²/rad²].
    """

    def rates(x: Any, u: Any) -> Any:
        return arm.rates(x, (u[0], u[1]))

    def cost(x: Any, u: Any) -> Any:
        return 0.5 * time_step * torque_weight * m.dot(u, u)

    def miss(x: Any, p: Any) -> Any:
        return terminal_weight**0.5 * m.concatenate([arm.joints(x)[1] - p, rate_weight**0.5 * x[2:]])

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=[*start, 0.0, 0.0],
        horizon=horizon,
        control_size=2,
        parameters=goal,
        name="two-link-arm",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw both links from above, and the goal of the hand."""
    elbow, hand = ARM.joints(x)
    drawing.goal(axes, *GOAL)
    drawing.rod(axes, (0.0, 0.0), elbow, hand, width=8.0)
    for joint in ((0.0, 0.0), elbow):
        drawing.disc(axes, joint, 0.025, drawing.BODY)
    drawing.disc(axes, hand, 0.02)


TASK = Task(
    name="two-link-arm",
    summary="Reach a point with a two-link arm",
    source="Li & Todorov 2004",
    build=build,
    time_step=TIME_STEP,
    state_labels=("shoulder [rad]", "elbow [rad]", "shoulder rate [rad/s]", "elbow rate [rad/s]"),
    control_labels=("shoulder torque [N m]", "elbow torque [N m]"),
    draw=draw,
    view=(-0.65, 0.75, -0.52, 0.6),
)
