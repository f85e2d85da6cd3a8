"""The layer-wise feedback policy δu = k + (1/B) Σ_i K_i δx_i as linear operators, never formed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ocpkit_nn.layers.metric import Metric
from ocpkit_nn.layers.vectors import ControlBase, StateBase


@dataclass(frozen=True)
class FeedbackGain:
    """K_i = M⁻¹ q_i C_i p_iᵀ of one layer, with base vectors q_i (R columns) of the control and p_i of the state.

    Attributes
    ----------
    control, state
        f_uᵀ and f_xᵀ times the back-propagated base vectors.
    core
        C (B, R, R).
    metric
        M/η of the layer.
    """

    control: ControlBase
    state: StateBase
    core: Tensor
    metric: Metric

    def _coefficients(self, deviation: Tensor) -> Tensor:
        inner = self.state.inner(deviation)
        if inner.shape[1] == 1:
            return self.core.select(2, 0) * inner
        return (self.core @ inner[..., None])[..., 0]

    def matvec(self, deviation: Tensor) -> Tensor:
        """Return the batch's change of control (1/B) Σ_i K_i δx_i, a matrix (o, i), for δX (B, *shape)."""
        return self.metric.solve(self.unscaled(deviation))

    def unscaled(self, deviation: Tensor) -> Tensor:
        """Return `matvec` before M⁻¹, a new matrix (o, i)."""
        return self.control.mean(self._coefficients(deviation))

    def rmatvec(self, control: Tensor) -> Tensor:
        """Return the adjoint (1/B) K_iᵀ u for every sample, (B, *shape), for u (o, i)."""
        inner = self.control.inner(self.metric.solve(control))
        weights = (self.core.transpose(1, 2) @ inner[..., None])[..., 0]
        return self.state.combine(weights) / len(weights)

    def mean_matvec(self, deviation: Tensor) -> Tensor:
        """Return K̄ δx (o, i) of the mean gain K̄ = (1/B) Σ_i K_i, for one deviation δx (*shape)."""
        return self.matvec(deviation.expand(len(self.core), *deviation.shape))

    def mean_rmatvec(self, control: Tensor) -> Tensor:
        """Return K̄ᵀ u (*shape) of the mean gain."""
        return self.rmatvec(control).sum(0)

    def svd(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Leading singular triplets of the mean gain K̄ (m, n), by Lanczos on products (Alg. 4, line 3).

        Parameters
        ----------
        k
            Number of triplets, at least 1; fewer are returned if K̄ is smaller.

        Returns
        -------
        tuple
            U (o·i, k), σ (k,) descending, Vᵀ (k, n).
        """
        from scipy.sparse.linalg import LinearOperator, svds

        like = self.core
        o, i = self.control.shape
        shape = self.state.vectors.shape[2:]
        n = int(np.prod(shape))

        def to_tensor(vector: np.ndarray, size: tuple[int, ...]) -> Tensor:
            return torch.as_tensor(vector, dtype=like.dtype, device=like.device).reshape(size)

        def forward(x: np.ndarray) -> np.ndarray:
            return np.asarray(self.mean_matvec(to_tensor(x, shape)).flatten().cpu(), dtype=float)

        def adjoint(u: np.ndarray) -> np.ndarray:
            return np.asarray(self.mean_rmatvec(to_tensor(u, (o, i))).flatten().cpu(), dtype=float)

        if k >= min(o * i, n) - 1:
            matrix = torch.stack([torch.as_tensor(forward(e)) for e in np.eye(n)], dim=1)
            U, values, Vt = torch.linalg.svd(matrix, full_matrices=False)
            return U[:, :k], values[:k], Vt[:k]
        random = np.random.default_rng(0)
        if not forward(random.normal(size=n)).any():  # K̄ = 0 (every path is dead), which Lanczos refuses
            return to_tensor(np.eye(o * i, k), (o * i, k)), like.new_zeros(k), to_tensor(np.eye(k, n), (k, n))
        operator = LinearOperator((o * i, n), matvec=forward, rmatvec=adjoint, dtype=float)
        U, values, Vt = svds(operator, k=k, v0=random.normal(size=min(o * i, n)), solver="arpack")
        order = np.argsort(values)[::-1].copy()
        return torch.as_tensor(U[:, order]), torch.as_tensor(values[order]), torch.as_tensor(Vt[order])
