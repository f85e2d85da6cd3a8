"""Robots as lines from joint to joint, in space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ocpkit.models import drawing
from ocpkit.robots.robot import Robot


def arm(robot: Callable[[], Robot], tool: str, goal: Sequence[float], axes: Any, x: Any, u: Any) -> None:
    """Draw a robot, the three axes of its tool [0.1 m], and the tool's goal."""
    place, turn = robot().pose(tool, x)
    drawing.goal(axes, *goal)
    skeleton(robot(), axes, x, (tool,))
    for axis, color in zip(turn.T, (drawing.ACCENT, drawing.GOAL, drawing.THRUST)):
        drawing.rod(axes, place, place + 0.1 * axis, width=2.0, color=color)
    label(axes)


def skeleton(robot: Robot, axes: Any, x: Any, ends: Sequence[str] = ()) -> None:
    """Draw a rod from every joint to the next, and to the links named as ends."""
    places = robot.skeleton(x)
    for body, place in zip(robot.tree.bodies[1:], places[1:]):
        drawing.rod(axes, places[body.parent], place, width=4.0)
    for end in ends:
        drawing.rod(axes, places[robot.tree.frames[end].body], robot.pose(end, x)[0], width=4.0)
    axes.plot(*places.T, linestyle="", marker="o", markersize=4, color=drawing.BODY)


def label(axes: Any) -> None:
    """Name the axes of the world."""
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    axes.set_zlabel("z [m]")
