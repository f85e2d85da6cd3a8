"""E2: Fig. 3 and Table 4: what do the methods cost in batch size B, width X and depth L?

One of B, X and L varies; the powers by which time and memory of a step grow stand beside those of Table 4.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocpkit.errors import ProblemError
from ocpkit_nn import CrossEntropy, fcn, machine, paired_times, peak_memory, reproducible
from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.methods import NAMES, build
from ocpkit_nn.experiments.report import LINES, Page, Picture, Report, Table, panels
from ocpkit_nn.experiments.results import Results
from ocpkit_nn.experiments.run import Options, Result, Run, baseline_run, common

Step = Callable[[Tensor, Tensor], float]
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
PAGE = Page("e2", point=POINT, tolerance=TOLERANCE)


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
    tables = [
        PAGE.table("Powers", [_slopes(name, own, measure, what) for name, own in methods.items()], what=what)
        for measure, what in (("seconds", "time"), ("bytes", "memory"))
    ]
    return PAGE.report(_verdict(methods), [*tables, _ratios(methods)], [_draw(methods, folder)])


def _curve(results: Sequence[Result], axis: str, measure: str) -> tuple[list[int], list[float]]:
    chosen = sorted((r for r in results if axis_of(r.run) == axis), key=lambda r: size_of(r.run))
    return [size_of(r.run) for r in chosen], [r.measures[measure] for r in chosen]


def _verdict(methods: dict[str, Results]) -> tuple[str, str]:
    slopes = {axis: slope(*_curve(methods[SOLVER], axis, "seconds")) for axis in SIZES}
    linear = all(not value > EXPONENTS[axis] + TOLERANCE for axis, value in slopes.items())
    # medians of the ratios to SGD over the sizes of the batch sweep, those of Fig. 3
    ratios = {name: float(np.median(_curve(results, "batch", "over_sgd")[1])) for name, results in methods.items()}
    rmsprop, solver = ratios[NAMES["rmsprop"]], ratios[SOLVER]
    near, emsa = solver / rmsprop, ratios[NAMES["emsa"]] / solver
    memory = slope(*_curve(methods[SOLVER], "width", "bytes"))
    holds = linear and near <= 2 and emsa >= 2 and not memory > 2 + TOLERANCE
    more = {"near": near, "separable": ratios[SEPARABLE] / rmsprop, "over_sgd": solver, "emsa": emsa}
    return PAGE.judged(holds=holds, partly=linear, slopes=slopes, memory=memory, **more)


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
    return PAGE.table("Ratios", rows, map(str, sizes))


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
    return PAGE.figure("Figure", drawn, folder / "scaling.png")
