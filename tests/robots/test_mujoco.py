"""MuJoCo models as dynamics: their step, their Jacobians, contact tasks that succeed, and plants that differ."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocpkit import ILQR, Problem, ProblemError, Solution, Status, models, simulate
from ocpkit.autodiff.differences import central_jacobian
from ocpkit.control.plan_feedback import PlanFeedback
from ocpkit.errors import UnsupportedProblem

mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed: pip install 'ocpkit[robots]'")

from ocpkit.robots import finger, from_mujoco, hopper  # noqa: E402
from ocpkit.robots.film import film  # noqa: E402
from ocpkit.robots.mujoco import MujocoDynamics  # noqa: E402

Array = Any
NONE = np.zeros(0)
CAN_DRAW = any(find_library(name) for name in ("EGL", "OSMesa"))
TASKS = {"hopper": hopper, "finger": finger}
every_task = pytest.mark.parametrize("name", TASKS)


@cache
def solved(name: str) -> tuple[Problem, Solution]:
    problem = models.get(name).build()
    return problem, ILQR(engine="numpy", max_iterations={"hopper": 16, "finger": 45}[name]).solve(problem)


# ----------------------------------------------------------------------------------------------- the step
@every_task
def test_a_step_is_mujocos(name):
    dynamics, problem = TASKS[name].model(), models.get(name).build(horizon=2)
    data = mujoco.MjData(dynamics.model)
    nv = dynamics.model.nv
    data.qpos[:], data.qvel[:] = problem.x0[:nv], problem.x0[nv:]
    x, u = problem.x0, 0.3 * np.ones(dynamics.control_size)
    for _ in range(10):
        x = dynamics.step(x, u, NONE)
        data.ctrl[:] = u
        for _ in range(dynamics.steps):
            data.qacc_warmstart[:] = 0
            mujoco.mj_step(dynamics.model, data)
    np.testing.assert_array_equal(x, np.concatenate([data.qpos, data.qvel]))
    assert dynamics.time_step == pytest.approx(TASKS[name].TIME_STEP)


def test_a_step_depends_on_nothing_but_its_arguments():
    dynamics, problem = hopper.model(), hopper.build(horizon=3)
    x, u = problem.rollout()[0][2], problem.controls[2]
    before = dynamics.step(x, u, NONE)
    dynamics.step(x + 0.3, u - 0.5, NONE)
    dynamics.jacobians(x - 0.2, u, NONE)
    np.testing.assert_array_equal(dynamics.step(x, u, NONE), before)
    again = pickle.loads(pickle.dumps(dynamics))
    np.testing.assert_array_equal(again.step(x, u, NONE), before)


class Damped(MujocoDynamics):
    """Loses a share of its velocities at every step."""

    def step(self, x: Array, u: Array, p: Array) -> Array:
        following = super().step(x, u, p)
        return np.concatenate([following[: self.model.nv], 0.9 * following[self.model.nv :]])


@pytest.mark.slow
def test_a_step_of_ones_own_has_its_own_derivatives():
    f, (problem, _) = Damped(hopper.model().model), solved("hopper")
    x, u = problem.x0, problem.controls[0]
    z = np.concatenate([x, u])
    measured = central_jacobian(lambda z: f.step(z[: len(x)], z[len(x) :], NONE), z)
    np.testing.assert_allclose(np.hstack(f.jacobians(x, u, NONE)), measured, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finger", "hopper"])
def test_a_task_is_pickled_with_its_plant(name):
    task, (problem, _) = models.get(name), solved(name)
    again = pickle.loads(pickle.dumps(task))
    x, u = problem.x0, problem.controls[0]
    np.testing.assert_array_equal(again.plant(1.2, 1.0).step(x, u, NONE), task.plant(1.2, 1.0).step(x, u, NONE))
    assert pickle.loads(pickle.dumps(problem)).rollout()[1] == problem.rollout()[1]


def test_threads_may_step_one_model_at_once():
    """MuJoCo lets others run while it steps, and each has its own memory."""
    dynamics, problem = hopper.model(), hopper.build(horizon=20)

    def end(share: float) -> Array:
        x = problem.x0
        for u in problem.controls:
            x = dynamics.step(x, share * u, NONE)
        return x

    shares = np.linspace(0.8, 1.0, 8)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(end, shares))
    np.testing.assert_array_equal(found, list(map(end, shares)))


@pytest.mark.parametrize("wrong", ["x not a number", "x too large", "u not a number", "u too large", "too fast"])
def test_where_mujoco_would_begin_anew_there_is_no_state(wrong, tmp_path, monkeypatch):
    """It goes on from the model's own posture, or without controls, and says so in a log only."""
    monkeypatch.chdir(tmp_path)  # where the log is
    dynamics, x, u = hopper.model(), np.array([*hopper.SQUAT, *np.zeros(6)]), np.zeros(3)
    before = dynamics.step(x, u, NONE)
    bad_x, bad_u = x.copy(), u.copy()
    if wrong == "too fast":
        bad_x = 1e6 * np.cos(np.arange(12.0))
    else:
        (bad_x if wrong[0] == "x" else bad_u)[0] = np.nan if wrong.endswith("number") else 1e11
    assert np.isnan(dynamics.step(bad_x, bad_u, NONE)).all()
    assert all(np.isnan(jacobian).all() for jacobian in dynamics.jacobians(bad_x, bad_u, NONE))
    np.testing.assert_array_equal(dynamics.step(x, u, NONE), before)


def test_a_solver_says_why_it_does_not_compile():
    problem = models.get("finger").build(horizon=2)
    with pytest.raises(UnsupportedProblem, match="MuJoCo takes numbers, not symbols"):
        ILQR(engine="c").solve(problem)
    assert "MuJoCo takes numbers" in ILQR(max_iterations=1).solve(problem).details.why


def test_a_solver_says_that_a_start_is_none():
    problem = hopper.build(horizon=3)
    x0 = np.array(problem.x0)
    x0[7] = 1e12
    assert ILQR(engine="numpy").solve(problem.replace(x0=x0)).status is Status.INVALID_INPUT


@every_task
def test_jacobians_equal_differences_over_all_steps(name):
    dynamics, problem = TASKS[name].model(), models.get(name).build(horizon=20)
    x, n = problem.rollout()[0][15], dynamics.state_size
    z = np.concatenate([x, 0.2 * np.ones(dynamics.control_size)])
    jacobian = np.hstack(dynamics.jacobians(z[:n], z[n:], NONE))
    measured = central_jacobian(lambda z: dynamics.step(z[:n], z[n:], NONE), z)
    np.testing.assert_allclose(jacobian, measured, rtol=1e-3, atol=1e-4 * np.abs(measured).max())


# ----------------------------------------------------------------------------------------------- the tasks
def test_the_hopper_rises_and_stands():
    problem, solution = solved("hopper")
    assert solution.cost < 0.1 * problem.rollout()[1]
    height, posture = solution.states[:, 1], solution.states[-1, 1:6]
    assert height[0] < 0.65
    np.testing.assert_allclose(posture, hopper.STANDING[1:], atol=0.1)
    assert np.abs(solution.states[-1, 6:]).max() < 0.2
    assert np.ptp(height[40:]) < 0.05
    assert (np.abs(solution.controls) <= 1).all()
    data = hopper.model().place(solution.states[-1])
    assert data.ncon > 0


def test_the_finger_pushes_the_disc_to_its_goal():
    problem, solution = solved("finger")
    touching = [touches(x) for x in solution.states]
    assert not touching[0]
    assert any(touching)
    np.testing.assert_allclose(solution.states[-1, 2:4], finger.GOAL, atol=0.02)
    assert solution.cost < 0.1 * problem.rollout()[1]


def touches(x: Array) -> bool:
    return bool(finger.model().place(x).ncon)


def test_the_tip_is_where_mujoco_has_it():
    x = np.random.default_rng(0).normal(size=10)
    np.testing.assert_allclose(finger.tip(x), finger.model().place(x).geom("tip").xpos[:2], atol=1e-12)


@every_task
def test_the_record_fits_the_problem(name):
    task, problem = models.get(name), models.get(name).build(horizon=2)
    assert task.name == problem.name == name
    assert (len(task.state_labels), len(task.control_labels)) == (problem.state_sizes[0], problem.control_sizes[0])


# ----------------------------------------------------------------------------------------------- the plant
def test_a_changed_plant_is_heavier_and_the_model_stays():
    dynamics, heavy = hopper.model(), hopper.TASK.plant(1.5, 0.5)
    np.testing.assert_allclose(heavy.model.body_mass, 1.5 * dynamics.model.body_mass)
    np.testing.assert_allclose(heavy.model.geom_friction, 0.5 * dynamics.model.geom_friction)
    x, u = hopper.build(horizon=1).x0, np.array([0.1, 0.2, 0.0])
    assert np.abs(heavy.step(x, u, NONE) - dynamics.step(x, u, NONE)).max() > 1e-3
    same = hopper.TASK.plant(1.0, 1.0)
    np.testing.assert_array_equal(same.step(x, u, NONE), dynamics.step(x, u, NONE))


def test_the_plans_feedback_repeats_the_plan_on_the_model():
    problem, solution = solved("hopper")
    plant = hopper.TASK.plant(1.0, 1.0)
    loop = simulate(PlanFeedback(problem, solution), problem.horizon, plant=lambda x, u: plant.step(x, u, NONE))
    np.testing.assert_allclose(loop.states, solution.states, atol=1e-6)
    assert loop.cost(problem) == pytest.approx(solution.cost, rel=1e-6)


@pytest.mark.skipif(not CAN_DRAW, reason="MuJoCo has neither EGL nor OSMesa to draw with")
def test_a_film_is_a_gif(tmp_path):
    """In a process of its own, since MuJoCo chooses how to draw when it is imported."""
    code = """
import numpy as np
from ocpkit.robots import hopper
from ocpkit.robots.film import film
film(hopper.model(), np.zeros((3, 12)), "hopper.gif")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert (tmp_path / "hopper.gif").read_bytes()[:6] == b"GIF89a"


# ----------------------------------------------------------------------------------------------- wrong input
def test_what_is_wrong_is_named(tmp_path):
    ball = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='0.1'/></body></worldbody></mujoco>"
    )
    with pytest.raises(ProblemError, match="7 position coordinates for 6 degrees of freedom"):
        from_mujoco(ball)
    with pytest.raises(ProblemError, match=r"MuJoCo cannot read .*missing.xml"):
        from_mujoco(tmp_path / "missing.xml")
    with pytest.raises(ProblemError, match="steps must be a whole number of at least 1, got 0"):
        from_mujoco(Path(hopper.__file__).with_name("assets") / "hopper.xml", steps=0)
    with pytest.raises(ProblemError, match=r"a film ends in .gif"):
        film(hopper.model(), [], tmp_path / "film.mp4")
    _, solution = solved("finger")
    with pytest.raises(ProblemError, match="the plan has 75 stages, the problem 3"):
        PlanFeedback(finger.build(horizon=3), solution)
