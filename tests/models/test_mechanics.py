"""The physics of the classic tasks: energy, rest, symmetry and geometry, from the bodies and not the equations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from classic import Array, built, step
from scipy.integrate import simpson
from scipy.spatial.transform import Rotation

from ocpkit import models
from ocpkit.autodiff.differences import central_jacobian
from ocpkit.models.acrobot import LINKS
from ocpkit.models.growth import DEPRECIATION, DISCOUNT, ELASTICITY, steady_state
from ocpkit.models.quadrotor import INERTIAS
from ocpkit.models.two_link import TwoLink
from ocpkit.models.two_link_arm import ARM

GRAVITY = 9.81


def test_friction_slows_every_joint():
    still = step(models.get("acrobot").build(links=replace(LINKS, gravity=0.0)), [0.3, 0.5, 1.0, 1.0], [0.0])
    slowed = step(
        models.get("acrobot").build(links=replace(LINKS, gravity=0.0, friction=0.5)), [0.3, 0.5, 1.0, 1.0], [0.0]
    )
    assert slowed[2:] @ slowed[2:] < still[2:] @ still[2:]


# A body is (mass, inertia about its center, its place and angle as a function of the coordinates q): from these,
# and not from the equations of motion, follow the energy ½ Σ m ‖ṙ‖² + I φ̇² + m g height and its power.
Body = tuple[float, float, Callable[[Array], Array]]


def link(length: float, angles: int) -> Callable[[Array], Array]:
    """Place of a point on a hanging link that starts at the origin."""

    def place(q: Array) -> Array:
        angle = q[:angles].sum()
        return np.array([length * np.sin(angle), -length * np.cos(angle), angle])

    return place


def two_links(links: TwoLink) -> list[Body]:
    (m1, m2), (c1, c2), (i1, i2) = links.masses, links.centers, links.inertias
    upper, elbow, lower = link(c1, 1), link(links.lengths[0], 1), link(c2, 2)

    def on_elbow(q: Array) -> Array:
        return lower(q) + np.array([*elbow(q)[:2], 0.0])

    return [(m1, i1 - m1 * c1**2, upper), (m2, i2 - m2 * c2**2, on_elbow)]


def cart_and_bob() -> list[Body]:
    def bob(q: Array) -> Array:
        return np.array([q[0] + 0.5 * np.sin(q[1]), -0.5 * np.cos(q[1]), 0.0])

    return [(1.0, 0.0, lambda q: np.array([q[0], 0.0, 0.0])), (0.1, 0.0, bob)]


def jet(distance: float, x: Array, force: Array) -> float:
    """Power of a force in the body frame on the body's point (0, −distance), by that point's velocity."""
    cos, sin = np.cos(x[2]), np.sin(x[2])
    velocity = x[3:5] + x[5] * distance * np.array([cos, sin])
    return float(np.array([[cos, -sin], [sin, cos]]) @ force @ velocity)


def rotor_power(x: Array, u: Array) -> float:
    """Power of two rotors at ±0.25 m, which push along the body's up axis."""
    up = np.array([-np.sin(x[2]), np.cos(x[2])])
    along = np.array([np.cos(x[2]), np.sin(x[2])])
    sides = zip((0.25, -0.25), u)
    return float(sum(thrust * up @ (x[3:5] + x[5] * r * np.array([-along[1], along[0]])) for r, thrust in sides))


def identity(q: Array) -> Array:
    return q


# task: (arguments without friction, bodies, gravity, power of the controls, controls to try)
MECHANICS: dict[str, tuple[dict[str, Any], list[Body], float, Callable[[Array, Array], float], list[float]]] = {
    "double-integrator": ({}, [(1.0, 0.0, lambda q: np.array([q[0], 0.0, 0.0]))], 0.0, lambda x, u: u[0] * x[1], [0.7]),
    "pendulum": ({"damping": 0.0}, [(1.0, 0.0, link(1.0, 1))], GRAVITY, lambda x, u: u[0] * x[1], [2.0]),
    "cartpole": ({}, cart_and_bob(), GRAVITY, lambda x, u: u[0] * x[2], [3.0]),
    "acrobot": ({}, two_links(LINKS), GRAVITY, lambda x, u: u[0] * x[3], [2.0]),
    "two-link-arm": (
        {"arm": replace(ARM, friction=0.0)},
        two_links(ARM),
        0.0,
        lambda x, u: float(u @ x[2:]),
        [0.3, -0.2],
    ),
    "planar-quadrotor": ({}, [(0.486, 0.00383, identity)], GRAVITY, rotor_power, [2.5, 2.4]),
    "rocket-landing": (
        {},
        [(27e3, 4e6, identity)],
        GRAVITY,
        lambda x, u: jet(15.0, x, 845e3 * u[0] * np.array([-np.sin(u[1]), np.cos(u[1])])),
        [0.5, 0.1],
    ),
}


def energy(bodies: list[Body], gravity: float, x: Array) -> float:
    n = len(x) // 2
    total = 0.0
    for mass, inertia, place in bodies:
        rate = central_jacobian(place, x[:n]) @ x[n:]
        total += 0.5 * mass * rate[:2] @ rate[:2] + 0.5 * inertia * rate[2] ** 2 + mass * gravity * place(x[:n])[1]
    return total


@pytest.mark.parametrize("driven", [False, True], ids=["free", "driven"])
@pytest.mark.parametrize("name", MECHANICS)
def test_energy_changes_by_the_work_of_the_controls(name, driven):
    arguments, bodies, gravity, power, controls = MECHANICS[name]
    dt = 2e-3 * models.get(name).time_step / 0.05
    problem = models.get(name).build(horizon=300, time_step=dt, **arguments)
    n, u = problem.state_sizes[0], np.array(controls) * driven
    x0 = problem.x0 + 0.5 * np.random.default_rng(4).normal(size=n)
    states, _ = problem.replace(x0=x0).rollout([u] * problem.horizon)
    energies = np.array([energy(bodies, gravity, x) for x in states])
    powers = np.array([power(x, u) for x in states])
    work = simpson(powers, dx=dt)
    scale = max(abs(energies - energies[0]).max(), 0.5 * abs(energies[0]))
    assert driven == (abs(work) > 1e-3 * scale)
    assert energies[-1] - energies[0] == pytest.approx(work, abs=1e-6 * scale)


@pytest.mark.parametrize("driven", [False, True], ids=["free", "driven"])
def test_quadrotor_keeps_energy_and_angular_momentum(driven):
    problem = models.get("quadrotor").build(horizon=300, time_step=1e-3)
    x0 = np.random.default_rng(5).normal(size=12)
    u = np.array([1.3, 1.25, 1.2, 1.28]) * driven
    states, _ = problem.replace(x0=x0).rollout([u] * 300)
    body_torque = np.array([0.175 * (u[1] - u[3]), 0.175 * (u[2] - u[0]), 0.0245 * (u[0] - u[1] + u[2] - u[3])])
    energies, momenta, powers, torques = [], [], [], []
    for x in states:
        turn, velocity, spin = Rotation.from_euler("ZYX", x[5:2:-1]).as_matrix(), x[6:9], x[9:]
        energies.append(0.25 * velocity @ velocity + 0.5 * spin @ (INERTIAS * spin) + 0.5 * GRAVITY * x[2])
        momenta.append(turn @ (INERTIAS * spin))
        powers.append(u.sum() * turn[:, 2] @ velocity + body_torque @ spin)
        torques.append(turn @ body_torque)
    work, impulse = simpson(powers, dx=1e-3), simpson(torques, dx=1e-3, axis=0)
    assert energies[-1] - energies[0] == pytest.approx(work, abs=1e-6 * abs(np.array(energies)).max())
    np.testing.assert_allclose(momenta[-1] - momenta[0], impulse, atol=1e-6 * np.abs(momenta).max())


AT_REST = {
    "double-integrator": ([3.0, 0.0], [0.0]),
    "pendulum": ([np.pi, 0.0], [0.0]),
    "cartpole": ([0.7, np.pi, 0.0, 0.0], [0.0]),
    "acrobot": ([np.pi, 0.0, 0.0, 0.0], [0.0]),
    "car-parking": ([1.0, 2.0, 0.3, 0.0], [0.4, 0.0]),
    "unicycle": ([1.0, 2.0, 0.3], [0.0, 0.0]),
    "planar-quadrotor": ([1.0, 2.0, 0.0, 0.0, 0.0, 0.0], [0.486 * GRAVITY / 2] * 2),
    "quadrotor": ([1.0, 2.0, 3.0, 2 * np.pi, 0.0, 0.7, *[0.0] * 6], [0.5 * GRAVITY / 4] * 4),
    "two-link-arm": ([0.4, 1.1, 0.0, 0.0], [0.0, 0.0]),
    "rocket-landing": ([1.0, 2.0, 0.0, 0.0, 0.0, 0.0], [27e3 * GRAVITY / 845e3, 0.0]),
}


@pytest.mark.parametrize("name", AT_REST)
def test_what_rests_stays(name):
    x, u = AT_REST[name]
    np.testing.assert_allclose(step(built(name), x, u), x, atol=1e-12)


def test_growth_rests_in_the_steady_state():
    capital = steady_state(ELASTICITY, DISCOUNT, DEPRECIATION)
    share = DEPRECIATION * capital / capital**ELASTICITY
    assert step(built("growth"), [capital], [np.log(share / (1 - share))])[0] == pytest.approx(capital)


# Mirror images: signs of the state, signs of the control, order of the control.
MIRRORS = {
    "double-integrator": ([-1, -1], [-1], [0]),
    "pendulum": ([-1, -1], [-1], [0]),
    "cartpole": ([-1] * 4, [-1], [0]),
    "acrobot": ([-1] * 4, [-1], [0]),
    "two-link-arm": ([-1] * 4, [-1, -1], [0, 1]),
    "car-parking": ([1, -1, -1, 1], [-1, 1], [0, 1]),
    "unicycle": ([1, -1, -1], [1, -1], [0, 1]),
    "planar-quadrotor": ([-1, 1, -1, -1, 1, -1], [1, 1], [1, 0]),
    "rocket-landing": ([-1, 1, -1, -1, 1, -1], [1, -1], [0, 1]),
    "quadrotor": ([1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1], [1] * 4, [0, 3, 2, 1]),
}


@pytest.mark.parametrize("name", MIRRORS)
def test_mirrored_motion_is_a_motion(name):
    signs, control_signs, order = map(np.array, MIRRORS[name])
    spins = {"drag_torque": 0.0} if name == "quadrotor" else {}  # the rotors' sense of rotation has no mirror image
    problem, rng = models.get(name).build(**spins), np.random.default_rng(6)
    x, u = rng.normal(size=len(signs)), rng.normal(size=len(order))
    mirrored = step(problem, signs * x, control_signs * u[order])
    np.testing.assert_allclose(mirrored, signs * step(problem, x, u), rtol=1e-9, atol=1e-12)


def test_parked_car_turns_on_the_circle_of_its_geometry():
    """At a constant wheel angle the rear axle runs on a circle of radius d / tan w (in the limit of small steps)."""
    problem = models.get("car-parking").build(horizon=400, time_step=1e-3, start=(0.0, 0.0, 0.0, 2.0))
    states = np.array(problem.rollout([np.array([0.4, 0.0])] * 400)[0])
    radius = 2.0 / np.tan(0.4)
    np.testing.assert_allclose(np.hypot(states[:, 0], states[:, 1] - radius), radius, rtol=1e-4)
