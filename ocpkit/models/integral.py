"""Running costs that are integrals over time: ℓ(x, u) = ∫₀^Δt L(x(s), u) ds along a Runge-Kutta step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ocpkit import math as m
from ocpkit.problem.integrate import rk4


def integral(running: Callable[..., Any], rates: Callable[..., Any], time_step: float) -> Callable[..., Any]:
    """Return ℓ(x, u), of the order of `rk4` itself, so that J tends to the continuous problem's as fast as x does.

    Parameters
    ----------
    running
        L(x, u), a number per second.
    rates
        f(x, u) of ẋ = f(x, u); the control is held over the step.
    time_step
        Δt [s].
    """

    def extended(y: Any, u: Any) -> Any:
        return m.concatenate([rates(y[:-1], u), running(y[:-1], u)])

    step = rk4(extended, time_step)

    def cost(x: Any, u: Any) -> Any:
        return step(m.concatenate([x, 0.0]), u)[-1]

    return cost
