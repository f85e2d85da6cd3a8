"""What goes into a training of an experiment, and what comes out: `Run` → `Result`, both plain JSON."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ocpkit.errors import ProblemError

QUICK_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user asks of an item.

    Attributes
    ----------
    datasets
        Empty: those of the item. `"cnn:mnist"` asks for a network other than an FCN (see `network_and_data`).
    seeds
        Number of seeds, 0 … seeds − 1.
    quick
        A small form of the item that shows that it works.
    device
        "cpu", "cuda", ….
    out
        Folder of all results; an item may read there what another one found.

    Raises
    ------
    ProblemError
        If there are no seeds.
    """

    datasets: tuple[str, ...] = ()
    seeds: int = 10
    quick: bool = False
    device: str = "cpu"
    out: Path = Path("results")

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ProblemError(f"seeds must be at least 1, got {self.seeds}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: all that its result depends on, but the versions of the software.

    Attributes
    ----------
    item, dataset, model
        Which experiment, which data (`ocpkit_nn.data`), which network (`ocpkit_nn.training.networks.build`).
    method
        A name of `methods.METHODS`.
    baseline
        The method that this one is compared with and whose hyper-parameters it has; its own name for a baseline.
    learning_rate
        η; None for a method without one.
    epsilon
        ε added to V_xx; None for a method that has no V_xx, and so for every baseline.
    seed
        Of the split of the data, the first weights, the order of the batches and all draws.
    epochs, batch_size, loss
        As in `ocpkit_nn.training.options.TrainOptions`.
    network
        Arguments of `networks.fcn` that replace the paper's choices for the data set.
    optimizer
        Further arguments of the method.
    samples
        Train and test on so many samples only; None for all.
    evaluated_on
        "test", or "validation": a fifth of the training set, held out.
    record_every
        Updates between two points of the curves; None: an epoch.
    device
        Where it is trained.
    """

    item: str
    dataset: str
    model: str = "fcn"
    method: str
    baseline: str
    learning_rate: float | None
    epsilon: float | None = None
    seed: int
    epochs: int
    batch_size: int
    loss: str = "ce"
    network: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    samples: int | None = None
    evaluated_on: str = "test"
    record_every: int | None = None
    device: str = "cpu"

    @property
    def key(self) -> str:
        """Hash of all fields; the name of the run's file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]

    @property
    def is_quick(self) -> bool:
        """Whether it belongs to the quick form of an item."""
        return self.samples == QUICK_SAMPLES

    @property
    def feedback(self) -> str | None:
        """ "full", "value" or "none" for a twin."""
        return self.optimizer.get("feedback")

    @property
    def terminal(self) -> str | None:
        """Terminal curvature of a twin."""
        return self.optimizer.get("terminal")

    def kind(self) -> tuple[str, ...]:
        """Return what decides how long it takes: all but the seed and the size of learning rate and ε."""
        record = asdict(self) | {"seed": 0, "learning_rate": 0, "epsilon": bool(self.epsilon)}
        return tuple(f"{name}={record[name]}" for name in sorted(record))


def network_and_data(name: str) -> tuple[str, str]:
    """Split the name of an experiment's data into network and data set; without a prefix the network is an FCN.

    Examples
    --------
    >>> network_and_data("cnn:mnist"), network_and_data("clusters:8")
    (('cnn', 'mnist'), ('fcn', 'clusters:8'))
    """
    prefix, _, rest = name.partition(":")
    return (prefix, rest) if prefix in ("fcn", "cnn") else ("fcn", name)


@dataclass(frozen=True)
class Result:
    """What came out of a run.

    Attributes
    ----------
    run
        What was trained.
    train_loss
        Mean loss over the whole training set at the end; None if it is not finite.
    accuracy
        Share of the test (or validation) set classified rightly at the end [%]; None if the training diverged.
    updates
        Number of updates of the weights.
    seconds
        CPU time [s].
    curves
        Lists of equal length: "update", "train_loss", "accuracy"; None where a value is not finite.
    measures
        What an item measured beyond that.
    versions
        Of the software, and the machine.
    """

    run: Run
    train_loss: float | None
    accuracy: float | None
    updates: int
    seconds: float
    curves: dict[str, list[float | None]] = field(default_factory=dict)
    measures: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        return self.train_loss is None

    @property
    def loss(self) -> float:
        """`train_loss`, with inf for a training that diverged."""
        return math.inf if self.train_loss is None else self.train_loss

    def row(self) -> dict[str, Any]:
        """Return a flat record of the run and its result; measures have six significant digits."""
        record = asdict(self)
        return {**record.pop("run"), **record, "measures": _rounded(self.measures)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Result:
        """Read what `row` returned."""
        of_run = {name.name for name in fields(Run)}
        run = Run(**{name: value for name, value in row.items() if name in of_run})
        return cls(run, **{name: value for name, value in row.items() if name not in of_run})


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
