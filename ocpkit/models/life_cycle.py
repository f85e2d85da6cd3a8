"""Saving over a lifetime without credit: when to consume what one earns.

Assets a bear the interest r; in year t one earns y_t, consumes c_t = e^{u_t}, and cannot borrow:

    a' = (1 + r) (a + y_t − c_t),   a + y_t − c_t ≥ 0

    maximize Σ β^t c_t^{1−γ} / (1 − γ)

Income rises with age, until retirement leaves a pension. The young, who will earn more, would like to borrow, and
so consume just their income; later they save for old age. Wherever something is saved, consumption obeys Euler's
equation c'/c = (β (1 + r))^{1/γ}; elsewhere it grows faster. Consumption is positive for every u.
State x = (assets [yearly incomes at the start],), control u = (log of consumption,), parameters p_t = (discount β^t,
income y_t), one row per year.
Source: Deaton, "Saving and liquidity constraints", 1991.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ocpkit import math as m
from ocpkit.boundary.arrays import Array
from ocpkit.boundary.pickling import built_by_call
from ocpkit.models import drawing
from ocpkit.models.task import Task
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint

INTEREST, DISCOUNT, AVERSION = 0.03, 0.96, 2.0


def incomes(working_years: int, raise_share: float, pension: float, years: int) -> Array:
    """Return the income of each year: it grows by a share in the first 25, then stays, and at last is the pension."""
    work = (1 + raise_share) ** np.minimum(np.arange(years), 25)
    return np.where(np.arange(years) < working_years, work, pension)


@built_by_call
def build(
    *,
    horizon: int = 60,
    start: float = 0.0,
    interest: float = INTEREST,
    discount: float = DISCOUNT,
    aversion: float = AVERSION,
    working_years: int = 43,
    raise_share: float = 0.03,
    pension: float = 0.8,
) -> Problem:
    """Build the problem.

    Parameters
    ----------
    horizon
        Number of stages, which are years.
    start
        Assets at the start.
    interest, discount
        r, and β, the worth of next year's utility against this year's.
    aversion
        γ > 1, how much an even consumption is preferred.
    working_years, raise_share, pension
        Years until retirement, the share by which income grows in each of the first 25, and income afterwards.
    """
    years = np.arange(horizon + 1)
    earned = incomes(working_years, raise_share, pension, horizon + 1)

    def left(x: Any, u: Any, p: Any) -> Any:
        return x[0] + p[1] - m.exp(u[0])

    def cost(x: Any, u: Any, p: Any) -> Any:
        return p[0] * m.exp((1 - aversion) * u[0]) / (aversion - 1)

    return Problem.from_functions(
        dynamics=lambda x, u, p: m.stack([(1 + interest) * left(x, u, p)]),
        cost=cost,
        terminal_cost=lambda x: 0.0 * x[0],
        x0=[start],
        horizon=horizon,
        controls=np.log(0.9 * earned[:-1])[:, None],
        parameters=np.stack([discount**years, earned], axis=1),
        constraints=(Constraint(lambda x, u, p: m.stack([left(x, u, p)]), 0.0, np.inf, "no credit"),),
        name="life-cycle",
    )


def draw(axes: Any, x: Any, u: Any) -> None:
    """Draw bars of the assets, which cannot fall below zero, and of the consumption."""
    axes.set_aspect("auto")
    axes.bar(range(2), (x[0], np.exp(u[0])), color=[drawing.BODY, drawing.GOAL])
    axes.axhspan(TASK.view[2], 0.0, color=drawing.GROUND, alpha=0.5)
    axes.annotate("no credit", (-0.5, -0.4), va="center", fontsize="small")
    axes.set_xticks(range(2), ["assets", "consumed in a year"])


TASK = Task(
    name="life-cycle",
    summary="Consume and save over a lifetime without credit",
    source="Deaton 1991",
    build=build,
    time_step=1.0,
    time_unit="year",
    state_labels=("assets",),
    control_labels=("log of consumption",),
    draw=draw,
    view=(-0.6, 1.6, -0.8, 11.0),
    solver="auto",
)
