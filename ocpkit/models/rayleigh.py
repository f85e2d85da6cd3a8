"""Rayleigh's oscillator: bring the current of a tunnel-diode circuit to rest by a bounded voltage.

    ẋ₁ = x₂,   ẋ₂ = −x₁ + x₂ (1.4 − 0.14 x₂²) + 4 u

    minimize ∫ (x₁² + u²) dt   subject to   |u| ≤ 1,   x from (−5, −5) to (0, 0) in 4.5 s

In continuous time J* is 44.7209; without the limit and the end, for 2.5 s, it is 29.3761.
State x = (current x₁, its rate x₂), control u = (voltage,); all are free of units but for the time [s].
Source: Maurer & Augustin, "Sensitivity analysis and real-time control of parametric optimal control problems using
boundary value methods", 2001; the circuit is that of Jacobson & Mayne, *Differential Dynamic Programming*, 1970.
"""

from __future__ import annotations

from typing import Any

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.integral import integral
from ocpkit.models.task import Task
from ocpkit.problem.integrate import rk4
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint

TIME_STEP, LIMIT = 0.045, 1.0


def rates(x: Any, u: Any) -> Any:
    """Return ẋ."""
    return m.stack([x[1], -x[0] + x[1] * (1.4 - 0.14 * x[1] ** 2) + 4 * u[0]])


@built_by_call
def build(
    *,
    horizon: int = 100,
    time_step: float = TIME_STEP,
    start: tuple[float, float] = (-5.0, -5.0),
    voltage_limit: float = LIMIT,
    to_rest: bool = True,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon, time_step
        Number of stages, and seconds per stage; the source's problem lasts 4.5 s.
    start
        Initial current and rate.
    voltage_limit
        Largest voltage in either direction.
    to_rest
        Whether the state must be zero at the end.
    """

    def running(x: Any, u: Any) -> Any:
        return x[0] ** 2 + u[0] ** 2

    return Problem.from_functions(
        dynamics=rk4(rates, time_step),
        cost=integral(running, rates, time_step),
        terminal_cost=lambda x: 0.0 * x[0],
        x0=start,
        horizon=horizon,
        control_size=1,
        control_bounds=(-voltage_limit, voltage_limit),
        terminal_constraints=(Constraint(lambda x: x, 0.0, 0.0, "rest"),) if to_rest else (),
        name="rayleigh",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw the phase plane with its flow, the state and the voltage between its bounds."""
    drawing.phase_plane(axes, rates, x, u, TASK.view)
    drawing.gauge(axes, u[0], -LIMIT, LIMIT, "voltage")
    axes.set_xlabel("current")
    axes.set_ylabel("rate")


TASK = Task(
    name="rayleigh",
    summary="Bring an oscillating circuit to rest by a bounded voltage",
    source="Maurer & Augustin 2001; Jacobson & Mayne 1970",
    build=build,
    time_step=TIME_STEP,
    state_labels=("current", "rate"),
    control_labels=("voltage",),
    draw=draw,
    view=(-8.0, 4.0, -6.0, 8.0),
    solver="auto",
)
