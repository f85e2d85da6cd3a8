"""Any module as a layer: with Jacobian products written for its class, or by `torch.func` sample by sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from ocpkit.errors import first_line
from ocpkit_nn.layers.convolution import ConvLayer
from ocpkit_nn.layers.layers import BatchNormLayer, Layer, LinearLayer
from ocpkit_nn.layers.lost_options import TrainingWarning
from ocpkit_nn.layers.replay import RANDOM
from ocpkit_nn.layers.structure import is_plain
from ocpkit_nn.layers.vectors import DenseBase

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class ModuleLayer(Layer):
    """Any module with parameters, through `torch.func`: per-sample VJPs, the control as one row (1, m)."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__(module, name)
        canonical = {id(p): key for key, p in module.named_parameters() if p.requires_grad}
        self._names = list(canonical.values())
        # each place where a parameter stands: torch's own search for them loses a module that is there under two names
        self._places = {
            f"{prefix}.{key}".removeprefix("."): canonical[id(p)]
            for prefix, inner in module.named_modules()
            for key, p in inner.named_parameters(recurse=False, remove_duplicate=False)
            if id(p) in canonical
        }
        self._one_by_one = False
        # torch's rule for PReLU is wrong where one vmap is inside another
        self._nested = not any(isinstance(inner, nn.PReLU) for inner in module.modules())

    def _at(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        everywhere = {place: parameters[key] for place, key in self._places.items()}
        with unfused_attention():
            result: Tensor = functional_call(self.module, everywhere, (x.unsqueeze(0),), tie_weights=False).squeeze(0)
        return result

    def _current(self) -> dict[str, Tensor]:
        return {key: parameter.detach() for key, parameter in zip(self._names, self.parameters)}

    def state_vjp(self, x: Tensor, cotangents: Tensor) -> Tensor:
        current = self._current()

        def one(x_i: Tensor, v_i: Tensor) -> Tensor:
            pull = vjp(lambda y: self._at(current, y), x_i)[1]
            return self._for_every_vector(lambda v: pull(v)[0], v_i)

        return self._for_every_sample(one, lambda x_i: [x_i], x, cotangents).reshape(-1, *x.shape)

    def control_vjp(self, x: Tensor, cotangents: Tensor) -> DenseBase:
        current = self._current()

        def one(x_i: Tensor, v_i: Tensor) -> Tensor:
            pull = vjp(lambda u: self._at(u, x_i), current)[1]
            return self._for_every_vector(lambda v: torch.cat([part.flatten() for part in pull(v)[0].values()]), v_i)

        return DenseBase(self._for_every_sample(one, lambda x_i: self.parameters, x, cotangents)[:, :, None, :])

    def _for_every_vector(self, pull: Callable[[Tensor], Tensor], v_i: Tensor) -> Tensor:
        pulled: Tensor = vmap(pull)(v_i) if self._nested else torch.stack([pull(v) for v in v_i.unbind()])
        return pulled

    def _for_every_sample(
        self,
        one: Callable[[Tensor, Tensor], Tensor],
        wanted: Callable[[Tensor], Sequence[Tensor]],
        x: Tensor,
        cotangents: Tensor,
    ) -> Tensor:
        """Return the products of all samples at once; one after the other where torch cannot, if samples do not mix.

        Parameters
        ----------
        one
            The products (R, …) of a sample x_i and its cotangents (R, …), by `torch.func`.
        wanted
            What they differentiate by, for autograd at the batch x_i (1, …).
        """
        if not self._one_by_one:
            try:
                with self.replaying(), warnings.catch_warnings():  # weight norm has no rule, and is right without
                    warnings.filterwarnings("ignore", "There is a performance drop .*aten::_weight_norm", UserWarning)
                    result: Tensor = vmap(one, in_dims=(0, 1), out_dims=1)(x, cotangents)
                return result
            except RuntimeError as error:
                reason = error
        alone, products = [], []
        for x_i, v_i in zip(x.split(1), cotangents.split(1, dim=1)):
            y_i, products_i = self._alone(x_i, v_i, wanted)
            alone.append(y_i)
            products.append(products_i)
        with self.replaying():
            check_alike(self.forward(x), torch.cat(alone), self.name)
        if not self._one_by_one:
            self._one_by_one = True
            self._warn_of_the_price(reason)
        return torch.stack(products, dim=1)

    def _alone(self, x_i: Tensor, v_i: Tensor, wanted: Callable[[Tensor], Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the output (1, …) of a sample alone and its products (R, m), by autograd."""
        x_i = x_i.detach().requires_grad_(x_i.is_floating_point())
        with self.replaying(), torch.enable_grad(), unfused_attention():
            try:
                y_i = self.forward(x_i)
            except RuntimeError as error:
                raise ValueError(
                    f"stage {self.name}: {type(self.module).__name__} cannot be differentiated one sample at a time, "
                    f"because it fails on a single sample, shape {tuple(x_i.shape)}: {first_line(error)}"
                ) from error
        inputs = wanted(x_i)
        rows = [torch.autograd.grad(y_i, inputs, v, retain_graph=True, materialize_grads=True) for v in v_i.to(y_i)]
        return y_i.detach(), torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])

    def _warn_of_the_price(self, reason: RuntimeError) -> None:
        slow = sorted({type(m).__name__ for m in self.module.modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase))})
        cause = f"torch's vmap has no rule for {', '.join(slow)}" if slow else f"torch's vmap: {first_line(reason)}"
        warnings.warn(
            f"stage {self.name}: its samples are differentiated one after the other, not all at once ({cause}); that "
            "is right, and takes as many times as long as a batch has samples",
            TrainingWarning,
            stacklevel=2,
        )

    def check_derivatives(self, x: Tensor) -> None:
        """Compare with autograd, for hooks and forwards that take parameters from a closure, not from the module.

        Raises
        ------
        ValueError
            If they differ.
        """
        if not any("forward" in vars(inner) or inner._forward_hooks for inner in self.module.modules()):
            return
        with torch.enable_grad(), unfused_attention(), self.replaying():
            y = self.module(x)
        if not y.requires_grad:  # its parameters are idle
            return
        v = torch.linspace(1, 2, y.numel(), dtype=y.dtype, device=y.device).reshape(y.shape)
        expected = self.join(torch.autograd.grad(y, self.parameters, v, materialize_grads=True))
        error = (self.control_vjp(x, v[None]).vectors[0, 0] - expected).abs().max()
        if error > torch.finfo(y.dtype).eps ** 0.5 * expected.abs().max():
            raise ValueError(
                f"stage {self.name}: a hook or a forward of the instance's own uses parameters that it does not read "
                "from the module, so that there is no derivative for one sample alone; let it read them there "
                "(module.weight instead of a weight in a closure)"
            )

    def split(self, control: Tensor) -> list[Tensor]:
        """Cut a row (1, m) into tensors shaped as the parameters."""
        pieces = control[0].split([p.numel() for p in self.parameters])
        return [piece.reshape(p.shape) for piece, p in zip(pieces, self.parameters)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.flatten() for part in parts])[None]


def check_alike(together: Tensor, apart: Tensor, name: str, kept: Tensor | None = None) -> None:
    """Compare outputs (B, …) of samples in a batch and apart from it.

    Parameters
    ----------
    kept
        (B,): samples to compare, by default all.

    Raises
    ------
    ValueError
        If they differ: Jacobian products sample by sample would then be wrong without a word.
    """
    if not together.numel():
        return
    difference = (apart - together).flatten(1).abs().amax(1)
    if kept is not None:
        difference = difference * kept
    if bool((difference > 10 * torch.finfo(together.dtype).eps ** 0.5 * together.abs().max()).any()):
        raise ValueError(
            f"stage {name}: its samples depend on each other (apart from its batch, the output of sample "
            f"{int(difference.argmax())} differs by {float(difference.max()):.1e}), so they are no trajectories of "
            "their own; no mean, softmax or branch may go over axis 0, the batch: do that before the first layer, or "
            "per sample. A module that overwrites its input (give it inplace=False), or is another function at every "
            "evaluation, looks so too"
        )


def unfused_attention() -> AbstractContextManager[None]:
    """Take torch's plain attention: its fused kernels have no second derivative and no rule for `vmap`."""
    return sdpa_kernel(SDPBackend.MATH)


def as_layer(module: nn.Module, name: str) -> Layer:
    """Choose how a module with parameters is differentiated: by its own products, or by `torch.func`."""
    if any(p.requires_grad and p.dtype.is_complex for p in module.parameters()):
        raise ValueError(
            f"{name}: a control is real, but {type(module).__name__} has complex parameters; hold real ones"
        )
    own = module._parameters
    weighted = own.keys() == {"weight", "bias"} and not module._modules
    free = [key for key, parameter in own.items() if parameter is not None and parameter.requires_grad]
    if weighted and "weight" in free:
        if is_plain(module, nn.Linear):
            return LinearLayer(module, name)
        if is_plain(module, nn.Conv1d, nn.Conv2d):
            return ConvLayer(module, name)
        if is_plain(module, *BATCH_NORMS) and "bias" in free:
            return BatchNormLayer(module, name)
    for inner in module.modules():
        if isinstance(inner, _BatchNorm) and not isinstance(module, LazyModuleMixin):  # which is looked at in `adapt`
            check_fixed(inner, name, module)
    check_not_random(module, name)
    return ModuleLayer(module, name)


def check_fixed(norm: _BatchNorm, name: str, whole: nn.Module) -> None:
    """Check that batch normalization inside another module uses its running statistics.

    Raises
    ------
    ValueError
        Naming the stage: with statistics of the batch, its samples are no trajectories of their own.
    """
    if norm.training or norm.running_mean is None:
        raise ValueError(
            f"{name}: {type(norm).__name__} couples the samples of a batch where it measures their mean and variance; "
            "that is known of BatchNorm1d, 2d and 3d at the top level of the Sequential with both parameters trainable "
            "(affine=True, not frozen). Elsewhere set it to its running statistics, `.eval()` after the model's "
            f"`.train()`, or take group or layer normalization{_whole(whole)}"
        )


def check_not_random(module: nn.Module, name: str) -> None:
    """Check that a block is the same function at every evaluation of a step."""
    for inner in module.modules():
        if isinstance(inner, RANDOM) and getattr(inner, "p", 1.0) > 0:
            raise ValueError(
                f"{name}: {type(inner).__name__} inside {type(module).__name__} draws random numbers, which would be "
                "others for every derivative; put it at the top level of the Sequential instead, where its draws are "
                f"kept for the step{_whole(module)}"
            )


def _whole(module: nn.Module) -> str:
    """Return the reason, for an error message, why a module is one stage and not several."""
    opened = (nn.Sequential, *BATCH_NORMS)
    if not isinstance(module, opened) or is_plain(module, *opened):
        return ""
    return f". This {type(module).__name__} has hooks or a forward of its own and so is taken as a whole"
