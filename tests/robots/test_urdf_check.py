"""What a URDF says is right, or refused by the name of the link or joint that says it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocpkit.errors import ProblemError, UnsupportedProblem

pytest.importorskip("adam", reason="adam-robotics is not installed: pip install 'ocpkit[robots]'")
pytest.importorskip("numpy", "2", reason="adam-robotics needs NumPy 2: pip install 'ocpkit[robots]'")
mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed: pip install 'ocpkit[robots]'")

from ocpkit.robots import Robot, from_urdf  # noqa: E402

Array = Any
INERTIAL = """<inertial><origin xyz="0.3 0.1 0.2"/><mass value="2"/>
    <inertia ixx="0.1" iyy="0.2" izz="0.25" ixy="0" ixz="0" iyz="0"/></inertial>"""
LIMIT = '<limit lower="-2" upper="2" effort="9" velocity="5"/>'


def arm(
    axis: str = "0 1 0",
    kind: str = "revolute",
    inertial: str = INERTIAL,
    limit: str = LIMIT,
    elbow: str = "",
    more: str = "",
) -> str:
    """A shoulder and an elbow, whose joint and link are as they are told."""
    return f"""<robot name="r"><link name="base"/>
    <link name="upper">{INERTIAL}</link><link name="fore">{inertial}</link>
    <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="1 0 0"/>{LIMIT}</joint>
    <joint name="elbow" type="{kind}"><origin xyz="0.5 0 0"/><parent link="upper"/><child link="fore"/>
    <axis xyz="{axis}"/>{limit}{elbow}</joint>{more}</robot>"""


def read(text: str, **options: Any) -> Robot:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "robot.urdf"
        path.write_text(text)
        return from_urdf(path, **options)


def accelerations(text: str, q: Array, v: Array) -> tuple[Array, Array]:
    """By ocpkit and by MuJoCo, without torques."""
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    data.qpos[:], data.qvel[:] = q, v
    mujoco.mj_forward(model, data)
    return read(text).dynamics(0.01).acceleration(np.concatenate([q, v]), np.zeros(len(q))), data.qacc


@settings(max_examples=20, deadline=None)
@given(
    axis=st.tuples(*[st.integers(-3, 3)] * 3).filter(any),
    length=st.integers(-6, 6),
    kind=st.sampled_from(["revolute", "continuous", "prismatic"]),
    seed=st.integers(0, 100),
)
def test_an_axis_of_any_length_is_a_direction(axis: tuple[int, ...], length: int, kind: str, seed: int) -> None:
    q, v = np.random.default_rng(seed).normal(size=(2, 2))
    text = arm(" ".join(f"{10.0**length * entry:.17g}" for entry in axis), kind)
    np.testing.assert_allclose(*accelerations(text, q, v), rtol=1e-7, atol=1e-7)


def test_an_axis_of_length_root_two_turns_no_faster() -> None:
    ours, _ = accelerations(arm().replace('<axis xyz="1 0 0"/>', '<axis xyz="1 1 0"/>'), np.full(2, 0.3), np.zeros(2))
    np.testing.assert_allclose(ours, [15.6452, -2.7148], atol=1e-4)


def test_a_turn_without_limits_has_none() -> None:
    for kind in ("revolute", "continuous", "prismatic"):
        tree = read(arm(kind=kind, limit="")).tree
        assert (tree.lower[1], tree.upper[1], tree.effort[1], tree.speed[1]) == (-np.inf, *[np.inf] * 3)


def inertial(mass: str = "2", **moments: str) -> str:
    entries = {"ixx": "0.1", "ixy": "0", "ixz": "0", "iyy": "0.2", "iyz": "0", "izz": "0.25"} | moments
    return f'<inertial><mass value="{mass}"/><inertia {" ".join(f"{k}={v!r}" for k, v in entries.items())}/></inertial>'


LINK = f'<link name="fore">{INERTIAL}</link>'
WRIST = '<joint name="wrist" type="fixed"><parent link="{}"/><child link="{}"/></joint>'
UNSUPPORTED = {
    "elbow: mimic": arm(elbow='<mimic joint="shoulder" multiplier="2"/>'),
    "elbow: floating": arm(kind="floating"),
    "elbow: planar": arm(kind="planar"),
    "fore: loop": arm(more=WRIST.format("base", "fore")),
}
WRONG = {
    "elbow: axis of no length": arm("0 0 0"),
    "elbow: axis of two numbers": arm("0 1"),
    "elbow: axis of no number": arm("0 nan 0"),
    "elbow: axis of words": arm("x y z"),
    "elbow: unknown type": arm(kind="Revolute"),
    "elbow: limits crossed": arm(limit='<limit lower="2" upper="-2" effort="9" velocity="5"/>'),
    "elbow: negative effort": arm(limit='<limit lower="-2" upper="2" effort="-9" velocity="5"/>'),
    "elbow: limit of no number": arm(limit='<limit lower="nan" upper="2" effort="9" velocity="5"/>'),
    "elbow: two axes": arm(elbow='<axis xyz="1 0 0"/>'),
    "elbow: place of no number": arm().replace("0.5 0 0", "0.5 inf 0"),
    "elbow: place of two numbers": arm().replace("0.5 0 0", "0.5 0"),
    "elbow: quaternion": arm().replace('<origin xyz="0.5 0 0"/>', '<origin xyz="0 0 0" quat_xyzw="0 0 0 1"/>'),
    "elbow: unknown link": arm().replace('<child link="fore"/>', '<child link="four"/>'),
    "elbow: no child": arm().replace('<child link="fore"/>', ""),
    "fore: negative mass": arm(inertial=inertial("-2")),
    "fore: mass of no number": arm(inertial=inertial("nan")),
    "fore: no mass": arm(inertial=INERTIAL.replace('<mass value="2"/>', "")),
    "fore: negative inertia": arm(inertial=inertial(iyy="-0.2")),
    "fore: indefinite inertia": arm(inertial=inertial(ixy="0.3")),
    "fore: inertia incomplete": arm(inertial=INERTIAL.replace('ixy="0"', "")),
    "fore: two inertials": arm(inertial=2 * INERTIAL),
    "fore: two links": arm(more=LINK),
    "lost: no joint": arm(more='<link name="lost"/>'),
    "one: links in a circle": arm(
        more='<link name="one"/><link name="two"/>'
        + WRIST.format("one", "two")
        + WRIST.format("two", "one").replace("wrist", "again")
    ),
    "xacro: macro": arm()
    .replace("<robot ", '<robot xmlns:xacro="http://www.ros.org/wiki/xacro" ')
    .replace("</robot>", "<xacro:leg/></robot>"),
}


@pytest.mark.parametrize(("case", "text"), UNSUPPORTED.items(), ids=UNSUPPORTED)
def test_what_rigid_bodies_on_single_freedoms_cannot_do_is_refused_by_name(case: str, text: str) -> None:
    with pytest.raises(UnsupportedProblem, match=case.partition(":")[0]):
        read(text)


@pytest.mark.parametrize(("case", "text"), WRONG.items(), ids=WRONG)
def test_what_cannot_be_is_refused_by_name(case: str, text: str) -> None:
    with pytest.raises(ProblemError, match=case.partition(":")[0]):
        read(text)


@pytest.mark.parametrize(
    "inertia",
    ["", inertial("0", ixx="0", iyy="0", izz="0"), inertial(ixx="0", iyy="0", izz="0")],
    ids=["none", "zero", "a point on the axis"],
)
@pytest.mark.parametrize("free_base", [False, True])
def test_a_joint_that_moves_nothing_is_refused_by_name(inertia: str, free_base: bool) -> None:
    robot = read(arm(inertial=inertia), free_base=free_base)
    assert robot.pose("fore", robot.state([0.1, 0.2]))[0] == pytest.approx([0.5, 0, 0])  # places need no mass
    with pytest.raises(ProblemError, match="elbow"):
        robot.dynamics(0.01)


def test_what_is_held_may_be_what_cannot_move() -> None:
    for text in (arm(kind="floating"), arm(kind="planar"), arm(inertial="")):
        assert read(text, joints=["shoulder"]).dynamics(0.01).control_size == 1
    followed = arm(elbow='<mimic joint="shoulder"/>')
    with pytest.raises(UnsupportedProblem, match="elbow"):
        read(followed, joints=["shoulder"])  # the elbow would stand still though it follows
    assert read(followed, joints=[], free_base=True).dynamics(0.01).control_size == 0
