"""Reactors, catalysts and populations: problems of chemical and biological engineering."""

from __future__ import annotations

from typing import Any

from benchmarks.suite.continuous import ContinuousProblem, Rows, inf
from ocpkit import math as m


def _catalyst_mixing(x: Any, u: Any, p: Any, t: Any) -> Any:
    exchanged = u[0] * (10 * x[1] - x[0])
    return [exchanged, -exchanged - (1 - u[0]) * x[1]], None, []


def _bioreactor(x: Any, u: Any, p: Any, t: Any) -> Any:
    light = m.maximum(0.0, m.sin(t / 10 * 2 * m.pi)) ** 2
    digestion = 0.1 * x[1] / (x[1] + 0.05)
    rates = [
        light * x[0] / (1 + x[0]) - (0.005 + u[0]) * x[0],
        -digestion * x[2] + u[0] * (x[0] - x[1]),
        (digestion - u[0]) * x[2],
    ]
    return rates, -digestion * x[2] / 3, []


def _stirred_tank(x: Any, u: Any, p: Any, t: Any) -> Any:
    reaction = (x[1] + 0.5) * m.exp(25 * x[0] / (x[0] + 2))
    rates = [-2 * (x[0] + 0.25) + reaction - (x[0] + 0.25) * u[0], 0.5 - x[1] - reaction]
    return rates, x[0] ** 2 + x[1] ** 2 + 0.1 * u[0] ** 2, []


def _batch_reactor(x: Any, u: Any, p: Any, t: Any) -> Any:
    first, second = 4000 * m.exp(-25 / u[0]), 620000 * m.exp(-50 / u[0])
    made = first * x[0] ** 2
    return [-made, made - second * x[1]], None, []


def _fishing(x: Any, u: Any, p: Any, t: Any) -> Any:
    met = x[0] * x[1]
    rates = [x[0] - met - 0.4 * x[0] * u[0], -x[1] + met - 0.2 * x[1] * u[0]]
    return rates, (x[0] - 1) ** 2 + (x[1] - 1) ** 2, []


PROBLEMS = (
    ContinuousProblem(
        name="catalyst-mixing",
        rates=_catalyst_mixing,
        initial=[1, 0],
        control_bounds=(0, 1),
        control_guess=0.5,
        terminal_cost=lambda x, p, T: -1 + x[0] + x[1],
        intervals=100,
        optimum=-0.0480556,
        source="Dolan, Moré & Munson 2004 (COPS 3.0)",
    ),
    ContinuousProblem(
        name="bioreactor-1day",
        rates=_bioreactor,
        initial=[None, None, None],
        final_time=10.0,
        state_bounds=([0, 0, 0.001], inf),
        control_bounds=(0, 1),
        control_guess=0.5,
        boundary=Rows(
            lambda a, b, p, T: [b[0] - a[0], b[1] - a[1], b[2] - a[2], a[0], a[2]], [0, 0, 0, 1, 1], [0, 0, 0, inf, inf]
        ),
        state_guess=lambda s: [1.5, 1, 1.5],
        intervals=100,
        time_dependent=True,
        optimum=-0.614134,
        source="value of CTDirect; a day of algae and digestion, periodic",
    ),
    ContinuousProblem(
        name="cstr-two-minima",
        rates=_stirred_tank,
        initial=[0.09, 0.09],
        final_time=0.78,
        control_guess=2.0,
        intervals=40,
        optimum=0.133094,
        source="Luus 2000; a second minimum is 0.244",
    ),
    ContinuousProblem(
        name="batch-temperature",
        rates=_batch_reactor,
        initial=[1, 0],
        control_bounds=(2.98, 3.98),
        control_guess=3.4,
        terminal_cost=lambda x, p, T: -x[1],
        intervals=40,
        optimum=-0.610775,
        source="Ray 1981; Luus 2000",
    ),
    ContinuousProblem(
        name="lotka-fishing-relaxed",
        rates=_fishing,
        initial=[0.5, 0.7],
        final_time=12.0,
        control_bounds=(0, 1),
        control_guess=0.3,
        state_guess=lambda s: [1, 1],
        intervals=120,
        optimum=1.344,
        source="Sager, mintoc.de, relaxed",
    ),
)
