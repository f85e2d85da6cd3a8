"""The oracle: every sample's Jacobians, Q's and gains as dense matrices, by plain `torch.autograd`.

Only a stage's module and its tail are used, and, since they are drawn or measured in the forward pass, a
dropout's mask. A control is the vector of `Layer.matrix()`, row by row: weight and bias side by side for Linear,
convolutions and batch norm, all parameters in order for other modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ocpkit.recursion.expansion import Expansion
from ocpkit_nn.layers.stages import Stage
from ocpkit_nn.layers.vectors import Combination

JOINED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Absolute for small numbers, relative to the largest one otherwise."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    if expected.numel() == 0:
        return
    scale = max(1.0, float(expected.abs().max()))
    error = float((actual - expected).abs().max())
    assert error <= tolerance * scale, f"differs by {error:.2e}, allowed {tolerance * scale:.2e}"


def named(module: nn.Module, control: Tensor) -> dict[str, Tensor]:
    """Cut a control (m,) into parameters."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if type(module) in JOINED and "bias" in parameters:
        matrix = control.reshape(len(parameters["bias"]), -1)
        return {"weight": matrix[:, :-1].reshape(parameters["weight"].shape), "bias": matrix[:, -1]}
    pieces = control.split([p.numel() for p in parameters.values()])
    return {name: piece.reshape(p.shape) for (name, p), piece in zip(parameters.items(), pieces)}


def control_of(module: nn.Module) -> Tensor:
    """The control (m,) of a module's present parameters."""
    parameters = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    if type(module) in JOINED and "bias" in parameters:
        weight, bias = parameters["weight"], parameters["bias"]
        return torch.cat([weight.reshape(len(bias), -1), bias[:, None]], dim=1).flatten()
    return torch.cat([p.flatten() for p in parameters.values()])


def layer_function(module: nn.Module, inputs: Tensor) -> Any:
    """Return (x (…), u (m,)) ↦ h (…) of one sample; batch statistics are those of `inputs` (B, …), as constants."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        axes = [0, *range(2, inputs.ndim)]
        mean, variance = module.running_mean, module.running_var
        if module.training or mean is None:
            mean, variance = inputs.mean(axes), inputs.var(axes, unbiased=False)

        mean, deviation = mean.clone(), (variance + module.eps).sqrt()

        def normalize(x: Tensor, u: Tensor) -> Tensor:
            p = named(module, u)
            rows = (x.flatten(1) if x.ndim > 1 else x[:, None]).T
            return ((rows - mean) / deviation * p["weight"] + p["bias"]).T.reshape(x.shape)

        return normalize
    return lambda x, u: functional_call(module, named(module, u), (x[None],))[0]


class DenseStage:
    """One stage at a batch of states, sample by sample."""

    def __init__(self, stage: Stage, inputs: Tensor) -> None:
        self.layer = layer_function(stage.layer.module, inputs)
        self.tail, self.inputs, self.replaying = stage.tail, inputs, stage.layer.replaying
        self.control = control_of(stage.layer.module)

    def __call__(self, i: int, x: Tensor, u: Tensor) -> Tensor:
        """f_i(x, u)."""
        y = self.layer(x, u)
        rows = torch.arange(len(self.inputs)) == i  # masks of dropout are those of the sample's place in the batch
        y = y * rows.reshape(-1, *[1] * y.ndim)
        with self.replaying():
            for module in self.tail:
                y = module(y)
        return y[i]

    def batch(self, x: Tensor, u: Tensor) -> Tensor:
        """All samples at new states and one new control."""
        return torch.stack([self(i, x[i], u) for i in range(len(x))])

    def expansion(self) -> Expansion:
        """f_x (B, n', n) and f_u (B, n', m)."""
        fx, fu = [], []
        with torch.enable_grad():
            for i, x in enumerate(self.inputs):
                pair = torch.autograd.functional.jacobian(
                    lambda a, u, i=i, x=x: self(i, a.reshape(x.shape), u).flatten(), (x.flatten(), self.control)
                )
                fx.append(pair[0])
                fu.append(pair[1])
        return Expansion(torch.stack(fx), torch.stack(fu), 0.0, 0.0)


def flat(combination: Combination) -> Tensor:
    """Form a combination, (B, m) or (B, m, r), without its metric."""
    base = combination.base
    vectors = (base.dense() if hasattr(base, "dense") else base.vectors).flatten(2)  # (R, B, m)
    if combination.coefficients.ndim == 2:
        return torch.einsum("rbm,br->bm", vectors, combination.coefficients)
    return torch.einsum("rbm,brs->bms", vectors, combination.coefficients)


def kronecker(a: Tensor, b: Tensor) -> Tensor:
    """a ⊗ b."""
    return torch.kron(a.contiguous(), b.contiguous())
