"""A quadrotor with unit quaternions and bounded thrusts that starts upside down, its guess x_0 at every stage.

Twelve starts, 2.4 to 3.0 rad from upright; ẋ by Runge-Kutta steps of 20 ms. States: position [m], quaternion (w, x,
y, z), velocity [m/s], body rates [rad/s]; controls: four thrusts [N].
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import ocpkit.math as m
from benchmarks.robustness.family import Family, Instance
from ocpkit import Problem, rk4
from ocpkit.boundary.arrays import Array

GROUP, STARTS, SEED = "quadrotor", 12, 7
MASS, INERTIA, ARM, DRAG, GRAVITY = 1.2, (0.012, 0.013, 0.023), 0.22, 0.02, 9.81
HORIZON, TIME_STEP, LARGEST_THRUST = 120, 0.02, 6.0
HOVER = MASS * GRAVITY / 4
PLACES = slice(0, 3), slice(4, 7), slice(7, 10), slice(10, 13)  # position, vector of the quaternion, velocity, rates
ALONG, AT_THE_END = (2.0, 2.0, 0.2, 0.05), (100.0, 200.0, 10.0, 5.0)


def families() -> Iterator[Family]:
    """Yield the one family, with its starts."""
    instances = tuple(Instance(str(k), partial(_begin, x0)) for k, x0 in enumerate(starts()))
    yield Family(GROUP, "quaternion", template, instances)


def template() -> Problem:
    """Return the problem from upright."""
    return Problem.from_functions(
        dynamics=rk4(_rates, TIME_STEP),
        cost=lambda x, u: TIME_STEP * (_squares(x, ALONG) + 0.05 * m.dot(u - HOVER, u - HOVER)),
        terminal_cost=lambda x: _squares(x, AT_THE_END),
        x0=[0, 0, 0, 1, *[0] * 9],
        horizon=HORIZON,
        controls=[HOVER] * 4,
        control_bounds=(0.0, LARGEST_THRUST),
        name="quaternion quadrotor",
    )


def starts() -> list[Array]:
    """Draw where it starts, turned about any axis and within 1 m of the goal."""
    rng, found = np.random.default_rng(SEED), []
    for _ in range(STARTS):
        angle, axis = rng.uniform(2.4, 3.0), rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        position = rng.uniform(-1, 1, 3)
        found.append(np.concatenate([position, [np.cos(angle / 2)], np.sin(angle / 2) * axis, np.zeros(6)]))
    return found


def _begin(x0: Array, problem: Problem) -> Problem:
    return problem.replace(x0=x0, states=np.tile(x0, (HORIZON + 1, 1)))


def _rates(x: Any, u: Any) -> Any:
    w, v, rate = x[3], x[4:7], x[10:13]
    lift = (u[0] + u[1] + u[2] + u[3]) / MASS
    torque = ARM * (u[1] - u[3]), ARM * (u[2] - u[0]), DRAG * (u[0] - u[1] + u[2] - u[3])
    up = m.stack([2 * (v[0] * v[2] + w * v[1]), 2 * (v[1] * v[2] - w * v[0]), w**2 - v[0] ** 2 - v[1] ** 2 + v[2] ** 2])
    gyration = [(INERTIA[i - 2] - INERTIA[i - 1]) * rate[i - 2] * rate[i - 1] for i in range(3)]
    return m.concatenate(
        [
            x[7:10],
            m.stack([-0.5 * m.dot(v, rate)]),
            0.5 * (w * rate + _cross(v, rate)),
            lift * up - np.array([0.0, 0.0, GRAVITY]),
            m.stack([(torque[i] + gyration[i]) / INERTIA[i] for i in range(3)]),
        ]
    )


def _cross(a: Any, b: Any) -> Any:
    return m.stack([a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)])


def _squares(x: Any, weights: Any) -> Any:
    return sum(weight * m.dot(x[place], x[place]) for weight, place in zip(weights, PLACES))
