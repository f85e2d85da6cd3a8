"""Problems of free duration T, by scaling time: N stages of length T/N each.

    x' = x + ∫ f(x, u) over T/N

T is chosen once, by the first stage: its control is (u, T), and all later stages carry T as the last, constant
entry of their state (x, T). So the sizes are n, then n + 1; and m + 1, then m.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.functions import FunctionCost, FunctionDynamics, FunctionTerminalCost
from ocpkit.integrate import rk4_rule
from ocpkit.problem import Constraint, Problem, Stage

Bounds = tuple[Sequence[float], Sequence[float]]


def free_duration_problem(
    *,
    rates: Callable[[Any, Any], Any],
    terminal_cost: Callable[[Any], Any],
    terminal_constraint: Constraint,
    x0: Sequence[float],
    horizon: int,
    control: Sequence[float],
    control_bounds: Bounds,
    duration: float,
    duration_bounds: tuple[float, float],
    name: str,
) -> Problem:
    """Build a problem in Mayer's form (no running cost) with the duration as one more unknown.

    Parameters
    ----------
    rates
        f(x, u) of ẋ = f(x, u), integrated by the classical Runge-Kutta rule.
    terminal_cost, terminal_constraint
        φ and g at the end, functions of (x, T) ``(n + 1,)``.
    x0, horizon
        Initial state ``(n,)`` and number of stages N.
    control, control_bounds
        Guess ``(m,)`` for every stage, and (lower, upper), ``(m,)`` each.
    duration, duration_bounds
        Guess of T, and (least, greatest) T [s].
    """
    n, size = len(x0), len(control)

    def first_step(x: Any, u: Any) -> Any:
        return m.concatenate([_advance(rates, x, u[:size], u[size] / horizon), u[size]])

    def step(x: Any, u: Any) -> Any:
        return m.concatenate([_advance(rates, x[:n], u, x[n] / horizon), x[n]])

    lower, upper = ((*bounds, limit) for bounds, limit in zip(control_bounds, duration_bounds))
    first = Stage(
        FunctionDynamics(first_step, n, size + 1, next_state_size=n + 1, name=f"{name}: first step"),
        FunctionCost(_nothing, n, size + 1),
        control_lower=lower,
        control_upper=upper,
        name="first",
    )
    later = Stage(
        FunctionDynamics(step, n + 1, size, name=f"{name}: step"),
        FunctionCost(_nothing, n + 1, size),
        control_lower=control_bounds[0],
        control_upper=control_bounds[1],
        name="later",
    )
    return Problem(
        stages=(first,) + (later,) * (horizon - 1),
        terminal_cost=FunctionTerminalCost(terminal_cost, n + 1),
        terminal_constraints=(terminal_constraint,),
        x0=np.asarray(x0),
        controls=(np.array([*control, duration]),) + (np.asarray(control, dtype=float),) * (horizon - 1),
        name=name,
    )


def _advance(rates: Callable[[Any, Any], Any], x: Any, u: Any, time_step: Any) -> Any:
    return rk4_rule(lambda y: rates(y, u), x, time_step)


def _nothing(x: Any, u: Any) -> Any:
    return 0.0 * x[0]
