"""The solutions of the classic tasks: where they end, by two solvers, and what is known in closed form."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from classic import built

from ocpkit import DDP, ILQR, Status, models
from ocpkit.models.growth import DEPRECIATION, DISCOUNT, ELASTICITY, steady_state
from ocpkit.models.two_link_arm import ARM

# Where the trajectory must end, and how near the heaviest terminal weights bring it.
ENDS = {
    "double-integrator": ([1.0, 0.0], 0.01),
    "pendulum": ([np.pi, 0.0], 0.02),
    "cartpole": ([0.0, np.pi, 0.0, 0.0], 0.02),
    "acrobot": ([np.pi, 0.0, 0.0, 0.0], 0.06),
    "car-parking": ([0.0, 0.0, 0.0, 0.0], 0.02),
    "unicycle": ([0.0, 2.0, 0.0], 0.02),
    "planar-quadrotor": ([2.0, 1.0, 0.0, 0.0, 0.0, 0.0], 0.02),
    "quadrotor": ([1.0, -2.0, 0.5, 2 * np.pi, *[0.0] * 8], 0.02),
    "two-link-arm": (None, 0.001),
    "rocket-landing": ([0.0] * 6, 0.1),
    "growth": ([steady_state(ELASTICITY, DISCOUNT, DEPRECIATION)], 0.05),
}
SLOW = {"acrobot", "car-parking", "quadrotor"}
FREE = [name for name in models.names() if name in ENDS]  # the others are in test_tasks_under_limits


@cache
def solved(name: str) -> Any:
    return DDP().solve(built(name))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FREE])
def test_ddp_solves_the_task(name):
    target, tolerance = ENDS[name]
    solution = solved(name)
    assert solution.status is Status.CONVERGED
    if target is not None:
        np.testing.assert_allclose(solution.states[-1], target, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", FREE)
def test_ilqr_finds_the_same_solution(name):
    solution = ILQR().solve(built(name))
    assert solution.status is Status.CONVERGED
    assert solution.cost == pytest.approx(solved(name).cost, rel=1e-5)


def test_the_hand_reaches_other_goals_by_the_parameter():
    for goal in ([-0.1, 0.4], [0.3, 0.3]):
        solution = DDP().solve(built("two-link-arm").replace(parameters=goal))
        assert solution.status is Status.CONVERGED
        np.testing.assert_allclose(ARM.joints(solution.states[-1])[1], goal, atol=0.001)
        np.testing.assert_allclose(solution.states[-1][2:], 0.0, atol=0.02)


@pytest.mark.parametrize("horizon", [5, 40])
def test_growth_saves_what_brock_and_mirman_proved(horizon):
    """With full depreciation and log utility the saving share is α β in every year, whatever capital there is."""
    problem = models.get("growth").build(horizon=horizon, depreciation=1.0, start=0.05, productivity_growth=0.02)
    solution = DDP(gradient_tolerance=1e-10).solve(problem)
    np.testing.assert_allclose(1 / (1 + np.exp(-solution.controls)), ELASTICITY * DISCOUNT, rtol=1e-6)


def test_growth_consumption_obeys_the_euler_equation():
    """c'/c = β (α A k'^{α−1} + 1 − δ): an identity of the optimum that is not written in the model."""
    solution = DDP(gradient_tolerance=1e-12).solve(built("growth"))
    capital, share = solution.states[:-1, 0], 1 / (1 + np.exp(-solution.controls[:, 0]))
    consumption = (1 - share) * capital**ELASTICITY
    returns = ELASTICITY * capital[1:] ** (ELASTICITY - 1) + 1 - DEPRECIATION
    np.testing.assert_allclose(consumption[1:] / consumption[:-1], DISCOUNT * returns, rtol=1e-6)
