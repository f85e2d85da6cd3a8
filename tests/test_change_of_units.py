"""The units of J, x, u and of each row decide nothing: the same verdict, iterations and relative error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_problems import random_problem
from rescaling import Rescaling

import ocpkit.math as m
from ocpkit import IPOPT, SQP, Constraint, Fatrop, Problem, Solution, Status, registry

DECADES = st.integers(-8, 8)
PLUGINS = [IPOPT(), Fatrop(), SQP()]
FAR = Rescaling(cost=1e7, states=1e-6, controls=1e6, rows=1e-7)


def assert_same(solution: Solution, units: Rescaling, reference: Solution, rtol: float = 1e-9) -> None:
    cost, states, controls = units.back(solution)
    assert solution.status is reference.status
    assert cost == pytest.approx(reference.cost, rel=rtol)
    for ours, theirs in ((states, reference.states), (controls, reference.controls)):
        np.testing.assert_allclose(ours, theirs, atol=1e3 * rtol * np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["ipopt", "fatrop", "sqp"])
@settings(max_examples=4, deadline=None)
@given(st.sampled_from([1, 3, 6, 9, 10]), st.data())
def test_constrained_problems(solver: str, seed: int, data: st.DataObject) -> None:
    problem, method = random_problem(seed), registry.make(solver)
    n, size = problem.state_sizes[0], problem.control_sizes[0]
    draw = lambda count: 10.0 ** np.array(data.draw(st.lists(DECADES, min_size=count, max_size=count)))  # noqa: E731
    units = Rescaling(*draw(1), draw(n), draw(size), *draw(1))
    reference, far, ours = method.solve(problem), method.solve(FAR(problem)), method.solve(units(problem))
    assert reference.success
    assert_same(ours, units, reference, rtol=1e-7)  # the plugin's own tolerance: ordinary units are left as they are
    if not ours.scaling.ordinary:
        cost, states, controls = FAR.back(far)
        assert_same(ours, units, replace(far, cost=cost, states=states, controls=controls))


@pytest.mark.parametrize("solver", PLUGINS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("unit", [1.0, 1e3, 1e5])
def test_a_bound_of_any_size_may_hold(solver: Any, unit: float) -> None:
    """A plugin widens bounds by 1e-8 of their size, which is no violation."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + 0.1 * u,
        cost=lambda x, u: -x[0] / unit + 1e-3 * (u[0] / unit) ** 2,
        terminal_cost=lambda x: -x[0] / unit,
        x0=[0.0],
        horizon=10,
        constraints=(Constraint(lambda x, u: x, -unit, 0.5 * unit, "room"),),
        terminal_constraints=(Constraint(lambda x: x, -unit, 0.5 * unit, "room"),),
    )
    solution = solver.solve(problem)
    assert solution.status is Status.CONVERGED
    assert solution.cost == pytest.approx(-4.975, rel=1e-6)  # u = 5 at once, then 0


@pytest.mark.parametrize("solver", PLUGINS, ids=lambda s: type(s).__name__)
@given(half=st.sampled_from([1e-6, 1e-2, 1e3]), middle=st.sampled_from([0.0, 300.0]))
@example(half=1e-6, middle=0.0)
@settings(max_examples=4, deadline=None)
def test_a_terminal_set_of_any_size(solver: Any, half: float, middle: float) -> None:
    """Reach a narrow range around a temperature, from a range away from it, at least effort."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: u[0] ** 2,
        terminal_cost=lambda x: 0 * x[0],
        x0=[middle + 3 * half],
        horizon=4,
        control_size=1,
        terminal_constraints=(Constraint(lambda x: x, middle - half, middle + half, "set"),),
    )
    solution = solver.solve(problem)
    if isinstance(solver, SQP) and half < 1e-6 * middle:  # 7e-8 of a half is a digit of x: its QPs find no direction
        assert solution.status is Status.STALLED
    else:
        assert solution.status is Status.CONVERGED
    assert solution.cost == pytest.approx(half**2, rel=1e-4)  # u = −half/2 four times


@pytest.mark.parametrize("solver", PLUGINS, ids=lambda s: type(s).__name__)
def test_scaling_can_be_switched_off(solver: Any) -> None:
    problem, plain = random_problem(1), type(solver)(scaling=False)
    scaled, unscaled = solver.solve(problem), plain.solve(problem)
    assert unscaled.scaling is None
    assert scaled.scaling is not None
    assert [len(row) for row in scaled.scaling.rows] == [
        *(sum(np.size(c.lower) for c in stage.constraints) for stage in problem.stages),
        sum(np.size(c.lower) for c in problem.terminal_constraints),
    ]
    assert scaled.cost == pytest.approx(unscaled.cost, rel=1e-5)


@pytest.mark.parametrize("solver", PLUGINS, ids=lambda s: type(s).__name__)
def test_a_cost_on_a_high_base(solver: Any) -> None:
    """J = 10⁶ + 10⁻³ (…): what controls can change decides, not |J|."""
    declaration: dict[str, Any] = {
        "dynamics": lambda x, u: m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * m.sin(u[0])]),
        "terminal_cost": lambda x: 1e-2 * (x[0] - 1) ** 2,
        "x0": [0.0, 0.0],
        "horizon": 10,
        "control_size": 1,
    }
    high, reference = (
        solver.solve(Problem.from_functions(cost=lambda x, u, *, base=base: base + 1e-4 * u[0] ** 2, **declaration))
        for base in (1e5, 0.0)
    )
    assert high.success
    assert reference.success
    np.testing.assert_allclose(high.controls, reference.controls, atol=1e-4 * np.abs(reference.controls).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gd", "msa", "emsa"])
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_first_order_methods(name: str, data: st.DataObject) -> None:
    draw = lambda count: 10.0 ** np.array(data.draw(st.lists(DECADES, min_size=count, max_size=count)))  # noqa: E731
    problem = Problem.from_functions(
        dynamics=lambda x, u: m.stack([0.9 * x[0] + 0.1 * x[1], 0.8 * x[1] + 0.1 * m.sin(x[0]) + 0.1 * u[0]]),
        cost=lambda x, u: 0.05 * x[0] ** 2 + 0.1 * u[0] ** 2,
        terminal_cost=lambda x: (x[0] - 1) ** 2 + x[1] ** 2,
        x0=[0.5, 0.0],
        horizon=8,
        control_size=1,
        control_bounds=(-1.0, 0.4),
    )
    units, solver = Rescaling(*draw(1), draw(2), draw(1)), registry.make(name)
    reference = solver.solve(problem)
    assert reference.success
    assert_same(solver.solve(units(problem)), units, reference, rtol=1e-6)
