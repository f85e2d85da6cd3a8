"""E2: Fig. 3 and Table 4: what do the methods cost in batch size B, width X and depth L?

One of B, X and L varies; the powers by which time and memory of a step grow stand beside those of Table 4.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ocpkit.errors import ProblemError
from ocpkit_nn import CrossEntropy, fcn, machine, reproducible
from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.methods import NAMES, build
from ocpkit_nn.experiments.report import LINES, Picture, Report, Table, judged, panels, save
from ocpkit_nn.experiments.results import Results
from ocpkit_nn.experiments.run import Options, Result, Run, baseline_run, common

Step = Callable[[Tensor, Tensor], float]
TITLE = "E2: time and memory of a step over batch size, width and depth (Fig. 3, Table 4)"
CLASSES = 10
SIZES = {"batch": (8, 16, 32, 64, 128, 256), "width": (16, 32, 64, 128, 256, 512), "depth": (3, 6, 12, 24, 48)}
POINT = {"batch": 32, "width": 32, "depth": 5}
LARGEST = {"vanilla-ddp": {"batch": 128, "width": 256, "depth": 24}, "emsa": {"batch": 256, "width": 256, "depth": 24}}
SOLVER, SEPARABLE = "DDPNOpt (RMSprop's M)", "DDPNOpt (RMSprop's M, separable gains)"
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{NAMES[name]: (name, name, {}) for name in ("sgd", "rmsprop", "adam", "ekfac", "emsa", "vanilla-ddp")},
    SOLVER: ("ddpnopt", "rmsprop", {}),
    SEPARABLE: ("ddpnopt", "rmsprop", {"gains": "separable"}),
    "DDPNOpt (EKFAC's M)": ("ddpnopt", "ekfac", {}),
}
"""Method, baseline and options, by what reports call them: a DDPNOpt by what it takes its M from."""
EXPONENTS = {"batch": 1, "width": 2, "depth": 1}
TOLERANCE = 0.2
ROUNDS, SECONDS = 7, 0.02
NOTES = (
    "The paper times MNIST on GPUs; here the inputs are random and as many as the layers are wide, so that X is "
    "the only width, on one CPU thread.",
    "Separable gains are no part of the paper: c = q_uᵀ M⁻¹ q_u from norms, with a rank-one approximation of M⁻¹.",
    "Memory is the peak of the bytes of torch's tensors that live at once in two steps, by torch's profiler.",
    "Vanilla DDP's M = E[Q_uu] is solved in the space of the samples' columns (Woodbury) and not formed, so its cost "
    "grows more with B and less with X than Table 4 says.",
)


def runs(options: Options) -> list[Run]:
    """Return a measurement for each method and size; one seed, since a step's cost does not depend on it.

    `ProblemError` if data sets or another device than the CPU are asked for.
    """
    if options.datasets or options.device != "cpu":
        raise ProblemError("e2 measures CPU time on random inputs; leave out --dataset and --device")
    return [
        baseline_run(
            _shared(method, baseline, axis, size, options), None if method == "emsa" else 1e-3, 0, method, **more
        )
        for axis, sizes in SIZES.items()
        for size in (sizes[:2] if options.quick else sizes)
        for method, baseline, more in METHODS.values()
        if size <= LARGEST.get(method, {}).get(axis, size)
    ]


def _shared(method: str, baseline: str, axis: str, size: int, options: Options) -> dict[str, Any]:
    network, epsilon = {**POINT, axis: size}, 0.0 if method == "ddpnopt" else None
    cost = {"epochs": 1, "batch_size": network.pop("batch"), "network": network, "epsilon": epsilon}
    return common("e2", f"random:{axis}", baseline, options, **cost)


def paired_times(
    step: Step, reference: Step, inputs: Tensor, targets: Tensor, *, rounds: int, seconds: float
) -> tuple[float, float]:
    """Return (CPU time of a step [s], its ratio to that of `reference`), medians over rounds that time both in turn.

    Each round spends so many `seconds` of CPU time on each method, and at least one step.
    """

    def mean_time(each: Step, repeats: int) -> float:
        start = time.process_time()
        for _ in range(repeats):
            each(inputs, targets)
        return (time.process_time() - start) / repeats

    steps = (step, reference)
    first = [mean_time(each, 1) for each in steps]  # to warm up
    first = [min(once, mean_time(each, 1)) for each, once in zip(steps, first)]
    repeats = [max(1, round(seconds / max(once, 1e-6))) for once in first]
    times = [[mean_time(each, n) for each, n in zip(steps, repeats)] for _ in range(rounds)]
    return statistics.median(own for own, _ in times), statistics.median(own / other for own, other in times)


def peak_memory(build: Callable[[], Step], inputs: Tensor, targets: Tensor) -> int:
    """Return the largest number of bytes [B] of torch's CPU tensors alive at once, while a method is built and makes
    two steps; what NumPy, SciPy and Python allocate, and the batch itself, are not counted."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step = build()
        for _ in range(2):
            step(inputs, targets)
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def train(run: Run) -> Result:
    """Measure one method at one size, its time in turn with that of SGD."""
    began, width = time.process_time(), run.network["width"]
    with reproducible(torch.device("cpu"), run.seed):
        torch.set_num_threads(1)
        inputs, targets = torch.randn(run.batch_size, width), torch.randint(CLASSES, (run.batch_size,))
        reference = _step(replace(run, method="sgd", baseline="sgd", learning_rate=1e-3))
        rounds, seconds = (1, 0.0) if run.is_quick else (ROUNDS, SECONDS)
        cpu, ratio = paired_times(_step(run), reference, inputs, targets, rounds=rounds, seconds=seconds)
        measures = {"seconds": cpu, "over_sgd": ratio, "bytes": peak_memory(lambda: _step(run), inputs, targets)}
        loss = _step(run)(inputs, targets)
        versions = machine(torch.device("cpu"))
    spent = round(time.process_time() - began, 3)
    return Result(run, loss, None, 1, spent, {}, {name: float(f"{v:.5g}") for name, v in measures.items()}, versions)


def _step(run: Run) -> Step:
    return build(fcn(run.network["width"], CLASSES, **run.network), CrossEntropy(), run).step


def axis_of(run: Run) -> str:
    return run.dataset.partition(":")[2]


def size_of(run: Run) -> int:
    return int({"batch": run.batch_size, **run.network}[axis_of(run)])


def label(run: Run) -> str:
    return next(name for name, each in METHODS.items() if each == (run.method, run.baseline, run.optimizer))


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope in log-log of the larger half of the sizes; nan for fewer than two of them."""
    order = np.argsort(sizes)[len(sizes) // 2 :]
    if len(order) < 2:
        return math.nan
    return float(np.polyfit(np.log(np.array(sizes)[order]), np.log(np.array(costs)[order]), 1)[0])


def report(results: Sequence[Result], folder: Path) -> Report:
    methods = Results(results).by(label)
    caption = "Powers by which the {} of a step grows, in the larger half of the sizes"
    header = ("method", "batch B", "width X", "depth L", "Table 4")
    tables = [
        Table(caption.format(what), header, [_slopes(name, own, measure, what) for name, own in methods.items()])
        for measure, what in (("seconds", "time"), ("bytes", "memory"))
    ]
    return Report(TITLE, *_verdict(methods), (*tables, _ratios(methods)), (_draw(methods, folder),), NOTES)


def _curve(results: Sequence[Result], axis: str, measure: str) -> tuple[list[int], list[float]]:
    chosen = sorted((r for r in results if axis_of(r.run) == axis), key=lambda r: size_of(r.run))
    return [size_of(r.run) for r in chosen], [r.measures[measure] for r in chosen]


def _verdict(methods: dict[str, Results]) -> tuple[str, str]:
    slopes = {axis: slope(*_curve(methods[SOLVER], axis, "seconds")) for axis in SIZES}
    linear = all(not value > EXPONENTS[axis] + TOLERANCE for axis, value in slopes.items())
    # medians of the ratios to SGD over the sizes of the batch sweep, those of Fig. 3
    ratios = {name: float(np.median(_curve(results, "batch", "over_sgd")[1])) for name, results in methods.items()}
    near = ratios[SOLVER] / ratios[NAMES["rmsprop"]]
    separable = ratios[SEPARABLE] / ratios[NAMES["rmsprop"]]
    emsa = ratios[NAMES["emsa"]] / ratios[SOLVER]
    memory = slope(*_curve(methods[SOLVER], "width", "bytes"))
    holds = linear and near <= 2 and emsa >= 2 and not memory > 2 + TOLERANCE
    return judged(holds=holds, partly=linear), (
        f"DDPNOpt's time grows by the powers {slopes['batch']:.2f} of the batch, {slopes['width']:.2f} of the "
        f"width and {slopes['depth']:.2f} of the depth (Table 4: 1, 2, 1), its memory by {memory:.2f} of the width "
        f"(2). Over the batch sizes its step takes {near:.2f} times that of its baseline RMSprop (with separable gains "
        f"{separable:.2f} times), {ratios[SOLVER]:.2f} times that of SGD; E-MSA takes {emsa:.1f} times DDPNOpt's. "
        f"Rule: holds if no power exceeds Table 4's by more than "
        f"{TOLERANCE:g}, DDPNOpt takes at most twice its baseline's time and E-MSA at least twice DDPNOpt's; partly if "
        "the powers of the time alone are so."
    )


def _slopes(name: str, results: Results, measure: str, what: str) -> tuple[str, ...]:
    powers = (f"{slope(*_curve(results, axis, measure)):.2f}" for axis in SIZES)
    return (name, *powers, paper.TABLE_4[what].get(results[0].run.method, "–"))


def _sizes(methods: dict[str, Results], axis: str) -> list[int]:
    return sorted({size for results in methods.values() for size in _curve(results, axis, "bytes")[0]})


def _ratios(methods: dict[str, Results]) -> Table:
    sizes, rows = _sizes(methods, "batch"), []
    for name, results in methods.items():
        known = dict(zip(*_curve(results, "batch", "over_sgd")))
        rows.append((name, *(f"{known[size]:.2f}" if size in known else "–" for size in sizes)))
    caption = f"Time of a step over that of SGD, X = {POINT['width']}, L = {POINT['depth']}, by the batch size (Fig. 3)"
    return Table(caption, ("method", *map(str, sizes)), rows)


def _draw(methods: dict[str, Results], folder: Path) -> Picture:
    drawn, axes = panels(4 * len(SIZES), 6.4, 2, len(SIZES))
    for row, (measure, scale, unit) in zip(axes, (("seconds", 1e3, "time [ms]"), ("bytes", 2**-20, "memory [MiB]"))):
        for ax, axis in zip(row, SIZES):
            for number, (name, results) in enumerate(methods.items()):
                sizes, costs = _curve(results, axis, measure)
                style = {"color": LINES[number % len(LINES)], "marker": "o" if number < len(LINES) else "s"}
                ax.loglog(sizes, scale * np.array(costs), ms=3, label=name, **style)
            every = _sizes(methods, axis)
            ax.set_xticks(every, map(str, every), minor=False)
            ax.set_xticks([], minor=True)
            ax.set_xlabel(axis)
        row[0].set_ylabel(unit)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8)
    fixed = ", ".join(f"{axis} {size}" for axis, size in POINT.items())
    caption = f"CPU time and peak memory of a step over one size; the others are {fixed}"
    return save(drawn, folder / "scaling.png", caption)
