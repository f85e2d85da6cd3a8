"""The quadrotor: fly sideways through a full roll, and hover at a goal.

With R = R_z(yaw) R_y(pitch) R_x(roll), thrusts u of the front, left, back and right rotor, body rates ω:

    mass p̈ = R (0, 0, Σu) − mass (0, 0, g)
    I ω̇ = (arm (u₂ − u₄), arm (u₃ − u₁), κ (u₁ − u₂ + u₃ − u₄)) − ω × I ω
    d/dt (roll, pitch, yaw) = W(roll, pitch) ω        (singular at pitch = ±π/2 only: a roll may go full circle)

    minimize ½ w_T (‖p − goal‖² + ‖angles − final‖² + w_r (‖ṗ‖² + ‖ω‖²))
           + Σ ½ Δt (w_u ‖u − hover‖² + w_v (‖ṗ‖² + ‖ω‖²) + w_l (pitch² + yaw²))

State x = (position [m], roll, pitch, yaw [rad], velocity [m/s], body rates ω [rad/s]), control u = (four thrusts [N]),
parameter p = (goal [m], final roll, pitch and yaw [rad]).
Source: Mellinger & Kumar, "Minimum snap trajectory generation and control for quadrotors", 2011; numbers of Drake's
QuadrotorPlant (Tedrake et al. 2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.arrays import whole_number
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.functions import LeastSquares
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem

TIME_STEP, ARM, ROTOR = 0.02, 0.175, 0.12
GOAL, FINAL_ANGLES = (1.0, -2.0, 0.5), (2 * np.pi, 0.0, 0.0)
INERTIAS = (0.0023, 0.0023, 0.0040)


def rotation(roll: Any, pitch: Any, yaw: Any) -> Any:
    """Return R_z(yaw) R_y(pitch) R_x(roll), body to world."""
    (sr, cr), (sp, cp), (sy, cy) = ((m.sin(angle), m.cos(angle)) for angle in (roll, pitch, yaw))
    return m.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def angle_rates(roll: Any, pitch: Any, body_rates: Any) -> Any:
    """Return d/dt (roll, pitch, yaw) for body rates [rad/s]."""
    p, q, r = body_rates
    sin, cos = m.sin(roll), m.cos(roll)
    yawing = (sin * q + cos * r) / m.cos(pitch)
    return m.stack([p + m.sin(pitch) * yawing, cos * q - sin * r, yawing])


def flip_guess(horizon: int, time_step: float, *, hover: float, roll: float, inertia: float, arm: float) -> Any:
    """Return controls (T, 4) that hover, save for two opposite pulses about half-time that roll by an angle [rad]."""
    pulse = max(horizon // 8, 1)
    start = max(horizon // 2 - pulse, 0)
    acceleration = roll / (pulse * time_step) ** 2
    push = inertia * acceleration / (2 * arm) * np.array([0.0, 1.0, 0.0, -1.0])
    controls = np.full((horizon, 4), hover)
    controls[start : start + pulse] += push
    controls[start + pulse : start + 2 * pulse] -= push
    return controls


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    mass: float = 0.5,
    inertias: tuple[float, float, float] = INERTIAS,
    arm: float = ARM,
    drag_torque: float = 0.0245,
    gravity: float = 9.81,
    start: tuple[float, float, float] = (0.0, 0.0, 0.0),
    goal: tuple[float, float, float] = GOAL,
    final_angles: tuple[float, float, float] = FINAL_ANGLES,
    thrust_weight: float = 1.0,
    running_rate_weight: float = 0.05,
    level_weight: float = 5.0,
    rate_weight: float = 0.1,
    terminal_weight: float = 1000.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage.
    mass, inertias, arm, drag_torque, gravity
        [kg], about the body axes [kg m²], distance of a rotor from the center [m], κ [N m per N], [m/s²].
    start, goal
        Places of hover [m].
    final_angles
        Roll, pitch and yaw at the end [rad]; 2π of roll is a flip. Goal and angles are the problem's parameter.
    thrust_weight, running_rate_weight, level_weight
        Running cost per N² away from hover, per (m/s)² and (rad/s)², and per rad² of pitch and yaw, each per second.
    terminal_weight, rate_weight
        Cost at the end per m² and rad²; that of the rates relative to it [s²].
    """
    horizon = whole_number(horizon, "horizon")
    hover = mass * gravity / 4
    i1, i2, i3 = inertias

    def rates(x: Any, u: Any) -> Any:
        roll, pitch, yaw = x[3:6]
        p, q, r = x[9:]
        lift = m.sum(u) / mass * rotation(roll, pitch, yaw)[:, 2]
        spin = [
            (arm * (u[1] - u[3]) - (i3 - i2) * q * r) / i1,
            (arm * (u[2] - u[0]) - (i1 - i3) * r * p) / i2,
            (drag_torque * (u[0] - u[1] + u[2] - u[3]) - (i2 - i1) * p * q) / i3,
        ]
        return m.concatenate([x[6:9], angle_rates(roll, pitch, x[9:]), lift[0], lift[1], lift[2] - gravity, *spin])

    def cost(x: Any, u: Any) -> Any:
        effort = thrust_weight * m.sum((u - hover) ** 2) + running_rate_weight * m.dot(x[6:], x[6:])
        return 0.5 * time_step * (effort + level_weight * (x[4] ** 2 + x[5] ** 2))

    def miss(x: Any, p: Any) -> Any:
        return terminal_weight**0.5 * m.concatenate([x[:6] - p, rate_weight**0.5 * x[6:]])

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=cost,
        terminal_cost=LeastSquares(miss),
        x0=[*start, *np.zeros(9)],
        horizon=horizon,
        controls=flip_guess(horizon, time_step, hover=hover, roll=final_angles[0], inertia=i1, arm=arm),
        parameters=[*goal, *final_angles],
        name="quadrotor",
    )


def draw(axes: Any, x: Any, u: Any, goal: tuple[float, ...] = GOAL) -> None:
    """Draw the frame, its rotors (the front one in red), their thrusts, a shadow on the floor, and the goal."""
    turn = rotation(*x[3:6])

    def world(*point: float) -> Any:
        return x[:3] + turn @ np.array(point)

    floor = axes.get_zlim()[0]
    drawing.goal(axes, *goal)
    axes.plot(*([value] for value in (*x[:2], floor)), marker="o", markersize=8, color=drawing.GROUND, alpha=0.6)
    circle = ROTOR * np.exp(1j * np.linspace(0, 2 * np.pi, 30))
    for (forward, left), thrust in zip(((ARM, 0.0), (0.0, ARM), (-ARM, 0.0), (0.0, -ARM)), u):
        color = drawing.ACCENT if forward > 0 else drawing.BODY
        drawing.rod(axes, world(0, 0, 0), world(forward, left, 0), width=3.0)
        rim = [world(forward + c.real, left + c.imag, 0) for c in circle]
        drawing.rod(axes, *rim, width=2.0, color=color)
        drawing.rod(axes, world(forward, left, 0), world(forward, left, 0.15 * thrust), width=1.5, color=drawing.THRUST)
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    axes.set_zlabel("z [m]")


TASK = Task(
    name="quadrotor",
    summary="Flip a quadrotor on its way to a goal and hover there",
    source="Mellinger & Kumar 2011",
    build=build,
    time_step=TIME_STEP,
    state_labels=(
        *("x [m]", "y [m]", "z [m]", "roll [rad]", "pitch [rad]", "yaw [rad]"),
        *("velocity x [m/s]", "velocity y [m/s]", "velocity z [m/s]"),
        *("roll rate [rad/s]", "pitch rate [rad/s]", "yaw rate [rad/s]"),
    ),
    control_labels=("front rotor [N]", "left rotor [N]", "back rotor [N]", "right rotor [N]"),
    draw=draw,
    view=(-0.6, 1.6, -2.5, 0.5, -0.3, 1.9),
)
