"""Input and outcome of a training of an experiment: `Run` → `Result`, both plain JSON."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ocpkit.errors import ProblemError
from ocpkit_nn import networks

QUICK_SAMPLES = 64
QUICK: dict[str, Any] = {"epochs": 1, "samples": QUICK_SAMPLES}
QUICK_SEEDS = 2
EPOCHS = {"digits": 8, "wine": 30}
CNN: dict[str, Any] = {"epochs": 3, "samples": 12800}
"""Of every CNN: 300 updates, since a sweep over rates, ε and seeds trains hundreds of them."""
DEFAULT_TERMINAL = "empirical"
COLLECTED = "results.json.gz"
"""All rows of an item; `pandas.read_json` reads it as it is."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of an item; `ProblemError` if there are no seeds."""

    datasets: tuple[str, ...] = ()  # none: those of the item; "cnn:mnist" for a network other than an FCN
    seeds: int = 10  # how many: 0 … seeds − 1
    quick: bool = False  # a small form of the item that shows that it works
    device: str = "cpu"
    out: Path = Path("results")  # of all items; one may read there what another one found

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ProblemError(f"seeds must be at least 1, got {self.seeds}")

    @property
    def seed_range(self) -> range:
        """The seeds of an item; the quick form has at most two."""
        return range(min(self.seeds, QUICK_SEEDS) if self.quick else self.seeds)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: all that its result depends on, but the versions of the software."""

    item: str
    dataset: str
    model: str = "fcn"
    method: str  # of `methods.METHODS`
    baseline: str  # whose hyper-parameters it has and what it is compared with; its own name for a baseline
    learning_rate: float | None  # η; None for a method without one
    epsilon: float | None = None  # ε added to V_xx; None for a method without V_xx, and so for every baseline
    seed: int  # of the split of the data, the first weights, the order of the batches and all draws
    epochs: int
    batch_size: int
    loss: str = "ce"  # a name of `ocpkit_nn.layers.losses.by_name`
    network: dict[str, Any] = field(default_factory=dict)  # arguments of `fcn` in place of the paper's choices
    optimizer: dict[str, Any] = field(default_factory=dict)  # further arguments of the method
    samples: int | None = None  # train and test on so many only
    evaluated_on: str = "test"  # or "validation": a fifth of the training set, held out
    record_every: int | None = None  # updates between two points of the curves; None: an epoch
    device: str = "cpu"

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]

    @property
    def is_quick(self) -> bool:
        return self.samples == QUICK_SAMPLES

    @property
    def feedback(self) -> str | None:
        return self.optimizer.get("feedback")

    @property
    def terminal(self) -> str | None:
        return self.optimizer.get("terminal")

    def kind(self) -> tuple[str, ...]:
        """Return what decides how long it takes: all but the seed and the size of learning rate and ε."""
        record = asdict(self) | {"seed": 0, "learning_rate": 0, "epsilon": bool(self.epsilon)}
        return tuple(f"{name}={record[name]}" for name in sorted(record))


def network_and_data(name: str) -> tuple[str, str]:
    """Split "cnn:mnist" into network and data set; without a prefix the network is an FCN."""
    prefix, _, rest = name.partition(":")
    return (prefix, rest) if prefix in ("fcn", "cnn") else ("fcn", name)


def common(item: str, name: str, baseline: str, options: Options, **more: Any) -> dict[str, Any]:
    """Return what the runs of a baseline, its twins and its rivals have in common; `name` as in `Options.datasets`."""
    model, dataset = network_and_data(name)
    shared = {"item": item, "dataset": dataset, "model": model, "baseline": baseline, "device": options.device}
    cost = CNN if model == "cnn" else {"epochs": EPOCHS.get(dataset, 2)}
    cost = {"batch_size": networks.setting(model, dataset).batch_size, **cost}
    return {**shared, **cost, **more, **(QUICK if options.quick else {})}


def baseline_run(
    shared: dict[str, Any], rate: float | None, seed: int, method: str | None = None, **optimizer: Any
) -> Run:
    """Return the baseline itself, or a rival."""
    return Run(**shared, method=method or shared["baseline"], learning_rate=rate, seed=seed, optimizer=optimizer)


def twin_run(
    shared: dict[str, Any], rate: float, seed: int, feedback: str, *, epsilon: float = 0.0, **optimizer: Any
) -> Run:
    """Return a twin: ``feedback="none"`` is the baseline trained by DDPNOpt, the two other values add V_xx."""
    optimizer = {"feedback": feedback} | ({} if feedback == "none" else {"terminal": DEFAULT_TERMINAL, **optimizer})
    own = None if feedback == "none" else epsilon
    return Run(**shared, method="ddpnopt", learning_rate=rate, epsilon=own, seed=seed, optimizer=optimizer)


@dataclass(frozen=True)
class Result:
    """Outcome of a run; None where a number is not finite."""

    run: Run
    train_loss: float | None  # mean over the whole training set at the end; None if the training diverged
    accuracy: float | None  # on the test (or validation) set at the end [%]
    updates: int  # of the weights
    seconds: float  # CPU time [s]
    curves: dict[str, list[float | None]] = field(default_factory=dict)  # "update", "train_loss", "accuracy"
    measures: dict[str, Any] = field(default_factory=dict)  # what an item measured beyond that
    versions: dict[str, Any] = field(default_factory=dict)  # of the software, and the machine

    @property
    def diverged(self) -> bool:
        return self.train_loss is None

    @property
    def loss(self) -> float:
        return math.inf if self.train_loss is None else self.train_loss

    @property
    def capped_loss(self) -> float:
        """The final training loss, or that before the first update where training made it worse or diverged."""
        before = self.curves["train_loss"][0]
        return min(self.loss, math.inf if before is None else before)

    @property
    def percent(self) -> float:
        """Accuracy [%]; 0 for a training that diverged."""
        return 0.0 if self.accuracy is None else self.accuracy

    def row(self) -> dict[str, Any]:
        """Return a flat record of the run and its result; measures have six significant digits."""
        record = asdict(self)
        return {**record.pop("run"), **record, "measures": _rounded(self.measures)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Result:
        of_run = {each.name for each in fields(Run)}
        run = Run(**{name: value for name, value in row.items() if name in of_run})
        return cls(run, **{name: value for name, value in row.items() if name not in of_run})


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write(path: Path, content: bytes) -> None:
    """Write a file in full or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    whole.write_bytes(content)
    whole.replace(path)


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write a compressed JSON list, one row a line, without spaces between its items; the same bytes each time."""
    lines = (json.dumps(result.row(), ensure_ascii=False, allow_nan=False, separators=(",", ":")) for result in results)
    write(path, gzip.compress("[\n{}\n]\n".format(",\n".join(lines)).encode(), mtime=0))


def read_results(path: Path) -> list[Result]:
    """Read a compressed list of rows, or the .json of one row; `ProblemError` if the file is missing or damaged."""
    if not path.is_file():
        raise ProblemError(f"there are no results at {path}: run the item first")
    try:
        content = path.read_bytes()
        rows = json.loads(gzip.decompress(content)) if path.suffix == ".gz" else [json.loads(content)]
        return [Result.from_row(row) for row in rows]
    except (ValueError, TypeError, AttributeError, EOFError, OSError, zlib.error) as error:
        raise ProblemError(f"{path} is damaged ({error}); delete it and run the item again") from error
