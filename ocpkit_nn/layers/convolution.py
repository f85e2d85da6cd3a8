"""Convolutions as layers (Eq. 14): products with one gradient operator of torch, per-sample gradients by patches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocpkit_nn.layers.layers import WeightAndBias
from ocpkit_nn.layers.metric import Control
from ocpkit_nn.layers.vectors import DenseBase

PATCH_ENTRIES = 2**20
"""Numbers in the patches of a convolution that are formed at a time, so that they stay in the cache."""


class ConvLayer(WeightAndBias):
    """h = ω ∗ x + b (Eq. 14), one- and two-dimensional, with stride, zero padding, dilation and groups."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        assert isinstance(module, (nn.Conv1d, nn.Conv2d))
        if isinstance(module.padding, str) or module.padding_mode != "zeros":
            raise ValueError(
                f"{name}: padding {module.padding!r} of mode {module.padding_mode!r} is not supported; "
                "give zero padding as numbers"
            )
        self.factored = module.groups == 1
        self._two = isinstance(module, nn.Conv2d)
        shapes = (module.stride, module.padding, module.dilation, module.kernel_size)
        self._stride, self._padding, self._dilation, self._kernel = (
            shape if self._two else _as_row(shape, fill) for shape, fill in zip(shapes, (1, 0, 1, 1))
        )
        self._groups = module.groups

    def _image(self, x: Tensor) -> Tensor:
        """View a sequence (…, C, L) as an image of one row (…, C, 1, L)."""
        return x if self._two else x.unsqueeze(-2)

    def state_vjp(self, x: Tensor, cotangents: Tensor) -> Tensor:
        products = [self._backward(x, v, (True, False, False))[0] for v in cotangents]
        return (products[0][None] if len(products) == 1 else torch.stack(products)).reshape(
            *cotangents.shape[:2], *x.shape[1:]
        )

    def _backward(self, x: Tensor, v: Tensor, which: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the requested gradients of input, weight and bias; the others are empty."""
        # torch.nn.grad calls the same operator, but allocates a placeholder of the size of x for a missing argument.
        gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            self._image(v),
            self._image(x),
            self._image(self.weight.detach()),
            [len(self.weight)],
            self._stride,
            self._padding,
            self._dilation,
            False,
            [0, 0],
            self._groups,
            which,
        )
        return gradients

    def _patch_view(self, x: Tensor) -> Tensor:
        """View the patches that the kernel sees, (B, C, k, k, *positions), in a padded copy of x."""
        image = F.pad(self._image(x), (self._padding[1], self._padding[1], self._padding[0], self._padding[0]))
        spans = [d * (k - 1) for d, k in zip(self._dilation, self._kernel)]
        counts = [(size - span - 1) // s + 1 for size, span, s in zip(image.shape[2:], spans, self._stride)]
        a, b, *steps = image.stride()
        within, between = ([f * s for f, s in zip(fs, steps)] for fs in (self._dilation, self._stride))
        return image.as_strided((*image.shape[:2], *self._kernel, *counts), (a, b, *within, *between))

    def _patches(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield samples and the patches that the kernel sees of them, (n, groups, i, positions), in the same memory."""
        g, i = self._groups, self.weight[0].numel()
        bar, positions = i + (self.bias is not None), math.prod(self._patch_view(x[:1]).shape[4:])
        few = min(len(x), max(1, PATCH_ENTRIES // (bar * g * positions)))
        memory = x.new_ones(g, bar, few, positions)  # the last row belongs to the bias
        for first in range(0, len(x), few):
            view = self._patch_view(x[first : first + few])
            own = memory[:, :, : len(view)]
            rows = own[:, :i].unflatten(1, (-1, *view.shape[2:4])).unflatten(5, view.shape[4:])
            rows.copy_(view.unflatten(1, (g, -1)).movedim(0, 4))
            yield slice(first, first + len(view)), own.permute(2, 0, 1, 3)

    def sample_gradients(self, x: Tensor, cotangents: Tensor) -> Tensor:
        """Return the gradients of every sample, (R, B, o, i)."""
        (R, B, o), g = cotangents.shape[:3], self._groups
        v = cotangents.reshape(R, B * g, o // g, -1)
        gradients = cotangents.new_empty(R, B * g, o // g, self.weight[0].numel() + (self.bias is not None))
        for samples, patches in self._patches(x):
            some = slice(samples.start * g, samples.stop * g)
            for r in range(R):
                torch.bmm(v[r, some], patches.flatten(0, 1).mT, out=gradients[r, some])
        return gradients.reshape(R, B, o, -1)

    def sum_of_gradients(self, x: Tensor, cotangents: Tensor) -> list[Tensor]:
        """Return the sum of the samples' gradients over one batch of cotangents (B, …), as the parameters."""
        _, weight, bias = self._backward(x, cotangents, (False, True, self.bias is not None))
        weight = weight.reshape(self.weight.shape)  # a sequence was an image of one row
        return [weight] if self.bias is None else [weight, bias]

    def control_vjp(self, x: Tensor, cotangents: Tensor) -> ConvBase:
        return ConvBase(self, x, cotangents)

    def factors(self, x: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        v, A = cotangents.flatten(2), x.new_zeros(())
        for _, patches in self._patches(x):
            rows = patches[:, 0].transpose(0, 1).flatten(1)
            A = torch.addmm(A, rows, rows.T)
        return A.div_(len(x) * v.shape[2]), (v @ v.mT).mean(0)


class ConvBase(DenseBase):
    """Per-sample gradients of a convolution; their mean alone never forms them, but is cheap where they are formed."""

    def __init__(self, layer: ConvLayer, x: Tensor, cotangents: Tensor) -> None:
        self._layer, self._x, self._cotangents = layer, x, cotangents
        self._formed: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        weight = self._layer.weight
        return len(weight), weight[0].numel() + (self._layer.bias is not None)

    @property
    def vectors(self) -> Tensor:  # type: ignore[override]
        """(R, B, o, i)."""
        if self._formed is None:
            self._formed = self._layer.sample_gradients(self._x, self._cotangents)
        return self._formed

    def prepare(self) -> None:
        assert self.vectors is not None

    def separable_norms(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the norms for uncorrelated products at different positions, and columns = channels ⊗ offsets."""
        layer = self._layer
        if layer._groups > 1:
            return super().separable_norms(rows, columns)
        image, v = layer._image(self._x), layer._image(self._cotangents[0])
        weights = columns[: layer.weight[0].numel()].view(image.shape[1], *layer._kernel)
        channels, offsets = (
            weights.sum((1, 2)),
            weights.sum(0) / weights.sum().clamp_min(torch.finfo(columns.dtype).tiny),
        )
        squares = (channels @ image.square().flatten(2)).view(len(image), 1, *image.shape[2:])
        seen = F.conv2d(squares, offsets[None, None], None, layer._stride, layer._padding, layer._dilation)
        right = seen.flatten(1) if layer.bias is None else seen.flatten(1).add_(columns[-1])
        return (rows @ v.square().flatten(2)).mul_(right).sum(1, keepdim=True)

    def mean_squares(self) -> tuple[Tensor, Tensor]:
        layer = self._layer
        if layer._groups > 1:
            return super().mean_squares()
        inputs = self._x.square().flatten(2).mean((0, 2)).repeat_interleave(layer.weight[0, 0].numel())
        return self._cotangents[0].square().flatten(2).mean((0, 2)), F.pad(
            inputs, (0, int(layer.bias is not None)), value=1.0
        )

    def mean(self, coefficients: Tensor, out: Tensor | None = None) -> Tensor:
        if self._formed is not None:
            return super().mean(coefficients)
        return self._layer.join(self.parts(coefficients, self._layer))

    def parts(self, coefficients: Tensor, layer: Control) -> list[Tensor]:
        if self._formed is not None:
            return super().parts(coefficients, layer)
        weights = coefficients.T.reshape(*coefficients.T.shape, *[1] * (self._cotangents.ndim - 2))
        weights = weights / coefficients.shape[0]
        v = self._cotangents
        return self._layer.sum_of_gradients(self._x, v[0] * weights[0] if len(v) == 1 else (v * weights).sum(0))


def _as_row(shape: Sequence[int] | int, fill: int) -> tuple[int, int]:
    return fill, shape if isinstance(shape, int) else shape[0]
