"""What stands for Q_uu: exact with Levenberg damping, identity, adaptive diagonal, Adam (Eq. 9, 15; Table 2).

A curvature maps (stage, Q) to a positive definite operator H and a vector g, and the Bellman step takes
k = −H⁻¹ g, K = −H⁻¹ Q_ux. The learning rate is part of H, as in Eq. 7: H = M/η. Adaptive curvatures keep
running averages per stage and therefore belong to one run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ocpkit.bellman import ActionValue, Curvature
from ocpkit.errors import ProblemError
from ocpkit.linalg import Cholesky, identity_like


@dataclass(frozen=True)
class DiagonalOperator:
    """The matrix diag(d), d (m,) positive."""

    diagonal: Any

    def solve(self, right: Any) -> Any:
        """Divide a vector (m,) or the rows of a matrix (m, k)."""
        return right / (self.diagonal if right.ndim == self.diagonal.ndim else self.diagonal[..., None])

    def matvec(self, vector: Any) -> Any:
        """Multiply a vector (m,)."""
        return self.diagonal * vector

    def dense(self) -> Any:
        """Return the matrix (m, m)."""
        return self.diagonal[..., None] * identity_like(self.diagonal)


@dataclass(frozen=True)
class Exact:
    """Q_uu + μ I, the Hessian of the Bellman objective with Levenberg damping μ ≥ 0."""

    regularization: float = 0.0

    def __call__(self, t: int, Q: ActionValue) -> tuple[Cholesky, Any]:
        return Cholesky(Q.uu + self.regularization * identity_like(Q.uu)), Q.u


@dataclass(frozen=True)
class Identity:
    """I/η: gradient descent with learning rate η (Prop. 2)."""

    learning_rate: float

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)

    def __call__(self, t: int, Q: ActionValue) -> tuple[DiagonalOperator, Any]:
        return DiagonalOperator(1 / self.learning_rate + 0 * Q.u), Q.u


@dataclass
class AdaptiveDiagonal:
    """diag(√v + ε)/η with v ← β v + (1−β) Q_u ⊙ Q_u: RMSprop's curvature (Tieleman & Hinton 2012; Table 2)."""

    learning_rate: float
    decay: float = 0.99
    epsilon: float = 1e-8
    _square: dict[int, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate, self.decay)

    def __call__(self, t: int, Q: ActionValue) -> tuple[DiagonalOperator, Any]:
        self._square[t] = self.decay * self._square.get(t, 0.0) + (1 - self.decay) * Q.u**2
        return DiagonalOperator((self._square[t] ** 0.5 + self.epsilon) / self.learning_rate), Q.u


@dataclass
class Adam:
    """diag(√v̂ + ε)/η with g = m̂, the bias-corrected moments of Q_u (Kingma & Ba 2015)."""

    learning_rate: float
    decays: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    _moments: dict[int, tuple[int, Any, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate, *self.decays)

    def __call__(self, t: int, Q: ActionValue) -> tuple[DiagonalOperator, Any]:
        (b1, b2), (count, mean, square) = self.decays, self._moments.get(t, (0, 0.0, 0.0))
        count, mean, square = count + 1, b1 * mean + (1 - b1) * Q.u, b2 * square + (1 - b2) * Q.u**2
        self._moments[t] = count, mean, square
        root = (square / (1 - b2**count)) ** 0.5
        return DiagonalOperator((root + self.epsilon) / self.learning_rate), mean / (1 - b1**count)


@dataclass(frozen=True)
class Proximal:
    """Q_uu + M/η: any of the above as a control cost ½‖δu‖² in the metric M/η, beside the exact Q_uu."""

    base: Curvature

    def __call__(self, t: int, Q: ActionValue) -> tuple[Cholesky, Any]:
        operator, direction = self.base(t, Q)
        return Cholesky(Q.uu + operator.dense()), direction


def _check_rate(learning_rate: float, *decays: float) -> None:
    if not 0 < learning_rate < float("inf"):
        raise ProblemError(f"learning_rate must be positive and finite, got {learning_rate!r}")
    for decay in decays:
        if not 0 <= decay < 1:
            raise ProblemError(f"a decay must lie in [0, 1), got {decay!r}")
