"""Curvatures for Q_uu: exact with Levenberg damping, identity, adaptive diagonal, Adam (Eq. 9, 15; Table 2).

A curvature maps (stage, Q) to a positive definite operator H and a vector g, and the Bellman step takes
k = −H⁻¹ g, K = −H⁻¹ Q_ux. The learning rate is part of H, as in Eq. 7: H = M/η. Adaptive curvatures keep
running averages per stage and therefore belong to one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ocpkit.errors import ProblemError
from ocpkit.recursion.bellman import ActionValue, Curvature
from ocpkit.recursion.linalg import Cholesky, diagonal, diagonal_matrix, identity_like, matvec, select

Memory = dict[int, dict[str, Any]]
"""Memory of an adaptive curvature for each stage, by name."""


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
class ScaledIdentity:
    """The matrix s I (m, m), s > 0, of the size and library of the vectors (m,) `like`."""

    scale: float
    like: Any

    def solve(self, right: Any) -> Any:
        """Divide by s."""
        return right / self.scale

    def matvec(self, vector: Any) -> Any:
        """Multiply by s."""
        return self.scale * vector

    def dense(self) -> Any:
        """Return the matrix (tests and small problems)."""
        return self.scale * identity_like(self.like)


@dataclass(frozen=True)
class Metric:
    """Diagonal matrix D of the Levenberg damping Q_uu + μ D, so that μ has no unit (Marquardt 1963).

    Attributes
    ----------
    known
        D (m,) of stages with m controls: the geometric mean of |Q_uu|'s diagonal along an earlier trajectory; zero
        where there was no curvature, and none yet before the first pass.
    magnitude
        Σ |ℓ_t| + |φ| [units of J].
    """

    known: Mapping[int, Any]
    magnitude: Any

    def diagonal(self, Q: ActionValue) -> Any:
        """D (m,) at a stage: what is known, else that of |Q_uu|, else Q_u²/Σ|ℓ|, else 1."""
        return damping_unit(self.known.get(Q.u.shape[-1]), Q, self.magnitude)


def damping_unit(known: Any, Q: ActionValue, magnitude: Any) -> Any:
    """Unit of damping (m,), [J per squared unit of control]; see `Metric`."""
    steep, hessian_diagonal = Q.u**2 / select(magnitude > 0, magnitude, 1.0), abs(diagonal(Q.uu))
    own = select(hessian_diagonal > 0, hessian_diagonal, select(steep > 0, steep, 1.0 + 0 * steep))
    return own if known is None else select(known > 0, known, own)


def damped(Q: ActionValue, regularization: float, metric: Metric | None) -> Any:
    """Q_uu + μ D (m, m), or Q_uu + μ I without a metric."""
    if not regularization:
        return Q.uu
    if metric is None:
        return Q.uu + regularization * identity_like(Q.uu)
    return Q.uu + diagonal_matrix(regularization * metric.diagonal(Q))


class Symmetric:
    """Symmetric matrix (m, m), factored when it is first solved with: within bounds only a part of it has a factor."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix

    @cached_property
    def _factor(self) -> Cholesky:
        return Cholesky(self._matrix)

    def solve(self, right: Any) -> Any:
        """Solve for a vector (m,) or matrix (m, k); raises NotPositiveDefinite if there is no factor."""
        return self._factor.solve(right)

    def matvec(self, vector: Any) -> Any:
        """Multiply a vector (m,)."""
        return matvec(self._matrix, vector)

    def dense(self) -> Any:
        """Return the matrix."""
        return self._matrix


@dataclass(frozen=True)
class Exact:
    """Q_uu + μ D, the Hessian of the Bellman objective with Levenberg damping μ ≥ 0; D = I without a metric."""

    regularization: float = 0.0
    metric: Metric | None = None

    def __call__(self, t: int, Q: ActionValue) -> tuple[Symmetric, Any]:
        return Symmetric(damped(Q, self.regularization, self.metric)), Q.u


@dataclass
class Identity:
    """I/η: gradient descent with rate η (Prop. 2); with momentum, g is the velocity μ g + Q_u (Polyak 1964)."""

    learning_rate: float
    momentum: float = 0.0
    memory: Memory = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate, self.momentum)

    def __call__(self, t: int, Q: ActionValue) -> tuple[ScaledIdentity, Any]:
        direction = Q.u
        if self.momentum:
            memory = self.memory.setdefault(t, {})
            memory["velocity"] = direction = self.momentum * memory.get("velocity", 0.0) + Q.u
        return ScaledIdentity(1 / self.learning_rate, Q.u), direction


@dataclass
class AdaptiveDiagonal:
    """diag(√v + ε)/η with v ← β v + (1−β) Q_u ⊙ Q_u: RMSprop's curvature (Tieleman & Hinton 2012; Table 2)."""

    learning_rate: float
    decay: float = 0.99
    epsilon: float = 1e-8
    memory: Memory = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate, self.decay)

    def __call__(self, t: int, Q: ActionValue) -> tuple[DiagonalOperator, Any]:
        square = _average(self.memory.setdefault(t, {}), "square", Q.u**2, self.decay)
        return DiagonalOperator((square**0.5 + self.epsilon) / self.learning_rate), Q.u


@dataclass
class Adam:
    """diag(√v̂ + ε)/η with g = m̂, the bias-corrected moments of Q_u (Kingma & Ba 2015)."""

    learning_rate: float
    decays: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    memory: Memory = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate, *self.decays)

    def __call__(self, t: int, Q: ActionValue) -> tuple[DiagonalOperator, Any]:
        memory, (b1, b2) = self.memory.setdefault(t, {}), self.decays
        memory["count"] = count = memory.get("count", 0) + 1
        mean = _average(memory, "mean", Q.u, b1)
        square = _average(memory, "square", Q.u**2, b2)
        root = square**0.5 / (1 - b2**count) ** 0.5
        return DiagonalOperator((root + self.epsilon) / self.learning_rate), mean / (1 - b1**count)


@dataclass(frozen=True)
class Proximal:
    """Q_uu + M/η: any of the above as a control cost ½‖δu‖² in the metric M/η, beside the exact Q_uu."""

    base: Curvature

    def __call__(self, t: int, Q: ActionValue) -> tuple[Symmetric, Any]:
        operator, direction = self.base(t, Q)
        return Symmetric(Q.uu + operator.dense()), direction


def _average(memory: dict[str, Any], name: str, new: Any, decay: float) -> Any:
    """Update an exponential moving average in place, from zero: a ← β a + (1−β) new."""
    if name not in memory:
        memory[name] = 0 * new
    memory[name] *= decay
    memory[name] += (1 - decay) * new
    return memory[name]


def _check_rate(learning_rate: float, *decays: float) -> None:
    if not 0 < learning_rate < float("inf"):
        raise ProblemError(f"learning_rate must be positive and finite, got {learning_rate!r}")
    for decay in decays:
        if not 0 <= decay < 1:
            raise ProblemError(f"a decay must lie in [0, 1), got {decay!r}")
