"""Vectors of a batch, kept implicit: per-sample combinations of back-propagated base vectors.

A batch has B trajectories that share each control. With first-order layer dynamics everything that the
factored Bellman recursion (Prop. 3) handles is a linear combination of R ordinary back-propagated vectors per
sample, so the recursion itself only touches small coefficients: V_x^i = base_i α_i and Z^i = base_i Γ_i.

Shapes: bases are (R, B, …), coefficients (B, R) for a vector and (B, R, r) for r columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ocpkit_nn.layers.metric import Control, Metric, times_bar


class Base(ABC):
    """R vectors for each of B samples, and the two sums over them that the recursion needs."""

    @abstractmethod
    def gram(self, metric: Metric | None) -> Tensor:
        """Return the inner products base_iᵀ M⁻¹ base_i, (B, R, R)."""


class StateBase(Base):
    """Vectors in the space of a layer's input or output, computed when first asked for.

    Parameters
    ----------
    vectors
        (R, B, *shape), or a function that returns them: Q_x of the first layer is never needed.
    """

    def __init__(self, vectors: Tensor | Callable[[], Tensor]) -> None:
        self._vectors = vectors

    @property
    def vectors(self) -> Tensor:
        """(R, B, *shape)."""
        if not isinstance(self._vectors, Tensor):
            self._vectors = self._vectors()
        return self._vectors

    def gram(self, metric: Metric | None) -> Tensor:
        flat = self.vectors.flatten(2).transpose(0, 1)
        return flat @ flat.transpose(1, 2)

    def inner(self, deviation: Tensor) -> Tensor:
        """Return base_iᵀ δx_i, (B, R), for δx (B, *shape)."""
        if self.vectors.shape[0] == 1:
            return (self.vectors[0] * deviation).flatten(1).sum(1, keepdim=True)
        return (self.vectors * deviation).flatten(2).sum(2).T

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return base_i c_i, (B, *shape), for c (B, R)."""
        weights = coefficients.T.reshape(*coefficients.T.shape, *[1] * (self.vectors.ndim - 2))
        return (self.vectors * weights).sum(0)


class UnitBase(StateBase):
    """The unit vectors of a layer's input as a base: coefficients are the entries themselves.

    Only the shape of the one vector (1, B, *shape) that is given instead of all counts.
    """

    def inner(self, deviation: Tensor) -> Tensor:
        return deviation.flatten(1)

    def combine(self, coefficients: Tensor) -> Tensor:
        return coefficients.reshape(self.vectors.shape[1:])


class ControlBase(Base):
    """Vectors in the space of a layer's control, each a matrix (o, i) with the bias as its last column."""

    _grams: tuple[Metric | None, Tensor] | None = None
    average: Callable[[Tensor], Tensor] = staticmethod(lambda local: local)  # over the processes that share the batch

    def gram(self, metric: Metric | None) -> Tensor:
        if self._grams is None or self._grams[0] is not metric:
            gram = self._gram(metric) if metric is None or metric.gram is None else metric.gram(self)
            self._grams = metric, gram
        return self._grams[1]

    @abstractmethod
    def _gram(self, metric: Metric | None) -> Tensor: ...

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(o, i) of the control."""

    @abstractmethod
    def cross_gram(self) -> Tensor:
        """Return the inner products of all vectors of all samples, (B R, B R), the sample first."""

    def prepare(self) -> None:
        """Form the vectors that `gram` needs now, where that makes other products cheaper too."""

    @abstractmethod
    def mean(self, coefficients: Tensor, out: Tensor | None = None) -> Tensor:
        """Return (1/B) Σ_i base_i c_i, (o, i), for c (B, R); `out` is memory that may be used for it."""

    def expectation(self, coefficients: Tensor, out: Tensor | None = None) -> Tensor:
        """Return `mean` over the samples of all processes."""
        return self.average(self.mean(coefficients, out))

    def parts(self, coefficients: Tensor, layer: Control) -> list[Tensor]:
        """Return `mean` in contiguous tensors shaped as the layer's parameters."""
        return [part.contiguous() for part in layer.split(self.mean(coefficients))]

    def separable_norms(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return base_iᵀ M⁻¹ base_i, (B, 1), for R = 1 and M⁻¹ = rows (o) columnsᵀ (i) element by element."""
        return self.gram(Metric(torch.outer(rows, columns)))[..., 0]

    def mean_squares(self) -> tuple[Tensor, Tensor]:
        """Return mean squares of the vectors by rows (o) and by columns (i), up to a factor each."""
        squares = self.dense().square().mean((0, 1))
        return squares.mean(1), squares.mean(0)

    @abstractmethod
    def inner(self, matrix: Tensor) -> Tensor:
        """Return base_iᵀ u, (B, R), for one control u (o, i)."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the vectors themselves, (R, B, o, i)."""


@dataclass
class OuterBase(ControlBase):
    """Vectors v_i ⊗ x̄_i of a Linear layer (Eq. 13), never formed.

    Attributes
    ----------
    inputs
        x (B, n).
    cotangents
        v (R, B, o), V_h of Eq. 12.
    bias
        Whether x̄ is x with a one after it, so that i = n + 1; else x̄ = x. The column of ones is not kept: products
        with matrices of i = n + 1 columns, which no vector unit likes, were 1.3 times as slow.
    """

    inputs: Tensor
    cotangents: Tensor
    bias: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return self.cotangents.shape[2], self.inputs.shape[1] + self.bias

    def _gram(self, metric: Metric | None) -> Tensor:
        cotangents = self.cotangents
        if metric is None:
            squares = self.inputs.square().sum(1, keepdim=True)
            weighted = cotangents * (squares + 1 if self.bias else squares)
        else:
            inputs, cotangents = metric.rotate(self.inputs, cotangents)
            weighted = cotangents * metric.output_weights(inputs, self.bias)
        if cotangents.shape[0] == 1:
            return weighted.mul_(cotangents).sum(2)[0, :, None, None]
        return weighted.transpose(0, 1) @ cotangents.permute(1, 2, 0)

    def separable_norms(self, rows: Tensor, columns: Tensor) -> Tensor:
        inputs, n = self.inputs.square(), self.inputs.shape[1]
        right = torch.addmv(columns[n], inputs, columns[:n]) if self.bias else inputs @ columns
        return (self.cotangents[0].square() @ rows).mul_(right)[:, None]

    def mean_squares(self) -> tuple[Tensor, Tensor]:
        inputs = self.inputs.square().mean(0)
        return self.cotangents[0].square().mean(0), F.pad(inputs, (0, int(self.bias)), value=1.0)

    def cross_gram(self) -> Tensor:
        R, B, o = self.cotangents.shape
        rows = self.cotangents.transpose(0, 1).reshape(B * R, o)
        inputs = self.inputs @ self.inputs.T + float(self.bias)
        return rows @ rows.T * inputs.repeat_interleave(R, 0).repeat_interleave(R, 1)

    def combined(self, coefficients: Tensor) -> Tensor:
        """v_i c_i, (B, o)."""
        if self.cotangents.shape[0] == 1:
            return self.cotangents.select(0, 0) * coefficients
        return (coefficients[:, None] @ self.cotangents.transpose(0, 1))[:, 0]

    def parts(self, coefficients: Tensor, layer: Control) -> list[Tensor]:
        combined = self.combined(coefficients / len(coefficients))
        weight = combined.T @ self.inputs
        return [weight, combined.sum(0)] if self.bias else [weight]

    def mean(self, coefficients: Tensor, out: Tensor | None = None) -> Tensor:
        combined, n = self.combined(coefficients / coefficients.shape[0]), self.inputs.shape[1]
        mean = combined.new_empty(self.shape) if out is None else out
        torch.mm(combined.T, self.inputs, out=mean.narrow(1, 0, n))
        if self.bias:
            torch.sum(combined, 0, out=mean.select(1, n))
        return mean

    def inner(self, matrix: Tensor) -> Tensor:
        return (self.cotangents * times_bar(self.inputs, matrix.T)).sum(2).T

    def dense(self) -> Tensor:
        inputs = F.pad(self.inputs, (0, 1), value=1.0) if self.bias else self.inputs
        return self.cotangents[..., :, None] * inputs[None, :, None, :]


@dataclass
class DenseBase(ControlBase):
    """Per-sample vectors of any other layer, kept as they are.

    Attributes
    ----------
    vectors
        (R, B, o, i).
    """

    vectors: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.vectors.shape[2], self.vectors.shape[3]

    def _gram(self, metric: Metric | None) -> Tensor:
        def rotated(vectors: Tensor) -> Tensor:  # into the basis in which M is diagonal, so there is no way back
            return vectors if metric is None else metric.rotated(vectors)

        weights: Tensor | float = 1.0 if metric is None else metric.inverse
        if self.vectors.shape[0] > 1:
            vectors = rotated(self.vectors)
            return vectors.flatten(2).transpose(0, 1) @ (vectors * weights).flatten(2).permute(1, 2, 0)
        few = max(1, 2**18 // self.vectors[0, 0].numel())  # what is formed of a few samples stays in the cache
        squares = (rotated(samples).square().flatten(1) for samples in self.vectors[0].split(few))
        norms = [some @ weights.flatten() if isinstance(weights, Tensor) else some.sum(1) * weights for some in squares]
        return torch.cat(norms)[:, None, None]

    def cross_gram(self) -> Tensor:
        rows = self.vectors.transpose(0, 1).flatten(0, 1).flatten(1)
        return rows @ rows.T

    def mean(self, coefficients: Tensor, out: Tensor | None = None) -> Tensor:
        R, B, o, i = self.vectors.shape
        weights = (coefficients / B).T.reshape(R * B)
        return (weights @ self.vectors.reshape(R * B, o * i)).reshape(o, i)

    def inner(self, matrix: Tensor) -> Tensor:
        return (self.vectors * matrix).flatten(2).sum(2).T

    def dense(self) -> Tensor:
        return self.vectors


def small_product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply per-sample matrices; one inner column needs no matrix product."""
    return a * b if a.shape[-1] == 1 else a @ b


@dataclass
class Combination:
    """Per-sample combinations of a base, the array type that the Bellman step sees on the neural side.

    Attributes
    ----------
    base
        Where the vectors come from.
    coefficients
        (B, R): one vector per sample; (B, R, r): r columns per sample.
    metric
        If given, the vectors are M⁻¹ times the combination.
    """

    base: Any
    coefficients: Tensor
    metric: Metric | None = None

    ndim: int = field(default=1, init=False)

    def swapaxes(self, first: int, second: int) -> Transposed:
        """Return the transpose, which can be multiplied by another combination of the same space."""
        return Transposed(self)

    def __neg__(self) -> Combination:
        return Combination(self.base, -self.coefficients, self.metric)

    def __add__(self, other: Any) -> Combination:
        if isinstance(other, float) and other == 0.0:
            return self
        return Combination(self.base, self.coefficients + other.coefficients, self.metric)

    __radd__ = __add__

    def __matmul__(self, small: Tensor) -> Combination:
        """Multiply the columns (r) by per-sample matrices (B, r, s)."""
        return Combination(self.base, small_product(self.coefficients, small), self.metric)

    def matvec(self, small: Tensor) -> Combination:
        """Multiply the columns (r) by per-sample vectors (B, r)."""
        return Combination(self.base, small_product(self.coefficients, small[..., None])[..., 0], self.metric)

    def inner_product(self, other: Combination) -> Tensor:
        """Return the inner product of two vectors per sample, (B,)."""
        product: Tensor = Combination(self.base, self.coefficients[..., None]).swapaxes(-1, -2) @ other
        return product[..., 0]


@dataclass(frozen=True)
class Transposed:
    """The transpose of a combination's columns."""

    columns: Combination

    def __matmul__(self, other: Combination) -> Tensor:
        """Return the per-sample products, (B, r) for a vector and (B, r, s) for columns."""
        gram: Tensor = self.columns.base.gram(other.metric)
        left = small_product(self.columns.coefficients.transpose(1, 2), gram)
        if other.coefficients.ndim == 2:
            return small_product(left, other.coefficients[..., None])[..., 0]
        return small_product(left, other.coefficients)
