"""Rows as parameters of the augmented Lagrangian: their multipliers, prices and units, by hand and there and back."""

from __future__ import annotations

import numpy as np
import pytest
from test_constrained import CASES, swing

from ocpkit import Constraint, Problem
from ocpkit.problem.constraint_rows import problem_rows
from ocpkit.solvers.constrained.augmented import Augmented

TWO_SIDED, UPPER, LOWER = (Constraint(lambda x, u: x, *bounds) for bounds in ((-1, 3), (-np.inf, 3), (-1, np.inf)))


def admissible(problem: Problem, rng: np.random.Generator) -> list[np.ndarray]:
    """Random multipliers of rows and control bounds, of the signs that their bounds allow."""
    found = []
    for rows in problem_rows(problem):
        y = rng.standard_normal(rows.count)
        y = np.where(np.isinf(rows.traced.lower), np.abs(y), y)
        found.append(np.where(np.isinf(rows.traced.upper), -np.abs(y), y))
    return found


@pytest.mark.parametrize("barrier", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_multipliers_come_back_from_the_parameters(name: str, barrier: bool) -> None:
    """Those of a Solution, made the priced rows' own and put together again, at their places in each stage."""
    problem, rng = CASES[name](), np.random.default_rng(0)
    augmented, given = Augmented(problem, barrier=barrier), admissible(problem, rng)
    own = augmented.first_multipliers(given)
    assert own is not None
    assert [len(y) for y in own] == [rows.count for rows in augmented.rows]
    bounds = np.zeros(0 if barrier else sum(problem.control_sizes))
    if not barrier:  # the inner solver has those of the bounds
        inside = [stage.bounded_controls for stage in problem.stages]
        starts = np.cumsum([0, *problem.control_sizes])
        for start, chosen, y in zip(starts, inside, given):
            bounds[start + chosen] = y[len(y) - len(chosen) :]
    back = augmented.multipliers(augmented.extended(own, 7.0, 0.5), bounds)
    for ours, expected in zip(back, given, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert augmented.first_multipliers([*given[:-1], np.zeros(len(given[-1]) + 1)]) is None
    assert augmented.first_multipliers(None) is None


def test_multipliers_of_a_forbidden_sign_are_cut() -> None:
    problem = swing(constraints=(UPPER, LOWER))
    augmented = Augmented(problem)
    own = augmented.first_multipliers([np.array([-1.0, 2.0, -3.0, 4.0])] * 20 + [np.zeros(0)])
    assert own is not None
    np.testing.assert_array_equal(own[3], [0.0, 2.0, -3.0, 0.0])


def test_units_of_rows_by_hand() -> None:
    """The larger of bound and size, no more than half the distance of two bounds, no less than 1e-3 of the size."""
    rows = (TWO_SIDED, UPPER, Constraint(lambda x, u: u, 5.0, 5.0))
    sides = Augmented(swing(constraints=rows)).sides
    for size, expected in ((100.0, [2, 2, 100, 100, 100]), (0.5, [1, 1, 3, 3, 5]), (1e4, [10, 10, 1e4, 1e4, 1e4])):
        units = sides.units(np.full_like(sides.weights, size))
        np.testing.assert_allclose(units[:20, :5], [expected] * 20)
        np.testing.assert_allclose(units[20], 1.0)  # the end has no rows
    np.testing.assert_array_equal(sides.at_rest(np.zeros_like(sides.weights))[0], [True, True, False, False, False])
    assert not sides.at_rest(np.ones_like(sides.weights)).any()
    sizes = np.random.default_rng(0).uniform(size=sides.weights.shape)
    np.testing.assert_array_equal(sides.shared(sizes)[:20], [sizes[:20].max(axis=0)] * 20)


def test_what_is_measured_is_the_formula() -> None:
    """y⁺ = ρ (s − Π(s)), |g − Π(g)|, their largest and their squares, and J without the prices."""
    problem = swing(constraints=(TWO_SIDED, UPPER), terminal_constraints=(Constraint(lambda x: x[1], 0.2, 0.2, "end"),))
    augmented, rng = Augmented(problem), np.random.default_rng(0)
    states, controls = 4 * rng.standard_normal((21, 2)), rng.standard_normal((20, 1))
    y, rho = [rng.standard_normal(rows.count) for rows in augmented.rows], 2.5
    units = rng.uniform(1, 2, (21, 4))
    measured = augmented.measure(states, controls, augmented.extended(y, rho), units)
    g = [*np.concatenate([states[:-1], states[:-1]], axis=1), states[-1, 1:]]
    low = [np.array([-1, -1, -np.inf, -np.inf])] * 20 + [np.array([0.2])]
    high = [np.full(4, 3.0)] * 20 + [np.array([0.2])]
    largest, squares = 0.0, 0.0
    for t, (row, a, b) in enumerate(zip(g, low, high)):
        s = row + y[t] / rho
        np.testing.assert_allclose(measured.updated[t], rho * (s - np.clip(s, a, b)), atol=1e-12)
        distance = np.abs(row - np.clip(row, a, b))
        np.testing.assert_allclose(measured.distances[t], distance, atol=1e-12)
        relative = distance / units[t, : len(distance)]
        largest, squares = max(largest, relative.max()), squares + float(relative @ relative)
    assert measured.violation == pytest.approx(largest)
    assert measured.squares == pytest.approx(squares)
    assert measured.in_units(units) == pytest.approx(largest)
    assert measured.cost == pytest.approx(problem.cost(states, controls))
    assert augmented.measure(states, controls, augmented.extended(y, rho)).squares != pytest.approx(squares)
