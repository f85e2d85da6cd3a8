"""A robot from a URDF in MuJoCo's simulator: the plant for a controller whose model is ocpkit's own."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ocpkit.boundary.arrays import whole_number
from ocpkit.robots.extra import load_mujoco
from ocpkit.robots.mujoco import MujocoDynamics
from ocpkit.robots.urdf import essentials, read_urdf

THICKNESS = 0.04
"""Radius of the capsules that show the links [m]; they weigh nothing and touch nothing."""
COLOR = (0.23, 0.43, 0.65, 1.0)


def simulated(
    path: str | os.PathLike[str],
    joints: Sequence[str] | None = None,
    *,
    time_step: float,
    steps: int = 1,
    damping: float = 0.0,
) -> MujocoDynamics:
    """Put a robot that stands on the ground into MuJoCo, with a motor on every joint that moves.

    Parameters
    ----------
    path, joints
        As in `ocpkit.robots.from_urdf`.
    time_step
        Seconds per step of the controller.
    steps
        MuJoCo's steps in each of these.
    damping
        Of all joints [N m s/rad or N s/m].

    Raises
    ------
    ProblemError
        As `ocpkit.robots.from_urdf`, or without mujoco.
    """
    mujoco, tree, steps = load_mujoco(), read_urdf(path, joints), whole_number(steps, "steps")
    text, _ = essentials(path, joints)
    spec = mujoco.MjSpec.from_string(text)
    spec.option.timestep, spec.option.gravity = time_step / steps, [0, 0, -9.81]
    for name in tree.joints:
        spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT).set_to_motor()
    # MuJoCo drops from a URDF what can touch nothing at all; these could be touched, by nothing that is there
    for body in spec.bodies[1:]:
        if np.linalg.norm(body.pos) > THICKNESS:
            ends = [0.0, 0.0, 0.0, *body.pos]
            size, nothing = [THICKNESS, 0, 0], {"mass": 0, "contype": 1, "conaffinity": 0}
            body.parent.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=ends, size=size, rgba=COLOR, **nothing)
    spec.worldbody.add_light(pos=[1, -1, 3], dir=[-0.3, 0.3, -1])
    spec.worldbody.add_camera(name="side", pos=[1.6, -1.2, 1.2], xyaxes=[0.6, 0.8, 0, -0.3, 0.22, 0.93])
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE, size=[2, 2, 0.1], rgba=[0.85] * 3 + [1], contype=1, conaffinity=0
    )
    model = spec.compile()
    model.jnt_limited[:], model.dof_damping[:] = 0, damping
    return MujocoDynamics(model, steps)
