"""Solutions: saved and loaded whole, printed, and followed by their policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from problems import BY_NAME, Case, declare

from ocpkit import (
    DDP,
    ProblemError,
    Solution,
)


@pytest.mark.parametrize("case", [BY_NAME["least-squares"], BY_NAME["varying-sizes"]], ids=str)
def test_solution_round_trip(case: Case, tmp_path: Path) -> None:
    solution = DDP().solve(case.problem())
    solution.save(tmp_path / "s.npz")
    loaded = Solution.load(tmp_path / "s.npz")
    assert list(tmp_path.iterdir()) == [tmp_path / "s.npz"]
    for name in ("problem_name", "solver", "cost", "status", "history", "seconds", "details"):
        assert getattr(loaded, name) == getattr(solution, name)
    for name in ("states", "controls", "feedforward", "feedback_gains", "value_gradients", "value_hessians"):
        ours, theirs = getattr(loaded, name), getattr(solution, name)
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            np.testing.assert_array_equal(a, b)
    assert str(loaded) == str(solution)


def test_policy_tracks_against_a_disturbance() -> None:
    """u = u_t + K_t (x − x_t) keeps the cost near the optimum where the open loop drifts away."""
    problem = BY_NAME["pendulum"].problem()
    solution = DDP().solve(problem)
    np.testing.assert_array_equal(solution.policy(3, solution.states[3]), solution.controls[3])
    disturbed = problem.replace(x0=np.array([0.05, 0.0]))
    states = [disturbed.x0]
    for t, stage in enumerate(problem.stages):
        states.append(stage.dynamics.step(states[t], solution.policy(t, states[t]), np.zeros(0)))
    closed = problem.cost(states, [solution.policy(t, x) for t, x in enumerate(states[:-1])])
    open_loop = disturbed.rollout(solution.controls)[1]
    best = DDP().solve(disturbed, solution).cost
    assert best <= closed
    assert closed - best < 0.2 * (open_loop - best)


def test_printing_tells_the_essentials() -> None:
    text = str(DDP().solve(BY_NAME["pendulum"].problem()))
    for piece in ("pendulum (horizon 60)", "DDP", "converged: the optimality", "20.44948", "iterations", "gap"):
        assert piece in text


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    solution = DDP().solve(declare())
    with pytest.raises(FileNotFoundError) as caught:
        solution.save(tmp_path / "missing" / "solution.npz")
    assert caught.value.filename == str(tmp_path / "missing" / "solution.npz")


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "solution.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ProblemError, match="is not a solution saved by ocpkit"):
        Solution.load(path)
