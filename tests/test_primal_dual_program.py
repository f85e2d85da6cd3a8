"""The nonlinear program of the primal-dual interior point: values, derivatives and rollouts, in natural units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from problems import BY_NAME
from test_constrained import CASES

from ocpkit import PrimalDual, Problem, UnsupportedProblem, models
from ocpkit.autodiff.differentiable import with_parameters
from ocpkit.problem.constraint_rows import problem_rows
from ocpkit.solution.scaling import Scaling
from ocpkit.solvers.primal_dual.kkt import Factors, Weights
from ocpkit.solvers.primal_dual.program import Program

Array = Any
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "rows": CASES["mixed"],
    "kinds of stages": CASES["stages that differ"],
    "parameters at each stage": CASES["parameters at each stage"],
    "sizes": BY_NAME["varying-sizes"].problem,
    "parameters": BY_NAME["parameters"].problem,
    "free final time": lambda: models.get("goddard").build(horizon=6),
}
every_problem = pytest.mark.parametrize("name", PROBLEMS)


def units_of(problem: Problem, seed: int | None) -> Scaling:
    """Ones, or random units from 1e-2 to 1e2."""
    rng = np.random.default_rng(seed or 0)
    spread = 0.0 if seed is None else 2.0
    rows = [each.count for each in problem_rows(problem, bounds=False)]
    sizes = (problem.control_sizes, problem.state_sizes, rows)
    series = (tuple(10 ** rng.uniform(-spread, spread, size) for size in each) for each in sizes)
    return Scaling(float(10 ** rng.uniform(-spread, spread)), *series)


def point(problem: Problem, seed: int = 0) -> tuple[list[Array], list[Array]]:
    """States near the guess of a problem, with gaps, and controls, in the user's units."""
    rng = np.random.default_rng(seed)
    guess = problem.rollout(problem.controls)[0] if problem.states is None else problem.states
    states = [x * (1 + 1e-3 * rng.normal(size=len(x))) + 1e-3 * rng.normal(size=len(x)) for x in guess]
    return states, [u + 0.02 * rng.normal(size=len(u)) for u in problem.controls]


def at(program: Program, seed: int = 0) -> Array:
    """The same as w."""
    return program.join(*point(program.problem, seed)) / program.unit


@every_problem
@pytest.mark.parametrize("seed", [None, 5])
def test_values_are_those_of_the_problem_in_units(name: str, seed: int | None) -> None:
    problem = PROBLEMS[name]()
    units = units_of(problem, seed)
    program, (states, controls) = Program(problem, units), point(problem)
    values = program.values(at(program))
    assert values.cost * units.cost == pytest.approx(problem.cost(states, controls), rel=1e-12)
    gaps, rows = list[Array](), list[Array]()
    for t, (stage, x, u) in enumerate(zip(problem.stages, states, controls)):
        p = problem.parameter(t)
        gaps.append((stage.dynamics.step(x, u, p) - states[t + 1]) / units.states[t + 1])
        g = [np.atleast_1d(with_parameters(c.function, 3, c.name)(x, u, p)) for c in stage.constraints]
        rows.append(np.concatenate([np.zeros(0), *g]) / units.rows[t])
    p = problem.parameter(problem.horizon)
    g = [np.atleast_1d(with_parameters(c.function, 2, c.name)(states[-1], p)) for c in problem.terminal_constraints]
    rows.append(np.concatenate([np.zeros(0), *g]) / units.rows[-1])
    np.testing.assert_allclose(values.gaps, np.concatenate(gaps), rtol=1e-9, atol=1e-11 * abs(values.gaps).max())
    np.testing.assert_allclose(values.rows, np.concatenate(rows), rtol=1e-12)


@every_problem
def test_a_rollout_has_no_gaps(name: str) -> None:
    problem = PROBLEMS[name]()
    program = Program(problem, units_of(problem, 5))
    controls = point(problem)[1]
    states, cost = problem.rollout(controls)
    values = program.values(program.join(states, controls) / program.unit)
    assert np.abs(values.gaps).max() <= 1e-12 * max(1.0, np.abs(at(program)).max())
    assert values.cost * program.cost_unit == pytest.approx(cost, rel=1e-12)


@every_problem
def test_split_is_the_inverse_of_join(name: str) -> None:
    problem = PROBLEMS[name]()
    program, expected = Program(problem, units_of(problem, 5)), point(problem)
    for found, series in zip(program.split(at(program)), expected):
        for a, b in zip(found, series, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)


@every_problem
@pytest.mark.parametrize("seed", [None, 5])
def test_derivatives_are_those_of_the_values(name: str, seed: int | None) -> None:
    """∇J, the Jacobians, and the Hessian of σ J + λᵀ gaps + yᵀ rows, along random directions."""
    problem = PROBLEMS[name]()
    program, rng = Program(problem, units_of(problem, seed)), np.random.default_rng(1)
    w, weight = at(program), 0.7
    values = program.values(w)
    costates, y = rng.normal(size=len(values.gaps)), rng.normal(size=len(values.rows))
    blocks, layout = program.derivatives(w, costates, y, weight), program.layout
    no = np.zeros_like

    def slope(w: Array) -> Array:
        """The gradient of the Lagrangian, by first derivatives alone."""
        found = program.derivatives(w, no(costates), no(y))
        return found.along(costates, y) + (weight - 1) * found.gradient

    for _ in range(3):
        d = rng.normal(size=len(w)) * np.maximum(0.1, np.abs(w))
        h = 1e-6
        ahead, behind = program.values(w + h * d), program.values(w - h * d)
        measured = [(a - b) / (2 * h) for a, b in zip(ahead, behind)]
        of_gaps = [F @ d[z] for F, z in zip(blocks.dynamics_of, layout.z)]
        of_rows = [G @ d[z] for G, z in zip(blocks.rows_of, layout.z)]
        expected = [blocks.gradient @ d, np.concatenate(of_gaps) - d[layout.following], np.concatenate(of_rows)]
        for a, b in zip(blocks.linear(d), expected[1:]):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
        for a, b in zip(measured, expected):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * max(1e-3, np.abs(b).max(initial=0.0)))
        curved = (slope(w + h * d) - slope(w - h * d)) / (2 * h)
        along = np.concatenate([H @ d[z] for H, z in zip(blocks.hessians_of, layout.z)])
        np.testing.assert_allclose(blocks.curved(d), along, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(curved, along, rtol=1e-4, atol=1e-5 * max(1e-3, np.abs(along).max()))


@every_problem
def test_units_change_nothing_but_scale(name: str) -> None:
    """What is computed at the same point in two systems of units differs by their ratios."""
    problem = PROBLEMS[name]()
    ours, plain = (Program(problem, units_of(problem, seed)) for seed in (5, None))
    values, reference = ours.values(at(ours)), plain.values(at(plain))
    rng = np.random.default_rng(2)
    costates, y = rng.normal(size=len(values.gaps)), rng.normal(size=len(values.rows))
    blocks = ours.derivatives(at(ours), costates, y)
    scaled = costates * ours.cost_unit / ours.gap_unit, y * ours.cost_unit / ours.row_unit
    expected = plain.derivatives(at(plain), *scaled)
    unit, S, T = ours.unit, ours.cost_unit, problem.horizon
    assert values.cost * S == pytest.approx(reference.cost, rel=1e-12)
    np.testing.assert_allclose(values.rows * ours.row_unit, reference.rows, rtol=1e-12)
    np.testing.assert_allclose(blocks.gradient * S / unit, expected.gradient, rtol=1e-9, atol=1e-14)
    for t, z in enumerate(ours.layout.z):
        H = blocks.hessians_of[t] * S / unit[z] / unit[z][:, None]
        np.testing.assert_allclose(H, expected.hessians_of[t], rtol=1e-9, atol=1e-9 * np.abs(H).max())
        G = blocks.rows_of[t] * ours.row_unit[ours.layout.row[t]][:, None] / unit[z]
        np.testing.assert_allclose(G, expected.rows_of[t], rtol=1e-9, atol=1e-12)
        if t < T:
            F = blocks.dynamics_of[t] * ours.gap_unit[ours.layout.gap[t]][:, None] / unit[z]
            np.testing.assert_allclose(F, expected.dynamics_of[t], rtol=1e-9, atol=1e-12)
    for side in ("lower", "upper"):
        np.testing.assert_allclose(getattr(ours, side) * unit, getattr(plain, side), rtol=1e-14)
        rows = getattr(ours, f"row_{side}") * ours.row_unit
        np.testing.assert_allclose(rows, getattr(plain, f"row_{side}"), rtol=1e-14)


def newton(program: Program, w: Array) -> tuple[Array, list[Array]]:
    """A step that closes the linearized gaps, and its gains, in a curvature of one."""
    values = program.values(w)
    blocks = program.derivatives(w, np.zeros(len(values.gaps)), np.zeros(len(values.rows)), 0.0)
    factors = Factors(blocks, Weights(np.ones(len(w)), np.full(len(values.rows), 1e6), None))
    return factors.solve(blocks.gradient, values.gaps, values.rows).d, factors.gains


@every_problem
@pytest.mark.parametrize("step_size", [1.0, 0.3, 0.0])
def test_a_rollout_leaves_so_much_of_every_gap(name: str, step_size: float) -> None:
    problem = PROBLEMS[name]()
    program = Program(problem, units_of(problem, 5))
    w = at(program)
    w[program.layout.x[0]] = problem.x0 / program.unit[program.layout.x[0]]
    wide = np.full(len(w), np.inf)
    step, gains = newton(program, w)
    found = program.rollout(w, step, gains, (-wide, wide), step_size)
    before, after = program.values(w), program.values(found)
    size = max(1.0, np.abs(w).max(), np.abs(found).max())
    np.testing.assert_allclose(after.gaps, (1 - step_size) * before.gaps, atol=1e-11 * size)
    np.testing.assert_allclose(found[program.layout.x[0]], w[program.layout.x[0]], rtol=1e-14)
    if step_size == 0.0:
        np.testing.assert_allclose(found, w, rtol=1e-9, atol=1e-9 * size)


def test_a_rollout_is_newtons_step_to_first_order() -> None:
    """x̂ − (x + α δx) falls with α², since feedback and gaps are those of the step."""
    problem = PROBLEMS["sizes"]()
    program = Program(problem, units_of(problem, 5))
    w = at(program)
    w[program.layout.x[0]] = problem.x0 / program.unit[program.layout.x[0]]
    wide = np.full(len(w), np.inf)
    step, gains = newton(program, w)
    away = [
        np.abs(program.rollout(w, step, gains, (-wide, wide), alpha) - w - alpha * step).max() for alpha in (1e-2, 1e-3)
    ]
    assert 0 < away[1] <= 0.02 * away[0]


@every_problem
def test_a_rollout_keeps_controls_inside(name: str) -> None:
    problem = PROBLEMS[name]()
    program = Program(problem, units_of(problem, 5))
    w, controls = at(program), program.layout.of_controls
    step, gains = newton(program, w)
    found = program.rollout(w, 100 * step, gains, (w - 0.01, w + 0.01), 1.0)
    assert (np.abs(found - w)[controls] <= 0.01 * (1 + 1e-9) + 1e-14 * np.abs(w[controls])).all()


def test_a_stage_that_cannot_be_traced_is_named() -> None:
    with pytest.raises(UnsupportedProblem, match="stage 0"):
        PrimalDual().solve(BY_NAME["black-box"].problem())
