"""Inverse dynamics of a tree of rigid bodies, and its derivatives without differentiating the recursion.

With spatial vectors (linear, angular) in the frame of the base, S_i the axis of joint i, v_i, a_i velocity and
acceleration of body i, λ(i) its parent, and sums ^C over a body and all that it carries (Featherstone, Rigid Body
Dynamics Algorithms, 2008, ch. 5 and 6; Singh, Russell & Wensing, "Efficient analytical derivatives of rigid-body
dynamics using spatial vector algebra", 2022):

    f_i = I_i a_i + v_i ×* I_i v_i          τ_i = S_iᵀ f_i^C          M_ij = S_iᵀ I_j^C S_j          (i carries j)
    B_i = v_i ×* I_i − I_i v_i× + (I_i v_i) ×̄*          Ψ̇_j = v_λ(j) × S_j          Ψ̈_j = a_λ(j) × S_j + v_λ(j) × Ψ̇_j

    i carried by j:  ∂τ_i/∂q_j = S_iᵀ (B_i^C Ψ̇_j + I_i^C Ψ̈_j)        ∂τ_i/∂v_j = S_iᵀ (B_i^C S_j + I_i^C (Ṡ_j + Ψ̇_j))
    i carries j:     the same with B_j^C, I_j^C, and S_iᵀ (S_j ×* f_j^C) more in ∂τ_i/∂q_j.

The Jacobian of forward dynamics is then −M⁻¹ ∂τ: for seven joints a quarter of the arithmetic that CasADi needs to
differentiate the articulated-body algorithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from ocpkit.boundary.arrays import Array

Spatial = tuple[Any, Any]
"""Linear and angular part, (3,) each."""


@dataclass(frozen=True)
class Body:
    """A rigid body on a joint with one degree of freedom, in a frame at that joint.

    Attributes
    ----------
    parent
        Number of the body that carries it; 0 is the base.
    rotation, place
        Of its frame in the parent's where the joint is at zero: (3, 3), and (3,) [m].
    axis
        Of the joint (3,).
    revolute
        Whether it turns [rad]; else it slides [m].
    mass, moment, inertia
        [kg]; mass times center of mass (3,) [kg m]; inertia about the frame's origin (3, 3) [kg m²].
    """

    parent: int
    rotation: Array
    place: Array
    axis: Array
    revolute: bool
    mass: float
    moment: Array
    inertia: Array


@dataclass(frozen=True)
class InverseDynamics:
    """τ (N,), the mass matrix M = ∂τ/∂a (N, N), ∂τ/∂q (N, n) and ∂τ/∂v (N, N); N = n + 6 with a free base, first."""

    torques: ca.SX
    mass_matrix: ca.SX
    by_positions: ca.SX
    by_velocities: ca.SX


@dataclass
class _Sum:
    """Composite quantities of a body and all that it carries: I = (m, h, J), B = (momentum, K), force f."""

    mass: Any
    moment: Any
    inertia: Any
    momentum: Any
    twist: Any
    force: Spatial

    def add(self, other: _Sum) -> None:
        for part in ("mass", "moment", "inertia", "momentum", "twist"):
            setattr(self, part, getattr(self, part) + getattr(other, part))
        self.force = _plus(self.force, other.force)

    def times(self, s: Spatial) -> Spatial:
        """I s."""
        return self.mass * s[0] + ca.cross(s[1], self.moment), ca.cross(self.moment, s[0]) + self.inertia @ s[1]

    def forces(self, velocity: Spatial, acceleration: Spatial) -> Spatial:
        """B velocity + I acceleration; B acts on angular velocities only."""
        linear, angular = self.times(acceleration)
        return linear + 2 * ca.cross(velocity[1], self.momentum), angular + self.twist @ velocity[1]

    def forces_transposed(self, s: Spatial) -> tuple[Spatial, Spatial]:
        """(Bᵀ s, I s)."""
        return (ca.SX(3, 1), 2 * ca.cross(self.momentum, s[0]) + self.twist.T @ s[1]), self.times(s)


def placements(bodies: Sequence[Body], q: Any) -> list[tuple[Any, Any]]:
    """Return rotation (3, 3) and place (3,) [m] of every body's frame in that of the base (the first)."""
    found = [(ca.SX.eye(3), ca.SX(3, 1))]
    for i, body in enumerate(bodies[1:]):
        turn, place = found[body.parent]
        along = np.outer(body.axis, body.axis)
        if body.revolute:
            sin, cos = ca.sin(q[i]), ca.cos(q[i])
            joint = _sparse(along) + cos * _sparse(np.eye(3) - along) + sin * ca.skew(_sparse(body.axis))
            found.append((turn @ (_sparse(body.rotation) @ joint), place + turn @ _sparse(body.place)))
        else:
            slid = _sparse(body.place) + q[i] * _sparse(body.rotation @ body.axis)
            found.append((turn @ _sparse(body.rotation), place + turn @ slid))
    return found


def inverse_dynamics(bodies: Sequence[Body], q: Any, v: Any, a: Any, base_acceleration: Any) -> InverseDynamics:
    """Return the generalized forces that accelerations ask for.

    Parameters
    ----------
    bodies
        The base first, parents before children.
    q
        Joint positions (n,).
    v, a
        Velocities and accelerations (N,): of the joints, after six of the base in its own frame, linear and angular,
        where the base is free (N = n + 6).
    base_acceleration
        Added to the linear acceleration of the base (3,): minus gravity, in the frame of the base.
    """
    n = q.numel()
    free = v.numel() > n
    frames = placements(bodies, q)
    axes = [_axis(body, *frame) for body, frame in zip(bodies[1:], frames[1:])]
    at_base = ((v[:3], v[3:6]), (a[:3] + base_acceleration, a[3:6])) if free else (_ZERO, (base_acceleration, _ZERO[1]))
    motions, changes = [at_base], list[tuple[Spatial, Spatial]]()  # (v, a) and (Ψ̇, Ψ̈)
    for body, s, speed, rate in zip(
        bodies[1:], axes, ca.vertsplit(v[v.numel() - n :]), ca.vertsplit(a[v.numel() - n :])
    ):
        velocity, acceleration = motions[body.parent]
        first = _cross(velocity, s)
        changes.append((first, _plus(_cross(acceleration, s), _cross(velocity, first))))
        motions.append(
            (_plus(velocity, _scaled(speed, s)), _plus(acceleration, _plus(_scaled(rate, s), _scaled(speed, first))))
        )
    sums = [_body_alone(body, *frame, *motion) for body, frame, motion in zip(bodies, frames, motions)]
    for body, carried in zip(reversed(bodies[1:]), reversed(sums[1:])):
        sums[body.parent].add(carried)
    columns = [
        _Column(i + 1, s, first, _plus(first, first), second)
        for i, (s, (first, second)) in enumerate(zip(axes, changes))
    ]
    if free:
        unit = [(ca.SX.eye(6)[:3, k], ca.SX.eye(6)[3:, k]) for k in range(6)]
        columns = [*(_Column(0, s, _ZERO, _cross(at_base[0], s), _ZERO) for s in unit), *columns]
    return _assemble(bodies, columns, sums, n)


@dataclass(frozen=True)
class _Column:
    """A degree of freedom: its body, S, Ψ̇, Ṡ + Ψ̇ and Ψ̈."""

    body: int
    axis: Spatial
    first: Spatial
    swing: Spatial
    second: Spatial


def _assemble(bodies: Sequence[Body], columns: Sequence[_Column], sums: Sequence[_Sum], n: int) -> InverseDynamics:
    size = len(columns)
    torques, M, by_q, by_v = ca.SX(size, 1), ca.SX(size, size), ca.SX(size, size), ca.SX(size, size)
    for j, column in enumerate(columns):
        own = sums[column.body]
        inertial = own.times(column.axis)
        along_v = own.forces(column.axis, column.swing)
        along_q = _plus(own.forces(column.first, column.second), _cross_force(column.axis, own.force))
        damping, weight = own.forces_transposed(column.axis)
        torques[j] = _dot(column.axis, own.force)
        for i in _carrying(bodies, columns, j):
            other = columns[i]
            M[i, j] = M[j, i] = _dot(other.axis, inertial)
            by_v[i, j] = _dot(other.axis, along_v)
            by_v[j, i] = _dot(damping, other.axis) + _dot(weight, other.swing)
            by_q[i, j] = _dot(other.axis, along_q)
            by_q[j, i] = _dot(damping, other.first) + _dot(weight, other.second)
    return InverseDynamics(torques, M, by_q[:, size - n :], by_v)


def _carrying(bodies: Sequence[Body], columns: Sequence[_Column], j: int) -> list[int]:
    """Return the degrees of freedom from the base to j, itself last."""
    chain, body = set[int](), columns[j].body
    while body:
        chain.add(body)
        body = bodies[body].parent
    return [i for i, column in enumerate(columns[: j + 1]) if column.body in chain or column.body == 0]


def _axis(body: Body, turn: Any, place: Any) -> Spatial:
    direction = turn @ _sparse(body.axis)
    return (ca.cross(place, direction), direction) if body.revolute else (direction, ca.SX(3, 1))


def _body_alone(body: Body, turn: Any, place: Any, velocity: Spatial, acceleration: Spatial) -> _Sum:
    """I, B and f of one body, in the frame of the base (mass about the base's origin)."""
    m, (v, w) = body.mass, velocity
    about_frame = turn @ _sparse(body.moment)
    h = about_frame + m * place
    shift = ca.skew(place) @ ca.skew(about_frame)
    J = turn @ _sparse(body.inertia) @ turn.T - shift - shift.T - m * ca.skew(place) @ ca.skew(place)
    body_sum = _Sum(m, h, J, m * v + ca.cross(w, h), ca.SX(3, 3), _ZERO)
    momentum = body_sum.times(velocity)
    turned = ca.skew(w) @ J
    mixed = h @ v.T
    body_sum.twist = turned + turned.T - mixed - mixed.T + 2 * ca.dot(h, v) * ca.SX.eye(3) - ca.skew(momentum[1])
    body_sum.force = _plus(body_sum.times(acceleration), _cross_force(velocity, momentum))
    return body_sum


_ZERO: Spatial = (ca.SX(3, 1), ca.SX(3, 1))


def _sparse(values: Array) -> ca.SX:
    """Numbers as a constant whose zeros cost nothing."""
    return ca.SX(ca.sparsify(ca.DM(values)))


def _plus(a: Spatial, b: Spatial) -> Spatial:
    return a[0] + b[0], a[1] + b[1]


def _scaled(factor: Any, s: Spatial) -> Spatial:
    return factor * s[0], factor * s[1]


def _dot(a: Spatial, b: Spatial) -> Any:
    return ca.dot(a[0], b[0]) + ca.dot(a[1], b[1])


def _cross(v: Spatial, m: Spatial) -> Spatial:
    """v × m of two motions."""
    return ca.cross(v[1], m[0]) + ca.cross(v[0], m[1]), ca.cross(v[1], m[1])


def _cross_force(v: Spatial, f: Spatial) -> Spatial:
    """v ×* f of a motion and a force."""
    return ca.cross(v[1], f[0]), ca.cross(v[0], f[0]) + ca.cross(v[1], f[1])
