"""A batch in parts: a layer sees one micro-batch at a time, the Bellman recursion sees the whole batch.

M_t is an expectation over the batch, and V of stage t needs it; so micro-batches cannot run one after the other
through all stages, as back-propagation can, but go together from stage to stage.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ocpkit_nn.layers.layers import BatchNormLayer
from ocpkit_nn.layers.metric import Control, Metric
from ocpkit_nn.layers.stages import Linearization, Stage
from ocpkit_nn.layers.vectors import ControlBase, DenseBase, StateBase


class MicroBatchedStage(Stage):
    """A stage whose layer and tail are evaluated and differentiated for at most `size` samples at a time.

    Masks of dropout are kept for every micro-batch, and batch norm measures each by itself.
    """

    def __init__(self, stage: Stage, size: int) -> None:
        self.layer, self.name, self.tail, self.modules = stage.layer, stage.name, stage.tail, stage.modules
        self._size, self._replicas, self.is_regular = size, [stage], stage.is_regular

    def adapt(self, x: Tensor) -> None:
        first = self._replicas[0]
        first.adapt(x)
        if first.layer is not self.layer:
            self.layer, self._replicas, self.is_regular = first.layer, [first], first.is_regular

    def linearize(self, x: Tensor) -> tuple[Tensor, Linearization]:
        """Evaluate at x (B, …) and remember what the Jacobian products need."""
        parts = self._parts(x)
        while len(self._replicas) < len(parts):
            self._replicas.append(_replica_of(self._replicas[0]))
        pairs = [stage.linearize(part) for stage, part in zip(self._replicas, parts)]
        if len(pairs) == 1:
            return pairs[0]
        return torch.cat([y for y, _ in pairs]), JoinedLinearization(x, [linearization for _, linearization in pairs])

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        """Cut a batch as evenly as can be; where batch norm would measure a single sample, it joins others."""
        count = -(-len(x) // self._size)
        if self._size > 1 and isinstance(self.layer, BatchNormLayer):
            count = max(1, min(count, len(x) // 2))
        return x.tensor_split(count)

    def second_forward(self, x: Tensor) -> Tensor:
        """Evaluate at new states with the masks and statistics of the last `linearize`."""
        return torch.cat([stage.second_forward(part) for stage, part in zip(self._replicas, self._parts(x))])


def _replica_of(stage: Stage) -> Stage:
    """Return a stage on the same modules with masks and statistics of its own."""
    replica = copy.copy(stage)
    replica.layer = copy.copy(stage.layer)
    replica.reset()
    return replica


class JoinedLinearization(Linearization):
    """The linearizations of the micro-batches as one of the batch x (B, …)."""

    def __init__(self, x: Tensor, parts: Sequence[Linearization]) -> None:
        super().__init__(parts[0].layer, x)
        self._parts, self._sizes = parts, [len(part.x) for part in parts]

    def _multiply(self, base: StateBase) -> None:
        if self._base is not base:
            self._base = base
            split = [StateBase(vectors) for vectors in base.vectors.split(self._sizes, dim=1)]
            products = [part.state_vjp(own) for part, own in zip(self._parts, split)]
            self._state = StateBase(lambda: torch.cat([own.vectors for own in products], dim=1))
            self.control = JoinedBase([part.control_vjp(own) for part, own in zip(self._parts, split)], self._sizes)

    def through_batch(self, Vx: Tensor) -> Tensor:
        """V_x (B, …) of every micro-batch's total cost."""
        return torch.cat([part.through_batch(own) for part, own in zip(self._parts, Vx.split(self._sizes))])

    def factors(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return Kronecker's A and S of all samples."""
        pairs = [part.factors(own) for part, own in zip(self._parts, coefficients.split(self._sizes))]
        return weighted(pairs, self._sizes)


def weighted(pairs: Sequence[tuple[Tensor, Tensor]], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the means over all samples from those over parts of so many samples."""
    first, second = (sum(mean * (size / sum(sizes)) for mean, size in zip(means, sizes)) for means in zip(*pairs))
    return first, second  # type: ignore[return-value]


class JoinedBase(ControlBase):
    """The vectors of the micro-batches, each part kept in its own form."""

    def __init__(self, parts: list[ControlBase], sizes: list[int]) -> None:
        self._parts, self._sizes = parts, sizes

    @property
    def shape(self) -> tuple[int, int]:
        return self._parts[0].shape

    def _gram(self, metric: Metric | None) -> Tensor:
        return torch.cat([part.gram(metric) for part in self._parts])

    def cross_gram(self) -> Tensor:
        return DenseBase(self.dense()).cross_gram()

    def prepare(self) -> None:
        for part in self._parts:
            part.prepare()

    def mean(self, coefficients: Tensor, out: Tensor | None = None) -> Tensor:
        means = [part.mean(own) * len(own) for part, own in zip(self._parts, coefficients.split(self._sizes))]
        return torch.stack(means).sum(0) / len(coefficients)

    def parts(self, coefficients: Tensor, layer: Control) -> list[Tensor]:
        split = zip(self._parts, self._sizes, coefficients.split(self._sizes))
        means = [torch._foreach_mul(part.parts(own, layer), size / len(coefficients)) for part, size, own in split]
        return [torch.stack(same).sum(0) for same in zip(*means)]

    def separable_norms(self, rows: Tensor, columns: Tensor) -> Tensor:
        return torch.cat([part.separable_norms(rows, columns) for part in self._parts])

    def mean_squares(self) -> tuple[Tensor, Tensor]:
        return weighted([part.mean_squares() for part in self._parts], self._sizes)

    def inner(self, matrix: Tensor) -> Tensor:
        return torch.cat([part.inner(matrix) for part in self._parts])

    def dense(self) -> Tensor:
        return torch.cat([part.dense() for part in self._parts], dim=1)
