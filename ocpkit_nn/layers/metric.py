"""The shared control cost M/η of a layer as an operator on its control, a matrix (o, i).

Every curvature of Table 2 is a diagonal in some pair of orthonormal bases: the identity and the adaptive
diagonals in the given one, Kronecker factors A ⊗ S and EKFAC in the eigenvectors of A and S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Control(Protocol):
    """The parameters of a layer as one matrix (o, i)."""

    parameters: list[Tensor]

    def split(self, control: Tensor) -> list[Tensor]: ...

    def add_(self, change: Tensor) -> None: ...


@dataclass(eq=False)
class Metric:
    """M/η = (U_S ⊗ U_A) diag(1/w) (U_S ⊗ U_A)ᵀ, kept by its inverse since that is what is used.

    Attributes
    ----------
    inverse
        w (o, i), or one number for a multiple of the identity.
    input_basis, output_basis
        U_A (i, i) and U_S (o, o), None for the identity.
    """

    inverse: Tensor | float
    input_basis: Tensor | None = None
    output_basis: Tensor | None = None

    gram: Any = None  # set by metrics that are no rotated diagonal: (base) -> base_iᵀ M⁻¹ base_i

    def rotated(self, control: Tensor) -> Tensor:
        """Express controls (…, o, i) in the bases in which M is diagonal."""
        if self.output_basis is None or self.input_basis is None:
            return control
        return self.output_basis.T @ control @ self.input_basis

    def _scaled(self, control: Tensor, scaling: Tensor | float) -> Tensor:
        scaled = self.rotated(control) * scaling
        if self.output_basis is None or self.input_basis is None:
            return scaled
        return self.output_basis @ scaled @ self.input_basis.T

    def solve(self, right: Tensor) -> Tensor:
        """Return M⁻¹η times controls (…, o, i)."""
        return self._scaled(right, self.inverse)

    def descend(self, layer: Control, gradient: Tensor) -> None:
        """Subtract M⁻¹η times a gradient (o, i) from the layer's control."""
        if self.input_basis is not None or self.gram is not None:
            layer.add_(self.solve(gradient).neg_())
        elif isinstance(self.inverse, Tensor):
            torch._foreach_addcmul_(layer.parameters, layer.split(gradient), layer.split(self.inverse), value=-1.0)
        else:
            torch._foreach_add_(layer.parameters, layer.split(gradient), alpha=-self.inverse)

    def matvec(self, right: Tensor) -> Tensor:
        """Return M/η times controls (…, o, i)."""
        return self._scaled(right, 1 / self.inverse)

    @property
    def weights(self) -> Tensor | None:
        """w (o, i) of an M/η that is diagonal as it is, else None."""
        inverse = self.inverse if self.input_basis is None and self.gram is None else None
        return inverse if isinstance(inverse, Tensor) else None

    def rotate(self, inputs: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        """Express the factors of v ⊗ x̄, from x (B, n), in the bases in which M is diagonal."""
        if self.output_basis is None or self.input_basis is None:
            return inputs, cotangents
        return times_bar(inputs, self.input_basis), cotangents @ self.output_basis

    def output_weights(self, inputs: Tensor, bias: bool) -> Tensor:
        """Return f_u M⁻¹η f_uᵀ of a Linear layer, Σ_j x̄_j² w_kj, as its diagonal (B, o), or (B, 1)."""
        squares, inverse = inputs * inputs, self.inverse
        if isinstance(inverse, Tensor):
            return times_bar(squares, inverse.T)
        return (squares.sum(1, keepdim=True) + float(bias)) * inverse

    def dense(self, like: Tensor) -> Tensor:
        """Return the matrix (o·i, o·i) for controls such as `like` (o, i) (tests and small layers)."""
        unit = torch.eye(like.numel(), dtype=like.dtype, device=like.device)
        return self.matvec(unit.reshape(-1, *like.shape)).reshape(unit.shape)


class RootMetric(Metric):
    """M/η = diag(root)/η, with root (o, i) = √v + ε of an adaptive rule.

    Its inverse is formed at each access and not kept: at most one layer's exists at a time.
    """

    def __init__(self, root: Tensor, rate: float) -> None:
        self._root, self._rate = root, rate

    @property
    def inverse(self) -> Tensor:  # type: ignore[override]
        """w = η/root (o, i), anew."""
        return self._root.reciprocal().mul_(self._rate)

    def descend(self, layer: Control, gradient: Tensor) -> None:
        torch._foreach_addcdiv_(layer.parameters, layer.split(gradient), layer.split(self._root), value=-self._rate)


def times_bar(inputs: Tensor, matrix: Tensor) -> Tensor:
    """Return x̄ times a matrix (i, k) for x (B, n), with x̄ = x or x with a one after it, whichever has i entries."""
    n = inputs.shape[1]
    return inputs @ matrix if len(matrix) == n else torch.addmm(matrix[n], inputs, matrix[:n])


class SampleMetric(Metric):
    """M/η = ((1/B) Σ_i q_i q_iᵀ + γ I)/η with the columns q_i (r each) of a batch: E[Q_uu] of vanilla DDP (Table 2).

    Solved in the space of the N = B r columns by Woodbury, O(N³), so M is never formed.
    """

    def __init__(self, base: Any, gamma: Tensor, damping: float, learning_rate: float) -> None:
        super().__init__(learning_rate / damping)
        self._base, self._gamma, self._batch = base, gamma, len(gamma)
        mix = torch.block_diag(*gamma)  # (B R, B r)
        self._columns_to_base = mix
        cross = mix.T @ base.cross_gram() @ mix
        unit = torch.eye(len(cross), dtype=cross.dtype, device=cross.device)
        self._inner = torch.linalg.inv(damping * self._batch * unit + cross)
        self._damping, self._rate = damping, learning_rate
        self.gram = self._sample_gram

    def solve(self, right: Tensor) -> Tensor:
        inner = self._base.inner(right).reshape(-1)  # (B R)
        weights = self._columns_to_base @ (self._inner @ (self._columns_to_base.T @ inner))
        correction = self._base.mean(weights.reshape(self._batch, -1)) * self._batch
        return (right - correction) * (self._rate / self._damping)

    def matvec(self, right: Tensor) -> Tensor:
        inner = self._columns_to_base @ (self._columns_to_base.T @ self._base.inner(right).reshape(-1))
        return (self._base.mean(inner.reshape(self._batch, -1)) + self._damping * right) / self._rate

    def dense(self, like: Tensor) -> Tensor:
        unit = torch.eye(like.numel(), dtype=like.dtype, device=like.device)
        return torch.stack([self.matvec(row.reshape(like.shape)).flatten() for row in unit])

    def _sample_gram(self, base: Any) -> Tensor:
        """base_iᵀ M⁻¹ base_i for the base that M was built from."""
        cross, mix = base.cross_gram(), self._columns_to_base
        solved = (cross - cross @ mix @ self._inner @ mix.T @ cross) * (self._rate / self._damping)
        size = len(cross) // self._batch
        blocks = solved.reshape(self._batch, size, self._batch, size)
        return torch.einsum("irjs->ijrs", blocks)[range(self._batch), range(self._batch)]
