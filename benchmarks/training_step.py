"""Time per training step and peak memory of every optimiser, side by side in one run.

    python -m benchmarks.training_step [--quick] [--json FILE] [--device cpu] [--network NAME ...]

All methods train the same network on the same batch, one thread, in turn (A B C A B C …); the table shows the
median over rounds of each round's median, and the median of the round-by-round ratios to Adam. Memory is the peak
of tensors alive during one step beyond what is kept between steps, as torch's profiler sees allocations.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import describe
from ocpkit_nn import networks
from ocpkit_nn.optim import DDPNOpt
from ocpkit_nn.pmp import EMSA

Step = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class Workload:
    """A network with the shape of its batch."""

    name: str
    build: Callable[[], nn.Module]
    batch: int
    shape: tuple[int, ...]
    slow_methods: bool  # whether E-MSA and vanilla DDP finish in reasonable time


@dataclass(frozen=True)
class Row:
    """One line of the result."""

    network: str
    method: str
    milliseconds: float
    ratio_to_adam: float
    peak_mib: float


WORKLOADS = (
    Workload("fcn-32", lambda: networks.fcn(784, 10, width=32), 32, (784,), True),
    Workload("cnn", lambda: networks.cnn(1, 28, 10), 128, (1, 28, 28), False),
    Workload("fcn-256", lambda: networks.fcn(784, 10, width=256), 128, (784,), False),
    Workload("fcn-1024", lambda: networks.fcn(784, 10, width=1024), 128, (784,), False),
)
CURVATURES = ("identity", "diagonal", "adam", "kronecker", "ekfac")


def methods(model: Callable[[], nn.Module], slow: bool) -> Iterator[tuple[str, Step]]:
    """Yield (name, step) for every optimiser, each on a network of its own."""
    yield "Adam", _backpropagation(model(), torch.optim.Adam)
    yield "SGD", _backpropagation(model(), torch.optim.SGD)
    yield "RMSprop", _backpropagation(model(), torch.optim.RMSprop)
    for curvature, name in (("kronecker", "KFAC"), ("ekfac", "EKFAC")):
        yield name, DDPNOpt(model(), lr=1e-4, curvature=curvature, feedback="none").step
    for curvature in CURVATURES:
        for feedback in ("full", "value"):
            yield (
                f"DDPNOpt {curvature} {feedback}",
                DDPNOpt(model(), lr=1e-4, curvature=curvature, feedback=feedback).step,
            )
    yield "DDPNOpt diagonal full montecarlo", DDPNOpt(model(), lr=1e-4, terminal="montecarlo").step
    if slow:
        yield "DDPNOpt diagonal full ggn", DDPNOpt(model(), lr=1e-4, terminal="ggn").step
        literal = {"curvature": "exact", "control_hessian": "literal", "terminal": "ggn", "damping": 1.0}
        yield "vanilla DDP", DDPNOpt(model(), lr=1e-2, **literal).step  # type: ignore[arg-type]
        yield "E-MSA", EMSA(model()).step


def _backpropagation(model: nn.Module, optimizer: Any) -> Step:
    chosen = optimizer(model.parameters(), lr=1e-4)

    def step(inputs: Tensor, targets: Tensor) -> float:
        chosen.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        chosen.step()
        return float(loss.detach())

    return step


def measure(workload: Workload, device: str, rounds: int, seconds: float) -> list[Row]:
    """Time all methods in turn; each gets about `seconds` per round."""
    torch.manual_seed(0)
    inputs = torch.randn(workload.batch, *workload.shape, device=device)
    targets = torch.randint(0, 10, (workload.batch,), device=device)
    steps = dict(methods(lambda: workload.build().to(device), workload.slow_methods))
    repeats = {}
    for name, step in steps.items():
        step(inputs, targets)
        repeats[name] = max(1, int(seconds / max(_once(step, inputs, targets), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(statistics.median(_once(step, inputs, targets) for _ in range(repeats[name])))
    peaks = {name: _peak_mib(step, inputs, targets) for name, step in steps.items()}
    return [
        Row(
            workload.name,
            name,
            1e3 * statistics.median(times[name]),
            statistics.median(t / a for t, a in zip(times[name], times["Adam"])),
            peaks[name],
        )
        for name in steps
    ]


def _once(step: Step, inputs: Tensor, targets: Tensor) -> float:
    if inputs.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step(inputs, targets)
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak_mib(step: Step, inputs: Tensor, targets: Tensor) -> float:
    gc.collect()
    if inputs.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(inputs, targets)
        return float(torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step(inputs, targets)
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak / 2**20


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--network", nargs="*", choices=[w.name for w in WORKLOADS], help="default: all")
    parser.add_argument("--json", type=Path, help="also write the rows to a file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds, seconds = (2, 0.02) if options.quick else (9, 0.15)
    chosen = [w for w in WORKLOADS if not options.network or w.name in options.network]
    rows = [row for workload in chosen for row in measure(workload, options.device, rounds, seconds)]
    info = describe("torch", "numpy", "ocpkit") | {"device": options.device, "rounds": str(rounds)}
    console = Console()
    console.print(", ".join(f"{key} {value}" for key, value in info.items()))
    for workload in chosen:
        table = Table("method", "ms/step", "x Adam", "peak MiB", title=f"{workload.name}, batch {workload.batch}")
        for row in (r for r in rows if r.network == workload.name):
            table.add_row(row.method, f"{row.milliseconds:.2f}", f"{row.ratio_to_adam:.2f}", f"{row.peak_mib:.1f}")
        console.print(table)
    if options.json:
        options.json.write_text(json.dumps({"machine": info, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
