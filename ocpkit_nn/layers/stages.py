"""A network as a horizon of stages: x_{t+1} = f_t(x_t, u_t) = σ_t(g_t(x_t, u_t)), the weights u_t as controls.

Modules without parameters (activations, pooling, flatten, dropout) are absorbed into the layer before them, as
Eq. 12 absorbs the activation; those before the first layer only prepare x_0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from ocpkit_nn.layers.convolution import ConvLayer
from ocpkit_nn.layers.layers import BatchNormLayer, Layer, LinearLayer
from ocpkit_nn.layers.modules import as_layer, check_alike, check_fixed, unfused_attention
from ocpkit_nn.layers.replay import replay_of
from ocpkit_nn.layers.structure import calls_only, is_bare, is_plain
from ocpkit_nn.layers.vectors import Combination, ControlBase, StateBase

# σ_hᵀ v written with the output y = σ(h), for the activations where that is possible: (v, y) -> V_h
_VJP_BY_OUTPUT: dict[type[nn.Module], Callable[[Tensor, Tensor], Tensor]] = {
    nn.Tanh: torch.ops.aten.tanh_backward.default,
    nn.Sigmoid: torch.ops.aten.sigmoid_backward.default,
    nn.ReLU: lambda v, y: torch.ops.aten.threshold_backward.default(v, y, 0),
}


_REGULAR = [f"torch.nn.modules.{kind}" for kind in ("activation", "pooling", "flatten", "dropout", "padding")]
_LP_POOLS = (nn.LPPool1d, nn.LPPool2d, nn.LPPool3d)  # roots, infinitely steep at 0


class Stage:
    """One layer with what follows it, for a batch of trajectories that share the control.

    Attributes
    ----------
    layer
        The part g with parameters.
    tail
        Modules without parameters after it, σ of Eq. 12.
    is_regular
        Whether finite states and ∇φ leave every derivative finite, unlike that of √ at 0.
    """

    is_checked = False  # that samples do not mix

    def __init__(self, layer: Layer, tail: Sequence[nn.Module]) -> None:
        self.name, self.tail, self.modules = layer.name, list(tail), [layer.module, *tail]
        by_output = len(tail) == 1 and is_plain(tail[0], *_VJP_BY_OUTPUT)
        self._tail_vjp = _VJP_BY_OUTPUT[type(tail[0])] if by_output else None
        self._overwrites = any(getattr(m, "inplace", False) for m in tail)
        self._set_layer(layer)

    def _set_layer(self, layer: Layer) -> None:
        self.layer, self._kind = layer, type(layer.module)
        regular = all(
            type(m).__module__ in _REGULAR and type(m) not in _LP_POOLS and is_bare(m)
            for part in self.tail
            for m in part.modules()
        )
        self.is_regular = type(layer) in (LinearLayer, ConvLayer, BatchNormLayer) and regular
        parts = self.tail if isinstance(layer, BatchNormLayer) else self.modules  # its layer handles the batch
        self._norms = [(m, part) for part in parts for m in part.modules() if isinstance(m, _BatchNorm)]
        self.reset()

    def adapt(self, x: Tensor) -> None:
        """Choose the layer again where a lazy module has become another kind of module, or does so on x (B, …)."""
        module = self.layer.module
        if type(module) is self._kind and not isinstance(module, LazyModuleMixin):
            return
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[no-untyped-call]
            module._infer_parameters(module, (x,))  # type: ignore[no-untyped-call]
        if type(module) is not self._kind:
            self._set_layer(as_layer(module, self.name))

    def reset(self) -> None:
        """Forget earlier evaluations."""
        self.layer.replay = replay_of(self.modules)

    def _in_full_precision(self, h: Tensor) -> Tensor:
        """Return a layer's output in the precision of its parameters: autocast is for the products inside."""
        if not isinstance(h, Tensor):
            raise TypeError(
                f"stage {self.name}: its forward returns a {type(h).__name__}, expected one tensor; wrap it in a "
                "module that returns what the next stage is to see"
            )
        dtype = self.layer.parameters[0].dtype
        return h if h.dtype is dtype else h.to(dtype)

    def linearize(self, x: Tensor) -> tuple[Tensor, Linearization]:
        """Evaluate at x (B, …); return the output and the Jacobian products there."""
        for norm, part in self._norms:
            check_fixed(norm, self.name, part)
        with self.layer.recording(x):
            return self._linearize(x)

    def _linearize(self, x: Tensor) -> tuple[Tensor, Linearization]:
        h = self._in_full_precision(self.layer.forward(x))
        if self.layer.replay is not None and self.layer.replay.has_drawn():
            raise ValueError(
                f"stage {self.name}: {type(self.layer.module).__name__} draws random numbers in its forward, which "
                "would be others for every derivative; draw them in a module without parameters at the top level of "
                "the Sequential (nn.Dropout is one), where they are kept for the step"
            )
        if not self.tail:
            return h, Linearization(self.layer, x)
        if self._tail_vjp is not None:
            y, vjp = self.tail[0](h), self._tail_vjp

            def by_output(cotangents: Tensor) -> Tensor:
                if cotangents.shape[0] == 1:  # as the activation's own shape, which is the faster one
                    return vjp(cotangents.select(0, 0), y).unsqueeze(0)
                return vjp(cotangents, y.expand_as(cotangents))

            return y, Linearization(self.layer, x, tail_vjp=by_output)
        with torch.enable_grad():
            h = h.detach().requires_grad_()
            y = h.clone() if self._overwrites else h
            for module in self.tail:
                y = module(y)
        y = self._in_full_precision(y)

        def through_graph(cotangents: Tensor) -> Tensor:
            return torch.stack([torch.autograd.grad(y, h, v, retain_graph=True)[0] for v in cotangents])

        return y.detach(), Linearization(self.layer, x, tail_vjp=through_graph)

    def second_forward(self, x: Tensor) -> Tensor:
        """Evaluate at new states with the draws, buffers and statistics of the last `linearize`."""
        with self.layer.replaying():
            y = self._in_full_precision(self.layer.second_forward(x))
            for module in self.tail:
                y = module(y)
        return y

    def differentiable(self, x: Tensor, *, replay: bool = False) -> Tensor:
        """Evaluate f_t with autograd, twice if need be; `replay`: with the draws and buffers of the last one."""
        with torch.enable_grad(), unfused_attention(), self.layer.replaying() if replay else self.layer.recording(x):
            y: Tensor = self.layer.module(x)
            for module in self.tail:
                y = module(y)
        return y

    @property
    def _in_full(self) -> str:
        """Name of the layer and of the modules after it, for error messages."""
        tail = ", ".join(type(module).__name__ for module in self.tail)
        return f"{self.name} with {tail}" if tail else self.name

    def check_samples_do_not_mix(self, x: Tensor, y: Tensor) -> None:
        """Check once, at a batch x (B, …) with output y, that no sample's output depends on the other samples.

        For any two samples there is a binary digit in which their numbers differ: for each digit and each of its
        values, the samples without it are replaced by others that have it, and the outputs of those with it must stay
        the same.

        Raises
        ------
        ValueError
            If they do not: Jacobian products sample by sample would then be silently wrong.
        """
        if self.is_checked:
            return
        if y.ndim == 0 or len(y) != len(x):
            raise ValueError(
                f"stage {self._in_full}: {len(x)} samples came in and {tuple(y.shape)} came out; every stage must keep "
                "axis 0, the samples"
            )
        if len(x) < 2 or torch.is_autocast_enabled(x.device.type) or not y.isfinite().all():
            return
        numbers = torch.arange(len(x), device=x.device)
        for digit in range((len(x) - 1).bit_length()):
            for value in (0, 1):
                kept = (numbers >> digit) % 2 == value
                twins = torch.where(kept, numbers, numbers ^ (1 << digit))
                twins = torch.where(twins < len(x), twins, numbers[kept][0])
                check_alike(y, self.second_forward(x[twins]), self._in_full, kept)
        self.layer.check_derivatives(x[:1])
        self.is_checked = True


class Linearization:
    """f_x and f_u of one stage at one batch of states, as products with one base of vectors."""

    average: Callable[[Tensor], Tensor] = staticmethod(lambda local: local)  # see `distributed`

    def __init__(self, layer: Layer, x: Tensor, tail_vjp: Callable[[Tensor], Tensor] | None = None) -> None:
        self.layer, self.x = layer, x
        self._tail_vjp = tail_vjp  # v ↦ V_h = σ_hᵀ v (Eq. 12)
        self._base: StateBase | None = None

    def _multiply(self, base: StateBase) -> None:
        """Multiply a new base; V_h is computed once for both products, that for the state only if it is needed."""
        if self._base is not base:
            self._base = base
            vectors = base.vectors
            self.cotangents = cotangents = vectors if self._tail_vjp is None else self._tail_vjp(vectors)
            self._state = StateBase(lambda: self.layer.state_vjp(self.x, cotangents))
            self.control = self.layer.control_vjp(self.x, cotangents)

    def state_vjp(self, base: StateBase) -> StateBase:
        """f_xᵀ v."""
        self._multiply(base)
        return self._state

    def control_vjp(self, base: StateBase) -> ControlBase:
        """f_uᵀ v, per sample."""
        self._multiply(base)
        self.control.average = self.average
        return self.control

    @property
    def couples_samples(self) -> bool:
        """Whether V_x has to go through the batch, see `Layer.through_batch`."""
        return self.layer.couples_samples

    def through_batch(self, Vx: Tensor) -> Tensor:
        """V_x (B, …) at the stage's input, of the batch's total cost."""
        return self.layer.through_batch(self.x, Vx)

    def factors(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return Kronecker's A and S (see `Layer.factors`) for the combination c (B, R) of the base."""
        weights = coefficients.T.reshape(*coefficients.T.shape, *[1] * (self.cotangents.ndim - 2))
        return self.layer.factors(self.x, (self.cotangents * weights).sum(0))


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Context without autocast, for expectations, curvatures and controls in the parameters' precision."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class Jacobian:
    """f_x or f_u as the Bellman step uses it: only its transpose is ever multiplied."""

    def __init__(self, transpose_product: Callable[[Any], Any]) -> None:
        self._transpose_product = transpose_product

    def swapaxes(self, first: int, second: int) -> Jacobian:
        """Return the transpose."""
        return self

    def __matmul__(self, right: Combination) -> Combination:
        return Combination(self._transpose_product(right.base), right.coefficients)


def as_stages(model: nn.Module | Iterable[nn.Module]) -> tuple[list[nn.Module], list[Stage]]:
    """Turn a network into (modules that prepare x_0, stages).

    Parameters
    ----------
    model
        An `nn.Sequential` (nested ones are opened, unless they have hooks or a forward of their own), any other module
        (one stage), or a list of blocks, each a module applied after the one before; residual blocks and modules of
        one's own are fine.

    Raises
    ------
    ValueError
        If nothing has parameters, weights are shared between stages, or a block is random or couples samples.
    TypeError
        If a block is not a module.
    """
    preparation: list[nn.Module] = []
    groups: list[tuple[str, nn.Module, list[nn.Module]]] = []
    for name, module in _flatten(model, ""):
        if any(p.requires_grad for p in module.parameters()):
            groups.append((name, module, []))
        elif not is_plain(module, nn.Identity):
            if groups:
                _check_tail(module, name)
            (groups[-1][2] if groups else preparation).append(module)
    if not groups:
        raise ValueError("the network has no trainable parameters, so there is nothing to control")
    _check_not_shared([(name, module) for name, module, _ in groups])
    return preparation, [Stage(as_layer(module, name), tail) for name, module, tail in groups]


def _check_tail(module: nn.Module, name: str) -> None:
    """Check that a module after a layer is a function of each sample, and the same one at new states."""
    for inner in module.modules():
        if isinstance(inner, _BatchNorm):
            check_fixed(inner, name, module)
        if isinstance(inner, nn.RReLU):
            raise ValueError(
                f"{name}: RReLU draws a slope for every negative number, so that at new states all slopes are others; "
                "take nn.LeakyReLU or nn.PReLU"
            )


def _flatten(model: nn.Module | Iterable[nn.Module], prefix: str) -> Iterable[tuple[str, nn.Module]]:
    if isinstance(model, nn.Module) and not (_is_chain(model) or isinstance(model, nn.ModuleList)):
        yield prefix or type(model).__name__, model
        return
    for index, block in enumerate(model):  # type: ignore[arg-type]
        if not isinstance(block, nn.Module):
            raise TypeError(f"block {index} is a {type(block).__name__}, expected an nn.Module")
        name = f"{prefix}{index}"
        if _is_chain(block):
            yield from _flatten(block, f"{name}.")
        else:
            yield f"{name} ({type(block).__name__})", block


def _is_chain(module: nn.Module) -> bool:
    """Whether a module does nothing but apply others, one after the other."""
    return isinstance(module, nn.Sequential) and calls_only(module, nn.Sequential)


def _check_not_shared(named: list[tuple[str, nn.Module]]) -> None:
    owner: dict[int, str] = {}
    for name, module in named:
        for key, parameter in module.named_parameters():
            if id(parameter) in owner:
                raise ValueError(
                    f"{key!r} of stage {name} is shared with stage {owner[id(parameter)]}: a control belongs to one "
                    "stage; put the layers that share it into one module, which then is one stage"
                )
            owner[id(parameter)] = name
