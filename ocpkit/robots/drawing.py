"""Robots as lines from joint to joint, in space, and MuJoCo's planar models as outlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ocpkit.models import drawing
from ocpkit.robots.mujoco import MujocoDynamics
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


def model(
    dynamics: Callable[[], MujocoDynamics],
    plane: tuple[int, int],
    axes: Any,
    x: Any,
    u: Any,
    goal: Sequence[float] | None = None,
) -> None:
    """Draw the capsules, spheres and cylinders of a model in the plane of two axes of the world, and a goal."""
    simulated, across = dynamics(), list(plane)
    data = simulated.place(x)
    if 2 in plane:
        drawing.ground(axes)
    for i in range(simulated.model.ngeom):
        center, kind = data.geom_xpos[i], simulated.model.geom(i).type.item()
        radius, half, _ = simulated.model.geom_size[i]
        color = simulated.model.geom_rgba[i]
        if kind == CAPSULE:
            along = half * data.geom_xmat[i].reshape(3, 3)[:, 2]
            _capsule(axes, (center - along)[across], (center + along)[across], radius, color)
        elif kind in (SPHERE, CYLINDER):
            drawing.disc(axes, center[across], radius, color)
    if goal is not None:
        drawing.goal(axes, *goal)


SPHERE, CAPSULE, CYLINDER = 2, 3, 5
"""MuJoCo's numbers of shapes."""


def _capsule(axes: Any, start: Any, end: Any, radius: float, color: Any) -> None:
    direction = np.arctan2(*(end - start)[::-1])
    around = np.linspace(np.pi / 2, 3 * np.pi / 2, 20) + direction
    circle = radius * np.array([np.cos(around), np.sin(around)]).T
    axes.fill(*np.concatenate([start + circle, end - circle]).T, color=color)


def ball(axes: Any, center: Sequence[float], radius: float) -> None:
    """Draw a ball in space by a few of its circles."""
    turns, heights = np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13)
    around = np.array([np.outer(np.cos(turns), np.sin(heights)), np.outer(np.sin(turns), np.sin(heights))])
    up = np.outer(np.ones_like(turns), np.cos(heights))
    x, y, z = (c + radius * part for c, part in zip(center, (*around, up)))
    axes.plot_wireframe(x, y, z, rstride=4, cstride=3, color=drawing.ACCENT, linewidth=0.8)


def state_labels(joints: int) -> tuple[str, ...]:
    """Return what plots call the states of an arm with so many revolute joints."""
    each = range(1, joints + 1)
    return (*(f"joint {i} [rad]" for i in each), *(f"rate {i} [rad/s]" for i in each))


def control_labels(joints: int) -> tuple[str, ...]:
    """Return what plots call its controls."""
    return tuple(f"torque {i} [N m]" for i in range(1, joints + 1))
