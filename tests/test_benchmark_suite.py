"""The published problems say the same in ocpkit's terms and as nonlinear programs."""

from __future__ import annotations

import casadi as ca
import numpy as np
import pytest

from benchmarks.suite import PROBLEMS, ContinuousProblem, Nlp, as_nlp, discretized, nlp_of
from benchmarks.suite.continuous import Rows
from ocpkit import InteriorPoint, Problem

INTERVALS = 4


def rows(nlp: Nlp, w: np.ndarray) -> np.ndarray:
    return ca.Function("g", [nlp.program["x"]], [nlp.program["g"]])(w).full()[:, 0]


def elsewhere(name: str) -> tuple[Problem, Nlp, np.ndarray]:
    """A problem with another guess of states and controls than its own, its program, and that guess there."""
    continuous, rng = PROBLEMS[name], np.random.default_rng(0)
    problem, nlp = discretized(continuous, INTERVALS), as_nlp(continuous, INTERVALS)
    n, m = continuous.states, continuous.controls
    x, u = continuous.guessed_states(INTERVALS), continuous.guessed_controls(INTERVALS)
    x[1:] += 0.01 * rng.normal(size=(INTERVALS, n))
    u += 0.01 * rng.normal(size=(INTERVALS, m))
    states = [np.concatenate([new, own[n:]]) for own, new in zip(problem.states, x)]
    controls = [np.concatenate([new, own[m:]]) for own, new in zip(problem.controls, u)]
    q = nlp.start[(n + m) * INTERVALS + n :]
    w = np.concatenate([np.column_stack([x[:-1], u]).ravel(), x[-1], q])
    return problem.replace(states=tuple(states), controls=tuple(controls)), nlp, w


@pytest.mark.parametrize("name", PROBLEMS)
def test_cost_and_defects_agree(name: str) -> None:
    problem, nlp, w = elsewhere(name)
    n = PROBLEMS[name].states
    assert problem.cost(problem.states, problem.controls) == pytest.approx(nlp.cost(w), rel=1e-12, abs=1e-14)
    following = [
        stage.dynamics.step(problem.states[t], problem.controls[t], problem.parameter(t))[:n]
        - problem.states[t + 1][:n]
        for t, stage in enumerate(problem.stages)
    ]
    np.testing.assert_allclose(rows(nlp, w)[: n * INTERVALS], np.concatenate(following), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_program_of_the_discretized_problem_has_the_same_cost(name: str) -> None:
    problem, nlp, w = elsewhere(name)
    of_problem = nlp_of(problem)
    assert of_problem.cost(of_problem.start) == pytest.approx(nlp.cost(w), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(("name", "intervals"), [("dqc", 20), ("min-time-di", 20), ("batch-temperature", 40)])
def test_program_reaches_the_published_optimum(name: str, intervals: int) -> None:
    nlp = as_nlp(PROBLEMS[name], intervals)
    answer = nlp.solver()(x0=nlp.start, **nlp.bounds)
    assert float(answer["f"]) == pytest.approx(PROBLEMS[name].optimum, rel=0.02)


def test_a_free_initial_state_is_found_by_both() -> None:
    """From anywhere below ½ to 1 in a second at least effort: start at ½."""
    problem = ContinuousProblem(
        name="free start",
        rates=lambda x, u, p, t: ([u[0]], 0.5 * u[0] ** 2, []),
        initial=[None],
        final=[1.0],
        boundary=Rows(lambda a, b, p, T: [a[0]], [-np.inf], [0.5]),
        optimum=0.125,
        source="closed form",
    )
    nlp = as_nlp(problem, 10)
    answer = nlp.solver()(x0=nlp.start, **nlp.bounds)
    solution = InteriorPoint().solve(discretized(problem, 10))
    assert float(answer["f"]) == pytest.approx(0.125, rel=1e-6)
    assert solution.success
    assert solution.cost == pytest.approx(0.125, rel=1e-6)


def test_parameters_are_chosen_by_both() -> None:
    """ẋ = p, |x(1) − 1|² + p²: p = ½."""
    problem = ContinuousProblem(
        name="a parameter",
        rates=lambda x, u, p, t: ([p[0] + 0.0 * t], u[0] ** 2, []),
        initial=[0.0],
        parameters=((-3.0, 3.0, 0.1),),
        terminal_cost=lambda x, p, T: (x[0] - 1) ** 2 + p[0] ** 2,
        time_dependent=True,
        optimum=0.5,
        source="closed form",
    )
    nlp = as_nlp(problem, 5)
    answer = nlp.solver()(x0=nlp.start, **nlp.bounds)
    solution = InteriorPoint().solve(discretized(problem, 5))
    assert float(answer["f"]) == pytest.approx(0.5)
    assert solution.cost == pytest.approx(0.5)
