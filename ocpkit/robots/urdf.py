"""A URDF as a tree of rigid bodies: adam reads links and joints; what cannot move is joined to what carries it."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.errors import ProblemError, unknown_name
from ocpkit.robots.extra import needs_extra
from ocpkit.robots.rigid_body import Body
from ocpkit.robots.urdf_check import MOVING, axis_of, check_robot

ROUND = 1e-9
"""Entries of rotations nearer to 0 and ±1 (π/2 with eleven digits) are meant to be exact, and cost no arithmetic."""


@dataclass(frozen=True)
class Frame:
    """Pose of a link: the body it belongs to, and its rotation (3, 3) and place (3,) [m] there."""

    body: int
    rotation: Array
    place: Array


@dataclass(frozen=True)
class Tree:
    """Content of a URDF.

    Attributes
    ----------
    name
        Of the robot.
    bodies
        The base, then one for each joint.
    joints
        Names of the n joints that move; a branch is listed to its end before the next one.
    frames
        By name of the link.
    lower, upper, effort, speed
        Limits of the joints (n,): positions [rad or m], torques [N m or N], velocities [rad/s or m/s]; may be infinite.
    """

    name: str
    bodies: tuple[Body, ...]
    joints: tuple[str, ...]
    frames: dict[str, Frame]
    lower: Array
    upper: Array
    effort: Array
    speed: Array


def read_urdf(path: str | os.PathLike[str], joints: Sequence[str] | None = None) -> Tree:
    """Read a URDF.

    Parameters
    ----------
    path
        The file.
    joints
        Names of the joints that move, all others being held at zero; by default all that can.

    Raises
    ------
    ProblemError
        If the file is missing or no URDF or says what cannot be (see `urdf_check`), if a joint does not exist or
        cannot move, or without adam-robotics.
    """
    with needs_extra():
        from adam.model import Model
        from adam.model.std_factories.std_model import URDFModelFactory
        from adam.numpy.numpy_like import SpatialMath
    text, moving = essentials(path, joints)
    math = SpatialMath()
    try:
        model = Model.build(URDFModelFactory(text, math), moving)
    except Exception as error:  # whatever a robot that lacks something makes its readers raise
        raise ProblemError(f"{path} cannot be read as a URDF: {error}") from error
    frames, order, placed = dict[str, Frame](), list[Any](), [Frame(-1, np.eye(3), np.zeros(3))]

    def visit(link: str, frame: Frame) -> None:
        frames[link] = frame
        for joint in (joint for joint in model.joints.values() if joint.parent == link):
            pose = np.array(joint.homogeneous(math.asarray(0.0)).array)
            turn, place = _rounded(frame.rotation @ pose[:3, :3]), frame.place + frame.rotation @ pose[:3, 3]
            if joint.type in MOVING:
                order.append(joint)
                placed.append(Frame(frame.body, turn, place))
                visit(joint.child, Frame(len(order), np.eye(3), np.zeros(3)))
            else:
                visit(joint.child, Frame(frame.body, turn, place))

    visit(model.tree.root, Frame(0, np.eye(3), np.zeros(3)))
    inertias = np.zeros((len(placed), 6, 6))
    for name, link in model.links.items():
        inertias[frames[name].body] += _in_body(np.array(link.spatial_inertia().array), frames[name])
    axes = [np.zeros(3), *(np.array(joint.axis.array, dtype=float) for joint in order)]
    turning = [True, *(joint.type != "prismatic" for joint in order)]
    return Tree(
        model.name,
        tuple(map(_body, placed, axes, turning, inertias)),
        tuple(joint.name for joint in order),
        frames,
        np.array([-np.inf if joint.type == "continuous" else joint.limit.lower for joint in order]),
        np.array([np.inf if joint.type == "continuous" else joint.limit.upper for joint in order]),
        np.array([joint.limit.effort for joint in order]),
        np.array([joint.limit.velocity for joint in order]),
    )


def essentials(path: str | os.PathLike[str], joints: Sequence[str] | None) -> tuple[str, list[str]]:
    """Return the URDF without shapes and control data, joints that shall not move as fixed ones, and those that do."""
    path = Path(path)
    try:
        robot = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise ProblemError(f"{path} cannot be read as a URDF: {error}") from error
    if robot.tag != "robot":
        raise ProblemError(f"{path} is no URDF: its outermost element is <{robot.tag}>, expected <robot>")
    try:
        check_robot(robot, joints)
    except ProblemError as error:
        raise type(error)(f"{path} cannot be read as a URDF: {error}") from error
    movable = [joint.get("name", "") for joint in robot.findall("joint") if joint.get("type") in MOVING]
    for name in joints or ():
        if name not in movable:
            raise unknown_name(f"joint of {path.name} that can move", name, movable)
    moving = list(movable if joints is None else joints)
    kept = {"link": {"inertial"}, "joint": {"origin", "axis", "parent", "child", "limit"}}
    for element in list(robot):
        for part in list(element):
            if element.tag not in kept or part.tag not in kept[element.tag]:
                element.remove(part)
        if element.tag not in kept:
            robot.remove(element)
        elif element.tag == "joint":
            if element.get("name") not in moving:
                element.set("type", "fixed")
            _complete(element, "origin", xyz="0 0 0", rpy="0 0 0")
            if element.get("type") in MOVING:
                direction = axis_of(element)
                _complete(element, "axis").set("xyz", " ".join(map(repr, direction.tolist())))
            if element.get("type") == "revolute" and element.find("limit") is None:
                element.set("type", "continuous")  # adam would make up limits of a turn
        for inertial in element.findall("inertial"):
            _complete(inertial, "origin", xyz="0 0 0", rpy="0 0 0")
    return ET.tostring(robot, encoding="unicode"), moving


def _complete(element: ET.Element, tag: str, **defaults: str) -> ET.Element:
    """Write out what a URDF may leave out, and return that part."""
    part = element.find(tag)
    part = ET.SubElement(element, tag) if part is None else part
    for key, value in defaults.items():
        part.attrib.setdefault(key, value)
    return part


def _rounded(rotation: Array) -> Array:
    nearest = np.round(rotation)
    return np.where(np.abs(rotation - nearest) < ROUND, nearest, rotation)


def _in_body(inertia: Array, frame: Frame) -> Array:
    """Move a spatial inertia (6, 6), linear part first, from a link's frame to its body's."""
    x, y, z = frame.place
    turn, hat = frame.rotation.T, np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    motion = np.block([[turn, -turn @ hat], [np.zeros((3, 3)), turn]])
    return motion.T @ inertia @ motion


def _body(placed: Frame, axis: Array, revolute: bool, inertia: Array) -> Body:
    moment = np.array([inertia[5, 1], inertia[3, 2], inertia[4, 0]])
    return Body(placed.body, placed.rotation, placed.place, axis, revolute, inertia[0, 0], moment, inertia[3:, 3:])
