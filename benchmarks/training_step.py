"""Time per training step and peak memory of every optimizer, side by side in one run.

    python -m benchmarks.training_step [--quick] [--network NAME ...] [--method TEXT ...] [--markdown FILE]

All methods train the same network on the same batch, one thread, in turn (A B C A B C …). A round's time is the mean
over its steps, so that work done every tenth step counts; the table shows the median over rounds, and the median of
the round-by-round ratios to Adam (torch's fused form, the fastest) and to the baseline whose twin a method is. Time
is processor time on a CPU, so that a busy machine disturbs it less. Memory is the peak of all tensors alive in the
first two steps with network, gradients and moments, as torch's profiler sees allocations.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import page
from benchmarks.machine import describe
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.optim.pmp import EMSA
from ocpkit_nn.passes import fused, separable
from ocpkit_nn.training import networks
from ocpkit_nn.training.cost import StepFunction, mean_time, peak_memory
from ocpkit_nn.training.options import EIGENBASIS_INTERVAL

SEED = 0


@dataclass(frozen=True)
class Workload:
    """A network with the shape of its batch."""

    name: str
    build: Callable[[], nn.Module]
    batch: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Method:
    """How to build a network with its optimizer, and the name of its baseline."""

    build: Callable[[], StepFunction]
    baseline: str
    period: int = 1  # steps after which its work repeats


@dataclass(frozen=True)
class Row:
    """One line of the result."""

    network: str
    method: str
    milliseconds: float
    ratio_to_adam: float
    ratio_to_baseline: float
    peak_mib: float


WORKLOADS = (
    Workload("fcn-32", lambda: networks.fcn(784, 10, width=32), 32, (784,)),
    Workload("cnn", lambda: networks.cnn(1, 28, 10), 128, (1, 28, 28)),
    Workload("fcn-256", lambda: networks.fcn(784, 10, width=256), 128, (784,)),
    Workload("fcn-1024", lambda: networks.fcn(784, 10, width=1024), 128, (784,)),
)
TWINS = {"identity": "SGD", "diagonal": "RMSprop", "adam": "Adam", "kronecker": "KFAC", "ekfac": "EKFAC"}


def methods(model: Callable[[], nn.Module]) -> dict[str, Method]:
    """Return every optimizer by name."""
    every = {
        "Adam": Method(partial(_backpropagation, model, torch.optim.Adam, fused=True), "Adam"),
        "SGD": Method(partial(_backpropagation, model, torch.optim.SGD, fused=True), "SGD"),
        "RMSprop": Method(partial(_backpropagation, model, torch.optim.RMSprop, foreach=True), "RMSprop"),
    }
    for curvature, twin in TWINS.items():
        period = EIGENBASIS_INTERVAL if curvature in ("kronecker", "ekfac") else 1
        build = partial(_ddpnopt, model, curvature=curvature, eigenbasis_interval=period)
        if period > 1:
            every[twin] = Method(partial(build, feedback="none"), twin, period)
        for feedback in ("full", "value"):
            name = f"DDPNOpt {curvature} {feedback}"
            every[name] = Method(partial(build, feedback=feedback), twin, period)
            if curvature in fused.CURVATURES:
                cheap = partial(build, feedback=feedback, gains="separable")
                every[f"{name} separable"] = Method(cheap, twin, separable.REFRESH_INTERVAL)
    for terminal in ("montecarlo", "ggn"):
        every[f"DDPNOpt diagonal full {terminal}"] = Method(partial(_ddpnopt, model, terminal=terminal), "RMSprop")
    vanilla = {"curvature": "exact", "control_hessian": "literal", "terminal": "ggn", "damping": 1.0}
    every["vanilla DDP"] = Method(partial(_ddpnopt, model, **vanilla), "SGD")
    every["E-MSA"] = Method(lambda: EMSA(model()).step, "SGD")
    return every


def _ddpnopt(model: Callable[[], nn.Module], **options: Any) -> StepFunction:
    return DDPNOpt(model(), lr=1e-4, **options).step


def _backpropagation(build: Callable[[], nn.Module], optimizer: Any, **options: bool) -> StepFunction:
    model = build()
    chosen = optimizer(model.parameters(), lr=1e-4, **options)

    def step(inputs: Tensor, targets: Tensor) -> float:
        chosen.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        chosen.step()
        return float(loss.detach())

    return step


def measure(workload: Workload, device: str, rounds: int, seconds: float, wanted: Sequence[str]) -> list[Row]:
    """Time all methods in turn; each gets about `seconds` per round."""
    torch.manual_seed(SEED)
    inputs = torch.randn(workload.batch, *workload.shape, device=device)
    targets = torch.randint(0, 10, (workload.batch,), device=device)
    every = methods(lambda: workload.build().to(device))
    needed = {every[name].baseline for name in every if any(text in name for text in wanted)} | {"Adam"}
    every = {
        name: method
        for name, method in every.items()
        if not wanted or name in needed or any(text in name for text in wanted)
    }
    peaks = {name: peak_memory(method.build, inputs, targets) / 2**20 for name, method in every.items()}
    steps, repeats = {name: method.build() for name, method in every.items()}, {}
    for name, step in steps.items():
        step(inputs, targets)
        count, period = seconds / max(mean_time(step, inputs, targets, 1), 1e-6), every[name].period
        repeats[name] = period * max(1, round(count / period))
    times: dict[str, list[float]] = {name: [] for name in every}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(mean_time(step, inputs, targets, repeats[name]))

    def ratio(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[name], times[other]))

    return [
        Row(
            workload.name,
            name,
            1e3 * statistics.median(times[name]),
            ratio(name, "Adam"),
            ratio(name, method.baseline),
            peaks[name],
        )
        for name, method in every.items()
    ]


COLUMNS = ("method", "ms/step", "x Adam", "x baseline", "peak MiB")


def cells(row: Row) -> list[str]:
    """Format a row as the cells of `COLUMNS`."""
    numbers = row.milliseconds, row.ratio_to_adam, row.ratio_to_baseline
    return [row.method, *(f"{number:.2f}" for number in numbers), f"{row.peak_mib:.1f}"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--network", nargs="*", choices=[w.name for w in WORKLOADS], help="default: all")
    parser.add_argument("--method", nargs="*", default=[], help="parts of names; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to a file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew the measured part of a page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds, seconds = (2, 0.02) if options.quick else (9, 0.15)
    info = describe("torch", "numpy", "ocpkit")
    info |= {"device": options.device, "threads": "1", "rounds": str(rounds), "seed": str(SEED)}
    console = Console()
    console.print(", ".join(f"{key} {value}" for key, value in info.items()))
    chosen = [w for w in WORKLOADS if not options.network or w.name in options.network]
    rows, sections = [], []
    for workload in chosen:
        measured = measure(workload, options.device, rounds, seconds, options.method)
        title = f"{workload.name}, batch {workload.batch}"
        table = Table(*COLUMNS, title=title)
        for row in measured:
            table.add_row(*cells(row))
        console.print(table)
        sections.append(f"## {title}\n\n" + page.markdown(COLUMNS, map(cells, measured)))
        rows += measured
    if options.json:
        options.json.write_text(json.dumps({"machine": info, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    if options.markdown:
        command = shlex.join(["python", "-m", "benchmarks.training_step", *sys.argv[1:]])
        page.write(options.markdown, "Time of a training step", command, info, sections)


if __name__ == "__main__":
    main()
