"""Rocket landing: bring a falling, leaning booster to rest, upright, on its pad.

The engine, a distance l below the center of mass, thrusts with u₁ F along an axis turned by the gimbal angle u₂:

    mass p̈ = u₁ F R(θ) (−sin u₂, cos u₂) − mass (0, g),     inertia θ̈ = −l u₁ F sin u₂

    minimize ½ (w_p ‖p_T − pad‖² + w_v ‖ṗ_T‖² + w_θ (θ_T² + θ̇_T²)) + Σ ½ Δt (w_1 u₁² + w_2 u₂² + w_r θ̇²)

State x = (position to the right and up of the center of mass, from its height on the pad [m], tilt θ [rad], and the
rates of all three), control u = (throttle, 1 = full thrust F; gimbal angle [rad]), parameter p = (pad [m],).
The fuel burnt in these ten seconds is a few per cent of the mass and is left out.
Source: the soft landing of Acikmese & Ploen, "Convex programming approach to powered descent guidance for Mars
landing", 2007; sizes near those of a Falcon 9 first stage
with one engine burning.
"""

from __future__ import annotations

from typing import Any

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing, planar_body
from ocpkit.models.task import Task
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem

TIME_STEP, LENGTH, PAD, ENGINE = 0.1, 42.0, 0.0, 15.0
START = (60.0, 200.0, -0.3, -15.0, -40.0, 0.0)


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    mass: float = 27_000.0,
    inertia: float = 4.0e6,
    engine_distance: float = ENGINE,
    full_thrust: float = 845_000.0,
    gravity: float = 9.81,
    start: tuple[float, float, float, float, float, float] = START,
    pad: float = PAD,
    throttle_weight: float = 1.0,
    gimbal_weight: float = 10.0,
    tilt_rate_weight: float = 1.0,
    position_weight: float = 1.0,
    speed_weight: float = 1.0,
    tilt_weight: float = 100.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    mass, inertia, engine_distance, full_thrust, gravity
        [kg], [kg m²], l [m], F [N], [m/s²].
    start
        Initial state [m, m, rad, m/s, m/s, rad/s].
    pad
        Where to land [m]; the problem's parameter.
    throttle_weight, gimbal_weight, tilt_rate_weight
        Running cost per full throttle squared, per rad² and per (rad/s)², each per second.
    position_weight, speed_weight, tilt_weight
        Cost at the end per m², per (m/s)², and per rad² and (rad/s)².
    """

    def rates(x: Any, u: Any) -> Any:
        thrust = full_thrust * u[0]
        push, lift = -thrust * m.sin(u[1]), thrust * m.cos(u[1])
        return planar_body.rates(x, push, lift, engine_distance * push, mass=mass, inertia=inertia, gravity=gravity)

    def cost(x: Any, u: Any) -> Any:
        effort = throttle_weight * u[0] ** 2 + gimbal_weight * u[1] ** 2
        return 0.5 * time_step * (effort + tilt_rate_weight * x[5] ** 2)

    def miss(x: Any, p: Any) -> Any:
        place, speed, lean = position_weight**0.5, speed_weight**0.5, tilt_weight**0.5
        return m.stack([place * (x[0] - p[0]), place * x[1], lean * x[2], speed * x[3], speed * x[4], lean * x[5]])

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=start,
        horizon=horizon,
        controls=[mass * gravity / full_thrust, 0.0],
        parameters=[pad],
        name="rocket-landing",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the booster, its flame and the pad."""
    foot = -ENGINE
    drawing.ground(axes, foot)
    axes.plot([PAD - 15, PAD + 15], [foot, foot], color=drawing.GOAL, linewidth=5.0)
    axes.annotate("pad", (PAD, foot - 9), color=drawing.GOAL, ha="center", va="center")
    nozzle = drawing.placed([(0.0, foot)], x[:2], x[2])[0]
    width, length = 1.5, 50 * u[0]
    flame = drawing.placed([(-width, 0.0), (width, 0.0), (0.0, -length)], nozzle, x[2] + u[1])
    axes.fill(*flame.T, color=drawing.THRUST)
    shoulder, nose = foot + LENGTH - 4, foot + LENGTH
    hull = [(-1.85, foot), (1.85, foot), (1.85, shoulder), (0.0, nose), (-1.85, shoulder)]
    axes.fill(*drawing.placed(hull, x[:2], x[2]).T, color=drawing.BODY)


TASK = Task(
    name="rocket-landing",
    summary="Land a falling booster upright on its pad",
    source="Acikmese & Ploen 2007",
    build=build,
    time_step=TIME_STEP,
    state_labels=("right [m]", "up [m]", "tilt [rad]", "speed right [m/s]", "speed up [m/s]", "tilt rate [rad/s]"),
    control_labels=("throttle", "gimbal [rad]"),
    draw=draw,
    view=(-120.0, 180.0, -30.0, 235.0),
)
