"""The step of a robot, by the semi-implicit Euler rule, with derivatives by the implicit function theorem.

The state is x = (q, v): joint positions and velocities. A free base comes first in both, with its place [m] and unit
quaternion (w, x, y, z) before the joints' positions, and its velocity in its own frame, linear and angular, before
theirs.
The controls u are the joints' torques. With a(x, u) from 0 = r(x, u, a) = τ(q, v, a) − (0, u) (see `rigid_body`):

    v⁺ = v + h a          q⁺ = q + h v⁺, a quaternion by Cayley's map
    da/d(x, u) = −M⁻¹ ∂r/∂(x, u)          w·∇²x⁺ = Sᵀ ∇²(w·G − λ·r) S,   S = d(x, u, a)/d(x, u),   M λ = (∂G/∂a)ᵀ w

where x⁺ = G(x, u, a). M is factorized from the last joint to the base, which keeps the zeros between branches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike

from ocpkit.autodiff.differentiable import BufferedFunction
from ocpkit.boundary.arrays import Array
from ocpkit.errors import ProblemError
from ocpkit.problem.stage import Dynamics, cut_hessian
from ocpkit.robots.rigid_body import InverseDynamics, inverse_dynamics
from ocpkit.robots.urdf import Tree

GRAVITY = 9.81
POSE = 7
"""Coordinates of a free base: place and quaternion."""
SINGULAR = 1e-12
"""Inertia felt along a freedom, the joints after it left free, below which it is none: part of that with them held."""


class RobotDynamics(Dynamics):
    """One step of a robot.

    Its curvature is known (`hessian_product`), but solvers leave it out: for seven joints it is 76,000 operations
    beside 9,000 of the Jacobians, more than a C compiler takes in minutes.

    Parameters
    ----------
    tree
        The robot.
    time_step
        h [s].
    free_base
        Whether the base floats; else it stands still.
    gravity
        [m/s²], along −z of the world.
    """

    curved = False

    def __init__(self, tree: Tree, time_step: float, *, free_base: bool = False, gravity: float = GRAVITY) -> None:
        self.tree, self.time_step, self.free_base, self.gravity = tree, time_step, free_base, gravity
        self.control_size = len(tree.joints)
        self.position_size = self.control_size + POSE * free_base
        self.velocity_size = self.control_size + 6 * free_base
        self.state_size = self.next_state_size = self.position_size + self.velocity_size

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_symbols"}

    def step(self, x: Array, u: Array, p: Array) -> Array:
        return self._step(x, u)[:, 0]

    def jacobians(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        jacobian = self._jacobian(x, u)
        return jacobian[:, : self.state_size], jacobian[:, self.state_size :]

    def hessian_product(self, x: Array, u: Array, p: Array, costate: Array) -> tuple[Array, Array, Array]:
        return cut_hessian(self._hessian(x, u, costate), self.state_size)

    def acceleration(self, x: Array, u: Array) -> Array:
        """Return a (N,)."""
        return self._acceleration(x, u)[:, 0]

    @property
    def operations(self) -> dict[str, int]:
        """Scalar operations of the acceleration, the step, and its Jacobian."""
        parts = {"acceleration": self._acceleration, "step": self._step, "Jacobian": self._jacobian}
        return {name: part.function.n_instructions() for name, part in parts.items()}

    def mass_matrix(self, x: ArrayLike) -> Array:
        """Return M (N, N)."""
        return np.array(ca.DM(self.at_rest(_constant(x)).mass_matrix))

    def bias(self, x: ArrayLike) -> Array:
        """Return τ (N,) without acceleration: what gravity and motion ask for."""
        return np.array(ca.DM(self.at_rest(_constant(x)).torques))[:, 0]

    def check_inertia(self) -> None:
        """Factorize the mass matrix where no joint is anywhere in particular.

        Raises
        ------
        ProblemError
            If a joint, or the base, can be accelerated without force: its links lack mass or inertia.
        """
        positions = 0.3 + np.sqrt(2 + np.arange(self.control_size))
        base = [0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5] if self.free_base else []
        M = self.mass_matrix([*base, *positions, *np.zeros(self.velocity_size)])
        names = [
            *["the base"] * (self.velocity_size - self.control_size),
            *(f"joint {name!r}" for name in self.tree.joints),
        ]
        held = M.diagonal().copy()
        for i in reversed(range(len(M))):
            if not M[i, i] > SINGULAR * held[i]:
                raise ProblemError(
                    f"{names[i]} of {self.tree.name} moves nothing that has inertia against it; give the links that it "
                    "carries a mass and moments of inertia (<inertial>), or name the joints that move without it"
                )
            M[:i, :i] -= np.outer(M[:i, i], M[i, :i]) / M[i, i]

    def at_rest(self, x: ca.SX) -> InverseDynamics:
        """Return the inverse dynamics without acceleration."""
        return self._inverse(x, ca.SX(self.velocity_size, 1))

    @cached_property
    def _symbols(self) -> tuple[ca.SX, ca.SX, ca.SX]:
        x, u, a = (
            ca.SX.sym(name, size)
            for name, size in (("x", self.state_size), ("u", self.control_size), ("a", self.velocity_size))
        )
        return x, u, a

    def _inverse(self, x: ca.SX, a: ca.SX) -> InverseDynamics:
        q, v = x[: self.position_size], x[self.position_size :]
        return inverse_dynamics(self.tree.bodies, q[POSE * self.free_base :], v, a, self._up(x))

    def _up(self, x: ca.SX) -> ca.SX:
        """Minus gravity, in the frame of the base (3,)."""
        upward = ca.SX(ca.sparsify(ca.DM([0, 0, self.gravity])))
        return rotation(x[3:POSE]).T @ upward if self.free_base else upward

    @cached_property
    def _acceleration(self) -> BufferedFunction:
        x, u, _ = self._symbols
        rest = self.at_rest(x)
        return _buffered("acceleration", [x, u], _solver(rest.mass_matrix)(self._applied(u) - rest.torques))

    def _applied(self, u: ca.SX) -> ca.SX:
        return ca.vertcat(ca.SX(self.velocity_size - self.control_size, 1), u)

    def _next(self, x: ca.SX, a: ca.SX) -> ca.SX:
        """G."""
        h, q, v = self.time_step, x[: self.position_size], x[self.position_size :] + self.time_step * a
        if not self.free_base:
            return ca.vertcat(q + h * v, v)
        turned = _product(q[3:POSE], ca.vertcat(1, h / 2 * v[3:6]))
        place = q[:3] + h * rotation(q[3:POSE]) @ v[:3]
        return ca.vertcat(place, turned / ca.norm_2(turned), q[POSE:] + h * v[6:], v)

    @cached_property
    def _step(self) -> BufferedFunction:
        x, u, _ = self._symbols
        return _buffered("step", [x, u], self._next(x, self._acceleration.function(x, u)))

    def _by_state_and_control(self) -> tuple[ca.SX, ca.SX, ca.SX, Callable[[ca.SX], ca.SX]]:
        """Return S, ∂G/∂a, r and the solver of M, for an acceleration that stands as a symbol."""
        x, u, a = self._symbols
        inverse = self._inverse(x, a)
        solve = _solver(inverse.mass_matrix)
        by_x = ca.horzcat(inverse.by_positions, inverse.by_velocities)
        if self.free_base:
            up = ca.jacobian(self._up(x), x[:POSE])
            by_x = ca.horzcat(inverse.mass_matrix[:, :3] @ up, by_x)
        by_u = -ca.jacobian(self._applied(u), u)
        S = ca.vertcat(ca.SX.eye(x.numel() + u.numel()), -solve(ca.horzcat(by_x, by_u)))
        return S, ca.jacobian(self._next(x, a), a), inverse.torques - self._applied(u), solve

    def _at_acceleration(self, name: str, arguments: list[ca.SX], value: ca.SX) -> BufferedFunction:
        """Put the acceleration in the place of its symbol."""
        x, u, a = self._symbols
        (value,) = ca.substitute([value], [a], [self._acceleration.function(x, u)])
        return _buffered(name, arguments, value)

    @cached_property
    def _jacobian(self) -> BufferedFunction:
        x, u, a = self._symbols
        S, _, _, _ = self._by_state_and_control()
        slope = ca.jacobian(self._next(x, a), ca.vertcat(x, u, a))
        return self._at_acceleration("jacobian", [x, u], slope @ S)

    @cached_property
    def _hessian(self) -> BufferedFunction:
        x, u, a = self._symbols
        w, held = ca.SX.sym("w", x.numel()), ca.SX.sym("l", a.numel())
        S, by_a, residual, solve = self._by_state_and_control()
        curvature, _ = ca.hessian(ca.dot(w, self._next(x, a)) - ca.dot(held, residual), ca.vertcat(x, u, a))
        (curvature,) = ca.substitute([curvature], [held], [solve(by_a.T @ w)])
        return self._at_acceleration("hessian", [x, u, w], S.T @ curvature @ S)


def rotation(quaternion: Any) -> ca.SX:
    """Return the rotation (3, 3), frame to world, of a unit quaternion (w, x, y, z)."""
    w, axis = quaternion[0], quaternion[1:]
    hat = ca.skew(axis)
    return ca.SX.eye(3) + 2 * (w * hat + hat @ hat)


def _product(a: ca.SX, b: ca.SX) -> ca.SX:
    """Quaternion product."""
    return ca.vertcat(a[0] * b[0] - ca.dot(a[1:], b[1:]), a[0] * b[1:] + b[0] * a[1:] + ca.cross(a[1:], b[1:]))


def _solver(matrix: ca.SX) -> Callable[[ca.SX], ca.SX]:
    """Factorize a mass matrix, last row first, as L D Lᵀ; return the solution of M y = b as a function of b."""
    order = list(range(matrix.shape[0]))[::-1]
    D, LT, p = ca.ldl(ca.sparsify(matrix)[order, order], False)
    return lambda b: ca.ldl_solve(b[order, :], D, LT, p)[order, :]


def _constant(values: ArrayLike) -> ca.SX:
    return ca.SX(ca.DM(np.asarray(values, dtype=float)))


def _buffered(name: str, arguments: list[ca.SX], value: ca.SX) -> BufferedFunction:
    return BufferedFunction(ca.Function(name, arguments, [ca.densify(ca.cse([value])[0])]))
