"""A robot from a URDF: what a cost, a constraint or a drawing asks of it, and its dynamics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike

from ocpkit.autodiff.differentiable import BufferedFunction
from ocpkit.boundary.arrays import Array, checked_vector
from ocpkit.errors import ProblemError, unknown_name
from ocpkit.robots.dynamics import GRAVITY, POSE, RobotDynamics, rotation
from ocpkit.robots.rigid_body import placements
from ocpkit.robots.urdf import Tree, read_urdf

UNIT = 1e-6
"""Largest distance from 1 of the length of a quaternion."""


def from_urdf(
    path: str | os.PathLike[str],
    joints: Sequence[str] | None = None,
    *,
    free_base: bool = False,
    gravity: float = GRAVITY,
) -> Robot:
    """Read a robot from a URDF file; damping and friction that it states are not modeled.

    Parameters
    ----------
    path
        The file.
    joints
        Names of the joints that move, all others being held at zero; by default all that can.
    free_base
        Whether the base floats; else it stands still at the origin.
    gravity
        [m/s²].

    Raises
    ------
    ProblemError
        If the file cannot be read or says what cannot be (`ocpkit.robots.urdf_check`), a joint does not exist or cannot
        move, gravity is not finite, or adam-robotics is not installed.
    UnsupportedProblem
        If a joint that should move mimics another, or has several degrees of freedom.
    """
    if not np.isfinite(gravity):
        raise ProblemError(f"gravity must be a finite number of m/s², got {gravity!r}")
    return Robot(read_urdf(path, joints), free_base, gravity)


@dataclass(frozen=True, eq=False)
class Robot:
    """A tree of rigid bodies; its state is described in `ocpkit.robots.dynamics`.

    Parameters
    ----------
    tree
        What the URDF says: joints, limits, bodies.
    free_base
        Whether the base floats.
    gravity
        [m/s²].
    """

    tree: Tree
    free_base: bool = False
    gravity: float = GRAVITY
    _poses: dict[str, BufferedFunction] = field(default_factory=dict, init=False, repr=False)

    def dynamics(self, time_step: float) -> RobotDynamics:
        """Return the step over `time_step` seconds, x⁺ = f(x, u) with the joints' torques as controls.

        Raises
        ------
        ProblemError
            If the time step is not positive, or a joint moves links without mass and inertia.
        """
        if not (np.isfinite(time_step) and time_step > 0):
            raise ProblemError(f"time_step must be a positive number of seconds, got {time_step!r}")
        self._checked  # noqa: B018 - once for all time steps
        return RobotDynamics(self.tree, time_step, free_base=self.free_base, gravity=self.gravity)

    @cached_property
    def _checked(self) -> None:
        RobotDynamics(self.tree, 1.0, free_base=self.free_base).check_inertia()

    def state(self, positions: ArrayLike, place: ArrayLike = (0, 0, 0), quaternion: ArrayLike = (1, 0, 0, 0)) -> Array:
        """Return the state at rest in joint positions (n,), with a free base at a place (3,) and a quaternion (4,).

        Raises
        ------
        ProblemError
            If the shapes do not fit, or the quaternion is not of length one.
        """
        joints = checked_vector(positions, len(self.tree.joints), "positions")
        if not self.free_base:
            return np.concatenate([joints, np.zeros(len(joints))])
        turn = checked_vector(quaternion, 4, "quaternion")
        if abs(np.linalg.norm(turn) - 1) > UNIT:
            raise ProblemError(f"a rotation needs a quaternion of length 1, got {turn} of {np.linalg.norm(turn):.6g}")
        return np.concatenate([checked_vector(place, 3, "place"), turn, joints, np.zeros(len(joints) + 6)])

    def pose(self, link: str, x: Any) -> tuple[Any, Any]:
        """Return place (3,) [m] and rotation (3, 3) of a link's frame in the world, for numbers or symbols.

        Raises
        ------
        ProblemError
            If there is no such link.
        """
        if link not in self._poses:
            if link not in self.tree.frames:
                raise unknown_name(f"link of {self.tree.name}", link, self.tree.frames)
            self._poses[link] = self._pose(link)
        both = self._poses[link](x[: self._position_size])
        return both[:, 0], both[:, 1:]

    def skeleton(self, x: Any) -> Array:
        """Return the places of all joints (n + 1, 3) [m] in the world, the base's first."""
        places: Array = self._skeleton(x[: self._position_size]).T
        return places

    def energy(self, x: Array) -> float:
        """Return kinetic and potential energy [J]."""
        return float(self._energy(x)[0, 0])

    def holding(self, positions: ArrayLike) -> Array:
        """Return the torques (n,) that hold joint positions against gravity, on a base that stands still."""
        standing = replace(self, free_base=False)
        return standing.dynamics(1.0).bias(standing.state(positions))

    @property
    def _position_size(self) -> int:
        return len(self.tree.joints) + POSE * self.free_base

    def _in_world(self, q: ca.SX) -> list[tuple[Any, Any]]:
        """Rotation and place of every body."""
        frames = placements(self.tree.bodies, q[POSE * self.free_base :])
        if not self.free_base:
            return frames
        turn = rotation(q[3:POSE])
        return [(turn @ own, q[:3] + turn @ place) for own, place in frames]

    def _pose(self, link: str) -> BufferedFunction:
        q, frame = ca.SX.sym("q", self._position_size), self.tree.frames[link]
        turn, place = self._in_world(q)[frame.body]
        both = ca.horzcat(place + turn @ ca.SX(frame.place), turn @ ca.SX(frame.rotation))
        return BufferedFunction(ca.Function("pose", [q], [ca.densify(both)]))

    @cached_property
    def _skeleton(self) -> BufferedFunction:
        q = ca.SX.sym("q", self._position_size)
        return BufferedFunction(
            ca.Function("skeleton", [q], [ca.densify(ca.horzcat(*(place for _, place in self._in_world(q))))])
        )

    @cached_property
    def _energy(self) -> BufferedFunction:
        step = self.dynamics(1.0)
        x = ca.SX.sym("x", step.state_size)
        v = x[step.position_size :]
        kinetic = v.T @ step.at_rest(x).mass_matrix @ v / 2
        heights = [
            (body.mass * place + turn @ ca.SX(body.moment))[2]
            for body, (turn, place) in zip(self.tree.bodies, self._in_world(x[: step.position_size]))
        ]
        return BufferedFunction(ca.Function("energy", [x], [kinetic + self.gravity * sum(heights)]))
