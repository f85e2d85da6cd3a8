"""The methods of the experiments by name: baselines, their DDPNOpt twins, the other OCP methods, and rivals.

A twin has the hyper-parameters of its baseline and the feedback beside (Prop. 2): `TWIN` are the options under
which DDPNOpt with ``feedback="none"`` is the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ocpkit.errors import ProblemError, unknown_name
from ocpkit_nn.experiments.forms import GaussSeidel, TrustRegion
from ocpkit_nn.experiments.rivals import ClippedSamples, ImplicitSGD, clip, normalise, warm_up
from ocpkit_nn.experiments.run import Run
from ocpkit_nn.experiments.stacked import Stacked
from ocpkit_nn.experiments.todays import Muon, cosine
from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.optim.groups import renamed
from ocpkit_nn.optim.pmp import EMSA
from ocpkit_nn.optim.vanishing import SGDVGR
from ocpkit_nn.training.optimizers import Backpropagation, Stepper

TWIN: dict[str, dict[str, Any]] = {
    "sgd": {"curvature": "identity"},
    "sgd-m": {"curvature": "identity", "momentum": 0.9},
    "rmsprop": {"curvature": "diagonal", "decay": 0.9},
    "adam": {"curvature": "adam"},
    "kfac": {"curvature": "kronecker", "decay": 0.95, "damping": 0.03},
    "ekfac": {"curvature": "ekfac", "decay": 0.95, "damping": 0.03},
}
"""DDPNOpt's options by baseline. RMSprop averages over β = 0.9; torch's 0.99 fails at the paper's larger rates."""

NAMES = {
    "sgd": "SGD",
    "sgd-m": "SGD-m",
    "rmsprop": "RMSprop",
    "adam": "Adam",
    "kfac": "KFAC",
    "ekfac": "EKFAC",
    "emsa": "E-MSA",
    "sgd-vgr": "SGD-VGR",
    "vanilla-ddp": "vanilla DDP",
    "ddpnopt": "DDPNOpt",
    "clip": "gradient clipping",
    "clip-samples": "per-sample clipping",
    "warm-up": "warm-up",
    "normalised": "normalised gradient",
    "implicit": "implicit SGD",
    "trust-region": "DDPNOpt, trust region",
    "gauss-seidel": "Gauss-Seidel sweep",
    "stacked": "DDPNOpt, stacked batch",
    "adamw": "AdamW",
    "sgd-cosine": "SGD, Nesterov, cosine",
    "muon": "Muon",
}
"""How tables and figures call the methods."""


def listed(names: Iterable[str]) -> str:
    """Return methods in words."""
    return ", ".join(NAMES[name] for name in names) or "none"


Factory = Callable[[nn.Module, Loss, Run], Stepper]


def _baseline(model: nn.Module, loss: Loss, run: Run) -> Backpropagation | DDPNOpt:
    """Return torch's own optimiser for the run's baseline, or, for KFAC and EKFAC, DDPNOpt without feedback."""
    if run.baseline in ("kfac", "ekfac"):
        of_kronecker = {name: run.optimizer[name] for name in run.optimizer.keys() & {"damping", "basis_every"}}
        return _solver(model, loss, run, feedback="none", **of_kronecker)
    return Backpropagation(model, loss, _torch_optimizer(list(model.parameters()), run))


def _torch_optimizer(weights: Sequence[torch.Tensor], run: Run) -> torch.optim.Optimizer:
    lr, twin = _rate(run), TWIN[run.baseline]
    if run.baseline == "rmsprop":
        return torch.optim.RMSprop(weights, lr=lr, alpha=twin["decay"])
    if run.baseline == "adam":
        return torch.optim.Adam(weights, lr=lr)
    return torch.optim.SGD(weights, lr=lr, momentum=twin.get("momentum", 0.0))


def _solver(model: nn.Module, loss: Loss, run: Run, kind: type[DDPNOpt] = DDPNOpt, **options: Any) -> DDPNOpt:
    generator = torch.Generator(run.device).manual_seed(run.seed)
    options = renamed({**TWIN.get(run.baseline, {}), **options})  # records keep the names of their time
    return kind(model, loss, _rate(run), tikhonov=run.epsilon or 0.0, generator=generator, **options)


def _twin(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    return _solver(model, loss, run, **run.optimizer)


def _trust_region(model: nn.Module, loss: Loss, run: Run, radius: float = 1.0) -> Stepper:
    return _solver(model, loss, run, TrustRegion, radius=radius)


def _stacked(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    return _solver(model, loss, run, Stacked, **run.optimizer)


def _gauss_seidel(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    _check_torchs(run)
    return GaussSeidel(model, loss, lambda weights: _torch_optimizer(weights, run))


def _vanilla_ddp(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    fixed: dict[str, Any] = {"curvature": "exact", "terminal": "ggn", "control_hessian": "literal"}
    return _solver(model, loss, run, **fixed, **run.optimizer)


def _emsa(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    return EMSA(model, loss, **run.optimizer)


def _sgd_vgr(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    return SGDVGR(model, loss, _rate(run), **run.optimizer)


def _clip(model: nn.Module, loss: Loss, run: Run, max_norm: float = 1.0) -> Stepper:
    if run.baseline in ("kfac", "ekfac"):
        return _solver(model, loss, run, feedback="none", max_grad_norm=max_norm)
    stepper = _baseline(model, loss, run)
    clip(_optimizer(stepper), max_norm)
    return stepper


def _clip_samples(model: nn.Module, loss: Loss, run: Run, max_norm: float = 1.0) -> Stepper:
    _check_torchs(run)
    return ClippedSamples(model, loss, _optimizer(_baseline(model, loss, run)), max_norm)


def _normalised(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    _check_torchs(run)
    stepper = _baseline(model, loss, run)
    normalise(_optimizer(stepper))
    return stepper


def _warm_up(model: nn.Module, loss: Loss, run: Run, updates: int = 200) -> Stepper:
    stepper = _baseline(model, loss, run)
    warm_up(_optimizer(stepper), updates)
    return stepper


def _implicit(model: nn.Module, loss: Loss, run: Run, iterations: int = 10) -> Stepper:
    return ImplicitSGD(model, loss, _rate(run), iterations)


def _adamw(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    return Backpropagation(model, loss, torch.optim.AdamW(model.parameters(), lr=_rate(run)))


def _sgd_cosine(model: nn.Module, loss: Loss, run: Run, updates: int = 1000) -> Stepper:
    optimizer = torch.optim.SGD(model.parameters(), lr=_rate(run), momentum=0.9, nesterov=True)
    cosine(optimizer, updates)
    return Backpropagation(model, loss, optimizer)


def _muon(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    return Muon(model, loss, _rate(run))


def _check_torchs(run: Run) -> None:
    """Refuse baselines that are no optimisers on the gradients that torch has left."""
    if run.baseline in ("kfac", "ekfac"):
        raise ProblemError(f"{NAMES[run.method]} needs an optimiser of torch; {NAMES[run.baseline]} is none")


def _rate(run: Run) -> float:
    if run.learning_rate is None:
        raise ProblemError(f"{NAMES.get(run.method, run.method)} needs a learning rate")
    return run.learning_rate


def _optimizer(stepper: Backpropagation | DDPNOpt) -> torch.optim.Optimizer:
    return stepper if isinstance(stepper, DDPNOpt) else stepper.optimizer


METHODS: dict[str, Factory] = {
    **dict.fromkeys(TWIN, _baseline),
    "ddpnopt": _twin,
    "emsa": _emsa,
    "sgd-vgr": _sgd_vgr,
    "vanilla-ddp": _vanilla_ddp,
    "clip": lambda model, loss, run: _clip(model, loss, run, **run.optimizer),
    "clip-samples": lambda model, loss, run: _clip_samples(model, loss, run, **run.optimizer),
    "normalised": _normalised,
    "warm-up": lambda model, loss, run: _warm_up(model, loss, run, **run.optimizer),
    "implicit": lambda model, loss, run: _implicit(model, loss, run, **run.optimizer),
    "trust-region": lambda model, loss, run: _trust_region(model, loss, run, **run.optimizer),
    "gauss-seidel": _gauss_seidel,
    "stacked": _stacked,
    "adamw": _adamw,
    "sgd-cosine": lambda model, loss, run: _sgd_cosine(model, loss, run, **run.optimizer),
    "muon": _muon,
}
"""Factories by name; a rival changes the run's baseline, and `Run.optimizer` are its own arguments."""


def build(model: nn.Module, loss: Loss, run: Run) -> Stepper:
    """Return what trains `model`.

    Raises
    ------
    ProblemError
        If the method is unknown or lacks a learning rate.
    """
    if run.method not in METHODS:
        raise unknown_name("method", run.method, METHODS)
    return METHODS[run.method](model, loss, run)
