"""The models that pycddp brings in C++, written with ocpkit.

pycddp differentiates f in x' = x + Δt f(x, u), so its cart-pole and quadrotor take Euler steps here: with another
rule its gradient would be that of another problem. Its car is a discrete step already. The adapter compares both
forms of the dynamics before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ocpkit import Constraint, Problem, euler, models
from ocpkit import math as m

GRAVITY, CART, POLE, LENGTH = 9.81, 1.0, 0.2, 0.5
MASS, ARM, DRAG = 0.5, 0.175, 0.1
INERTIAS = np.array([0.0023, 0.0023, 0.0040])


@dataclass(frozen=True)
class Model:
    """J = (x_T − goal)ᵀ Qf (x_T − goal) + Δt Σ ((x − goal)ᵀ Q (x − goal) + uᵀ R u), as pycddp scales it.

    Attributes
    ----------
    step
        x' of (x, u), written with `ocpkit.math`.
    Q, R, Qf
        Diagonals of the weights.
    guess
        First guess of every control.
    limit
        Largest size of each control; none by default.
    balls
        Discs (x, y, radius) that the first two states keep out of.
    """

    name: str
    step: Callable[[Any, Any], Any]
    time_step: float
    horizon: int
    x0: tuple[float, ...]
    goal: tuple[float, ...]
    Q: tuple[float, ...]
    R: tuple[float, ...]
    Qf: tuple[float, ...]
    guess: tuple[float, ...]
    limit: tuple[float, ...] = ()
    balls: tuple[tuple[float, float, float], ...] = ()

    @property
    def full_name(self) -> str:
        """Name of the task."""
        return f"cddp-{self.name}" + ("-balls" if self.balls else "-bounded" if self.limit else "")

    def problem(self) -> Problem:
        goal, Q, R, Qf, limit = (np.array(v) for v in (self.goal, self.Q, self.R, self.Qf, self.limit))
        return Problem.from_functions(
            dynamics=self.step,
            cost=lambda x, u: self.time_step * (m.sum(Q * (x - goal) ** 2) + m.sum(R * u**2)),
            terminal_cost=lambda x: m.sum(Qf * (x - goal) ** 2),
            x0=self.x0,
            horizon=self.horizon,
            controls=self.guess,
            control_bounds=(-limit, limit) if self.limit else None,
            constraints=tuple(outside(*ball) for ball in self.balls),
            name=self.full_name,
        )


def outside(a: float, b: float, radius: float) -> Constraint:
    """‖(x, y) − (a, b)‖² ≥ radius²."""
    return Constraint(lambda x, u: (x[0] - a) ** 2 + (x[1] - b) ** 2, radius**2, np.inf, "ball")


def unicycle_rates(x: Any, u: Any) -> Any:
    """x = (x, y, heading), u = (speed, turn rate)."""
    return m.stack([u[0] * m.cos(x[2]), u[0] * m.sin(x[2]), u[1]])


def cartpole_rates(x: Any, u: Any) -> Any:
    """x = (position, angle from hanging, their rates), u = (force,); Tedrake, *Underactuated Robotics*, ch. 3."""
    sin, cos = m.sin(x[1]), m.cos(x[1])
    mass = CART + POLE * sin * sin
    push = (u[0] + POLE * sin * (LENGTH * x[3] ** 2 + GRAVITY * cos)) / mass
    fall = -u[0] * cos - POLE * LENGTH * x[3] ** 2 * cos * sin - (CART + POLE) * GRAVITY * sin
    return m.stack([x[2], x[3], push, fall / (LENGTH * mass)])


def quadrotor_rates(x: Any, u: Any) -> Any:
    """x = (position, unit quaternion (w, x, y, z), velocity, body rates), u = four rotor thrusts."""
    a, b, c, d = x[3:7] / m.sqrt(m.dot(x[3:7], x[3:7]))
    p, q, r = x[10:]
    turn = [-b * p - c * q - d * r, a * p + c * r - d * q, a * q - b * r + d * p, a * r + b * q - c * p]
    up = m.stack([2 * (b * d + c * a), 2 * (c * d - b * a), 1 - 2 * (b * b + c * c)])
    i1, i2, i3 = INERTIAS
    spin = [
        (ARM * (u[0] - u[2]) - (i3 - i2) * q * r) / i1,
        (ARM * (u[1] - u[3]) - (i1 - i3) * r * p) / i2,
        (DRAG * (u[0] - u[1] + u[2] - u[3]) - (i2 - i1) * p * q) / i3,
    ]
    lift = m.sum(u) / MASS * up
    return m.concatenate([x[7:10], 0.5 * m.stack(turn), lift[0], lift[1], lift[2] - GRAVITY, *spin])


MODELS = (
    Model(
        "cartpole",
        euler(cartpole_rates, 0.02),
        time_step=0.02,
        horizon=100,
        x0=(0.0, 0.0, 0.0, 0.0),
        goal=(0.0, np.pi, 0.0, 0.0),
        Q=(0.0, 0.0, 0.0, 0.0),
        R=(0.1,),
        Qf=(100.0, 100.0, 100.0, 100.0),
        guess=(0.1,),
    ),
    Model(
        "car",
        models.get("car-parking").build(horizon=1).stages[0].dynamics.function,
        time_step=0.03,
        horizon=200,
        x0=(-4.0, 1.5, 0.0, 0.0),
        goal=(0.0, 0.0, 0.0, 0.0),
        Q=(0.1, 0.1, 0.0, 0.0),
        R=(0.5, 0.05),
        Qf=(10.0, 10.0, 10.0, 10.0),
        guess=(0.0, 0.1),
    ),
    Model(
        "quadrotor",
        euler(quadrotor_rates, 0.02),
        time_step=0.02,
        horizon=100,
        x0=(0.0, 0.0, 0.0, 1.0, *[0.0] * 9),
        goal=(1.0, -1.0, 0.5, 1.0, *[0.0] * 9),
        Q=(1.0, 1.0, 1.0, *[0.1] * 4, *[0.1] * 6),
        R=(0.01, 0.01, 0.01, 0.01),
        Qf=(100.0,) * 13,
        guess=(MASS * GRAVITY / 4,) * 4,
    ),
)
MODELS += (replace(MODELS[0], limit=(6.0,)), replace(MODELS[1], limit=(0.5, 1.5)))
AMONG_BALLS = (
    Model(
        "unicycle",
        euler(unicycle_rates, 0.03),
        time_step=0.03,
        horizon=100,
        x0=(0.0, 0.0, np.pi / 4),
        goal=(2.0, 2.0, np.pi / 2),
        Q=(0.0, 0.0, 0.0),
        R=(0.5, 0.5),
        Qf=(100.0, 100.0, 100.0),
        guess=(0.5, 0.0),
        limit=(1.5, np.pi),
        balls=((1.1, 0.5, 0.4),),
    ),
)
