"""Control bounds: the quadratic program of a stage against other methods, and DDP within bounds against IPOPT."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from floors import Floor
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from problems import BY_NAME, LQR, Case, runs
from scipy.optimize import lsq_linear
from strategies import smooth_problems
from test_constrained import assert_is_kkt_point, swing

import ocpkit.math as m
from ocpkit import (
    DDP,
    FDDP,
    ILQR,
    IPOPT,
    MPC,
    Health,
    Problem,
    ProblemError,
    Solution,
    Stage,
    Status,
    registry,
    simulate,
)
from ocpkit.errors import NotPositiveDefinite
from ocpkit.recursion.bellman import ActionValue, minimize
from ocpkit.recursion.box import StepBounds, minimize_in_box
from ocpkit.recursion.curvature import Exact, Identity

Array = Any
ENGINES = ("numpy", "vm", "c")


@st.composite
def programs(draw: st.DrawFn, largest: int = 6, positive: bool = True) -> tuple[Array, Array, Array, Array]:
    """Draw H, g, lower, upper; some bounds are missing, some leave no room on one side or on both."""
    size, seed = draw(st.integers(1, largest)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    H = root @ root.T + 10.0 ** draw(st.floats(-6, 1)) * np.eye(size) if positive else root + root.T
    lower, upper = -rng.uniform(0, 1, size), rng.uniform(0, 1, size)
    for bound, missing in ((lower, -np.inf), (upper, np.inf)):
        kind = rng.integers(0, 4, size)
        bound[kind == 0] = 0.0
        bound[kind == 1] = missing
    return H, 10.0 ** draw(st.floats(-3, 3)) * rng.normal(size=size), lower, upper


def by_enumeration(H: Array, g: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Minimizer and multipliers of a strictly convex program, by trying each way to hold entries."""
    best = None
    for held in product((0, -1, 1), repeat=len(g)):
        side = np.array(held)
        k, free = np.where(side < 0, lower, np.where(side > 0, upper, 0.0)), side == 0
        if not np.isfinite(k).all():
            continue
        k[free] = np.linalg.solve(H[np.ix_(free, free)], -g[free] - H[np.ix_(free, ~free)] @ k[~free])
        y = np.where(free, 0.0, -(g + H @ k))
        if (k < lower - 1e-9).any() or (k > upper + 1e-9).any():
            continue
        value = g @ k + k @ H @ k / 2
        if best is None or value < best[0]:
            best = value, k, y
    assert best is not None
    return best[1:]


# ----------------------------------------------------------------------------------------------- the program of a stage
@settings(max_examples=300, deadline=None)
@given(programs(largest=4))
def test_the_minimizer_is_the_best_of_all_ways_to_hold_entries(program: Any) -> None:
    H, g, *_ = program
    minimum, (k, y) = minimize_in_box(*program), by_enumeration(*program)
    gained = lambda v: g @ v + v @ H @ v / 2  # noqa: E731
    assert gained(minimum.k) == pytest.approx(gained(k), rel=1e-9, abs=1e-9)
    scale = np.linalg.cond(H) * 1e-13 * (1 + np.abs(k).max() + np.abs(g).max())
    np.testing.assert_allclose(minimum.k, k, atol=scale)
    np.testing.assert_allclose(minimum.multipliers, y, atol=scale * np.abs(H).max())


@settings(max_examples=100, deadline=None)
@given(programs(largest=20))
def test_scipy_finds_the_same(program: Any) -> None:
    H, g, lower, upper = program
    assume((lower < upper).all() and np.linalg.cond(H) < 1e6)
    root = np.linalg.cholesky(H).T  # ½ ‖root k + root⁻ᵀ g‖² is the objective, up to a constant
    reference = lsq_linear(root, -np.linalg.solve(root.T, g), (lower, upper), method="bvls", tol=1e-14)
    k = minimize_in_box(*program).k
    assert g @ k + k @ H @ k / 2 <= g @ reference.x + reference.x @ H @ reference.x / 2 + 1e-9 * (1 + np.abs(g).max())
    np.testing.assert_allclose(k, reference.x, atol=1e-6 * (1 + np.abs(reference.x).max()))


@settings(max_examples=200, deadline=None)
@given(programs(largest=20), st.integers(0, 2**32 - 1))
def test_conditions_of_optimality_wherever_the_search_begins(program: Any, seed: int) -> None:
    H, g, lower, upper = program
    previous = np.random.default_rng(seed).integers(-1, 2, len(g)).astype(float)
    previous[(previous < 0) & np.isinf(lower) | (previous > 0) & np.isinf(upper)] = 0
    cold, warm = minimize_in_box(*program), minimize_in_box(*program, previous)
    for minimum in (cold, warm):
        k, y = minimum.k, minimum.multipliers
        assert ((lower <= k) & (k <= upper)).all()
        assert ((y == 0) | (lower == upper) | (np.where(y > 0, upper, lower) == k)).all()
        rounding = 1e-12 * (np.abs(g) + np.abs(H) @ np.abs(k)).max() * np.linalg.cond(H) ** 0.5
        np.testing.assert_allclose(g + H @ k + y, 0, atol=rounding)
    np.testing.assert_allclose(cold.k, warm.k, atol=1e-12 * np.linalg.cond(H) * (1 + np.abs(cold.k).max()))


@settings(max_examples=200, deadline=None)
@given(programs(positive=False))
def test_an_indefinite_program_has_a_local_minimizer_or_is_refused(program: Any) -> None:
    """Where no free direction bends down, k is a point that lowers the objective; else it says so."""
    H, g, *_ = program
    try:
        minimum = minimize_in_box(*program)
    except NotPositiveDefinite:
        assert np.linalg.eigvalsh(H).min() < 1e-12
        return
    k, y = minimum.k, minimum.multipliers
    assert g @ k + k @ H @ k / 2 <= 1e-12
    np.testing.assert_allclose(g + H @ k + y, 0, atol=1e-8 * (1 + np.abs(g).max()))


def test_without_active_bounds_it_is_newtons_step() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    H, g = root @ root.T + np.eye(5), rng.normal(size=5)
    minimum = minimize_in_box(H, g, np.full(5, -1e6), np.full(5, 1e6))
    np.testing.assert_allclose(minimum.k, -np.linalg.solve(H, g), rtol=1e-12)
    np.testing.assert_array_equal(minimum.multipliers, 0)
    np.testing.assert_allclose(minimum.solve(np.eye(5)), np.linalg.inv(H), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_numbers_that_are_none_have_no_minimizer(broken: float) -> None:
    with pytest.raises(NotPositiveDefinite), np.errstate(all="ignore"):
        minimize_in_box(np.diag([1.0, broken]), np.ones(2), np.full(2, -1.0), np.full(2, 1.0))


@settings(max_examples=100, deadline=None)
@given(programs(largest=4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_value_is_that_of_the_policy(program: Any, n: int, seed: int) -> None:
    """V_x and V_xx are derivatives of δx ↦ Q(δx, k + K δx), and of min_k Q where no bound is about to change hands."""
    H, g, lower, upper = program
    rng, size = np.random.default_rng(seed), len(g)
    Qxx, Qux, Qx = np.eye(n), rng.normal(size=(size, n)), rng.normal(size=n)
    Q = ActionValue(Qx, g, Qxx, Qux, H)
    step = minimize(0, Q, Exact(), StepBounds([(lower, upper)]))
    K, k, y = step.K, step.k, step.multipliers
    np.testing.assert_array_equal(K[(y != 0) | (lower == upper)], 0)

    def model(dx: Array, du: Array) -> float:
        return Qx @ dx + g @ du + dx @ Qxx @ dx / 2 + du @ Qux @ dx + du @ H @ du / 2

    scale = np.linalg.cond(H) * (1 + np.abs(g).max()) ** 2 * 1e-11
    assert step.expected_change == pytest.approx(model(np.zeros(n), k), abs=scale)
    np.testing.assert_allclose(step.slope, -H @ k, atol=scale)  # of the Lagrangian at δu = 0, which k takes to zero
    for direction in np.eye(n):
        there, back = (model(sign * direction, k + sign * K @ direction) for sign in (1, -1))
        assert (there - back) / 2 == pytest.approx(direction @ step.value.x, rel=1e-9, abs=scale)
        bend = there + back - 2 * model(np.zeros(n), k)
        assert bend == pytest.approx(direction @ step.value.xx @ direction, rel=1e-9, abs=scale)
    margin = min(
        np.abs(y[y != 0]).min(initial=np.inf),
        np.minimum(k - lower, upper - k)[(y == 0) & (lower < upper)].min(initial=np.inf),
    )
    h = 1e-3 * min(1.0, margin) / (1 + np.abs(Qux).max() * max(1.0, 1 / np.linalg.eigvalsh(H).min()))
    assume(h > 1e-6)
    for direction in h * np.eye(n):
        values = []
        for dx in (direction, 0 * direction, -direction):
            values.append(model(dx, minimize_in_box(H, g + Qux @ dx, lower, upper).k))
        slope, bend = (values[0] - values[2]) / (2 * h), (values[0] - 2 * values[1] + values[2]) / h**2
        rounding = 1e-14 * (1 + max(map(abs, values)))
        assert slope == pytest.approx(direction @ step.value.x / h, rel=1e-6, abs=1e-6 + rounding / h)
        assert bend == pytest.approx(
            direction @ step.value.xx @ direction / h**2, rel=1e-4, abs=1e-4 + 9 * rounding / h**2
        )


# --------------------------------------------------------------------------------------------------------- whole solves
def bounded(problem: Problem, lower: Any, upper: Any) -> Problem:
    stages = {id(s): Stage(s.dynamics, s.cost, lower, upper, s.constraints, s.name) for s in problem.stages}
    return problem.replace(stages=tuple(stages[id(s)] for s in problem.stages))


@pytest.mark.slow
@pytest.mark.parametrize(("case", "name"), runs("ddp", "ilqr", "fddp"), ids=str)
def test_bounds_that_nothing_touches_change_nothing(case: Case, name: str) -> None:
    """The same iterates to the last bit, and multipliers that are zero."""
    free, solver = case.problem(), replace(registry.make(name), engine="numpy")
    solution, reference = solver.solve(bounded(free, -1e9, 1e9)), solver.solve(free)
    for field in ("states", "controls", "feedforward", "feedback_gains", "value_gradients", "value_hessians"):
        for ours, theirs in zip(getattr(solution, field), getattr(reference, field), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert [i.cost for i in solution.history] == [i.cost for i in reference.history]
    assert all((y == 0).all() for y in solution.multipliers)
    assert reference.multipliers is None


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vm", "c"])
@pytest.mark.parametrize("name", ["pendulum", "varying-sizes", "quadrotor"])
def test_bounds_that_nothing_touches_change_nothing_in_other_engines(name: str, engine: str) -> None:
    free, solver = BY_NAME[name].problem(), DDP(engine=engine)
    solution, reference = solver.solve(bounded(free, -1e9, 1e9)), solver.solve(free)
    assert solution.iterations == reference.iterations
    assert solution.cost == pytest.approx(reference.cost, rel=1e-12)
    for ours, theirs in zip(solution.controls, reference.controls, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_convex_problem_ends_where_its_quadratic_program_does(engine: str) -> None:
    """A linear-quadratic problem with bounds is one quadratic program in all controls."""
    lqr, limit = LQR.random(4, 2, 20, seed=3), 0.1
    problem = bounded(lqr.problem(), -limit, limit)
    solution = DDP(engine=engine).solve(problem)
    assert solution.success
    flat = np.zeros(40)
    cost = lambda v: problem.rollout(v.reshape(20, 2))[1]  # noqa: E731
    constant, unit = cost(flat), np.eye(40)
    ahead, behind = (np.array([cost(sign * e) for e in unit]) for sign in (1, -1))
    g = (ahead - behind) / 2
    both = np.array([[cost(a + b) for b in unit] for a in unit])
    H = both - ahead[:, None] - ahead + constant
    minimum = minimize_in_box(H, g, np.full(40, -limit), np.full(40, limit))
    np.testing.assert_allclose(solution.controls.ravel(), minimum.k, atol=1e-6)
    y = np.concatenate(solution.multipliers[:-1])
    np.testing.assert_allclose(y, minimum.multipliers, atol=1e-5)
    assert 5 < (y != 0).sum() < 40


BOUNDED = {
    "pendulum": lambda: bounded(BY_NAME["pendulum"].problem(), -4.0, 4.0),
    "quadrotor": lambda: bounded(BY_NAME["quadrotor"].problem(), 2.0, 2.8),
    "one-sided": lambda: swing(control_bounds=(-np.inf, 0.5)),
    "fixed control": lambda: swing(control_bounds=(0.2, 0.2)),
    "residuals": lambda: bounded(BY_NAME["least-squares"].problem(), -0.3, 0.2),
    "sizes that change": lambda: bounded(BY_NAME["varying-sizes"].problem(), -0.05, 0.1),
    "stages with and without": lambda: _two_kinds(),
    "hand-written": lambda: bounded(BY_NAME["hand-written"].problem(), -0.2, 0.2),
}


def _two_kinds() -> Problem:
    free, limited = swing(), swing(control_bounds=(-0.5, 0.5))
    return free.replace(stages=(free.stages[0],) * 5 + (limited.stages[0],) * 10 + (free.stages[0],) * 5)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [DDP(), ILQR(), FDDP()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", BOUNDED)
def test_same_optimum_as_ipopt_and_a_kkt_point(name: str, solver: DDP) -> None:
    problem = BOUNDED[name]()
    if isinstance(solver, FDDP) and len(set(problem.state_sizes)) > 1:
        solver = FDDP(infeasible_start=False)
    solution, reference = solver.solve(problem), IPOPT().solve(problem)
    assert solution.success, str(solution)
    assert reference.success
    assert solution.cost <= reference.cost + 1e-6 * (1 + abs(reference.cost))
    assert_is_kkt_point(problem, solution, 1e-5)
    lower, upper = problem.control_bounds
    flat = np.concatenate(list(solution.controls))
    assert ((lower <= flat) & (flat <= upper)).all()
    held = np.concatenate(solution.multipliers) != 0
    assert held.any()
    limited = np.isfinite(lower) | np.isfinite(upper)
    gains = np.concatenate(list(solution.feedback_gains)) if len(set(problem.state_sizes)) == 1 else None
    if gains is not None:
        np.testing.assert_array_equal(gains[np.flatnonzero(limited)[held]], 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_guess_outside_the_bounds_is_moved_inside(engine: str) -> None:
    problem = swing(control_bounds=(-0.8, 0.5))
    far = DDP(engine=engine, max_iterations=0).solve(problem, controls=np.full((20, 1), 7.0))
    np.testing.assert_array_equal(far.controls, 0.5)
    assert DDP(engine=engine).solve(problem, far).cost == pytest.approx(IPOPT().solve(problem).cost, rel=1e-6)


@pytest.mark.slow
def test_another_curvature_respects_the_bounds() -> None:
    problem = swing(control_bounds=(-0.8, 0.5))
    solver = DDP(curvature=Identity(0.2), max_iterations=400)
    solution = solver.solve(problem)
    assert solution.cost == pytest.approx(DDP().solve(problem).cost, rel=1e-3)
    assert solution.controls.min() >= -0.8
    assert solution.controls.max() <= 0.5


def test_without_feedback_it_is_a_projected_newton_method() -> None:
    problem = swing(control_bounds=(-0.8, 0.5))
    solution = DDP(feedback=False).solve(problem)
    assert solution.success
    assert solution.cost == pytest.approx(DDP().solve(problem).cost, rel=1e-8)
    assert solution.feedback_gains is None


@pytest.mark.parametrize("engine", ENGINES)
def test_a_linear_hamiltonian_gives_full_force(engine: str) -> None:
    """Without a cost of the control the optimum is at a bound but for the stages where the force changes its sign."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]]),
        cost=lambda x, u: 0.1 * x[0] ** 2,
        terminal_cost=lambda x: 10 * x @ x,
        x0=[1.0, 0.0],
        horizon=30,
        control_size=1,
        control_bounds=(-1, 1),
    )
    solution, reference = DDP(engine=engine).solve(problem), IPOPT().solve(problem)
    assert solution.cost == pytest.approx(reference.cost, rel=1e-6)
    assert (np.abs(solution.controls) == 1).sum() > 15


def test_a_trial_point_that_is_not_a_number_shortens_the_step() -> None:
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: 0.01 * u[0] ** 2,
        terminal_cost=lambda x: x[0] - 0.05 * m.log(x[0]),
        x0=[3.0],
        horizon=5,
        control_size=1,
        control_bounds=(-2.0, 2.0),
    )
    for engine in ENGINES:
        solution = DDP(engine=engine).solve(problem)
        assert solution.success
        assert min(i.step_size for i in solution.history[1:]) < 1


def test_one_iteration_a_tick_keeps_a_receding_horizon_inside_the_bounds() -> None:
    problem = swing(control_bounds=(-0.8, 0.5))
    loop = simulate(MPC(problem, DDP(max_iterations=1)), 30, measurement_noise=0.01)
    assert loop.count(Health.HELD) == loop.count(Health.LOST) == 0
    assert loop.controls.min() == -0.8
    assert loop.controls.max() <= 0.5


def test_contradictory_bounds_are_named_with_their_values() -> None:
    with pytest.raises(ProblemError, match=r"control bounds.*entry 1.*2\.0 > -1\.0"):
        swing(control_bounds=([0.0, 2.0], [1.0, -1.0]), control_size=2)


@pytest.mark.slow
def test_random_problems_end_at_kkt_points() -> None:
    converged = Floor()

    @settings(max_examples=25, deadline=None)
    @given(problem=smooth_problems(max_horizon=12), limit=st.floats(0.05, 2.0))
    def check(problem: Problem, limit: float) -> None:
        problem = bounded(problem, -limit, limit)
        solution: Solution = DDP().solve(problem)
        assert solution.status in (Status.CONVERGED, Status.STALLED)
        if converged.when(solution.success):
            assert_is_kkt_point(problem, solution, 1e-4)

    check()
    converged.check(15)
