"""E7: Fig. 6, 10, 11, 12: does the feedback escape where the gradient vanishes?

Plain training of a 9-layer sigmoid network with the Max-Mahalanobis center loss stays at the loss of the best constant
output. What decides more than anything else here is the damping γ of the Kronecker curvature (M + γ I).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ocpkit_nn import losses
from ocpkit_nn.experiments import trial
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import LINES, Page, Picture, Report, Table, panels
from ocpkit_nn.experiments.results import Results, estimate
from ocpkit_nn.experiments.run import Options, Result, Run, baseline_run, common, twin_run

DAMPINGS = (1e-2, 1e-4)
RATES = {"sgd-vgr": (0.1, 0.03, 0.3), "kronecker": (0.03, 0.01, 0.1)}
ADAPTIVE = {"rmsprop": 0.01, "adam": 0.01}
EPOCHS, RECORD_EVERY = 30, 45
ESCAPED = 0.9
Setting = tuple[str, str]
SETTINGS: tuple[Setting, ...] = (("mmc", "sigmoid"), ("ce", "sigmoid"), ("mmc", "relu"))
PAGE = Page("e7", escaped=ESCAPED)


def runs(options: Options) -> list[Run]:
    """Return Fig. 6 in every convention; Fig. 11; Fig. 10 (cross-entropy, ReLU) and 12 (rates) at the smaller γ."""
    every, more = [], {"batch_size": 32, "epochs": EPOCHS, "record_every": 1 if options.quick else RECORD_EVERY}
    for seed in options.seed_range:
        for (loss, activation), baseline, rate, optimizer in _plan():
            network = {"width": 16, "depth": 9, "activation": activation}
            shared = common("e7", "digits", baseline, options, loss=loss, network=network, **more)
            if "terminal" in optimizer:
                every.append(twin_run(shared, rate, seed, "full", **optimizer))
            else:
                every.append(baseline_run(shared, rate, seed, **optimizer))
    return list({run.key: run for run in every}.values())


def _plan() -> Iterator[tuple[Setting, str, float, dict[str, Any]]]:
    """Return setting, baseline, rate and options of every training; a twin is what has a terminal curvature.

    Of a twin there is Q_uu as printed ("literal") and, for KFAC, second-order dynamics; those of the adaptive methods
    are DDPNOpt*.
    """
    literal = {"terminal": "empirical", "control_hessian": "literal"}
    forms: tuple[dict[str, Any], ...] = ({}, {"terminal": "empirical"}, {"terminal": "ggn"}, literal)
    first, rate = SETTINGS[0], RATES["kronecker"][0]
    for gamma in DAMPINGS:
        yield from ((first, name, rate, {**form, "damping": gamma}) for name in ("ekfac", "kfac") for form in forms)
        yield first, "kfac", rate, {"terminal": "ggn", "dynamics": "second", "damping": gamma}
    for which, place in ((SETTINGS[0], 0), (SETTINGS[1], 0), (SETTINGS[2], 0), (first, 1), (first, 2)):
        if place == 0:
            yield from ((which, name, rate, form) for name, rate in ADAPTIVE.items() for form in forms[:2])
        yield which, "sgd-vgr", RATES["sgd-vgr"][place], {}
        for baseline, form in itertools.product(("ekfac", "kfac"), ({}, {"terminal": "ggn"})):
            yield which, baseline, RATES["kronecker"][place], {**form, "damping": DAMPINGS[-1]}


def train(run: Run) -> Result:
    """Train; record the mean length of the updates between two points of the curves, and the best constant's loss."""
    data = trial.dataset(run)
    lengths: list[float] = []
    before: list[Tensor] = []

    def watch(update: int, model: nn.Module, stepper: object) -> None:
        after = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        if before:
            lengths.append(float((after - before.pop()).norm()))
        before.append(after)

    result = trial.train(run, watch)
    marks = [int(update) for update in result.curves["update"] if update is not None]
    spans = [lengths[max(0, start - 1) : end - 1] for start, end in itertools.pairwise(marks)]
    means = [sum(span) / len(span) if span else math.nan for span in spans]
    kept = [float(f"{mean:.4g}") if math.isfinite(mean) else None for mean in means]  # None: nothing, or it diverged
    constant = constant_loss(run.loss, data.train_targets, data.classes)
    return replace(result, measures={"update_norm": [None, *kept], "constant_loss": constant})


def constant_loss(name: str, targets: Tensor, classes: int) -> float:
    """Return the smallest mean loss that one output for all samples can have."""
    shares = torch.bincount(targets, minlength=classes).double() / len(targets)
    if name == "ce":
        return float(-torch.special.xlogy(shares, shares).sum())
    loss = losses.by_name(name, classes)
    centers = -loss.gradient(torch.zeros(classes, classes, dtype=torch.float64), torch.arange(classes))
    output = (shares[:, None] * centers).sum(0)
    return float((shares * loss.value(output.expand(classes, -1), torch.arange(classes))).sum())


def setting(run: Run) -> Setting:
    return run.loss, run.network["activation"]


def label(run: Run) -> str:
    """Return the method with all that distinguishes it but its learning rate."""
    gamma = f", γ = {run.optimizer['damping']:g}" if "damping" in run.optimizer else ""
    if run.method != "ddpnopt":
        return NAMES[run.method] + gamma
    order = "second order, " if run.optimizer.get("dynamics") == "second" else ""
    literal = "literal, " if run.optimizer.get("control_hessian") == "literal" else ""
    return f"twin of {NAMES[run.baseline]} ({order}{literal}{run.terminal}){gamma}"


def escaped(result: Result) -> bool:
    """Whether the loss ended below `ESCAPED` times that of the best constant output."""
    return result.loss < ESCAPED * float(result.measures["constant_loss"])


def share(results: Sequence[Result]) -> str:
    """Number of seeds that escaped, of how many; and how many diverged."""
    lost = sum(result.diverged for result in results)
    return f"{sum(map(escaped, results))} of {len(results)}" + (f" ({lost} diverged)" if lost else "")


def _most(results: Sequence[Result]) -> bool:
    return 2 * sum(map(escaped, results)) > len(results)


def update_length(result: Result) -> float:
    """Geometric mean over the training of the length of an update; nan if nothing was recorded."""
    lengths = [value for value in result.measures["update_norm"] if value]
    return float(np.exp(np.mean(np.log(lengths)))) if lengths else math.nan


def _base(run: Run) -> tuple[Any, ...]:
    return run.baseline, setting(run), run.learning_rate, run.optimizer.get("damping"), run.seed


def length_ratio(twins: Sequence[Result], results: Sequence[Result]) -> float:
    """Geometric mean over seeds of the twin's length of an update over its baseline's; nan if there is none."""
    own = {_base(r.run): update_length(r) for r in results if r.run.method == r.run.baseline}
    pairs = [(update_length(twin), own.get(_base(twin.run), math.nan)) for twin in twins]
    logs = [math.log(a / b) for a, b in pairs if math.isfinite(a) and math.isfinite(b) and a > 0 and b > 0]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def report(results: Sequence[Result], folder: Path) -> Report:
    cells = Results(results).by(setting)
    first = {which: _at_first_rate(cells[which]) for which in SETTINGS if which in cells}
    tables = [*(_table(which, own) for which, own in first.items()), _rates_table(cells.get(SETTINGS[0], Results()))]
    pictures = [_draw(which, own, folder) for which, own in first.items()]
    return PAGE.report(_verdict(*(first.get(which, Results()) for which in SETTINGS)), tables, pictures)


def _at_first_rate(results: Results) -> Results:
    """Keep the rates that Fig. 6 has: those whose runs come first."""
    first = {name: own[0].run.learning_rate for name, own in results.by(label).items()}
    return Results(result for result in results if result.run.learning_rate == first[label(result.run)])


def _verdict(main: Results, ce: Results, relu: Results) -> tuple[str, str]:
    methods = main.by(label)
    twins = {name: own for name, own in methods.items() if own[0].run.method == "ddpnopt"}
    wins = {}  # twins that escape in more than half of the seeds, where their baseline does in less
    for name, members in twins.items():
        keys = {_base(r.run) for r in members}
        own = [r for r in main if r.run.method == r.run.baseline and _base(r.run) in keys]
        if _most(members) and not _most(own):
            wins[name] = members[0].run.baseline
    stuck = not any(escaped(r) for r in main if r.run.method in ("sgd-vgr", "ekfac"))
    holds = stuck and "ekfac" in wins.values() and not any(map(escaped, ce)) and all(map(escaped, relu))
    shares = "; ".join(f"{name} {share(members)}" for name, members in methods.items() if any(map(escaped, members)))
    ratios = [ratio for members in twins.values() if math.isfinite(ratio := length_ratio(members, main))]
    lengths = f"from {min(ratios):.2f} to {max(ratios):.2f} times" if ratios else "an unknown number of times"
    said = {"shares": shares or "none", "lengths": lengths, "wins": ", ".join(wins) or "none"}
    return PAGE.judged(holds=holds, partly=bool(wins), ce=share(ce), relu=share(relu), **said)


def _table(which: Setting, results: Results) -> Table:
    rows = []
    for name, own in results.by(label).items():
        ratio = length_ratio(own, results) if own[0].run.method == "ddpnopt" else math.nan
        length = estimate(update_length(member) for member in own).mean
        lengths = ("–" if math.isnan(length) else f"{length:.2g}", "–" if math.isnan(ratio) else f"{ratio:.2f}")
        numbers = (share(own), own.loss.text(2), own.accuracy.text(1), *lengths)
        rows.append((name, f"{own[0].run.learning_rate:g}", *numbers))
    constant = estimate(result.measures["constant_loss"] for result in results)
    return PAGE.table("Table", rows, loss=which[0].upper(), activation=which[1], constant=constant.short(2))


def _rates_table(results: Results) -> Table:
    rows = []
    for name, members in results.by(label).items():
        by_rate = members.by("learning_rate")
        if len(by_rate) > 1:
            rows.append((name, "; ".join(f"{rate:g}: {share(by_rate[rate])}" for rate in sorted(by_rate))))
    return PAGE.table("Rates", rows)


def _draw(which: Setting, results: Results, folder: Path) -> Picture:
    dampings = results.by(lambda run: run.optimizer.get("damping"))
    ylabels = ("training loss", "length of an update")
    drawn, axes = panels(4.6 * len(dampings), 6.4, 2, len(dampings), ylabels, sharex=True)
    for (above, below), (gamma, members) in zip(axes.T, dampings.items()):
        for number, (name, own) in enumerate(members.by(label).items()):
            style = {"color": LINES[number % len(LINES)], "linestyle": "-" if number < len(LINES) else "--", "lw": 1}
            for index, result in enumerate(own):
                updates = np.array(result.curves["update"], dtype=float)
                text = f"{name.partition(', γ')[0]}, {result.run.learning_rate:g}" if index == 0 else None
                for ax, values in ((above, result.curves["train_loss"]), (below, result.measures["update_norm"])):
                    ax.plot(updates, np.array(values, dtype=float), label=text, **style)  # None is a gap
        above.set_title("no damping" if gamma is None else f"γ = {gamma:g}")
        above.set_ylim(0, 1.5 * float(results[0].measures["constant_loss"]))
        below.set_yscale("log")
        below.legend(fontsize=6)
        below.set_xlabel("update")
    path = folder / f"vanishing-{which[0]}-{which[1]}.png"
    return PAGE.figure("Figure", drawn, path, loss=which[0].upper(), activation=which[1])
