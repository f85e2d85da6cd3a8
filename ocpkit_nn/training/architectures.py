"""Networks beyond the paper's, small, as chains of stages: with skip connections and batch norm; attention.

A stage sees one sample at a time, so batch norm, which does not, is a stage of its own: it stands between residual
blocks, not inside them. What a skip connection crosses is one stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit.errors import ProblemError
from ocpkit_nn.data import Dataset


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Any:
        return x + self.body(x)


def residual(data: Dataset, channels: int = 8, blocks: int = 2) -> nn.Sequential:
    """Return a convolution, residual blocks of two convolutions with batch norm around them, and a Linear layer.

    (B, C, H, W) → (B, classes), with one pooling of 2 × 2 at the end.
    """
    shape = _image(data)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    for _ in range(blocks):
        convolutions = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        layers += [Residual(next(convolutions), nn.ReLU(), next(convolutions)), nn.BatchNorm2d(channels), nn.ReLU()]
    pooled = channels * (shape[1] // 2) * (shape[2] // 2)
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(pooled, data.classes))


class Embedding(nn.Module):
    """Tokens (B, T, n) → (B, T, width): a Linear layer plus a vector for each position."""

    def __init__(self, tokens: int, features: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, x: Tensor) -> Any:
        return self.linear(x) + self.position


class Attention(nn.Module):
    """Multi-head self-attention of tokens (B, T, width) (Vaswani et al. 2017).

    Written out: torch's fused kernel has no rule for derivatives sample by sample and would loop over them.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Any:
        query, key, value = self.inputs(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(3)
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class MeanOfTokens(nn.Module):
    """(B, T, width) → (B, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def transformer(data: Dataset, width: int = 16, heads: int = 2) -> nn.Sequential:
    """Return an encoder of one block whose tokens are an image's rows, (B, C, H, W) → (B, classes).

    Attention and the two Linear layers after it are a stage each, with their layer norm and skip connection.
    """
    channels, height, breadth = _image(data)
    return nn.Sequential(
        nn.Flatten(1, 2),
        Embedding(channels * height, breadth, width),
        Residual(nn.LayerNorm(width), Attention(width, heads)),
        Residual(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)),
        nn.LayerNorm(width),
        MeanOfTokens(),
        nn.Linear(width, data.classes),
    )


ARCHITECTURES: dict[str, Callable[[Dataset], nn.Module]] = {"residual": residual, "transformer": transformer}
"""By the names that `networks.build` takes."""


def _image(data: Dataset) -> tuple[int, int, int]:
    if len(data.input_shape) != 3:
        raise ProblemError(f"this network needs images (C, H, W); samples of {data.name} are {data.input_shape}")
    channels, height, breadth = data.input_shape
    return channels, height, breadth
