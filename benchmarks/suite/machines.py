"""Arms, cranes and vehicles on the ground, in the air and in space."""

from __future__ import annotations

from typing import Any

from benchmarks.suite.continuous import ContinuousProblem, Rows, inf
from ocpkit import math as m

DEGREE = m.pi / 180


def _max_range(x: Any, u: Any, p: Any, t: Any) -> Any:
    return [x[2] * u[0], x[2] * u[1], 0.5 - u[1]], None, [u[0] ** 2 + u[1] ** 2]


def _steering(x: Any, u: Any, p: Any, t: Any) -> Any:
    return [x[2], x[3], 100 * m.cos(u[0]), 100 * m.sin(u[0])], None, []


def _goddard(x: Any, u: Any, p: Any, t: Any) -> Any:
    drag = 310 * x[1] ** 2 * m.exp(500 * (1 - x[0]))
    return [x[1], (u[0] - drag) / x[2] - 1 / x[0] ** 2, -u[0] / 0.5], None, []


def _robot_arm(x: Any, u: Any, p: Any, t: Any) -> Any:
    inertia = ((5 - x[0]) ** 3 + x[0] ** 3) / 3
    return [x[1], u[0] / 5, x[3], u[1] / (inertia * m.sin(x[4]) ** 2), x[5], u[2] / inertia], None, []


def _crane(x: Any, u: Any, p: Any, t: Any) -> Any:
    rates = [
        9 * x[3],
        9 * x[4],
        9 * x[5],
        9 * (u[0] + 17.2656 * x[2]),
        9 * u[1],
        -9 / x[1] * (u[0] + 27.0756 * x[2] + 2 * x[4] * x[5]),
    ]
    return rates, 4.5 * (x[2] ** 2 + x[5] ** 2), []


def _two_links(x: Any, u: Any, p: Any, t: Any) -> Any:
    sine, cosine = m.sin(x[2]), m.cos(x[2])
    inertia = 31 / 36 + 9 / 4 * sine**2
    first = sine * (9 / 4 * cosine * x[0] ** 2 + 2 * x[1] ** 2) + 4 / 3 * (u[0] - u[1]) - 3 / 2 * cosine * u[1]
    second = sine * (7 / 2 * x[0] ** 2 + 9 / 4 * cosine * x[1] ** 2) - 7 / 3 * u[1] + 3 / 2 * cosine * (u[0] - u[1])
    return [first / inertia, -second / inertia, x[1] - x[0], x[0]], None, []


def _orbit(x: Any, u: Any, p: Any, t: Any) -> Any:
    thrust = 0.1405 / (1 - 0.0749 * t)
    rates = [
        x[2],
        x[3] / x[0],
        x[3] ** 2 / x[0] - 1 / x[0] ** 2 + thrust * m.sin(u[0]),
        -x[2] * x[3] / x[0] + thrust * m.cos(u[0]),
    ]
    return rates, None, []


def _flying_robot(x: Any, u: Any, p: Any, t: Any) -> Any:
    left, right = u[0] - u[1], u[2] - u[3]
    force = left + right
    rates = [x[3], x[4], x[5], force * m.cos(x[2]), force * m.sin(x[2]), 0.2 * (left - right)]
    return rates, u[0] + u[1] + u[2] + u[3], [u[0] + u[1], u[2] + u[3]]


def _shuttle(x: Any, u: Any, p: Any, t: Any) -> Any:
    """x = (height [1e5 ft], longitude, latitude [rad], speed [1e4 ft/s], flight path, azimuth [rad]), as Betts."""
    height, speed, latitude, path, azimuth = x[0] * 1e5, x[3] * 1e4, x[2], x[4], x[5]
    radius, gravity, area, mass = 20902900.0 + height, 0.14076539e17, 2690.0, 203000 / 32.174
    attack = u[0] / DEGREE
    lift = -0.20704 + 0.029244 * attack
    drag = 0.07854 - 0.61592e-2 * attack + 0.621408e-3 * attack**2
    pressure = 0.5 * 0.002378 * m.exp(-height / 23800) * speed**2 * area
    g = gravity / radius**2
    along, across = speed / radius * m.cos(path), pressure * lift / (mass * speed)
    rates = [
        speed * m.sin(path) / 1e5,
        along * m.sin(azimuth) / m.cos(latitude),
        along * m.cos(azimuth),
        (-pressure * drag / mass - g * m.sin(path)) / 1e4,
        across * m.cos(u[1]) + m.cos(path) * (speed / radius - g / speed),
        across * m.sin(u[1]) / m.cos(path) + along * m.sin(azimuth) * m.sin(latitude) / m.cos(latitude),
    ]
    return rates, None, []


PROBLEMS = (
    ContinuousProblem(
        name="max-range",
        rates=_max_range,
        controls=2,
        initial=[0, 0, 0],
        final=[None, 0.1, None],
        final_time=2.0,
        path_bounds=([1.0], [1.0]),
        control_guess=[1.0, 0.0],
        terminal_cost=lambda x, p, T: -x[0],
        intervals=50,
        optimum=-1.712313,
        source="Bryson & Ho 1975; value of PSOPT",
    ),
    ContinuousProblem(
        name="particle-steering",
        rates=_steering,
        initial=[0, 0, 0, 0],
        final=[None, 5, 45, 0],
        final_time=(0.05, 5, 1.0),
        control_bounds=(-m.pi / 2, m.pi / 2),
        terminal_cost=lambda x, p, T: T,
        optimum=0.554577,
        source="Dolan, Moré & Munson 2004 (COPS 3.0)",
    ),
    ContinuousProblem(
        name="goddard-cops",
        rates=_goddard,
        initial=[1, 0, 1],
        final=[None, None, 0.6],
        final_time=(0.02, 1, 0.2),
        state_bounds=([1, 0, 0.6], [inf, inf, 1]),
        control_bounds=(0, 3.5),
        state_guess=lambda s: [1, s * (1 - s), 1 - 0.4 * s],
        control_guess=1.75,
        terminal_cost=lambda x, p, T: -x[0],
        intervals=100,
        optimum=-1.01283,
        source="Dolan, Moré & Munson 2004 (COPS 3.0)",
    ),
    ContinuousProblem(
        name="robot-arm",
        rates=_robot_arm,
        controls=3,
        initial=[4.5, 0, 0, 0, m.pi / 4, 0],
        final=[4.5, 0, 2 * m.pi / 3, 0, m.pi / 4, 0],
        final_time=(1, 50, 10.0),
        state_bounds=([0, -inf, -m.pi, -inf, 0, -inf], [5, inf, m.pi, inf, m.pi, inf]),
        control_bounds=(-1, 1),
        terminal_cost=lambda x, p, T: T,
        intervals=80,
        optimum=9.14138,
        source="Dolan, Moré & Munson 2004 (COPS 3.0)",
    ),
    ContinuousProblem(
        name="container-crane",
        rates=_crane,
        controls=2,
        initial=[0, 22, 0, 0, -1, 0],
        final=[10, 14, 0, 2.5, 0, 0],
        state_bounds=([-inf, -inf, -inf, -2.5, -1, -inf], [inf, inf, inf, 2.5, 1, inf]),
        control_bounds=([-2.83374, -0.80865], [2.83374, 0.71265]),
        optimum=0.005151238,
        source="Sakawa & Shindo 1982; value of PSOPT",
    ),
    ContinuousProblem(
        name="two-link-arm",
        rates=_two_links,
        controls=2,
        initial=[0, 0, 0.5, 0],
        final=[0, 0, 0.5, 0.522],
        final_time=(1, 10, 3.0),
        state_bounds=(-2, 2),
        control_bounds=(-1, 1),
        terminal_cost=lambda x, p, T: T,
        intervals=80,
        optimum=2.988662,
        source="Luus 2000; value of PSOPT, which a finer grid lowers to 2.98229",
    ),
    ContinuousProblem(
        name="orbit-raising",
        rates=_orbit,
        initial=[1, 0, 0, 1],
        final_time=3.32,
        state_bounds=([0.5, -inf, -inf, -inf], inf),
        state_guess=lambda s: [1 + 0.5 * s, 2.5 * s, 0.1, 1 - 0.2 * s],
        control_guess=lambda s: 0.5 + 4 * s,
        terminal_cost=lambda x, p, T: -x[0],
        boundary=Rows(lambda a, b, p, T: [b[2], b[3] - m.sqrt(1 / b[0])], [0, 0], [0, 0]),
        time_dependent=True,
        optimum=-1.5254,
        source="Bryson & Ho 1975, sec. 2.5",
    ),
    ContinuousProblem(
        name="free-flying-robot",
        rates=_flying_robot,
        controls=4,
        initial=[-10, -10, m.pi / 2, 0, 0, 0],
        final=[0, 0, 0, 0, 0, 0],
        final_time=12.0,
        control_bounds=(0, inf),
        path_bounds=([-inf, -inf], [1, 1]),
        intervals=120,
        optimum=7.9101471,
        source="Sakawa 1999; Betts 2010, sec. 6.13",
    ),
    ContinuousProblem(
        name="shuttle-reentry",
        rates=_shuttle,
        controls=2,
        initial=[2.6, 0, 0, 2.56, -DEGREE, m.pi / 2],
        final=[0.8, None, None, 0.25, -5 * DEGREE, None],
        final_time=(1000, 4000, 2000.0),
        state_bounds=(
            [0, -inf, -89 * DEGREE, 0.01, -89 * DEGREE, -inf],
            [inf, inf, 89 * DEGREE, inf, 89 * DEGREE, inf],
        ),
        control_bounds=([-m.pi / 2, -89 * DEGREE], [m.pi / 2, DEGREE]),
        state_guess=lambda s: [
            2.6 - 1.8 * s,
            1.3 * s,
            0.5 * s,
            2.56 - 2.31 * s,
            -(1 + 4 * s) * DEGREE,
            m.pi / 2 * (1 - s),
        ],
        control_guess=[0.3, -1.2],
        terminal_cost=lambda x, p, T: -x[2] / DEGREE,
        intervals=100,
        optimum=-34.1412,
        source="Betts 2010, sec. 6.1",
    ),
)
