"""Representations of the value function's Hessian V_xx: a dense matrix, or an outer product Z Zᵀ (Prop. 3).

The Bellman step needs two operations on V_xx, and both representations offer them: the *sandwich*
Aᵀ V_xx B of Eq. 3, and the *reduction* Q_xx − Q_uxᵀ Q_uu⁻¹ Q_ux of Eq. 5. In factored form
these are Eq. 16 and 17, with r columns in Z (the paper has r = 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ocpkit.recursion.linalg import diagonal, diagonal_matrix, identity_like, matvec, psd_root, transpose


@dataclass(frozen=True)
class OuterProduct:
    """The matrix ``left @ right.T`` (m, n), of rank r, kept as its factors (m, r) and (n, r)."""

    left: Any
    right: Any

    def dense(self) -> Any:
        """Return the matrix itself (tests and small problems only)."""
        return self.left @ transpose(self.right)

    def __neg__(self) -> OuterProduct:
        return OuterProduct(-self.left, self.right)

    def __add__(self, other: Any) -> Any:
        """Add zero (stay factored) or a matrix (become dense)."""
        return self if isinstance(other, float) and other == 0.0 else self.dense() + other


@dataclass(frozen=True)
class Value:
    """Quadratic model of the cost-to-go, V(x + δx) ≈ V + V_xᵀ δx + ½ δxᵀ V_xx δx.

    Attributes
    ----------
    x
        Gradient V_x (n,).
    xx
        Hessian V_xx: (n, n), an `OuterProduct` with equal factors, or None (gradient-only methods).
    """

    x: Any
    xx: Any = None

    def regularized(self, tikhonov: Any, damping: Any = 0.0) -> Value:
        """Return the value with V_xx + ε I (Alg. 3, line 12), or V_xx + ε I + μ diag |V_xx| (Marquardt 1963)."""
        if isinstance(damping, float) and damping == 0.0:
            return type(self)(self.x, regularize(self.xx, tikhonov))
        own = diagonal_matrix(damping * abs(diagonal(self.xx)))
        return type(self)(self.x, regularize(self.xx, tikhonov) + own)


def outer_value(gradient: Any, factor: Any) -> Value:
    """Make a value whose Hessian is Z Zᵀ; `factor` is z (n,) or Z (n, r)."""
    factor = factor[..., None] if factor.ndim == gradient.ndim else factor
    return Value(gradient, OuterProduct(factor, factor))


def sandwich(left: Any, hessian: Any, right: Any) -> Any:
    """Compute ``left.T @ V_xx @ right`` (Eq. 3), or its factors q_u, q_x (Eq. 16, 17)."""
    if isinstance(hessian, OuterProduct):
        return OuterProduct(transpose(left) @ hessian.left, transpose(right) @ hessian.right)
    return transpose(left) @ hessian @ right


def apply_transposed(matrix: Any, vector: Any) -> Any:
    """Compute ``matrix.T @ vector`` for either representation."""
    if isinstance(matrix, OuterProduct):
        return matvec(matrix.right, matvec(transpose(matrix.left), vector))
    return matvec(transpose(matrix), vector)


def solve(H: Any, Qux: Any) -> Any:
    """Compute H⁻¹ Q_ux for either representation; H is anything with ``solve``."""
    if isinstance(Qux, OuterProduct):
        return OuterProduct(H.solve(Qux.left), Qux.right)
    return H.solve(Qux)


def reduce(Qxx: Any, Qux: Any, K: Any) -> Any:
    """Compute V_xx = Q_xx + Q_uxᵀ K (Eq. 5); factored: Z = q_x (I − q_uᵀ Q_uu⁻¹ q_u)^{1/2} (Eq. 17).

    Beyond q_uᵀ Q_uu⁻¹ q_u ≤ 1 the paper's z would be imaginary (V_xx negative); the root is then taken of
    the nearest positive semidefinite matrix, so that such a direction carries no curvature upstream. Where
    Q_xx is dense (a running cost that depends on the state), so is the result.
    """
    if not isinstance(K, OuterProduct):
        hessian = Qxx + transpose(Qux) @ K
    else:
        core = transpose(Qux.left) @ K.left
        if isinstance(Qxx, OuterProduct):
            Z = Qxx.left @ psd_root(identity_like(core) + core)
            return OuterProduct(Z, Z)
        hessian = Qxx + Qux.right @ core @ transpose(Qux.right)
    return (hessian + transpose(hessian)) / 2


def regularize(hessian: Any, tikhonov: Any) -> Any:
    """Return V_xx + ε I (Alg. 3, line 12); on an outer product, ε is added along its own columns."""
    if (isinstance(tikhonov, float) and tikhonov == 0.0) or hessian is None:
        return hessian
    if isinstance(hessian, OuterProduct):
        norm = (hessian.left**2).sum(-2)[..., None, :]
        Z = hessian.left * (1 + tikhonov / norm.clip(tikhonov)) ** 0.5
        return OuterProduct(Z, Z)
    return hessian + tikhonov * identity_like(hessian)
