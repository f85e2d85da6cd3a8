"""Checks of a URDF before anything is computed from it: names, the tree, joints, numbers.

What is wrong, or what these rigid bodies cannot do (joints of several degrees of freedom, joints that mimic others), is
refused by the name of the link or joint; parsers of URDF differ in what they make of it, mostly without a word.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.errors import ProblemError, UnsupportedProblem

MOVING = ("revolute", "continuous", "prismatic")
SEVERAL = ("floating", "planar")
"""Types of joints with more than one degree of freedom."""
INERTIA = ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")
ROUNDING = 1e-6
"""Digits that a URDF is written with: a principal moment may be below zero by this part of the largest."""
NEGLIGIBLE = 1e-12
"""Moment of inertia that counts as none [kg m²]; a cube of 1 mm of water has 1.7e-13."""


def check_robot(robot: ET.Element, moving: Sequence[str] | None) -> None:
    """Check a URDF.

    Parameters
    ----------
    robot
        Its outermost element.
    moving
        Names of the joints that shall move; None for all that can.

    Raises
    ------
    ProblemError
        If something is missing, doubled or no number, or the links are no tree.
    UnsupportedProblem
        If a joint would have to move that has several degrees of freedom or mimics another.
    """
    for element in robot.iter():
        if "xacro}" in element.tag:
            raise ProblemError("it is a xacro file; expand it first: xacro FILE > robot.urdf")
    links = {_name(link): link for link in robot.findall("link")}
    joints = {_name(joint): joint for joint in robot.findall("joint")}
    for kind in ("link", "joint"):
        for name, count in Counter(map(_name, robot.findall(kind))).items():
            if count > 1:
                raise ProblemError(f"{count} {kind}s are called {name!r}")
    for name, link in links.items():
        _check_link(f"link {name!r}", link)
    for name, joint in joints.items():
        _check_joint(f"joint {name!r}", joint)
    _check_tree(links, joints)
    _check_freedoms(joints, moving)


def axis_of(joint: ET.Element) -> Array:
    """Axis of a joint (3,), of length one; by default (1, 0, 0).

    Raises
    ------
    ProblemError
        If it has no length, or is not three numbers.
    """
    axis = _numbers(f"joint {_name(joint)!r}", joint.find("axis"), "xyz", (1.0, 0.0, 0.0))
    length = float(np.linalg.norm(axis))
    if length == 0:
        raise ProblemError(f"joint {_name(joint)!r} moves about or along the axis (0, 0, 0), which is no direction")
    return axis / length


def _name(element: ET.Element) -> str:
    name = element.get("name")
    if not name:
        raise ProblemError(f"a <{element.tag}> has no name")
    return name


def _only(owner: str, element: ET.Element, tag: str) -> ET.Element | None:
    """The one part of this kind, or None."""
    found = element.findall(tag)
    if len(found) > 1:
        raise ProblemError(f"{owner} has {len(found)} parts <{tag}>, expected one")
    return found[0] if found else None


def _numbers(owner: str, part: ET.Element | None, key: str, default: Iterable[float] | None) -> Array:
    """Finite numbers of an attribute, as many as its default has; one, if it has none and must be there."""
    text = None if part is None else part.get(key)
    if text is None:
        if default is None:
            raise ProblemError(f"{owner} lacks {key}" + ("" if part is None else f" in its <{part.tag}>"))
        return np.array(list(default))
    wanted = 1 if default is None else len(list(default))
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.array([math.nan])
    if len(values) != wanted or not np.isfinite(values).all():
        raise ProblemError(f"{owner} has {key}={text!r}, expected {wanted} finite number{'s' * (wanted > 1)}")
    return values


def _check_place(owner: str, element: ET.Element) -> None:
    origin = _only(owner, element, "origin")
    for key in ("xyz", "rpy"):
        _numbers(owner, origin, key, (0.0, 0.0, 0.0))
    for key in () if origin is None else {*origin.keys()} - {"xyz", "rpy"}:
        raise ProblemError(f"{owner} has an <origin> with {key}, of which nothing is known; give xyz and rpy")


def _check_link(owner: str, link: ET.Element) -> None:
    inertial = _only(owner, link, "inertial")
    if inertial is None:
        return
    _check_place(owner, inertial)
    mass = _numbers(owner, _required(owner, inertial, "mass"), "value", None)[0]
    if mass < 0:
        raise ProblemError(f"{owner} has a mass of {mass:g} kg")
    part = _required(owner, inertial, "inertia")
    xx, xy, xz, yy, yz, zz = (_numbers(owner, part, key, None)[0] for key in INERTIA)
    moments = np.linalg.eigvalsh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if moments[0] < -max(ROUNDING * abs(moments[-1]), NEGLIGIBLE):
        raise ProblemError(
            f"{owner} has principal moments of inertia of {', '.join(f'{value:.4g}' for value in moments)} kg m²; "
            "no body has one below zero"
        )


def _required(owner: str, element: ET.Element, tag: str) -> ET.Element:
    part = _only(owner, element, tag)
    if part is None:
        raise ProblemError(f"{owner} has no <{tag}> in its <{element.tag}>")
    return part


def _check_joint(owner: str, joint: ET.Element) -> None:
    kind = joint.get("type")
    if kind not in (*MOVING, *SEVERAL, "fixed"):
        raise ProblemError(f"{owner} has the type {kind!r}; known: {', '.join((*MOVING, *SEVERAL, 'fixed'))}")
    _check_place(owner, joint)
    _only(owner, joint, "axis")
    for tag in ("parent", "child"):
        _required(owner, joint, tag)
    limit = _only(owner, joint, "limit")
    if kind in MOVING:
        axis_of(joint)
    if kind not in MOVING or limit is None:
        return
    bounds = {key: _limit(owner, limit, key) for key in ("lower", "upper", "effort", "velocity")}
    if bounds["lower"] > bounds["upper"]:
        raise ProblemError(
            f"{owner} has a lower limit of {bounds['lower']:g} above its upper one of {bounds['upper']:g}"
        )
    for key in ("effort", "velocity"):
        if bounds[key] < 0:
            raise ProblemError(f"{owner} has a limit {key}={bounds[key]:g}, expected none below zero")


def _limit(owner: str, limit: ET.Element, key: str) -> float:
    text = limit.get(key, "0")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ProblemError(f"{owner} has a limit {key}={text!r}, expected a number")
    return value


def _check_tree(links: dict[str, ET.Element], joints: dict[str, ET.Element]) -> None:
    """One link carries all others, each by one joint."""
    carried = dict[str, str]()
    for name, joint in joints.items():
        ends = {tag: _required(f"joint {name!r}", joint, tag).get("link", "") for tag in ("parent", "child")}
        for tag, link in ends.items():
            if link not in links:
                raise ProblemError(f"joint {name!r} has the {tag} {link!r}, which is no link of this robot")
        if ends["child"] in carried:
            raise UnsupportedProblem(
                f"link {ends['child']!r} is carried by two joints, {name!r} among them; loops are not supported"
            )
        carried[ends["child"]] = ends["parent"]
    roots = [name for name in links if name not in carried]
    if len(roots) > 1:
        raise ProblemError(f"no joint carries the links {' and '.join(map(repr, roots))}; a robot has one base")
    for name in links:
        seen, link = {name}, name
        while link in carried:
            link = carried[link]
            if link in seen:
                raise ProblemError(f"link {link!r} is carried by itself, through a loop of joints")
            seen.add(link)


def _check_freedoms(joints: dict[str, ET.Element], moving: Sequence[str] | None) -> None:
    if moving is None:
        for name, joint in joints.items():
            if (kind := joint.get("type")) in SEVERAL:
                raise UnsupportedProblem(
                    f"joint {name!r} is {kind}, which has more than one degree of freedom; for a robot that floats, "
                    "set free_base=True, and name the joints that move (joints=…): this one is then held at zero"
                )
    moves = {name for name, joint in joints.items() if joint.get("type") in MOVING} if moving is None else {*moving}
    for name, joint in joints.items():
        mimic = _only(f"joint {name!r}", joint, "mimic")
        if mimic is not None and joint.get("type") in MOVING and moves & {name, mimic.get("joint", "")}:
            raise UnsupportedProblem(
                f"joint {name!r} mimics {mimic.get('joint')!r}, which is not supported; name the joints that move "
                "without these two (joints=…), which are then held at zero"
            )
