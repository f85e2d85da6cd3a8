"""Robots from URDF files: mechanics beside MuJoCo's and adam's, energy, derivatives, and errors."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ocpkit.math as m
from ocpkit import (
    DDP,
    ILQR,
    FunctionCost,
    FunctionTerminalCost,
    Problem,
    ProblemError,
    Stage,
    check_derivatives,
    models,
    simulate,
)
from ocpkit.autodiff.differences import central_jacobian
from ocpkit.control.plan_feedback import PlanFeedback
from ocpkit.problem.stage import Dynamics

pytest.importorskip("adam", reason="adam-robotics is not installed: pip install 'ocpkit[robots]'")
pytest.importorskip("numpy", "2", reason="adam-robotics needs NumPy 2: pip install 'ocpkit[robots]'")
mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed: pip install 'ocpkit[robots]'")

from ocpkit.robots import Robot, from_urdf  # noqa: E402
from ocpkit.robots.dynamics import RobotDynamics  # noqa: E402
from ocpkit.robots.plant import simulated  # noqa: E402

Array = Any
ARM = Path(__file__).with_name("arm.urdf")
bases = pytest.mark.parametrize("free_base", [False, True], ids=["fixed", "free"])


@cache
def arm(free_base: bool = False) -> Robot:
    return from_urdf(ARM, free_base=free_base)


@cache
def step(free_base: bool, time_step: float = 0.01) -> Dynamics:
    return arm(free_base).dynamics(time_step)


def point(free_base: bool, seed: int) -> tuple[Array, Array]:
    """A random state with a unit quaternion, and torques."""
    rng, f = np.random.default_rng(seed), step(free_base)
    x, u = rng.normal(size=f.state_size), rng.normal(size=f.control_size)
    if free_base:
        x[3:7] /= np.linalg.norm(x[3:7])
    return x, u


# ------------------------------------------------------------------------------------------------ beside MuJoCo
@cache
def in_mujoco(free_base: bool) -> tuple[Any, Any]:
    text, floating = ARM.read_text(), '<parent link="world"/><child link="ground"/>'
    if free_base:
        base = f'<link name="world"/><joint name="base" type="floating">{floating}</joint>'
        text = text.replace('<robot name="arm">', f'<robot name="arm">{base}')
    model = mujoco.MjModel.from_xml_string(text)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    return model, mujoco.MjData(model)


@bases
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_accelerations_are_mujocos(free_base, seed):
    """MuJoCo's free joint has the world's linear and the body's angular velocity."""
    x, u = point(free_base, seed)
    model, data = in_mujoco(free_base)
    names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, i) for i in range(model.njnt)][free_base:]
    assert names == list(arm().tree.joints)
    q, v = x[: 4 + 7 * free_base], x[4 + 7 * free_base :].copy()
    data.qpos[:], data.qvel[:] = q, v
    turn = np.zeros(9)
    if free_base:
        mujoco.mju_quat2Mat(turn, q[3:7])
        turn = turn.reshape(3, 3)
        data.qvel[:3] = turn @ v[:3]
    data.qfrc_applied[-4:] = u
    mujoco.mj_forward(model, data)
    theirs = data.qacc.copy()
    if free_base:  # d/dt (R v) = R (v̇ + ω × v)
        theirs[:3] = turn.T @ theirs[:3] - np.cross(v[3:6], v[:3])
    np.testing.assert_allclose(step(free_base).acceleration(x, u), theirs, rtol=1e-7, atol=1e-7)


def test_links_are_where_mujoco_has_them():
    x, _ = point(False, 3)
    model, data = in_mujoco(False)
    data.qpos[:] = x[:4]
    mujoco.mj_kinematics(model, data)
    for link in ("column", "upper", "forearm", "wing"):
        place, turn = arm().pose(link, x)
        body = data.body(link)
        np.testing.assert_allclose(place, body.xpos, atol=1e-9)
        np.testing.assert_allclose(turn, body.xmat.reshape(3, 3), atol=1e-9)


# ----------------------------------------------------------------------------------------------- beside adam
def test_accelerations_are_those_of_adams_articulated_bodies(tmp_path):
    """Of the joints that turn: adam 0.5 has no motion subspace for those that slide."""
    computations = pytest.importorskip("adam.numpy").KinDynComputations
    still = ARM.read_text().replace('type="prismatic"', 'type="fixed"').replace('type="continuous"', 'type="revolute"')
    path = tmp_path / "turning.urdf"
    path.write_text(still)
    robot, theirs = from_urdf(path, free_base=True), computations(still, ["turn", "lift", "flap"])
    theirs.g = np.array([0, 0, -9.81, 0, 0, 0])
    from adam import Representations

    theirs.set_frame_velocity_representation(Representations.BODY_FIXED_REPRESENTATION)
    rng = np.random.default_rng(5)
    q, v, u = rng.normal(size=3), rng.normal(size=9), rng.normal(size=3)
    x = np.concatenate([robot.state(q)[:10], v])
    wanted = theirs.aba(np.eye(4), q, v[:6], v[6:], u)
    np.testing.assert_allclose(robot.dynamics(0.01).acceleration(x, u), np.ravel(wanted), rtol=1e-7, atol=1e-7)


# ----------------------------------------------------------------------------------------------- mechanics
@bases
@pytest.mark.parametrize("seed", [0, 1])
def test_the_mass_matrix_is_spd_and_gives_the_kinetic_energy(free_base, seed):
    x, _ = point(free_base, seed)
    f, robot = step(free_base), arm(free_base)
    M = np.array(f.mass_matrix(x))
    np.testing.assert_allclose(M, M.T, atol=1e-14)
    assert np.linalg.eigvalsh(M)[0] > 0
    v = x[f.position_size :]
    at_rest = np.concatenate([x[: f.position_size], 0 * v])
    assert robot.energy(x) - robot.energy(at_rest) == pytest.approx(0.5 * v @ M @ v, rel=1e-12)


@bases
def test_accelerations_solve_newtons_equations(free_base):
    x, u = point(free_base, 4)
    f = step(free_base)
    applied = np.concatenate([np.zeros(6 * free_base), u])
    wanted = np.linalg.solve(f.mass_matrix(x), applied - f.bias(x))
    np.testing.assert_allclose(f.acceleration(x, u), wanted, rtol=1e-9, atol=1e-9)


@bases
def test_energy_changes_by_the_work_of_the_torques(free_base):
    """Of first order in the step: half the step, half the error."""
    robot, (x0, u) = arm(free_base), point(free_base, 6)
    errors = []
    for steps in (400, 800):
        f, x, work = step(free_base, 0.2 / steps), x0, 0.0
        for _ in range(steps):
            following = f.step(x, u, np.zeros(0))
            work += 0.2 / steps * u @ (x[-4:] + following[-4:]) / 2
            x = following
        errors.append(robot.energy(x) - robot.energy(x0) - work)
    assert abs(errors[1]) < 1e-2 * abs(robot.energy(x0))
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)
    if free_base:
        assert np.linalg.norm(x[3:7]) == pytest.approx(1.0, abs=1e-12)


def test_nothing_inside_changes_the_angular_momentum():
    """About the center of mass, of a free base; of first order in the step: half the step, half the error."""
    rng, robot = np.random.default_rng(11), arm(True)
    u, x0 = rng.normal(size=4), robot.state([0.2, -0.3, 0.1, 0.4], quaternion=[0.8, 0, 0.6, 0])

    def momentum(steps: int) -> tuple[float, float]:
        f, x = step(True, 0.3 / steps), x0
        for _ in range(steps):
            x = f.step(x, u, np.zeros(0))
        M = f.mass_matrix(x)
        linear, angular = np.split(M[:6] @ x[11:], 2)
        center = np.array([M[5, 1], M[3, 2], M[4, 0]]) / M[0, 0]
        return float(np.linalg.norm(angular - np.cross(center, linear))), float(np.abs(M[3:6, 6:] * x[17:]).sum())

    (coarse, scale), (fine, _) = momentum(150), momentum(300)
    assert coarse < 0.02 * scale
    assert fine == pytest.approx(coarse / 2, rel=0.1)


def test_holding_torques_hold():
    x = arm().state([0.3, -0.4, 0.1, 0.8])
    np.testing.assert_allclose(step(False).step(x, arm().holding(x[:4]), np.zeros(0)), x, atol=1e-12)


# ----------------------------------------------------------------------------------------------- derivatives
@bases
def test_derivatives_equal_differences(free_base):
    x, u = point(free_base, 7)
    f, p, n = step(free_base), np.zeros(0), len(x)
    w = np.random.default_rng(8).normal(size=n)

    def jacobian(z: Array) -> Array:
        return np.hstack(f.jacobians(z[:n], z[n:], p))

    z = np.concatenate([x, u])
    xx, ux, uu = f.hessian_product(x, u, p, w)
    for declared, measured in (
        (jacobian(z), central_jacobian(lambda z: f.step(z[:n], z[n:], p), z)),
        (np.block([[xx, ux.T], [ux, uu]]), central_jacobian(lambda z: w @ jacobian(z), z)),
    ):
        np.testing.assert_allclose(declared, measured, rtol=1e-6, atol=1e-6 * np.abs(measured).max())


# ----------------------------------------------------------------------------------------------- problems
def reach(horizon: int = 20) -> Problem:
    robot, goal = arm(), np.array([0.4, 0.3, 0.7])
    start = [0.0, 0.3, 0.1, 0.0]
    return Problem.from_functions(
        dynamics=robot.dynamics(0.02),
        cost=lambda x, u: 1e-4 * (u @ u + x[4:] @ x[4:]),
        terminal_cost=lambda x, p: (
            50 * ((robot.pose("tool", x)[0] - p) @ (robot.pose("tool", x)[0] - p)) + 0.1 * x[4:] @ x[4:]
        ),
        x0=robot.state(start),
        horizon=horizon,
        parameters=goal,
        controls=robot.holding(start),
        control_bounds=(-0.25 * robot.tree.effort, 0.25 * robot.tree.effort),
    )


@pytest.mark.slow
def test_a_reach_converges_alike_in_every_engine_within_the_torques():
    problem = reach()
    assert check_derivatives(problem).ok
    solutions = [ILQR(engine=engine).solve(problem) for engine in ("numpy", "vm", "c")]
    for solution in solutions:
        assert solution.success
        assert solution.cost == pytest.approx(solutions[0].cost, rel=1e-9)
        assert (np.abs(solution.controls) <= 0.25 * arm().tree.effort).all()
    place, _ = arm().pose("tool", solutions[0].states[-1])
    assert np.linalg.norm(place - problem.parameters) < 0.02
    assert (np.abs(solutions[0].controls) == 0.25 * arm().tree.effort).any()


def test_large_jacobians_are_not_compiled_unasked(monkeypatch, tmp_path, builds_beside):
    monkeypatch.setenv("OCPKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("ocpkit.solvers.choose.LARGEST_TO_COMPILE", 1000)
    robot = from_urdf(ARM, ["turn", "lift"])
    problem = Problem.from_functions(
        dynamics=robot.dynamics(0.0123),
        cost=lambda x, u: 1e-3 * u @ u,
        terminal_cost=lambda x: x @ x,
        x0=robot.state([0.5, 0.3]),
        horizon=5,
    )
    size = robot.dynamics(0.0123).operations["Jacobian"]
    assert ("takes long to compile" in ILQR().solve(problem).details.why) == (size > 1000)
    monkeypatch.setattr("ocpkit.solvers.choose.LARGEST_TO_COMPILE", 10)
    assert "takes long to compile; engine='c' does it" in ILQR().solve(problem).details.why


def test_ddp_leaves_the_curvature_of_the_dynamics_out():
    """With a quadratic cost nothing is left that iLQR lacks, but where the dynamics count as curved."""
    robot = arm()

    def problem(f: Dynamics) -> Problem:
        return Problem.from_functions(
            dynamics=f,
            cost=lambda x, u: 1e-3 * u @ u,
            terminal_cost=lambda x: (x - 0.2) @ (x - 0.2),
            x0=robot.state([0.0, 0.3, 0.1, 0.0]),
            horizon=15,
        )

    flat, curved = robot.dynamics(0.02), robot.dynamics(0.02)
    curved.curved = True
    paths = {}
    for name, solver, f in (("ddp", DDP, flat), ("ilqr", ILQR, flat), ("exact", DDP, curved)):
        for engine in ("numpy", "vm"):
            solution = solver(engine=engine, max_iterations=3).solve(problem(f))
            paths[name, engine] = np.array([row.cost for row in solution.history])
    np.testing.assert_allclose(paths["ddp", "numpy"], paths["ilqr", "numpy"], rtol=1e-9)
    np.testing.assert_allclose(paths["ddp", "vm"], paths["ilqr", "numpy"], rtol=1e-9)
    np.testing.assert_allclose(paths["exact", "vm"], paths["exact", "numpy"], rtol=1e-9)
    assert abs(paths["exact", "vm"][1:] - paths["ddp", "vm"][1:]).max() > 1e-6


# ----------------------------------------------------------------------------------------------- the plant
def test_a_plant_in_mujoco_is_the_model_step_by_step():
    f, plant, rng = arm().dynamics(0.002), simulated(ARM, time_step=0.002), np.random.default_rng(9)
    x, u = rng.normal(size=8), 5 * rng.normal(size=4)
    np.testing.assert_allclose(plant.step(x, u, np.zeros(0)), f.step(x, u, np.zeros(0)), atol=1e-10)
    for theirs, ours in zip(plant.jacobians(x, u, np.zeros(0)), f.jacobians(x, u, np.zeros(0))):
        np.testing.assert_allclose(theirs, ours, atol=1e-7)


def test_the_links_of_a_plant_can_be_seen_and_touch_nothing():
    plant = simulated(ARM, time_step=0.002)
    assert plant.model.ngeom > len(arm().tree.joints)
    rng = np.random.default_rng(10)
    assert all(plant.place(rng.normal(size=8)).ncon == 0 for _ in range(20))


def test_feedback_bears_a_mismatch_that_the_controls_alone_do_not():
    problem = reach()
    solution = ILQR(engine="numpy").solve(problem)
    plant, p = simulated(ARM, time_step=0.02, steps=10, damping=0.5).changed(mass=1.1), np.zeros(0)
    loop = simulate(PlanFeedback(problem, solution), problem.horizon, plant=lambda x, u: plant.step(x, u, p))
    x = problem.x0
    for u in solution.controls:
        x = plant.step(x, u, p)
    missed = [np.linalg.norm(arm().pose("tool", end)[0] - problem.parameters) for end in (loop.states[-1], x)]
    assert missed[0] < 0.5 * missed[1]
    assert problem.cost(loop.states, loop.controls) == pytest.approx(loop.cost(problem), rel=1e-12)


# ----------------------------------------------------------------------------------------------- wrong input
def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(ProblemError, match=r"did you mean 'slide'"):
        from_urdf(ARM, ["slid"])
    with pytest.raises(ProblemError, match=r"missing.urdf cannot be read as a URDF"):
        from_urdf(tmp_path / "missing.urdf")
    other = tmp_path / "other.xml"
    other.write_text("<mujoco/>")
    with pytest.raises(ProblemError, match="<mujoco>, expected <robot>"):
        from_urdf(other)
    with pytest.raises(ProblemError, match="unknown link of arm 'tol'; did you mean 'tool'"):
        arm().pose("tol", np.zeros(8))
    with pytest.raises(ProblemError, match=r"positions has shape \(3,\), expected \(4,\)"):
        arm().state([0, 0, 0])
    with pytest.raises(ProblemError, match=r"positions has shape \(3,\), expected \(4,\)"):
        arm().holding([0, 0, 0])
    with pytest.raises(ProblemError, match="time_step must be a positive number"):
        arm().dynamics(0.0)
    free = from_urdf(ARM, free_base=True)
    with pytest.raises(ProblemError, match=r"place has shape \(2,\), expected \(3,\)"):
        free.state(np.zeros(4), place=(0, 0))
    with pytest.raises(ProblemError, match=r"quaternion of length 1, got .* of 2"):
        free.state(np.zeros(4), quaternion=(2, 0, 0, 0))
    other.write_text(PENDULUM.replace('<mass value="2"/>', ""))
    with pytest.raises(ProblemError, match=r"other.xml cannot be read as a URDF"):
        from_urdf(other)


PENDULUM = """<robot name="pendulum"><link name="base"/>
<link name="rod"><inertial><origin xyz="0 0 -1"/><mass value="2"/>
<inertia ixx="0.1" iyy="0.1" izz="0.1" ixy="0" ixz="0" iyz="0"/></inertial></link>
<joint name="hinge" type="continuous"><parent link="base"/><child link="rod"/></joint></robot>"""


def test_what_a_urdf_may_leave_out_has_its_defaults(tmp_path):
    """The joint's place and axis, the turn of the inertia, the limits: a pendulum about the x axis."""
    path = tmp_path / "pendulum.urdf"
    path.write_text(PENDULUM)
    robot = from_urdf(path)
    assert not np.isfinite([robot.tree.lower, robot.tree.upper, robot.tree.effort, robot.tree.speed]).any()
    np.testing.assert_allclose(robot.dynamics(0.1).mass_matrix([0.4, 0.0]), [[0.1 + 2.0]])
    np.testing.assert_allclose(robot.holding([0.4]), [2.0 * 9.81 * np.sin(0.4)], rtol=1e-12)


def test_joints_left_out_stand_still():
    robot = from_urdf(ARM, ["lift", "flap"])
    assert robot.tree.joints == ("lift", "flap")
    x, y = robot.state([0.4, -0.2]), arm().state([0.0, 0.4, 0.0, -0.2])
    np.testing.assert_allclose(robot.pose("tool", x)[0], arm().pose("tool", y)[0], atol=1e-12)
    assert robot.energy(x) == pytest.approx(arm().energy(y), rel=1e-12)


@pytest.mark.parametrize("package", ["adam", "mujoco"])
def test_without_the_extra_the_error_names_it(package):
    code = f"""
import sys
sys.modules[{package!r}] = None
from ocpkit import ProblemError, robots
try:
    robots.from_urdf("x.urdf") if {package!r} == "adam" else robots.from_mujoco("x.xml")
except ProblemError as error:
    assert "{package}" in str(error) and "ocpkit[robots]" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------------------------------- the tasks
def test_robots_are_found_by_name():
    assert not {*models.robots()} & {*models.names()}
    for name in models.robots():
        assert models.get(name).name == name


class WithFriction(RobotDynamics):
    """Viscous friction on every joint, on top of the robot's step."""

    def step(self, x: Array, u: Array, p: Array) -> Array:
        n = self.control_size
        return super().step(x, u - 0.2 * x[-n:], p)


@pytest.mark.slow
@bases
def test_a_step_of_ones_own_has_its_own_derivatives(free_base):
    f = WithFriction(step(free_base).tree, 0.01, free_base=free_base)
    x, u = point(free_base, 3)
    z = np.concatenate([x, u])
    measured = central_jacobian(lambda z: f.step(z[: len(x)], z[len(x) :], np.zeros(0)), z)
    np.testing.assert_allclose(np.hstack(f.jacobians(x, u, np.zeros(0))), measured, atol=1e-7)
    problem = Problem(
        (Stage(f, FunctionCost(lambda x, u: m.dot(u, u), f.state_size, f.control_size)),) * 5,
        FunctionTerminalCost(lambda x: m.dot(x, x), f.state_size),
        x0=x,
    )
    numpy, vm = (ILQR(max_iterations=5, engine=engine).solve(problem) for engine in ("numpy", "vm"))
    np.testing.assert_allclose(vm.controls, numpy.controls, rtol=1e-7, atol=1e-9)


@bases
def test_dynamics_are_pickled_after_use(free_base):
    f, (x, u) = step(free_base), point(free_base, 5)
    right = f.step(x, u, np.zeros(0)), f.jacobians(x, u, np.zeros(0))
    for again in (pickle.loads(pickle.dumps(f)), copy.deepcopy(f)):
        np.testing.assert_array_equal(again.step(x, u, np.zeros(0)), right[0])
        np.testing.assert_array_equal(again.jacobians(x, u, np.zeros(0))[0], right[1][0])
        again.hessian_product(x, u, np.zeros(0), x)
    assert len(pickle.loads(pickle.dumps(arm(free_base))).tree.joints) == f.control_size
