"""Batches: each problem is solved as `DDP` solves it alone, whatever stands beside it."""

from __future__ import annotations

from functools import cache
from typing import Any

import casadi as ca
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import BY_NAME
from test_box import programs
from test_engines import coasting, no_gradient

import ocpkit.math as m
from ocpkit import DDP, FDDP, ILQR, Constraint, Damping, Problem, ProblemError, Solution, Status, UnsupportedProblem
from ocpkit.autodiff.symbol import symbols, to_casadi
from ocpkit.engines.batch.box import minimize_in_boxes
from ocpkit.engines.batch.elementwise import elementwise
from ocpkit.errors import NotPositiveDefinite
from ocpkit.recursion.box import minimize_in_box
from ocpkit.recursion.curvature import Identity
from ocpkit.solvers.ddp.solve_batch import BatchSolution, solve_batch

Array = Any
FIELDS = ("states", "controls", "feedforward", "feedback_gains")


def swing(limit: float = np.inf, horizon: int = 8) -> Problem:
    """A pendulum with a coarse step whose Q_uu is indefinite far from the solution; p is the target."""

    def step(x: Array, u: Array) -> Array:
        return m.stack([x[0] + 0.2 * x[1], x[1] + 0.2 * (u[0] + 0.1 * u[1] - 4 * m.sin(x[0]))])

    return Problem.from_functions(
        dynamics=step,
        cost=lambda x, u: 0.05 * m.dot(u, u) + 0.02 * m.cos(2 * u[0] + x[1]),
        terminal_cost=lambda x, p: 5 * (1 - m.cos(x[0] - p[0])) + x[1] ** 2,
        x0=[0.5, 0.0],
        horizon=horizon,
        control_size=2,
        parameters=[np.pi],
        control_bounds=(-limit, limit),
    )


def assert_equal(batch: BatchSolution, number: int, alone: Solution, tolerance: float = 1e-10) -> None:
    """Problem `number` went the way of the single solve and ended where it did."""
    assert batch.status[number] is alone.status
    assert batch.iterations[number] == alone.iterations
    assert batch.cost[number] == pytest.approx(alone.cost, rel=tolerance, abs=tolerance)
    for name in FIELDS:
        ours, reference = getattr(batch, name), getattr(alone, name)
        assert (ours is None) == (reference is None), name
        if reference is not None:
            scale = max(1.0, float(np.abs(reference).max()))
            np.testing.assert_allclose(ours[number], reference, rtol=0, atol=tolerance * scale, err_msg=name)


OPTIONS = {
    "DDP": DDP(),
    "iLQR": ILQR(),
    "damped control": DDP(damping=Damping(initial=0.7)),
    "damped state": DDP(damping=Damping(initial=0.3, target="state"), max_iterations=5),
    "tikhonov": ILQR(tikhonov=0.2, max_iterations=5),
    "no feedback": DDP(feedback=False, damping=Damping(initial=0.1), max_iterations=5),
    "full steps": ILQR(line_search=None, max_iterations=5),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lqr-2-1-20", "lqr-6-6-10", "parameters", "reference", "hand-written", "least-squares"]
)
def test_one_problem_is_solved_as_the_numpy_engine_solves_it(name: str) -> None:
    problem = BY_NAME[name].problem()
    for options in ("DDP", "iLQR"):
        solver = OPTIONS[options]
        alone = type(solver)(engine="numpy", max_iterations=6).solve(problem)
        assert_equal(solve_batch(problem, solver=type(solver)(max_iterations=6)), 0, alone, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("limit", [np.inf, 1.5])
def test_problems_with_other_states_parameters_and_guesses(options: str, limit: float) -> None:
    problem, solver, rng = swing(limit), OPTIONS[options], np.random.default_rng(3)
    x0, p = rng.normal(size=(4, 2)), np.pi + 0.3 * rng.normal(size=(4, 1))
    controls = rng.normal(size=(4, 8, 2))
    batch = solve_batch(problem, x0=x0, parameters=p, controls=controls, solver=solver)
    for i in range(4):
        one = problem.replace(x0=x0[i], parameters=p[i], controls=tuple(controls[i]))
        arguments = {key: value for key, value in vars(solver).items() if key != "engine"}
        alone = type(solver)(**arguments, engine="numpy").solve(one)
        assert_equal(batch, i, alone, 1e-8)
        if limit < np.inf:
            assert np.abs(batch.controls[i]).max() <= limit
            assert batch.multipliers is not None
            assert alone.multipliers is not None
            np.testing.assert_allclose(batch.multipliers[i], alone.multipliers[:-1], atol=1e-7)


def poles() -> Problem:
    """Q_uu = 0 far out, log x undefined below zero: a start that is invalid, and others that go well."""
    return Problem.from_functions(
        dynamics=lambda x, u: 0.9 * x + 0.1 * u,
        cost=lambda x, u: 0.1 * u[0] ** 2 - 0.2 * m.log(x[0]),
        terminal_cost=lambda x: (x[0] - 2) ** 2,
        x0=[1.0],
        horizon=5,
        control_size=1,
    )


STARTS = np.array([[1.0], [-1.0], [2.5], [0.05], [40.0]])


@cache
def alone(start: int) -> BatchSolution:
    return solve_batch(poles(), x0=STARTS[[start]], solver=DDP())


@given(st.lists(st.integers(0, len(STARTS) - 1), min_size=1, max_size=9))
@settings(max_examples=15, deadline=None)
def test_a_result_does_not_depend_on_its_neighbors(chosen: list[int]) -> None:
    together = solve_batch(poles(), x0=STARTS[chosen], solver=DDP())
    for place, start in enumerate(chosen):
        single = alone(start)
        assert together.status[place] is single.status[0]
        assert together.iterations[place] == single.iterations[0]
        for name in ("cost", "states", "controls", "gradient_norm", "feedforward", "feedback_gains"):
            ours, reference = getattr(together, name)[place], getattr(single, name)[0]
            np.testing.assert_allclose(ours, reference, rtol=1e-11, atol=1e-11, err_msg=name)


def test_statuses_are_those_of_single_solves_and_a_bad_problem_spoils_no_other() -> None:
    batch = solve_batch(poles(), x0=STARTS, solver=DDP(max_iterations=3))
    for i, x0 in enumerate(STARTS):
        assert batch.status[i] is DDP(engine="numpy", max_iterations=3).solve(poles().replace(x0=x0)).status
    assert batch.status[1] is Status.INVALID_INPUT
    assert np.isnan(batch.cost[1])
    assert np.isnan(batch.feedforward[1]).all()
    assert {Status.CONVERGED, Status.ITERATION_LIMIT} <= set(batch.status)
    assert np.isfinite(batch.controls[batch.converged]).all()
    assert batch.best == int(np.where(batch.converged, batch.cost, np.inf).argmin())


def test_problems_without_a_minimum_or_without_derivatives_end_as_they_do_alone() -> None:
    """J falls without bound at p = −1; at p = 0 the norm in it has no derivative at the guess."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: 1e-3 * u[0] ** 2,
        terminal_cost=lambda x, p: p[0] * x[0] ** 4 + m.sqrt((x[0] - 1) ** 2 + (x[0] - 1) ** 4 + p[0] ** 2),
        x0=[1.0],
        horizon=3,
        control_size=1,
        parameters=[1.0],
    )
    expected = [Status.CONVERGED, Status.DIVERGED, Status.INVALID_INPUT]
    batch = solve_batch(problem, parameters=[[1.0], [-1.0], [0.0]], solver=DDP())
    for i, p in enumerate((1.0, -1.0, 0.0)):
        single = DDP(engine="numpy").solve(problem.replace(parameters=[p]))
        assert single.status is expected[i]
        assert batch.status[i] is single.status
        assert batch.iterations[i] == single.iterations
    narrow = solve_batch(problem, parameters=[[1.0], [-1.0]], solver=DDP(), dtype="float32")
    assert list(narrow.status) == [Status.CONVERGED, Status.DIVERGED]  # −1e20 is far in float32


def test_no_gradient_is_not_taken_for_none() -> None:
    with np.errstate(invalid="ignore"):
        batch = solve_batch(no_gradient(), solver=ILQR(max_iterations=3))
    assert not batch.converged.any()


def test_problems_without_controls_are_their_rollouts() -> None:
    problem = coasting((0, 0, 0))
    problem = problem.replace(stages=(problem.stages[0],) * 3)
    batch = solve_batch(problem, x0=[[1.0], [2.0]])
    assert batch.converged.all()
    for cost, x0 in zip(batch.cost, ([1.0], [2.0])):
        assert cost == pytest.approx(problem.replace(x0=x0).rollout()[1])


def test_limits_end_every_problem_that_still_runs() -> None:
    problem = swing()
    assert set(solve_batch(problem, solver=DDP(time_limit=1e-9)).status) == {Status.TIME_LIMIT}
    batch = solve_batch(problem, x0=np.ones((3, 2)), solver=DDP(max_iterations=0))
    assert set(batch.status) == {Status.ITERATION_LIMIT}
    assert (batch.iterations == 0).all()
    np.testing.assert_allclose(batch.cost, problem.replace(x0=[1.0, 1.0]).rollout()[1], rtol=1e-12)


def test_float32_ends_near_float64() -> None:
    problem, controls = swing(2.0), np.random.default_rng(0).normal(size=(6, 8, 2))
    narrow = solve_batch(problem, controls=controls, dtype="float32")
    wide = solve_batch(problem, controls=controls)
    assert narrow.states.dtype == np.float32
    assert narrow.converged.all()
    assert wide.converged.all()
    # a stationary J is flat: half of the digits in u, all of them in J
    np.testing.assert_allclose(narrow.cost, wide.cost, rtol=1e-4)
    assert np.abs(narrow.controls).max() <= 2.0


@given(programs())
@settings(deadline=None)
def test_boxes_are_those_of_the_single_search(program: tuple[Array, ...]) -> None:
    H, g, lower, upper = program
    other = np.eye(len(g)) - 2 * np.diag(np.arange(len(g)) == 0)  # not positive definite where its first entry is free
    arrays = [torch.tensor(np.stack(pair)) for pair in ((other, H), (g, g), (lower, lower), (upper, upper))]
    minimum, failed = minimize_in_boxes(*arrays, torch.zeros(2, len(g), dtype=torch.float64))
    alone = minimize_in_box(H, g, lower, upper)
    assert not failed[1]
    np.testing.assert_allclose(minimum.k[1], alone.k, atol=1e-9 * (1 + np.abs(alone.k).max()))
    np.testing.assert_allclose(minimum.multipliers[1], alone.multipliers, atol=1e-9 * (1 + np.abs(g).max()))
    Qux = np.arange(2.0 * len(g)).reshape(-1, 2)
    gains = minimum.solve(torch.tensor(np.stack([Qux, Qux])))[1]
    np.testing.assert_allclose(gains, alone.solve(Qux), rtol=1e-7, atol=1e-9 * np.abs(alone.solve(Qux)).max())
    try:
        minimize_in_box(other, g, lower, upper)
        assert not failed[0]
    except NotPositiveDefinite:
        assert failed[0]


UNARY = ("sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh", "exp", "abs", "sign")
POSITIVE = ("log", "sqrt", "arcsin", "arccos")
BINARY = ("arctan2", "minimum", "maximum", "less", "greater")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_functions_of_models_are_those_of_numpy(dtype: torch.dtype) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32).astype(float)
    x[0] = 0.25

    def model(z: Array) -> list[Array]:
        a, b = z
        return [
            *(getattr(m, name)(a) for name in UNARY),
            *(getattr(m, name)(m.abs(b)) for name in POSITIVE),
            *(getattr(m, name)(a, b) for name in BINARY),
            *(getattr(m, name)(0.25, b) for name in BINARY),
            *(m.where(m.less(a, b), *choice) for choice in ((a, b), (1.0, b), (a, 2.0), (1.0, 2.0))),
            *(a * b, a / b, a - b, -a, 2.0 - a, 1 / a, a**2, a**3, m.abs(a) ** 0.5, m.abs(a) ** b, 2.0**b, a + a),
        ]

    column, z = symbols("z", 2)
    function = elementwise([column], [to_casadi(m.stack(model(z))), ca.SX([1.0, 2.0]).T])
    values, constants = function(torch.tensor(x, dtype=dtype))
    assert values.dtype == constants.dtype == dtype
    assert constants.shape == (50, 1, 2)
    expected = np.stack([np.broadcast_to(np.asarray(value, dtype=float), 50) for value in model(x.T)], -1)
    tolerance = 1e-12 if dtype is torch.float64 else 1e-4
    np.testing.assert_allclose(values[..., 0].double(), expected, rtol=tolerance, atol=tolerance)


def test_what_torch_does_not_know_is_named() -> None:
    x = ca.SX.sym("x")
    with pytest.raises(UnsupportedProblem, match="erfinv"):
        elementwise([x], [ca.erfinv(x)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x0": np.ones(2)}, r"x0 has shape \(2,\), expected \(B, 2\)"),
        ({"controls": np.ones((3, 7, 2))}, r"controls has shape \(3, 7, 2\), expected \(B, 8, 2\)"),
        ({"parameters": np.ones((3, 2))}, r"parameters has shape \(3, 2\), expected \(B, 1\)"),
        ({"x0": np.ones((3, 2)), "parameters": np.ones((2, 1))}, "different numbers of problems"),
        ({"x0": np.array([[1.0, 1.0], [1.0, np.nan]])}, "x0 of problem 1 is not finite"),
        ({"x0": np.ones((0, 2))}, "holds no problem"),
        ({"dtype": "float16"}, "float16"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"solver": FDDP()}, "state guess"),
        ({"solver": DDP(curvature=Identity(0.1))}, "curvature"),
        ({"solver": "ddp"}, "got str"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ProblemError, UnsupportedProblem), match=message):
        solve_batch(swing(), **arguments)


def test_problems_that_batches_cannot_treat_are_refused() -> None:
    with pytest.raises(UnsupportedProblem, match="size changes"):
        solve_batch(BY_NAME["varying-sizes"].problem())
    with pytest.raises(UnsupportedProblem, match="black box"):
        solve_batch(BY_NAME["black-box"].problem())
    ball = Constraint(lambda x: x[0], -1.0, 1.0)
    with pytest.raises(UnsupportedProblem, match="terminal constraints"):
        solve_batch(swing().replace(terminal_constraints=(ball,)))
    with pytest.raises(ProblemError, match="expected a Problem"):
        solve_batch("cartpole")  # type: ignore[arg-type]


def test_parameters_may_change_along_the_horizon() -> None:
    problem = BY_NAME["reference"].problem()
    rows = np.stack([problem.parameters, problem.parameters[::-1]])
    batch = solve_batch(problem, parameters=rows)
    for i in range(2):
        assert_equal(batch, i, ILQR(engine="numpy").solve(problem.replace(parameters=rows[i])), 1e-9)
