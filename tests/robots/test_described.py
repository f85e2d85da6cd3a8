"""Tasks of robots from example-robot-data: they converge, and keep torques and distances."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest

from ocpkit import ILQR, AugmentedLagrangian, models
from ocpkit.autodiff.differences import central_jacobian

pytest.importorskip("adam", reason="adam-robotics is not installed: pip install 'ocpkit[robots]'")
try:
    version("example-robot-data")
except PackageNotFoundError:
    pytest.skip("example-robot-data is not installed: pip install 'ocpkit[robots]'", allow_module_level=True)

from ocpkit.robots import panda, quadruped, ur5


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


def test_the_ur5_reaches_behind_the_balls_and_touches_none():
    solution = AugmentedLagrangian(inner=ILQR(engine="numpy", max_iterations=100)).solve(ur5.build())
    through = ILQR(engine="numpy").solve(ur5.build(balls=()))
    assert solution.success
    assert through.success
    assert through.cost < solution.cost

    def nearest(states):
        """Least distance of an arm's point from a ball's surface [m]."""
        gaps = [
            np.linalg.norm(place - np.array(ball[:3])) - ball[3]
            for x in states
            for place in ur5.points(x)
            for ball in ur5.BALLS
        ]
        return min(gaps)

    assert nearest(through.states[:-1]) < 0 < 0.06 - 1e-6 < nearest(solution.states[:-1])
    np.testing.assert_allclose(ur5.robot().pose(ur5.TOOL, solution.states[-1])[0], ur5.GOAL, atol=2e-3)


def test_the_falling_quadruped_turns_its_feet_down():
    """From its side to upright, by torques alone, with the legs back where they were."""
    problem = quadruped.build()
    solution = ILQR(engine="numpy", max_iterations=45).solve(problem)
    end = solution.states[-1]
    assert abs(problem.x0[4]) > 0.7
    np.testing.assert_allclose(np.abs(end[3:7]), [1, 0, 0, 0], atol=0.01)
    np.testing.assert_allclose(end[7:19], quadruped.LEGS, atol=0.02)
    assert np.abs(solution.controls).max() <= quadruped.TORQUE
    up = quadruped.robot().pose("FL_FOOT", end)[0]
    assert up[2] < end[2] - 0.2


@pytest.mark.parametrize("name", ["panda", "ur5", "quadruped"])
def test_the_record_fits_the_problem(name):
    task = models.get(name)
    problem = task.build(horizon=3)
    assert task.name == problem.name == name
    assert (len(task.state_labels), len(task.control_labels)) == (problem.state_sizes[0], problem.control_sizes[0])


@pytest.mark.parametrize("task", [panda, ur5])
def test_without_its_friction_the_plant_is_the_model(task):
    """MuJoCo's ten (five) short steps differ from one long step by O(h)."""
    problem, plant = task.build(horizon=2), task.plant(1.0, 0.0)
    x, u, p = problem.x0, problem.controls[0], problem.parameters
    np.testing.assert_allclose(plant.step(x, u, p), problem.stages[0].dynamics.step(x, u, p), atol=1e-9)
    heavier = task.plant(1.2, 0.0).step(x, u, p)
    assert np.abs(heavier - x).max() > 1e-3
