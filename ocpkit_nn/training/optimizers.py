"""The optimizers that `train` knows: one table from a name to a factory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ocpkit_nn.distributed import ALONE, Processes
from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.training.options import TAKES, TrainOptions


class TrainingMethod(Protocol):
    """A training method: a step takes one mini-batch and returns its mean loss before the step."""

    def step(self, inputs: Tensor, targets: Tensor) -> float: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Backpropagation:
    """A `torch.optim.Optimizer` on the gradient of the mean loss."""

    def __init__(
        self, model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, shared: Processes = ALONE
    ) -> None:
        self.model, self.loss, self.optimizer, self.processes = model, loss, optimizer, shared
        self.param_groups = optimizer.param_groups
        self.state_dict = optimizer.state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved."""
        self.optimizer.load_state_dict(
            copy.deepcopy(state_dict)
        )  # torch's own shares the tensors of the other optimizer
        self.param_groups = self.optimizer.param_groups

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Train on one mini-batch and return its mean loss before the step."""
        self.processes.begin_batch(len(inputs), inputs.device)
        self.optimizer.zero_grad()
        mean_loss = self.loss.value(self.model(inputs), targets).mean()
        mean_loss.backward()  # type: ignore[no-untyped-call]
        for parameter in _trainable(self.model):
            if parameter.grad is not None:
                parameter.grad = self.processes.average(parameter.grad)
        self.optimizer.step()
        return float(self.processes.average(mean_loss.detach()))


def _sgd(model: nn.Module, loss: Loss, options: TrainOptions, shared: Processes = ALONE) -> TrainingMethod:
    settings = {"lr": options.lr, "weight_decay": options.weight_decay, **given(options, "momentum")}
    return Backpropagation(model, loss, torch.optim.SGD(_trainable(model), **settings), shared)


def _rmsprop(model: nn.Module, loss: Loss, options: TrainOptions, shared: Processes = ALONE) -> TrainingMethod:
    settings = {"lr": options.lr, "weight_decay": options.weight_decay, **given(options, "momentum")}
    if options.decay is not None:
        settings["alpha"] = options.decay
    return Backpropagation(model, loss, torch.optim.RMSprop(_trainable(model), **settings), shared)


def _adam(model: nn.Module, loss: Loss, options: TrainOptions, shared: Processes = ALONE) -> TrainingMethod:
    settings: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay}
    return Backpropagation(model, loss, torch.optim.Adam(_trainable(model), **settings), shared)


def _ddpnopt(model: nn.Module, loss: Loss, options: TrainOptions, shared: Processes = ALONE) -> TrainingMethod:
    return _solver(model, loss, options, shared)


def _kfac(model: nn.Module, loss: Loss, options: TrainOptions, shared: Processes = ALONE) -> TrainingMethod:
    return _solver(model, loss, options, shared, curvature="kronecker", feedback="none")


def _ekfac(model: nn.Module, loss: Loss, options: TrainOptions, shared: Processes = ALONE) -> TrainingMethod:
    return _solver(model, loss, options, shared, curvature="ekfac", feedback="none")


def _solver(model: nn.Module, loss: Loss, options: TrainOptions, shared: Processes, **fixed: Any) -> DDPNOpt:
    assert options.lr is not None
    settings = {**given(options, *TAKES["ddpnopt"]), **fixed, "processes": shared}
    generator = torch.Generator(options.device).manual_seed(options.seed)
    return DDPNOpt(model, loss, options.lr, weight_decay=options.weight_decay, generator=generator, **settings)


def given(options: TrainOptions, *names: str) -> dict[str, Any]:
    """Return those of the named options that are not left to the optimizer."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


OPTIMIZERS: dict[str, Callable[..., TrainingMethod]] = {
    "ddpnopt": _ddpnopt,
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "kfac": _kfac,
    "ekfac": _ekfac,
}
"""Factories by name, of (model, loss, options) and, if there are several, processes; the options are resolved."""
