"""The methods of the experiments by name: baselines, their DDPNOpt twins, the other OCP methods, and rivals.

A twin has the hyper-parameters of its baseline and the feedback beside (Prop. 2): `TWIN` are the options under
which DDPNOpt with ``feedback="none"`` is the baseline. A rival changes the run's baseline, and `Run.optimizer` are its
own arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from ocpkit.errors import ProblemError, unknown_name
from ocpkit_nn import EMSA, SGDVGR, Backpropagation, DDPNOpt, Loss, TrainingMethod
from ocpkit_nn.experiments import rivals
from ocpkit_nn.experiments.run import Run
from ocpkit_nn.experiments.stacked import Stacked, TrustRegion

RENAMED = {"basis_every": "eigenbasis_interval"}  # records keep the names of their time
TWIN: dict[str, dict[str, Any]] = {
    "sgd": {"curvature": "identity"},
    "sgd-m": {"curvature": "identity", "momentum": 0.9},
    "rmsprop": {"curvature": "diagonal", "decay": 0.9},
    "adam": {"curvature": "adam"},
    "kfac": {"curvature": "kronecker", "decay": 0.95, "damping": 0.03},
    "ekfac": {"curvature": "ekfac", "decay": 0.95, "damping": 0.03},
}
"""DDPNOpt's options by baseline. RMSprop averages over β = 0.9; torch's 0.99 fails at the paper's larger rates."""
KRONECKER = ("kfac", "ekfac")
TORCH: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "sgd-m": partial(torch.optim.SGD, momentum=TWIN["sgd-m"]["momentum"]),
    "sgd-cosine": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "rmsprop": partial(torch.optim.RMSprop, alpha=TWIN["rmsprop"]["decay"]),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
"""torch's own optimizers, by method or baseline."""


def _baseline(model: nn.Module, loss: Loss, run: Run, **options: Any) -> Backpropagation | DDPNOpt:
    """Return torch's own optimizer for the run, or, for KFAC and EKFAC, DDPNOpt without feedback."""
    if run.baseline in KRONECKER:
        of_kronecker = {name: options[name] for name in options.keys() & {"damping", "basis_every"}}
        return _solver(model, loss, run, feedback="none", **of_kronecker)
    return Backpropagation(model, loss, _of_torch(model.parameters(), run))


def _of_torch(weights: Iterable[torch.Tensor], run: Run) -> torch.optim.Optimizer:
    """Return the optimizer that the run's method is or, for a rival, that of its baseline."""
    name = run.method if run.method in TORCH else run.baseline
    if name not in TORCH:
        raise ProblemError(f"{NAMES[run.method]} needs an optimizer of torch; {NAMES[name]} is none")
    return TORCH[name](weights, lr=_rate(run))


def _solver(model: nn.Module, loss: Loss, run: Run, kind: type[DDPNOpt] = DDPNOpt, **options: Any) -> DDPNOpt:
    generator = torch.Generator(run.device).manual_seed(run.seed)
    options = {RENAMED.get(name, name): value for name, value in {**TWIN.get(run.baseline, {}), **options}.items()}
    return kind(model, loss, _rate(run), tikhonov=run.epsilon or 0.0, generator=generator, **options)


def _clip(model: nn.Module, loss: Loss, run: Run, max_norm: float = 1.0) -> TrainingMethod:
    if run.baseline in KRONECKER:
        return _solver(model, loss, run, feedback="none", max_grad_norm=max_norm)
    return _hooked(model, loss, run, hook=rivals.clip, max_norm=max_norm)


def _clip_samples(model: nn.Module, loss: Loss, run: Run, max_norm: float = 1.0) -> TrainingMethod:
    return rivals.ClippedSamples(model, loss, _of_torch(model.parameters(), run), max_norm)


def _normalized(model: nn.Module, loss: Loss, run: Run) -> TrainingMethod:
    optimizer = _of_torch(model.parameters(), run)
    rivals.normalize(optimizer)
    return Backpropagation(model, loss, optimizer)


def _hooked(model: nn.Module, loss: Loss, run: Run, *, hook: Callable[..., None], **options: Any) -> TrainingMethod:
    """Return the run's baseline with a hook before its steps."""
    stepper = _baseline(model, loss, run)
    hook(stepper if isinstance(stepper, DDPNOpt) else stepper.optimizer, **options)
    return stepper


def _gauss_seidel(model: nn.Module, loss: Loss, run: Run) -> TrainingMethod:
    return rivals.GaussSeidel(model, loss, partial(_of_torch, run=run))


def _rate(run: Run) -> float:
    if run.learning_rate is None:
        raise ProblemError(f"{NAMES.get(run.method, run.method)} needs a learning rate")
    return run.learning_rate


Factory = Callable[..., TrainingMethod]
_TABLE: dict[str, tuple[str, Factory]] = {
    "sgd": ("SGD", _baseline),
    "sgd-m": ("SGD-m", _baseline),
    "rmsprop": ("RMSprop", _baseline),
    "adam": ("Adam", _baseline),
    "kfac": ("KFAC", _baseline),
    "ekfac": ("EKFAC", _baseline),
    "emsa": ("E-MSA", lambda model, loss, run, **options: EMSA(model, loss, **options)),
    "sgd-vgr": ("SGD-VGR", lambda model, loss, run, **options: SGDVGR(model, loss, _rate(run), **options)),
    "vanilla-ddp": ("vanilla DDP", partial(_solver, curvature="exact", terminal="ggn", control_hessian="literal")),
    "ddpnopt": ("DDPNOpt", _solver),
    "clip": ("gradient clipping", _clip),
    "clip-samples": ("per-sample clipping", _clip_samples),
    "warm-up": ("warm-up", partial(_hooked, hook=rivals.warm_up)),
    "normalised": ("normalized gradient", _normalized),
    "implicit": ("implicit SGD", lambda model, loss, run: rivals.ImplicitSGD(model, loss, _rate(run))),
    "trust-region": ("DDPNOpt, trust region", partial(_solver, kind=TrustRegion)),
    "gauss-seidel": ("Gauss-Seidel sweep", _gauss_seidel),
    "stacked": ("DDPNOpt, stacked batch", partial(_solver, kind=Stacked)),
    "adamw": ("AdamW", _baseline),
    "sgd-cosine": ("SGD, Nesterov, cosine", partial(_hooked, hook=rivals.cosine)),
    "muon": ("Muon", lambda model, loss, run: rivals.Muon(model, loss, _rate(run))),
}
METHODS = {method: factory for method, (_, factory) in _TABLE.items()}
NAMES = {method: name for method, (name, _) in _TABLE.items()}
"""How tables and figures call the methods."""


def listed(names: Iterable[str]) -> str:
    return ", ".join(NAMES[name] for name in names) or "none"


def build(model: nn.Module, loss: Loss, run: Run) -> TrainingMethod:
    """Return what trains `model`; `ProblemError` if the method is unknown or lacks a learning rate."""
    if run.method not in METHODS:
        raise unknown_name("method", run.method, METHODS)
    return METHODS[run.method](model, loss, run, **run.optimizer)
