"""Any module as a layer: by products of its own where there are some, else by `torch.func`, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ocpkit_nn.convolution import ConvLayer
from ocpkit_nn.layers import BatchNormLayer, Layer, LinearLayer
from ocpkit_nn.vectors import DenseBase


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
        with unfused_attention():
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


def unfused_attention() -> AbstractContextManager[None]:
    """Take torch's plain attention: its fused kernels have no second derivative and no rule for `vmap`."""
    return sdpa_kernel(SDPBackend.MATH)


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
