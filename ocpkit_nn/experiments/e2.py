"""E2 and T18: Fig. 3 and Table 4: what do the methods cost in batch size B, width X and depth L?

Time and memory of one step of a ReLU network with L layers of width X, on X random inputs and 10 classes. One of B,
X, L varies; the slopes in log-log of the larger half of the sizes stand beside the exponents of Table 4.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocpkit.errors import ProblemError
from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.cost import Step, paired_times, peak_memory
from ocpkit_nn.experiments.methods import NAMES, build
from ocpkit_nn.experiments.report import FAILS, HOLDS, LINES, PARTLY, Picture, Report, Table, figure, save
from ocpkit_nn.experiments.run import QUICK_SAMPLES, Options, Result, Run
from ocpkit_nn.experiments.statistics import group
from ocpkit_nn.layers.losses import CrossEntropy
from ocpkit_nn.training.networks import fcn
from ocpkit_nn.training.record import machine
from ocpkit_nn.training.training import reproducible

TITLE = "E2: time and memory of a step over batch size, width and depth (Fig. 3, Table 4)"
CLASSES = 10
SIZES = {"batch": (8, 16, 32, 64, 128, 256), "width": (16, 32, 64, 128, 256, 512), "depth": (3, 6, 12, 24, 48)}
POINT = {"batch": 32, "width": 32, "depth": 5}
LARGEST = {"vanilla-ddp": {"batch": 128, "width": 256, "depth": 24}, "emsa": {"batch": 256, "width": 256, "depth": 24}}
SEPARABLE = {"gains": "separable"}
METHODS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *((name, name, {}) for name in ("sgd", "rmsprop", "adam", "ekfac", "emsa", "vanilla-ddp")),
    *(("ddpnopt", "rmsprop", {}), ("ddpnopt", "rmsprop", SEPARABLE), ("ddpnopt", "ekfac", {})),
)
EXPONENTS = {"batch": 1, "width": 2, "depth": 1}
TOLERANCE = 0.2
ROUNDS, SECONDS = 7, 0.02


def runs(options: Options) -> list[Run]:
    """Return a measurement for each method and size; one seed, since a step's cost does not depend on it.

    Raises
    ------
    ProblemError
        If data sets or another device than the CPU are asked for.
    """
    if options.datasets or options.device != "cpu":
        raise ProblemError("e2 measures CPU time on random inputs; leave out --dataset and --device")
    return [
        _run(method, baseline, optimizer, {**POINT, axis: size}, axis, options)
        for axis, sizes in SIZES.items()
        for size in (sizes[:2] if options.quick else sizes)
        for method, baseline, optimizer in METHODS
        if size <= LARGEST.get(method, {}).get(axis, size)
    ]


def _run(
    method: str, baseline: str, optimizer: dict[str, Any], sizes: dict[str, int], axis: str, options: Options
) -> Run:
    return Run(
        item="e2",
        dataset=f"random:{axis}",
        method=method,
        baseline=baseline,
        learning_rate=None if method == "emsa" else 1e-3,
        epsilon=0.0 if method == "ddpnopt" else None,
        optimizer=optimizer,
        seed=0,
        epochs=1,
        batch_size=sizes["batch"],
        network={"width": sizes["width"], "depth": sizes["depth"]},
        samples=QUICK_SAMPLES if options.quick else None,
    )


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
    """Return the step of a method on a network of its own."""
    return build(fcn(run.network["width"], CLASSES, **run.network), CrossEntropy(), run).step


def axis_of(run: Run) -> str:
    """Which of B, X, L is varied in the sweep of a run."""
    return run.dataset.partition(":")[2]


def size_of(run: Run) -> int:
    """Its value."""
    return int({"batch": run.batch_size, **run.network}[axis_of(run)])


def label(run: Run) -> str:
    """Return the method's name, with what a DDPNOpt takes its M from, and its gains where they are no exact ones."""
    return _solver(run.baseline, run.optimizer) if run.method == "ddpnopt" else NAMES[run.method]


def _solver(baseline: str, optimizer: dict[str, Any]) -> str:
    return f"DDPNOpt ({NAMES[baseline]}'s M{', separable gains' if optimizer == SEPARABLE else ''})"


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope in log-log of the larger half of the sizes; nan for fewer than two of them."""
    order = np.argsort(sizes)[len(sizes) // 2 :]
    if len(order) < 2:
        return math.nan
    return float(np.polyfit(np.log(np.array(sizes)[order]), np.log(np.array(costs)[order]), 1)[0])


def report(results: Sequence[Result], folder: Path) -> Report:
    """Fit slopes, and compare times at the same size."""
    methods = group(results, lambda result: label(result.run))
    verdict, text = _verdict(methods)
    tables = (_slopes(methods, "seconds", "time"), _slopes(methods, "bytes", "memory"), _ratios(methods))
    return Report(TITLE, verdict, text, tables, (_draw(methods, folder),), NOTES)


NOTES = (
    "The paper times MNIST on GPUs; here the inputs are random and as many as the layers are wide, so that X is "
    "the only width, on one CPU thread.",
    "Separable gains are no part of the paper: c = q_uᵀ M⁻¹ q_u from norms, with a rank-one approximation of M⁻¹.",
    "Memory is the peak of the bytes of torch's tensors that live at once in two steps, by torch's profiler.",
    "Vanilla DDP's M = E[Q_uu] is solved in the space of the samples' columns (Woodbury) and not formed, so its cost "
    "grows more with B and less with X than Table 4 says.",
)


def _curve(results: Sequence[Result], axis: str, measure: str) -> tuple[list[int], list[float]]:
    chosen = sorted((r for r in results if axis_of(r.run) == axis), key=lambda r: size_of(r.run))
    return [size_of(r.run) for r in chosen], [r.measures[measure] for r in chosen]


def _at_point(results: Sequence[Result]) -> float:
    """Median of the ratios to SGD over the sizes of the batch sweep, those of Fig. 3."""
    return float(np.median(_curve(results, "batch", "over_sgd")[1]))


def _verdict(methods: dict[str, list[Result]]) -> tuple[str, str]:
    solver = _solver("rmsprop", {})
    slopes = {axis: slope(*_curve(methods[solver], axis, "seconds")) for axis in SIZES}
    linear = all(not value > EXPONENTS[axis] + TOLERANCE for axis, value in slopes.items())
    ratios = {name: _at_point(results) for name, results in methods.items()}
    near = ratios[solver] / ratios[NAMES["rmsprop"]]
    separable = ratios[_solver("rmsprop", SEPARABLE)] / ratios[NAMES["rmsprop"]]
    emsa = ratios[NAMES["emsa"]] / ratios[solver]
    memory = slope(*_curve(methods[solver], "width", "bytes"))
    good = [linear, near <= 2, emsa >= 2, not memory > 2 + TOLERANCE]
    verdict = HOLDS if all(good) else PARTLY if linear else FAILS
    return verdict, (
        f"DDPNOpt's time grows by the powers {slopes['batch']:.2f} of the batch, {slopes['width']:.2f} of the "
        f"width and {slopes['depth']:.2f} of the depth (Table 4: 1, 2, 1), its memory by {memory:.2f} of the width "
        f"(2). Over the batch sizes its step takes {near:.2f} times that of its baseline RMSprop (with separable gains "
        f"{separable:.2f} times), "
        f"{ratios[solver]:.2f} times that of SGD; E-MSA takes {emsa:.1f} times DDPNOpt's. "
        f"Rule: holds if no power exceeds Table 4's by more than "
        f"{TOLERANCE:g}, DDPNOpt takes at most twice its baseline's time and E-MSA at least twice DDPNOpt's; partly if "
        "the powers of the time alone are so."
    )


def _slopes(methods: dict[str, list[Result]], measure: str, what: str) -> Table:
    rows = [
        (name, *(f"{slope(*_curve(results, axis, measure)):.2f}" for axis in SIZES), _printed(results[0].run, what))
        for name, results in methods.items()
    ]
    return Table(
        f"Powers by which the {what} of a step grows, in the larger half of the sizes",
        ("method", "batch B", "width X", "depth L", "Table 4"),
        tuple(rows),
    )


def _printed(run: Run, what: str) -> str:
    return paper.TABLE_4[what].get(run.method, "–")


def _ratios(methods: dict[str, list[Result]]) -> Table:
    sizes = sorted({size_of(r.run) for results in methods.values() for r in results if axis_of(r.run) == "batch"})
    rows = []
    for name, results in methods.items():
        known = dict(zip(*_curve(results, "batch", "over_sgd")))
        rows.append((name, *(f"{known[size]:.2f}" if size in known else "–" for size in sizes)))
    caption = f"Time of a step over that of SGD, X = {POINT['width']}, L = {POINT['depth']}, by the batch size (Fig. 3)"
    return Table(caption, ("method", *map(str, sizes)), tuple(rows))


def _draw(methods: dict[str, list[Result]], folder: Path) -> Picture:
    """Time above, memory below, over the three sizes."""
    drawn = figure(4 * len(SIZES), 6.4)
    axes = drawn.subplots(2, len(SIZES), squeeze=False)
    for row, (measure, scale, unit) in zip(axes, (("seconds", 1e3, "time [ms]"), ("bytes", 2**-20, "memory [MiB]"))):
        for ax, axis in zip(row, SIZES):
            for number, (name, results) in enumerate(methods.items()):
                sizes, costs = _curve(results, axis, measure)
                style = {"color": LINES[number % len(LINES)], "marker": "o" if number < len(LINES) else "s"}
                ax.loglog(sizes, scale * np.array(costs), ms=3, label=name, **style)
            every = sorted({size_of(r.run) for results in methods.values() for r in results if axis_of(r.run) == axis})
            ax.set_xticks(every, map(str, every), minor=False)
            ax.set_xticks([], minor=True)
            ax.set_xlabel(axis)
            ax.grid(alpha=0.3)
        row[0].set_ylabel(unit)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8)
    fixed = ", ".join(f"{axis} {size}" for axis, size in POINT.items())
    caption = f"CPU time and peak memory of a step over one size; the others are {fixed}"
    return save(drawn, folder / "scaling.png", caption)
