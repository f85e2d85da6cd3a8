"""Two rigid links in a vertical plane, joined by hinges: the mechanics of the acrobot and of the arm.

    M(q) q̈ + c(q, q̇) + G(q) = τ − b q̇,     q = (q₁, q₂)

q₁ is the angle of the first link from the downward vertical, q₂ that of the second link from the first, both
counter-clockwise. Inertias are about each link's own upper hinge (Tedrake, *Underactuated Robotics*, ch. 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ocpkit import math as m


@dataclass(frozen=True, kw_only=True)
class TwoLink:
    """Two links and their friction.

    Attributes
    ----------
    masses
        [kg].
    lengths
        From hinge to hinge, and from hinge to tip [m].
    centers
        From the upper hinge of a link to its center of mass [m].
    inertias
        About the upper hinge of a link [kg m²].
    friction
        b, viscous, equal in both hinges [N m s/rad].
    gravity
        [m/s²]; zero for a horizontal plane.
    """

    masses: tuple[float, float]
    lengths: tuple[float, float]
    centers: tuple[float, float]
    inertias: tuple[float, float]
    friction: float = 0.0
    gravity: float = 9.81

    def rates(self, x: Any, torques: tuple[Any, Any]) -> Any:
        """Return d/dt of x = (q₁, q₂ [rad], q̇₁, q̇₂ [rad/s]) under two hinge torques [N m]."""
        q1, q2, w1, w2 = x
        (m1, m2), (c1, c2), l1 = self.masses, self.centers, self.lengths[0]
        coupling, sin, cos = m2 * l1 * c2, m.sin(q2), m.cos(q2)
        m22 = self.inertias[1]
        m12 = m22 + coupling * cos
        m11 = self.inertias[0] + m22 + m2 * l1**2 + 2 * coupling * cos
        weight2 = m2 * self.gravity * c2 * m.sin(q1 + q2)
        weight1 = (m1 * c1 + m2 * l1) * self.gravity * m.sin(q1) + weight2
        r1 = torques[0] - self.friction * w1 - weight1 + coupling * sin * (2 * w1 + w2) * w2
        r2 = torques[1] - self.friction * w2 - weight2 - coupling * sin * w1**2
        determinant = m11 * m22 - m12 * m12
        return m.stack([w1, w2, (m22 * r1 - m12 * r2) / determinant, (m11 * r2 - m12 * r1) / determinant])

    def joints(self, x: Any) -> tuple[Any, Any]:
        """Return the positions (2,) of the lower hinge and of the tip [m]; the upper hinge is the origin."""
        (l1, l2), q1, q12 = self.lengths, x[0], x[0] + x[1]
        elbow = m.stack([l1 * m.sin(q1), -l1 * m.cos(q1)])
        return elbow, elbow + m.stack([l2 * m.sin(q12), -l2 * m.cos(q12)])
