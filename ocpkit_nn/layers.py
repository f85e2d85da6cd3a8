"""Layers as maps h = g(x, u): their values and the products of their Jacobians with vectors (Eq. 13, 14).

No Jacobian is formed. Cotangents are (R, B, *shape of h): R vectors for each of B samples. A layer's control u
is one matrix (o, i), the bias its last column; its per-sample gradients are a `ControlBase`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from ocpkit_nn.vectors import ControlBase, DenseBase, OuterBase

PATCH_ENTRIES = 2**20
"""Numbers in the patches of a convolution that are formed at a time, so that they stay in the cache."""


class Layer(ABC):
    """A module with parameters, seen as the controlled part of a stage."""

    factored = False  # whether E[x xᵀ] ⊗ E[V_h V_hᵀ] (Eq. 15) exists for this layer
    couples_samples = False  # whether a sample's state enters what the layer does with the others

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name
        self.parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]

    def forward(self, x: Tensor) -> Tensor:
        """Return h = g(x, u)."""
        result: Tensor = self.module(x)
        return result

    @abstractmethod
    def pull_state(self, x: Tensor, cotangents: Tensor) -> Tensor:
        """Return g_xᵀ v, (R, B, *shape of x)."""

    @abstractmethod
    def pull_control(self, x: Tensor, cotangents: Tensor) -> ControlBase:
        """Return g_uᵀ v for every sample."""

    def through_batch(self, x: Tensor, Vx: Tensor) -> Tensor:
        """Return V_x (B, …) of the batch's total cost from that of every sample alone; the same without coupling."""
        return Vx

    def factors(self, x: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows x̄ (N, i) and V_h (N, o) whose second moments are Kronecker's A and S."""
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


class _WeightAndBias(Layer):
    """A layer whose control is a weight (o, …) and perhaps a bias (o,)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        self.weight = module.weight  # type: ignore[assignment]
        self.bias = module.bias  # type: ignore[assignment]

    def split(self, control: Tensor) -> list[Tensor]:
        shape = self.weight.shape[1:]
        if self.bias is None:
            return [control.unflatten(1, shape)]
        return [control[:, :-1].unflatten(1, shape), control[:, -1]]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        weight = parts[0].flatten(1)
        return weight if self.bias is None else torch.cat([weight, parts[1][:, None]], dim=1)


def _append_one(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)


class LinearLayer(_WeightAndBias):
    """h = W x + b (Eq. 13) on inputs (B, n), or (B, …, n) with the weights shared by all positions of a sample."""

    factored = True

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def pull_state(self, x: Tensor, cotangents: Tensor) -> Tensor:
        return cotangents @ self.weight.detach()

    def pull_control(self, x: Tensor, cotangents: Tensor) -> ControlBase:
        if x.ndim == 2:
            return OuterBase(x, cotangents, self.bias is not None)
        rows = _append_one(x, self.bias)
        return DenseBase(cotangents.flatten(2, -2).transpose(2, 3) @ rows.flatten(1, -2))

    def factors(self, x: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        return _append_one(x, self.bias).flatten(0, -2), cotangents.flatten(0, -2)


class ConvLayer(_WeightAndBias):
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

    def pull_state(self, x: Tensor, cotangents: Tensor) -> Tensor:
        pulled = [self._backward(x, v, (True, False, False))[0] for v in cotangents]
        return (pulled[0][None] if len(pulled) == 1 else torch.stack(pulled)).reshape(
            *cotangents.shape[:2], *x.shape[1:]
        )

    def _backward(self, x: Tensor, v: Tensor, which: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor, Tensor]:
        """Return those of the gradients for the input, the weight and the bias that are asked for."""
        # torch.nn.grad asks the same operator, but copies a stand-in of the size of x for the argument it has not.
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

    def patches(self, x: Tensor) -> Tensor:
        """Return the patches that the kernel sees, (B, C·k·k, positions)."""
        return self._patch_view(x).flatten(4).flatten(1, 3)

    def sample_gradients(self, x: Tensor, cotangents: Tensor) -> Tensor:
        """Return the gradients of every sample, (R, B, o, i)."""
        (R, B, o), g, i = cotangents.shape[:3], self._groups, self.weight[0].numel()
        v = cotangents.reshape(R, B * g, o // g, -1)
        positions, bar = v.shape[-1], i + (self.bias is not None)
        gradients = cotangents.new_empty(R, B * g, o // g, bar)
        few = min(B, max(1, PATCH_ENTRIES // (bar * g * positions)))
        patches = x.new_ones(few, g, bar, positions)  # the last row belongs to the bias
        for first in range(0, B, few):
            view = self._patch_view(x[first : first + few])
            n, some = len(view), slice(first * g, (first + few) * g)
            patches[:n, :, :i].unflatten(2, (-1, *view.shape[2:4])).unflatten(5, view.shape[4:]).copy_(
                view.unflatten(1, (g, -1))
            )
            for r in range(R):
                torch.bmm(v[r, some], patches[:n].flatten(0, 1).mT, out=gradients[r, some])
        return gradients.reshape(R, B, o, bar)

    def sum_of_gradients(self, x: Tensor, cotangents: Tensor) -> list[Tensor]:
        """Return the sum of the samples' gradients over one batch of cotangents (B, …), as the parameters."""
        _, weight, bias = self._backward(x, cotangents, (False, True, self.bias is not None))
        weight = weight.reshape(self.weight.shape)  # a sequence was an image of one row
        return [weight] if self.bias is None else [weight, bias]

    def pull_control(self, x: Tensor, cotangents: Tensor) -> ConvBase:
        return ConvBase(self, x, cotangents)

    def factors(self, x: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.patches(x).transpose(1, 2)
        return _append_one(rows, self.bias).flatten(0, 1), cotangents.flatten(3).transpose(2, 3).flatten(0, 2)


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
        """As if the products at different positions had no correlation, and columns were channels times offsets."""
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

    def parts(self, coefficients: Tensor, layer: Layer) -> list[Tensor]:
        if self._formed is not None:
            return super().parts(coefficients, layer)
        weights = coefficients.T.reshape(*coefficients.T.shape, *[1] * (self._cotangents.ndim - 2))
        weights = weights / coefficients.shape[0]
        v = self._cotangents
        return self._layer.sum_of_gradients(self._x, v[0] * weights[0] if len(v) == 1 else (v * weights).sum(0))


def _as_row(shape: Sequence[int] | int, fill: int) -> tuple[int, int]:
    return fill, shape if isinstance(shape, int) else shape[0]


class ModuleLayer(Layer):
    """Any module with parameters, through `torch.func`: per-sample VJPs, the control as one row (1, m)."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        canonical = {id(p): key for key, p in module.named_parameters() if p.requires_grad}
        # each place where a parameter stands: torch's own search for them loses a module that is there under two names
        self._places = {
            f"{prefix}.{key}".removeprefix("."): canonical[id(p)]
            for prefix, inner in module.named_modules()
            for key, p in inner.named_parameters(recurse=False, remove_duplicate=False)
            if id(p) in canonical
        }
        # torch's rule for PReLU is wrong where one vmap is inside another
        self._nested = not any(isinstance(inner, nn.PReLU) for inner in module.modules())

    def _split(self, row: Tensor) -> dict[str, Tensor]:
        """Cut a row (…, m) into tensors named and shaped as the parameters."""
        named = {k: p for k, p in self.module.named_parameters() if p.requires_grad}
        pieces = row.split([p.numel() for p in named.values()], dim=-1)
        return {k: piece.reshape((*row.shape[:-1], *p.shape)) for (k, p), piece in zip(named.items(), pieces)}

    def _at(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        everywhere = {place: parameters[key] for place, key in self._places.items()}
        result: Tensor = functional_call(self.module, everywhere, (x.unsqueeze(0),), tie_weights=False).squeeze(0)
        return result

    def _current(self) -> dict[str, Tensor]:
        return {k: p.detach() for k, p in self.module.named_parameters() if p.requires_grad}

    def pull_state(self, x: Tensor, cotangents: Tensor) -> Tensor:
        current = self._current()

        def one(x_i: Tensor, v_i: Tensor) -> Tensor:
            pull = vjp(lambda y: self._at(current, y), x_i)[1]
            return self._for_every_vector(lambda v: pull(v)[0], v_i)

        return self._for_every_sample(one, x, cotangents)

    def pull_control(self, x: Tensor, cotangents: Tensor) -> DenseBase:
        current = self._current()

        def one(x_i: Tensor, v_i: Tensor) -> Tensor:
            pull = vjp(lambda u: self._at(u, x_i), current)[1]
            return self._for_every_vector(lambda v: torch.cat([part.flatten() for part in pull(v)[0].values()]), v_i)

        return DenseBase(self._for_every_sample(one, x, cotangents)[:, :, None, :])

    def _for_every_vector(self, pull: Callable[[Tensor], Tensor], v_i: Tensor) -> Tensor:
        pulled: Tensor = vmap(pull)(v_i) if self._nested else torch.stack([pull(v) for v in v_i.unbind()])
        return pulled

    def _for_every_sample(self, one: Callable[[Tensor, Tensor], Tensor], x: Tensor, cotangents: Tensor) -> Tensor:
        try:
            result: Tensor = vmap(one, in_dims=(0, 1), out_dims=1)(x, cotangents)
        except RuntimeError as error:
            raise RuntimeError(
                f"stage {self.name}: {type(self.module).__name__} cannot be differentiated one sample at a time; its "
                "forward must treat every sample alike, without branches on values, .item(), random numbers or changes "
                "of buffers (write branches with torch.where, and put dropout at the top level of the Sequential)"
            ) from error
        return result

    def split(self, control: Tensor) -> list[Tensor]:
        return list(self._split(control[0]).values())

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.flatten() for part in parts])[None]


class BatchNormLayer(Layer):
    """Batch normalisation, h = γ (x − μ)/σ + β per channel, as a trajectory of its own sees it: μ and σ are constants.

    The mean and variance of the batch couple its samples. They are measured once per step, at the nominal states,
    and kept for the second forward pass; so is V_xx. V_x alone knows of the coupling, by `through_batch`: without
    that, no step would be the baseline's (Prop. 2), and training fails at customary learning rates.
    """

    module: nn.BatchNorm1d | nn.BatchNorm2d

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        self._scale: Tensor | None = None
        self._shift: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; in training this measures the batch and updates the running statistics."""
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

    def normalised(self, x: Tensor) -> Tensor:
        """Return (x − μ)/σ with the statistics of the last `forward`."""
        assert self._shift is not None
        assert self._scale is not None
        return (x - self._channelwise(self._shift, x)) * self._channelwise(self._scale, x)

    def forward_again(self, x: Tensor) -> Tensor:
        """Return h with the statistics of the last `forward`."""
        weight, bias = self.parameters
        return self.normalised(x) * self._channelwise(weight.detach(), x) + self._channelwise(bias.detach(), x)

    def pull_state(self, x: Tensor, cotangents: Tensor) -> Tensor:
        assert self._scale is not None
        return cotangents * self._channelwise(self.parameters[0].detach() * self._scale, x)

    def through_batch(self, x: Tensor, Vx: Tensor) -> Tensor:
        """Take from V_x what would move a channel's mean or variance: the normalisation undoes it."""
        if not self.couples_samples:
            return Vx
        axes, hat = [0, *range(2, x.ndim)], self.normalised(x)
        return Vx - Vx.mean(axes, keepdim=True) - hat * (Vx * hat).mean(axes, keepdim=True)

    def pull_control(self, x: Tensor, cotangents: Tensor) -> DenseBase:
        v = cotangents.reshape(*cotangents.shape[:3], -1)
        hat = self.normalised(x).reshape(*x.shape[:2], -1)
        return DenseBase(torch.stack([(v * hat).sum(-1), v.sum(-1)], dim=3))

    def split(self, control: Tensor) -> list[Tensor]:
        return list(control.T)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts), dim=1)


def as_layer(module: nn.Module, name: str) -> Layer:
    """Choose how a module with parameters is differentiated: by its own products, or by `torch.func`."""
    trainable = all(p.requires_grad for p in module.parameters())
    if trainable and type(module) is nn.Linear:
        return LinearLayer(module, name)
    if trainable and type(module) in (nn.Conv1d, nn.Conv2d):
        return ConvLayer(module, name)
    if trainable and type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
        return BatchNormLayer(module, name)
    for inner in module.modules():
        if isinstance(inner, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{name}: batch normalisation inside {type(module).__name__} couples the samples of a batch; put it "
                "at the top level of the Sequential, all of it trainable, or use group or layer normalisation"
            )
    check_not_random(module, name)
    return ModuleLayer(module, name)


def check_not_random(module: nn.Module, name: str) -> None:
    """Refuse blocks that would be another function at every evaluation of one step."""
    for inner in module.modules():
        if isinstance(inner, nn.RReLU) or (isinstance(inner, nn.modules.dropout._DropoutNd) and inner.p > 0):
            kind = "dropout" if hasattr(inner, "p") else "a random slope"
            raise ValueError(
                f"{name}: {kind} inside {type(module).__name__} would be drawn anew for every derivative and for the "
                "second forward pass; put nn.Dropout at the top level of the Sequential instead, where its mask is kept"
            )
