"""Natural units of constrained problems: against linear algebra, the same in C, and verdicts that no unit changes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from floors import Floor
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import random_problem
from rescaling import Rescaling
from test_constrained import CASES, bryson_denham, swing

import ocpkit.math as m
from ocpkit import DDP, IPOPT, AugmentedLagrangian, Constraint, InteriorPoint, Problem, Solution
from ocpkit.solvers.constrained.augmented import Augmented
from ocpkit.solvers.constrained.units import measure_units
from ocpkit.solvers.driver import Solver

VM = DDP(max_iterations=300, engine="vm")
SOLVERS: dict[str, Solver] = {"al": AugmentedLagrangian(inner=VM), "ip": InteriorPoint(inner=VM)}
QUICK = [seed for seed in range(40) if seed not in (2, 9, 13)]
UNITS = ("rows", "cost", "controls", "states")


@cache
def solved(seed: int, name: str) -> Solution:
    return SOLVERS[name].solve(random_problem(seed))


@pytest.mark.slow
def test_units_change_no_verdict() -> None:
    converged = Floor()

    @settings(max_examples=12, deadline=None)
    @given(
        seed=st.sampled_from(QUICK),
        name=st.sampled_from(sorted(SOLVERS)),
        unit=st.sampled_from(UNITS),
        power=st.integers(-8, 8),
    )
    def check(seed: int, name: str, unit: str, power: int) -> None:
        factor = 10.0**power
        expected, ours = solved(seed, name), SOLVERS[name].solve(Rescaling(**{unit: factor})(random_problem(seed)))
        assert ours.status is expected.status
        if converged.when(ours.success):
            assert ours.cost / (factor if unit == "cost" else 1.0) == pytest.approx(expected.cost, rel=1e-6)
            for a, b in zip(ours.controls, expected.controls):
                np.testing.assert_allclose(np.asarray(a) / (factor if unit == "controls" else 1.0), b, atol=1e-4)

    check()
    converged.check(2)


@pytest.mark.parametrize("unit", ["cost", "controls", "states", "rows"])
@pytest.mark.parametrize("name", ["mixed", "curved obstacle", "stages that differ", "terminal equality"])
@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_measured_units_change_with_the_units(name: str, unit: str, factor: float) -> None:
    problem, other = CASES[name](), Rescaling(**{unit: factor})(CASES[name]())
    before, after = (measured(each) for each in (problem, other))
    np.testing.assert_allclose(
        after.rows, before.rows * np.where(is_row(problem) & (unit == "rows"), factor, 1.0), rtol=1e-6
    )
    assert after.cost == pytest.approx(before.cost * (factor if unit == "cost" else 1.0), rel=1e-6)


def measured(problem: Problem) -> Any:
    units = measure_units(Augmented(problem), problem.rollout()[0], problem.controls, problem.rollout()[1])
    assert units is not None
    return units


def is_row(problem: Problem) -> Any:
    return Augmented(problem).sides.weights != 0


def test_the_unit_of_the_cost_is_what_moving_the_row_costs() -> None:
    """One terminal row, J quadratic: S = 1 / aᵀH⁻¹a, by the condensed problem in all controls."""
    rng = np.random.default_rng(5)
    n, m, T = 3, 2, 7
    A, B, Q, R, c = (
        rng.normal(size=(n, n)) / 2,
        rng.normal(size=(n, m)),
        np.eye(n),
        np.diag([0.3, 2.0]),
        rng.normal(size=n),
    )
    problem = Problem.from_functions(
        dynamics=lambda x, u: A @ x + B @ u,
        cost=lambda x, u: 0.5 * (x @ Q @ x + u @ R @ u),
        terminal_cost=lambda x: 0 * x[0],
        x0=[1.0, -2.0, 0.5],
        horizon=T,
        control_size=m,
        terminal_constraints=(Constraint(lambda x: c @ x, 3.0, 3.0, "end"),),
    )
    reach = [
        np.hstack([np.linalg.matrix_power(A, t - 1 - s) @ B if s < t else np.zeros((n, m)) for s in range(T)])
        for t in range(T + 1)
    ]
    H = np.kron(np.eye(T), R) + sum(F.T @ Q @ F for F in reach[:T])
    unit = max(3.0, float(np.abs(c) @ np.max(np.abs(problem.rollout()[0]), axis=0) + abs(c @ problem.rollout()[0][-1])))
    a = c @ reach[T] / unit
    units = measured(problem)
    assert units.rows[-1, 0] == pytest.approx(unit)
    assert units.cost == pytest.approx(1 / (a @ np.linalg.solve(H, a)))


BOUNDS = {
    "far from each other": (-1.0, 3.0, 2.0),
    "a set": (-0.1, 0.1, 0.1),
    "a set of almost nothing": (-1e-6, 1e-6, 2e-3),
    "from zero on": (0.0, np.inf, 2.0),
    "without end in practice": (0.0, 1e9, 2.0),
    "a small margin": (1e-6, np.inf, 2.0),
    "equality": (5.0, 5.0, 5.0),
    "none": (-np.inf, np.inf, 1.0),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_row_counts_in_its_bounds_and_its_size(name: str) -> None:
    """The row is x_0, 1 at the guess: |g| + |g_x| X = 2."""
    lower, upper, unit = BOUNDS[name]
    problem = swing(
        dynamics=lambda x, u: x + 0 * u[0], constraints=(Constraint(lambda x, u: x[0], lower, upper, "row"),)
    )
    assert measured(problem).rows[0, 0] == pytest.approx(unit)


def test_a_row_that_is_zero_counts_in_what_controls_do_to_it() -> None:
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + 0.1 * np.array([0.0, 1.0]) * u[0] + 0.1 * np.array([1.0, 0.0]) * x[1],
        cost=lambda x, u: 0.1 * u[0] ** 2,
        terminal_cost=lambda x: 0 * x[0],
        x0=[0.0, 0.0],
        horizon=10,
        control_size=1,
        terminal_constraints=(Constraint(lambda x: x, [1.0, 0.0], [1.0, 0.0], "rest"),),
    )
    units, other = measured(problem), measured(Rescaling(rows=1e6, controls=1e-3)(problem))
    assert units.rows[-1, 0] == 1.0
    assert units.rows[-1, 1] > 0.1
    np.testing.assert_allclose(other.rows[-1], 1e6 * units.rows[-1], rtol=1e-9)


@pytest.mark.parametrize("name", ["mixed", "stages that differ", "parameters at each stage", "curved obstacle"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_solution_says_them_and_c_measures_the_same(name: str, solver: str) -> None:
    found = [
        replace(SOLVERS[solver], inner=DDP(engine=engine), max_iterations=0).solve(CASES[name]()).scaling
        for engine in ("numpy", "c")
    ]
    assert all(found)
    assert found[1].cost == pytest.approx(found[0].cost, rel=1e-9)
    for a, b in zip(*(each.rows for each in found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_a_warm_start_keeps_its_units() -> None:
    problem = bryson_denham(0.1, horizon=20)
    for solver in (*SOLVERS.values(), AugmentedLagrangian(inner=DDP(engine="c"))):
        first = solver.solve(problem)
        again = solver.solve(problem, first)
        assert again.scaling.cost == first.scaling.cost
        np.testing.assert_array_equal(again.scaling.rows[-1], first.scaling.rows[-1])


def test_without_scaling_the_units_are_the_users() -> None:
    for engine in ("numpy", "c"):
        solver = AugmentedLagrangian(inner=DDP(engine=engine), scaling=False)
        solution = solver.solve(bryson_denham(0.1, horizon=20))
        assert solution.success
        assert solution.scaling is None


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["numpy", "c"])
@pytest.mark.parametrize("method", [AugmentedLagrangian, InteriorPoint])
@pytest.mark.parametrize("width", [1e-8, 1e-6, 1e-3])
def test_a_narrow_set_for_what_is_at_rest_at_the_guess(width: float, method: Any, engine: str) -> None:
    """The rate is zero on the way of the guess, so that its bounds alone say nothing of how far it moves."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]]),
        cost=lambda x, u: 0.5 * u @ u,
        terminal_cost=lambda x: 0.0 * x[0],
        x0=[1.0, 0.0],
        horizon=20,
        control_size=1,
        terminal_constraints=(Constraint(lambda x: x, -width, width, "set"),),
    )
    solution = method(inner=DDP(engine=engine)).solve(problem)
    assert solution.success, str(solution)
    assert np.abs(solution.states[-1]).max() <= 1.01 * width
    assert solution.cost == pytest.approx(IPOPT().solve(problem).cost, rel=1e-5)


def runaway(growth: float) -> Problem:
    """Controls of zero let x_T grow to growth¹⁰/10; the end that is asked for is at x = 0.278."""
    return Problem.from_functions(
        dynamics=lambda x, u: growth * x + u + 0.1 * m.sin(x),
        cost=lambda x, u: x[0] ** 2 + u[0] ** 2 + m.exp(u[0]),
        terminal_cost=lambda x: 0.0 * x[0],
        x0=[0.1],
        horizon=10,
        control_size=1,
        terminal_constraints=(Constraint(lambda x: x[0] + x[0] ** 3, 0.3, 0.3, "end"),),
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["numpy", "c"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("growth", [1.5, 2.0, 3.0, 4.0])
def test_a_guess_that_is_far_away_sets_no_unit(growth: float, solver: str, engine: str) -> None:
    """The row came to 10³ … 10¹⁵ on it, of which 1e-9 was more than the row itself: any end was "converged"."""
    method = replace(SOLVERS[solver], inner=DDP(max_iterations=300, engine=engine))
    solution = method.solve(runaway(growth))
    assert solution.success
    x = solution.states[-1][0]
    assert abs(x + x**3 - 0.3) <= 1e-9
    other = Rescaling(rows=1e6, cost=1e-5, controls=1e4, states=1e-3)
    again = method.solve(other(runaway(growth)))
    assert again.status is solution.status
    assert again.cost / other.cost == pytest.approx(solution.cost, rel=1e-8)


def test_what_vanishes_keeps_a_unit() -> None:
    """The guess moves both states, the optimum leaves the second where it is, at zero: nothing else says how large."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + 0.1 * u,
        cost=lambda x, u: 0.1 * u @ u,
        terminal_cost=lambda x: (x[0] - 1) ** 2,
        x0=[0.3, 0.0],
        horizon=10,
        control_size=2,
        controls=[[1.0, 3.0]] * 10,
        terminal_constraints=(Constraint(lambda x: x[1], 0.0, 0.0, "side"),),
    )
    for engine in ("numpy", "c"):
        for solver in SOLVERS.values():
            solution = replace(solver, inner=DDP(engine=engine)).solve(problem)
            assert solution.success
            assert abs(solution.states[-1][1]) <= 1e-9
