"""The Panda arm: derivatives, a converged reach within the torques, and the size of its graphs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest

from ocpkit import ILQR, models
from ocpkit.differences import central_jacobian

pytest.importorskip("adam", reason="adam-robotics is not installed: pip install 'ocpkit[robots]'")
try:
    version("example-robot-data")
except PackageNotFoundError:
    pytest.skip("example-robot-data is not installed: pip install 'ocpkit[robots]'", allow_module_level=True)

from ocpkit.robots import panda


def test_the_hand_reaches_its_goal_within_the_torques():
    problem = models.get("panda").build()
    solution = ILQR(engine="numpy").solve(problem)
    assert solution.success
    place, turn = panda.robot().pose(panda.HAND, solution.states[-1])
    np.testing.assert_allclose(place, panda.GOAL, atol=2e-3)
    np.testing.assert_allclose(turn, panda.DOWN, atol=3e-2)
    limits = 0.4 * panda.robot().tree.effort
    assert (np.abs(solution.controls) <= limits).all()
    assert (np.abs(solution.controls) > limits - 1e-9).any()
    assert np.abs(solution.states[-1, 7:]).max() < 0.05


def test_derivatives_equal_differences():
    f, rng, p = panda.robot().dynamics(0.01), np.random.default_rng(0), np.zeros(0)
    z = np.concatenate([np.array(panda.START) + 0.3 * rng.normal(size=7), rng.normal(size=7), 10 * rng.normal(size=7)])
    jacobian = np.hstack(f.jacobians(z[:14], z[14:], p))
    measured = central_jacobian(lambda z: f.step(z[:14], z[14:], p), z)
    np.testing.assert_allclose(jacobian, measured, rtol=1e-6, atol=1e-6)


def test_the_record_fits_the_problem():
    task = models.get("panda")
    problem = task.build(horizon=3)
    assert (len(task.state_labels), len(task.control_labels)) == (problem.state_sizes[0], problem.control_sizes[0])
