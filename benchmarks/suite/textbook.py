"""Problems of one to four states that textbooks solve: energy, time and hard limits of simple systems."""

from __future__ import annotations

from typing import Any

from benchmarks.suite.continuous import ContinuousProblem, inf
from ocpkit import math as m


def _mass(x: Any, u: Any, p: Any, t: Any) -> Any:
    return [x[1], u[0]], 0.5 * u[0] ** 2, []


def _mass_in_time(x: Any, u: Any, p: Any, t: Any) -> Any:
    return [x[1], u[0]], None, []


def _hypersensitive(x: Any, u: Any, p: Any, t: Any) -> Any:
    return [-(x[0] ** 3) + u[0]], 0.5 * (x[0] ** 2 + u[0] ** 2), []


def _isoperimetric(x: Any, u: Any, p: Any, t: Any) -> Any:
    return [-m.sin(x[0]) + u[0], u[0] ** 2], x[0], []


def _rayleigh(x: Any, u: Any, p: Any, t: Any) -> Any:
    rates = [x[1], -x[0] + x[1] * (1.4 - 0.14 * x[1] ** 2) + 4 * u[0]]
    return rates, u[0] ** 2 + x[0] ** 2, [u[0] + x[0] / 6]


def _singular_5(x: Any, u: Any, p: Any, t: Any) -> Any:
    tracking = x[1] + 16 * t - 8 - 0.1 * x[2] * u[0] ** 2
    return [x[1], -x[2] * u[0] + 16 * t - 8, u[0]], x[0] ** 2 + x[1] ** 2 + 0.0005 * tracking**2, []


def _peak(t: Any, center: float, sharpness: float) -> Any:
    return m.exp(-sharpness * (t - center) ** 2)


def _alp_rider(x: Any, u: Any, p: Any, t: Any) -> Any:
    square = x[0] ** 2 + x[1] ** 2 + x[2] ** 2 + x[3] ** 2
    alps = 3 * _peak(t, 3, 12) + 3 * _peak(t, 6, 10) + 3 * _peak(t, 10, 6) + 8 * _peak(t, 15, 4) + 0.01
    rates = [
        -10 * x[0] + u[0] + u[1],
        -2 * x[1] + u[0] + 2 * u[1],
        -3 * x[2] + 5 * x[3] + u[0] - u[1],
        5 * x[2] - 3 * x[3] + u[0] + 3 * u[1],
    ]
    return rates, 100 * square + 0.01 * (u[0] ** 2 + u[1] ** 2), [square - alps]


PROBLEMS = (
    ContinuousProblem(
        name="dqc",
        rates=_mass,
        initial=[0, 0],
        final=[1, 0],
        optimum=6.0,
        source="closed form; the double integrator with quadratic control of dymos' tests",
    ),
    ContinuousProblem(
        name="min-time-di",
        rates=_mass_in_time,
        initial=[0, 0],
        final=[1, 0],
        final_time=(0.05, 20, 1.0),
        control_bounds=(-1, 1),
        terminal_cost=lambda x, p, T: T,
        optimum=2.0,
        source="closed form; Pontryagin et al. 1962",
    ),
    ContinuousProblem(
        name="bryson-denham",
        rates=_mass,
        initial=[0, 1],
        final=[0, -1],
        state_bounds=(-inf, [1 / 9, inf]),
        intervals=99,
        optimum=4.0,
        source="closed form; Bryson & Ho 1975, sec. 3.11",
    ),
    ContinuousProblem(
        name="hypersensitive",
        rates=_hypersensitive,
        initial=[1.5],
        final=[1.0],
        final_time=50.0,
        intervals=150,
        optimum=1.330826,
        source="Rao & Mease 2000; value of PSOPT",
    ),
    ContinuousProblem(
        name="isoperimetric",
        rates=_isoperimetric,
        initial=[1, 0],
        final=[0, 10],
        control_bounds=(-4, 4),
        control_guess=-1.0,
        optimum=-0.3755058,
        source="Luus; value of PSOPT",
    ),
    ContinuousProblem(
        name="rayleigh",
        rates=_rayleigh,
        initial=[-5, -5],
        final_time=4.5,
        path_bounds=([-inf], [0]),
        intervals=100,
        optimum=44.80444,
        source="Betts 2010; value of PSOPT",
    ),
    ContinuousProblem(
        name="singular-5",
        rates=_singular_5,
        initial=[0, -1, -(5**0.5)],
        control_bounds=(0, 10),
        control_guess=5.0,
        intervals=100,
        time_dependent=True,
        optimum=0.119262,
        source="Luus; value of PSOPT",
    ),
    ContinuousProblem(
        name="alp-rider",
        rates=_alp_rider,
        controls=2,
        initial=[2, 1, 2, 1],
        final=[2, 3, 1, -2],
        final_time=20.0,
        control_bounds=(-500, 500),
        path_bounds=([0], [inf]),
        state_guess=lambda s: [2, 2, 2, 1],
        intervals=300,
        time_dependent=True,
        optimum=2030.85609,
        source="Betts 2010, sec. 4.11",
    ),
    ContinuousProblem(
        name="fuller",
        rates=lambda x, u, p, t: ([x[1], u[0]], x[0] ** 2, []),
        initial=[0, 1],
        final=[0, 0],
        final_time=3.5,
        control_bounds=(-1, 1),
        intervals=150,
        optimum=0.2683944,
        source="Fuller 1963; value of CTDirect",
    ),
)
