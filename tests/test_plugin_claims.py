"""What a plugin calls converged is a trajectory of the problem, and DDP has nothing to gain from there.

The problems are those of `benchmarks.reliability`: J falls by many decades on the way, or the system is unstable, so
that units measured at the guess hide slopes and gaps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from floors import Floor
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.reliability.problems import draw
from ocpkit import DDP, IPOPT, Fatrop, Problem, Solution, Status
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.solvers.nlp import nlp

IPOPT_100 = IPOPT(max_iterations=100)
HUGE = (834, 2908, 3750, 4177, 12355)  # J falls from 1e153, 1e41, …; the plugin stops after an iteration
GAPS = (2227, 9383, 10405, 17460)  # relative to the states that the guess visits there are none
BARRIER = (1278, 2199, 2209, 3195)  # controls stay away from their bounds
SADDLES = (586, 2971, 3266)
FALSE = (*HUGE, *GAPS, *BARRIER, *SADDLES)
SURE = (2, 3, 8)  # which a hurried plugin solves, so that some claims are put to the test


def assert_holds(problem: Problem, solution: Solution) -> None:
    """The dynamics hold beside the largest state on the way; J is that of the trajectory, and falls no further."""
    engine = NumpyEngine(problem)
    found = engine.with_gaps(solution.states, solution.controls)
    assert found.gap <= 1e-6 * np.abs(np.concatenate(solution.states)).max()
    assert found.cost == solution.cost
    further = DDP(max_iterations=3, engine="numpy").solve(problem, controls=found.controls, states=found.states)
    assert found.cost - further.cost <= 1e-8 * found.magnitude


@pytest.mark.slow
def test_claims_that_were_false_are_half_of_them_true_now_and_no_other_is_made() -> None:
    solved = 0
    for seed in FALSE:
        problem = draw(seed).clean
        solution = IPOPT_100.solve(problem)
        assert np.isfinite(solution.cost)
        if solution.success:
            solved += 1
            assert_holds(problem, solution)
    assert solved >= 8


@pytest.mark.parametrize("seed", HUGE[:3])
def test_a_plugin_that_cannot_be_stopped_is_not_called_again_from_far_away(seed: int) -> None:
    problem = draw(seed).clean
    solution = Fatrop(max_iterations=100).solve(problem)
    assert not solution.success
    assert solution.details.reason is not None


def test_random_claims() -> None:
    converged = Floor()

    @given(seed=st.integers(0, 10**6))
    @example(seed=12635)
    @example(seed=SURE[0])
    @example(seed=SURE[1])
    @example(seed=SURE[2])
    @settings(max_examples=10, deadline=None)
    def check(seed: int) -> None:
        problem = draw(seed).clean
        solution = IPOPT_100.solve(problem)
        if converged.when(solution.success):
            assert_holds(problem, solution)

    check()
    converged.check(3)


@pytest.mark.parametrize("seed", BARRIER)
def test_a_bounded_problem_is_finished_exactly(seed: int) -> None:
    """The answer states its co-states and multipliers: Q_u + y = 0, y of the sign of its bound."""
    problem = draw(seed).clean
    solution = IPOPT().solve(problem)
    assert solution.status is Status.CONVERGED
    assert solution.value_gradients is not None
    assert solution.multipliers is not None
    for t, (x, u, y) in enumerate(zip(solution.states, solution.controls, solution.multipliers)):
        stage, p = problem.stages[t], problem.parameter(t)
        costate, unit = solution.value_gradients[t + 1], problem.parameters[-2]  # of the controls
        lu = stage.cost.gradient(x, u, p)[1]
        fu = stage.dynamics.jacobians(x, u, p)[1]
        slope = (lu + fu.T @ costate + y) * unit
        np.testing.assert_allclose(slope, 0, atol=1e-4 * (abs(solution.cost) + np.abs(y * unit).max()))
        lower, upper = np.asarray(stage.control_lower), np.asarray(stage.control_upper)
        assert (u[y > 0] >= upper[y > 0] - 1e-6 * unit).all()
        assert (u[y < 0] <= lower[y < 0] + 1e-6 * unit).all()
    assert solution.history[-1].cost == solution.cost


def test_the_iteration_limit_binds_the_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that needs all its iterations leaves none to DDP, which then only looks."""
    problem, seen = draw(1278).clean, list[int]()
    original = nlp.finish

    def noted(problem: Problem, nominal: Any, most: int, seconds: float) -> Any:
        seen.append(most)
        return original(problem, nominal, most, seconds)

    monkeypatch.setattr(nlp, "finish", noted)
    whole = IPOPT().solve(problem)
    assert whole.success
    assert seen[-1] > 0
    solution = replace(IPOPT(), max_iterations=whole.iterations - 1).solve(problem)
    assert seen[-1] <= 0
    assert not solution.success
    assert solution.iterations == whole.iterations - 1
