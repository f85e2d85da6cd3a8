"""A rigid body that flies in a vertical plane: the mechanics of the planar quadrotor and of the rocket."""

from __future__ import annotations

from typing import Any

from ocpkit import math as m


def rates(x: Any, push: Any, lift: Any, torque: Any, *, mass: float, inertia: float, gravity: float) -> Any:
    """Return d/dt of the state of a body in the plane.

    Parameters
    ----------
    x
        Position to the right and up [m], tilt (counter-clockwise) [rad], and the rates of all three.
    push, lift
        Force along the body's own right and up [N].
    torque
        About the center of mass, counter-clockwise [N m].
    mass, inertia, gravity
        [kg], [kg m²], [m/s²].
    """
    sin, cos = m.sin(x[2]), m.cos(x[2])
    right, up = push * cos - lift * sin, push * sin + lift * cos
    return m.stack([x[3], x[4], x[5], right / mass, up / mass - gravity, torque / inertia])
