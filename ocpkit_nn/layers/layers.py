"""Layers as maps h = g(x, u): their values and the products of their Jacobians with vectors (Eq. 13, 14).

No Jacobian is formed. Cotangents are (R, B, *shape of h): R vectors for each of B samples. A layer's control u
is one matrix (o, i), the bias its last column; its per-sample gradients are a `ControlBase`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocpkit_nn.layers.replay import Replay
from ocpkit_nn.layers.vectors import ControlBase, DenseBase, OuterBase


class Layer(ABC):
    """A module with parameters, seen as the controlled part of a stage."""

    factored = False  # whether E[x xᵀ] ⊗ E[V_h V_hᵀ] (Eq. 15) exists for this layer
    replay: Replay | None = None  # for evaluations after a step's first, where these could have side effects
    couples_samples = False  # whether a sample's state enters what the layer does with the others

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name
        self.parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]

    def forward(self, x: Tensor) -> Tensor:
        """Return h = g(x, u)."""
        result: Tensor = self.module(x)
        return result

    def second_forward(self, x: Tensor) -> Tensor:
        """Return h at other states of the same step."""
        return self.forward(x)

    def check_derivatives(self, x: Tensor) -> None:
        """Check the products with g_u at one sample x (1, …), where nothing else would show that they are wrong."""
        return

    def recording(self, x: Tensor) -> AbstractContextManager[None]:
        """Context of the stage's first evaluation in a step, at x (B, …); see `replay`."""
        return nullcontext() if self.replay is None else self.replay.recording(x)

    def replaying(self) -> AbstractContextManager[None]:
        """Context of a further evaluation: the functions of the first one, without side effects."""
        return nullcontext() if self.replay is None else self.replay.replaying()

    @abstractmethod
    def state_vjp(self, x: Tensor, cotangents: Tensor) -> Tensor:
        """Return g_xᵀ v, (R, B, *shape of x)."""

    @abstractmethod
    def control_vjp(self, x: Tensor, cotangents: Tensor) -> ControlBase:
        """Return g_uᵀ v for every sample."""

    def through_batch(self, x: Tensor, Vx: Tensor) -> Tensor:
        """Return V_x (B, …) of the batch's total cost from that of every sample alone; the same without coupling."""
        return Vx

    def factors(self, x: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        """Return Kronecker's A = E[x̄ x̄ᵀ] over samples and positions and S = E[V_h V_hᵀ], for V_h (B, …)."""
        raise NotImplementedError(f"{self.name}: no Kronecker factors for {type(self.module).__name__}")

    @abstractmethod
    def split(self, control: Tensor) -> list[Tensor]:
        """Cut a matrix (o, i) into views shaped as the parameters."""

    @abstractmethod
    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return tensors shaped as the parameters as one matrix (o, i)."""

    def matrix(self) -> Tensor:
        """Return the control as one matrix (o, i)."""
        return self.join([parameter.detach() for parameter in self.parameters])

    def add_(self, change: Tensor) -> None:
        """Add a matrix (o, i) to the control in place."""
        torch._foreach_add_(self.parameters, self.split(change), alpha=1)


def free_weight_and_bias(module: nn.Module) -> list[Tensor]:
    """Return the trainable ones of a module's weight and bias, in this order."""
    return [p for p in (module._parameters["weight"], module._parameters["bias"]) if p is not None and p.requires_grad]


class WeightAndBias(Layer):
    """A layer whose control is a weight (o, …) and, where it is trainable, a bias (o,)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        self.parameters = free_weight_and_bias(module)
        self.weight, *biases = self.parameters
        self.bias = biases[0] if biases else None

    def split(self, control: Tensor) -> list[Tensor]:
        shape, size = self.weight.shape[1:], control.shape[1]
        weight = control if self.bias is None else control.narrow(1, 0, size - 1)  # half the price of [:, :-1]
        if len(shape) > 1:
            weight = weight.unflatten(1, shape)
        return [weight] if self.bias is None else [weight, control.select(1, size - 1)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        weight = parts[0].flatten(1)
        return weight if self.bias is None else torch.cat([weight, parts[1][:, None]], dim=1)


def append_one(x: Tensor, bias: Tensor | None) -> Tensor:
    """Return x̄, the inputs (…, n) with a one after them where there is a bias."""
    return x if bias is None else torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)


class LinearLayer(WeightAndBias):
    """h = W x + b (Eq. 13) on inputs (B, n), or (B, …, n) with the weights shared by all positions of a sample."""

    factored = True

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        self._added: Tensor | None = module.bias  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self._added)

    def state_vjp(self, x: Tensor, cotangents: Tensor) -> Tensor:
        return cotangents @ self.weight.detach()

    def control_vjp(self, x: Tensor, cotangents: Tensor) -> ControlBase:
        if x.ndim == 2:
            return OuterBase(x, cotangents, self.bias is not None)
        rows = append_one(x, self.bias)
        return DenseBase(cotangents.flatten(2, -2).transpose(2, 3) @ rows.flatten(1, -2))

    def factors(self, x: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        rows, v = append_one(x, self.bias).flatten(0, -2), cotangents.flatten(0, -2)
        return (rows.T @ rows).div_(len(rows)), (v.T @ v).div_(len(x))


class BatchNormLayer(Layer):
    """Batch normalization, h = γ (x − μ)/σ + β per channel, as a trajectory of its own sees it: μ and σ are constants.

    The mean and variance of the batch couple its samples. They are measured once per step, at the nominal states,
    and kept for the second forward pass; so is V_xx. V_x alone knows of the coupling, by `through_batch`: without
    that, no step would be the baseline's (Prop. 2), and training fails at customary learning rates.
    """

    module: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        self.parameters = free_weight_and_bias(module)
        self._scale: Tensor | None = None
        self._shift: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalize; in training this measures the batch and updates the running statistics."""
        module = self.module
        axes = [0, *range(2, x.ndim)]
        self.couples_samples = module.training or module.running_mean is None
        if self.couples_samples:
            mean, variance = x.mean(axes), x.var(axes, unbiased=False)
            result = super().forward(x)
        else:
            assert module.running_var is not None
            assert module.running_mean is not None
            mean, variance, result = module.running_mean, module.running_var, super().forward(x)
        self._shift, self._scale = mean.detach(), (variance.detach() + module.eps).rsqrt()
        return result

    def _channelwise(self, v: Tensor, x: Tensor) -> Tensor:
        return v.reshape(-1, *[1] * (x.ndim - 2))

    def normalized(self, x: Tensor) -> Tensor:
        """Return (x − μ)/σ with the statistics of the last `forward`."""
        assert self._shift is not None
        assert self._scale is not None
        return (x - self._channelwise(self._shift, x)) * self._channelwise(self._scale, x)

    def second_forward(self, x: Tensor) -> Tensor:
        """Return h with the statistics of the last `forward`."""
        weight, bias = self.parameters
        return self.normalized(x) * self._channelwise(weight.detach(), x) + self._channelwise(bias.detach(), x)

    def state_vjp(self, x: Tensor, cotangents: Tensor) -> Tensor:
        assert self._scale is not None
        return cotangents * self._channelwise(self.parameters[0].detach() * self._scale, x)

    def through_batch(self, x: Tensor, Vx: Tensor) -> Tensor:
        """Take from V_x what would move a channel's mean or variance: the normalization undoes it."""
        if not self.couples_samples:
            return Vx
        axes, hat = [0, *range(2, x.ndim)], self.normalized(x)
        return Vx - Vx.mean(axes, keepdim=True) - hat * (Vx * hat).mean(axes, keepdim=True)

    def control_vjp(self, x: Tensor, cotangents: Tensor) -> DenseBase:
        v = cotangents.reshape(*cotangents.shape[:3], -1)
        hat = self.normalized(x).reshape(*x.shape[:2], -1)
        return DenseBase(torch.stack([(v * hat).sum(-1), v.sum(-1)], dim=3))

    def split(self, control: Tensor) -> list[Tensor]:
        return list(control.T)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts), dim=1)
