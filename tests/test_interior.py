"""The interior point: its price against a minimization over slacks, IPOPT's optima, KKT points, honest failures."""

from __future__ import annotations

from functools import cache
from typing import Any

import casadi as ca
import numpy as np
import pytest
from floors import Floor
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import random_problem
from scipy.optimize import minimize_scalar
from test_constrained import CASES, bryson_denham, kkt_residual, swing
from test_random_constrained import assert_honest

import ocpkit.math as m
from ocpkit import (
    AugmentedLagrangian,
    Barrier,
    Constraint,
    InteriorPoint,
    Penalty,
    Problem,
    ProblemError,
    Status,
    models,
    registry,
)
from ocpkit.problem.constraint_rows import problem_rows
from ocpkit.solution.complementarity import complementarity
from ocpkit.solvers.constrained.augmented import Augmented
from ocpkit.solvers.constrained.barrier import barrier_price, one_sided
from ocpkit.solvers.nlp.multiple_shooting import Program

sizes = st.floats(-3, 3)
powers = st.integers(-6, 4).map(lambda e: 10.0**e)


@cache
def of_row(upper: bool) -> ca.Function:
    """(g, y, ρ, μ) → ψ, ψ', ψ'' and y⁺ of the row g ≤ 1 or g ≥ 1 of a problem."""
    side = {"upper": 1.0, "lower": -np.inf} if upper else {"lower": 1.0, "upper": np.inf}
    rows = problem_rows(swing(constraints=(Constraint(lambda x, u: x[0], name="row", **side),)))[0]
    symbols = ca.SX.sym("v", 4)
    value, updated = barrier_price(one_sided(rows).rows, *ca.vertsplit(symbols))
    hessian, slope = ca.hessian(value, symbols[0])
    return ca.Function("price", [symbols], [value, slope, hessian, updated])


def price(g: float, y: float, mu: float, rho: float, *, upper: bool) -> list[float]:
    return [float(each) for each in of_row(upper)([g, y, rho, mu])]


@settings(max_examples=40, deadline=None)
@given(g=sizes, y=st.floats(0, 3), mu=st.floats(1e-3, 1.0), rho=st.floats(0.1, 100.0), upper=st.booleans())
def test_the_price_is_the_least_one_over_all_slacks(g: float, y: float, mu: float, rho: float, upper: bool) -> None:
    c, sign = (g - 1.0, 1.0) if upper else (1.0 - g, -1.0)

    def of_slack(log_s: float) -> float:
        s = np.exp(log_s)
        return float(-mu * (log_s + np.log(rho / mu) / 2) + y * (c + s) + 0.5 * rho * (c + s) ** 2)

    best = minimize_scalar(of_slack, bounds=(-25.0, 5.0), method="bounded", options={"xatol": 1e-10})
    value = price(g, sign * y, mu, rho, upper=upper)[0]
    assert value - y**2 / (2 * rho) == pytest.approx(best.fun, rel=1e-8, abs=1e-8)


@settings(max_examples=40, deadline=None)
@given(g=sizes, y=st.floats(0, 3), mu=powers, rho=powers, upper=st.booleans())
def test_slope_and_curvature_are_those_of_the_slack(g: float, y: float, mu: float, rho: float, upper: bool) -> None:
    """ψ' = y⁺, with s from y⁺ − y = ρ (c + s), s y⁺ = μ, and ψ'' = 1 / (s²/μ + 1/ρ)."""
    c, sign = (g - 1.0, 1.0) if upper else (1.0 - g, -1.0)
    _, slope, curvature, updated = price(g, sign * y, mu, rho, upper=upper)
    assert slope == pytest.approx(updated, rel=1e-7, abs=1e-7 * rho)
    assert sign * updated > 0
    s = mu / abs(updated)
    assert abs(updated) - y == pytest.approx(rho * (c + s), rel=1e-7, abs=1e-7 * max(1, rho * abs(c), rho * s))
    assert curvature == pytest.approx(1 / (s**2 / mu + 1 / rho), rel=1e-5)


def test_without_barrier_it_is_the_price_of_the_augmented_lagrangian() -> None:
    problem = CASES["mixed"]()
    rng, quadratic, barrier = np.random.default_rng(3), Augmented(problem), Augmented(problem, barrier=True)
    controls = rng.normal(size=(20, 1))
    y = [np.abs(rng.normal(size=rows.count)) * (-1) ** np.isfinite(rows.traced.lower) for rows in barrier.rows]
    own = barrier.multipliers(barrier.extended(y, 10.0), np.zeros(0))
    states = problem.rollout(controls)[0]
    one_sided_values = barrier.measure(states, controls, barrier.extended(y, 10.0, 1e-14))
    assert one_sided_values.cost == pytest.approx(problem.cost(states, controls), rel=1e-12)
    values = quadratic.measure(states, controls, quadratic.extended(own, 10.0))
    assert values.violation == pytest.approx(one_sided_values.violation, rel=1e-12)
    for new, rows, g in zip(one_sided_values.updated, barrier.rows, y):
        assert (new[np.isfinite(rows.traced.upper)] >= 0).all()
        assert new.shape == g.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_same_optimum_as_the_augmented_lagrangian_and_a_kkt_point(name: str) -> None:
    problem = CASES[name]()
    solution, reference = InteriorPoint().solve(problem), AugmentedLagrangian().solve(problem)
    assert solution.success, str(solution)
    assert solution.cost == pytest.approx(reference.cost, rel=1e-6, abs=1e-7)
    scale = max(float(np.abs(y).max(initial=0.0)) for y in reference.multipliers)
    for ours, theirs in zip(solution.multipliers, reference.multipliers, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * scale)
    assert complementarity(problem, solution) <= 1e-7
    program = Program(problem)
    assert program.violation(program.join(solution.states, solution.controls)) <= 2e-8
    assert kkt_residual(problem, solution) <= 1e-5 * max(1.0, scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["goddard", "bryson-denham", "minimum-time", "life-cycle"])
def test_constrained_tasks(name: str) -> None:
    problem = models.get(name).build(**({"horizon": 30} if name == "goddard" else {}))
    solution = InteriorPoint().solve(problem)
    assert solution.success, str(solution)
    assert solution.cost == pytest.approx(registry.make("ipopt").solve(problem).cost, rel=1e-6)
    assert solution.history[-1].violation <= 1e-8


@pytest.mark.slow
def test_random_problems() -> None:
    failed = Floor()
    for seed in range(6):
        problem = random_problem(seed)
        solution = InteriorPoint().solve(problem)
        assert solution.status is AugmentedLagrangian().solve(problem).status, seed
        if failed.when(not solution.success):
            assert_honest(problem, solution)
    failed.check(2)


def test_a_warm_start_brings_its_multipliers() -> None:
    """Also where one row has two bounds, and one multiplier stands for both."""
    problem = swing(control_bounds=(-6, 6), constraints=(Constraint(lambda x, u: x[1], -1.0, 1.0, "rate"),))
    first = InteriorPoint().solve(problem)
    again = InteriorPoint(barrier=Barrier(first=1e-9), penalty=Penalty(initial=1e3)).solve(problem, first)
    assert again.success
    assert again.details.inner_iterations < first.details.inner_iterations / 2
    assert again.cost == pytest.approx(first.cost, rel=1e-7)


def test_infeasible_problems_are_named() -> None:
    problem = swing(control_bounds=(-1, 1), terminal_constraints=(Constraint(lambda x: x, 9.0, 9.0, "too far"),))
    solution = InteriorPoint().solve(problem)
    assert solution.status is Status.INFEASIBLE
    assert solution.details.violation.row.startswith("too far")


def test_complementarity_needs_multipliers_of_these_rows() -> None:
    problem = bryson_denham(0.1, horizon=10)
    solution = InteriorPoint().solve(problem)
    assert complementarity(problem, solution) <= 1e-7
    with pytest.raises(ProblemError, match="swing"):
        complementarity(swing(), solution)


@pytest.mark.parametrize("options", [{"first": 0.0}, {"last": -1.0}, {"factor": 1.0}], ids=str)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match=next(iter(options))):
        InteriorPoint(barrier=Barrier(**options))


def test_rows_without_bounds_cost_nothing() -> None:
    free: Problem = swing(constraints=(Constraint(lambda x, u: m.stack([x[0], u[0]]), -np.inf, np.inf, "free"),))
    assert InteriorPoint().solve(free).cost == pytest.approx(AugmentedLagrangian().solve(swing()).cost, rel=1e-10)
