"""Economic growth: how much of its output shall a country save?

Capital k per person yields the output y = A k^α each year; a share s of it is invested, the rest consumed:

    k' = (1 − δ) k + s A k^α,     s = 1 / (1 + e^{−u})

    minimize −Σ β^t log((1 − s_t) A_t k_t^α) − β^T v log k_T,     v = 1 / (β (r/α − δ)),  r = 1/β − 1 + δ

The share stays between 0 and 1 for every control u, so consumption is positive without constraints. The weight v
of what is left to the heirs makes them as well off as on the infinite horizon's steady state, k = (α A / r)^{1/(1−α)}.
With δ = 1 the optimum is known for any horizon (Brock & Mirman 1972): s = α β, always.
State x = (capital k [10 000 € per person, say],), control u = (log-odds of the share s,), parameters
p_t = (discount β^t, productivity A_t), one row per year.
Source: Ramsey, "A mathematical theory of saving", 1928; Cass 1965; Koopmans 1965.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.problem import Problem

ELASTICITY, DISCOUNT, DEPRECIATION = 0.33, 0.96, 0.08


def steady_state(elasticity: float, discount: float, depreciation: float) -> float:
    """Return the capital at which saving for ever just pays, for productivity 1."""
    interest = 1 / discount - 1 + depreciation
    return float((elasticity / interest) ** (1 / (1 - elasticity)))


@built_by_call
def build(
    *,
    horizon: int = 60,
    start: float = 1.0,
    elasticity: float = ELASTICITY,
    discount: float = DISCOUNT,
    depreciation: float = DEPRECIATION,
    productivity: float = 1.0,
    productivity_growth: float = 0.0,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon
        Number of stages, which are years.
    start
        Initial capital.
    elasticity
        α, the share of capital in production, between 0 and 1.
    discount
        β, the worth of next year's utility against this year's.
    depreciation
        δ, the share of the capital that wears out in a year.
    productivity, productivity_growth
        A in the first year, and the share by which it grows each year.
    """
    years = np.arange(horizon + 1)
    bequest_weight = 1 / (discount * ((1 / discount - 1 + depreciation) / elasticity - depreciation))

    def step(x: Any, u: Any, p: Any) -> Any:
        saved = p[1] * x[0] ** elasticity / (1 + m.exp(-u[0]))
        return m.stack([(1 - depreciation) * x[0] + saved])

    def cost(x: Any, u: Any, p: Any) -> Any:
        consumed = p[1] * x[0] ** elasticity / (1 + m.exp(u[0]))
        return -p[0] * m.log(consumed)

    def terminal_cost(x: Any, p: Any) -> Any:
        return -p[0] * bequest_weight * m.log(x[0])

    return Problem.from_functions(
        dynamics=step,
        cost=cost,
        terminal_cost=terminal_cost,
        x0=[start],
        horizon=horizon,
        control_size=1,
        parameters=np.stack([discount**years, productivity * (1 + productivity_growth) ** years], axis=1),
        name="growth",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw bars of capital, output and its two uses, and the steady state of the capital."""
    output, share = x[0] ** ELASTICITY, 1 / (1 + np.exp(-u[0]))
    values = (x[0], output, (1 - share) * output, share * output)
    colors = (drawing.BODY, drawing.LINK, drawing.GOAL, drawing.ACCENT)
    steady = steady_state(ELASTICITY, DISCOUNT, DEPRECIATION)
    axes.set_aspect("auto")
    axes.bar(range(4), values, color=colors)
    axes.plot([-0.5, 0.5], [steady, steady], color=drawing.GOAL, linestyle="--", linewidth=1.5)
    axes.annotate("steady state", (0.6, steady), color=drawing.GOAL, va="center")
    axes.set_xticks(range(4), ["capital", "output", "consumed", "saved"])


TASK = Task(
    name="growth",
    summary="Divide a country's output between consumption and saving",
    source="Ramsey 1928; Cass 1965; Koopmans 1965",
    build=build,
    time_step=1.0,
    time_unit="year",
    state_labels=("capital",),
    control_labels=("log-odds of saving",),
    draw=draw,
    view=(-0.6, 3.6, 0.0, 5.2),
)
