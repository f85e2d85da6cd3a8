"""The options of a training run: checked when they are given, filled in when the data are known."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import InitVar, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ocpkit.errors import ProblemError, unknown_name
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.optim.groups import RENAMED_INTERVAL, renamed
from ocpkit_nn.optim.options import CONTROL_HESSIAN, FEEDBACK, GAINS, TERMINAL
from ocpkit_nn.passes.curvature import RULES
from ocpkit_nn.training.networks import setting

TAKES: dict[str, tuple[str, ...]] = {
    "ddpnopt": (
        *("curvature", "feedback", "gains", "terminal", "rank", "control_hessian", "momentum", "decay"),
        *("damping", "eigenbasis_interval", "max_grad_norm"),
    ),
    "sgd": ("momentum",),
    "rmsprop": ("momentum", "decay"),
    "adam": (),
    "kfac": ("decay", "damping", "eigenbasis_interval", "max_grad_norm"),
    "ekfac": ("decay", "damping", "eigenbasis_interval", "max_grad_norm"),
}
"""Options, beyond those of all, that an optimizer takes; another one given to it is an error."""

CURVATURES = {"sgd": "identity", "rmsprop": "diagonal", "adam": "adam", "kfac": "kronecker", "ekfac": "ekfac"}
"""The curvature whose DDPNOpt is the optimizer's twin."""

LEARNING_RATES = {"identity": 0.1, "diagonal": 1e-3, "adam": 1e-3, "kronecker": 0.03, "ekfac": 0.03, "exact": 0.1}
"""Default learning rates by curvature; an optimizer without curvature uses the one of the identity."""

EIGENBASIS_INTERVAL = 10
"""Steps between two eigendecompositions of a CNN's large Kronecker factors, which would else take most of the time."""

SCHEDULES = ("constant", "cosine")
LOSSES = ("ce", "mse", "mmc")
EPOCHS = {"wine": 50, "digits": 20}
KNOWN: dict[str, Iterable[str]] = {
    "optimizer": TAKES,
    "curvature": RULES,
    "feedback": FEEDBACK,
    "terminal": TERMINAL,
    "control_hessian": CONTROL_HESSIAN,
    "gains": GAINS,
    "loss": LOSSES,
    "schedule": SCHEDULES,
}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training run; None is the default of the data set or the optimizer.

    Attributes
    ----------
    data
        Name or path of the data set (see `ocpkit_nn.data`).
    model
        ``"fcn"``, ``"cnn"``, ``"residual"``, ``"transformer"`` or ``"path/to/file.py:function"`` (see
        `networks.build`).
    optimizer
        A name of `optimizers.OPTIMIZERS`.
    curvature, feedback, gains, terminal, rank, control_hessian, momentum, decay, damping, max_grad_norm
        As `DDPNOpt` has them, for the optimizers that take them. The default curvature is the adaptive diagonal; for
        a CNN the terminal Hessian of exact gains is then a Monte-Carlo draw instead of the empirical outer product.
    eigenbasis_interval
        As `DDPNOpt` has it; `basis_every` is its deprecated name.
    loss
        ``"ce"``, ``"mse"`` or ``"mmc"``.
    epochs, batch_size
        Passes over the training set, and samples per step.
    lr, weight_decay
        Learning rate η and weight decay λ.
    schedule
        ``"constant"``, or ``"cosine"``: η falls to zero by half a cosine over the whole run.
    seed
        Of the split of the data, the first weights, the order of the batches and all draws.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ….
    threads
        Of the processor; None is 1 for ``"fcn"``, whose small products more threads only slow down, else torch's own
        choice. The same number of threads gives the same bits.
    out
        Folder for results and checkpoints; None writes no files.

    Raises
    ------
    ProblemError
        For unknown names, values out of range, and options that the optimizer does not take.
    """

    data: str
    model: str = "fcn"
    optimizer: str = "ddpnopt"
    curvature: str | None = None
    feedback: str | None = None
    gains: str | None = None
    terminal: str | None = None
    rank: int | None = None
    control_hessian: str | None = None
    loss: str = "ce"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float = 0.0
    momentum: float | None = None
    decay: float | None = None
    damping: float | None = None
    eigenbasis_interval: int | None = None
    max_grad_norm: float | None = None
    schedule: str = "constant"
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    out: str | Path | None = None
    basis_every: InitVar[int | None] = None

    def __post_init__(self, basis_every: int | None) -> None:
        if basis_every is not None:
            warnings.warn(RENAMED_INTERVAL, DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "eigenbasis_interval", basis_every)
        for name, known in KNOWN.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise unknown_name(name.replace("_", " "), value, known)
        self._check_numbers()
        others = {name for taken in TAKES.values() for name in taken} - set(TAKES.get(self.optimizer, ()))
        for name in sorted(others):
            if getattr(self, name) is not None:
                takers = ", ".join(key for key, taken in TAKES.items() if name in taken)
                raise ProblemError(f"{name} is an option of {takers}; {self.optimizer} has none")

    def _check_numbers(self) -> None:
        for name in ("epochs", "batch_size", "rank", "eigenbasis_interval", "threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ProblemError(f"{name} must be at least 1, got {value!r}")
        for name in ("lr", "damping", "max_grad_norm"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ProblemError(f"{name} must be positive and finite, got {value!r}")
        for name in ("momentum", "decay"):
            if (value := getattr(self, name)) is not None and not 0 <= value < 1:
                raise ProblemError(f"{name} must lie in [0, 1), got {value!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ProblemError(f"weight_decay must be finite and not negative, got {self.weight_decay!r}")
        if self.seed < 0:
            raise ProblemError(f"seed must not be negative, got {self.seed}")

    def resolved(self, dataset_name: str) -> TrainOptions:
        """Return the options with the defaults for this data set and optimizer filled in."""
        curvature = self.curvature
        if self.optimizer == "ddpnopt":
            curvature = curvature or "diagonal"
        rule = curvature or CURVATURES.get(self.optimizer, "identity")
        filled: dict[str, Any] = {
            "curvature": curvature,
            "epochs": EPOCHS.get(dataset_name, 10),
            "batch_size": setting(self.model, dataset_name).batch_size,
            "lr": LEARNING_RATES[rule],
        }
        if self.model == "fcn":
            filled["threads"] = 1
        if self.optimizer == "ddpnopt":
            defaults = DDPNOpt.__init__.__kwdefaults__ or {}
            filled |= {name: defaults[name] for name in ("feedback", "gains", "terminal", "control_hessian")}
            if self.model == "cnn" and rule == "diagonal" and self.gains != "separable":
                filled["terminal"] = "montecarlo"
        if self.model == "cnn" and rule in ("kronecker", "ekfac"):
            filled["eigenbasis_interval"] = EIGENBASIS_INTERVAL
        return replace(self, **{name: value for name, value in filled.items() if getattr(self, name) is None})

    def record(self) -> dict[str, Any]:
        """Return all options but the folder, as JSON and checkpoints hold them."""
        record = asdict(self)
        del record["out"]
        return record

    def check_continues(self, saved: dict[str, Any], epochs_begun: int) -> None:
        """Check that a run saved with other options may go on with these.

        Where the schedule does not depend on it, the number of epochs may change, down to those begun.

        Raises
        ------
        ProblemError
            If the result would be that of neither; names all options that differ.
        """
        record, saved = self.record(), renamed(saved)
        if self.schedule == "constant" and epochs_begun <= record["epochs"]:
            saved = {**saved, "epochs": record["epochs"]}
        changed = [
            f"{name} was {saved.get(name)!r}, now {record.get(name)!r}"
            for name in sorted(record.keys() | saved.keys())
            if record.get(name) != saved.get(name)
        ]
        if changed:
            raise ProblemError(f"cannot resume {self.out} with other options: {'; '.join(changed)}")

    def command(self) -> list[str]:
        """Return the arguments of `ocpkit train` that give these options."""
        arguments = [self.data]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "data" and value != field.default:
                arguments += [f"--{field.name.replace('_', '-')}", str(value)]
        return arguments
