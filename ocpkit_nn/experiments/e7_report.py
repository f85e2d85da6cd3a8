"""What the runs of E7 say: shares of seeds that escape, lengths of the updates, curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import FAILS, HOLDS, LINES, PARTLY, Picture, Report, Table, figure, save
from ocpkit_nn.experiments.run import Result, Run
from ocpkit_nn.experiments.statistics import accuracy, estimate, group, loss

ESCAPED = 0.9
NOTES = (
    "The paper gives neither width, batch size, damping nor ‖μ‖². Here: width 16, batch 32, 30 epochs, ‖μ‖² = 10, "
    "torch's first weights, Kronecker factors averaged over β = 0.95. DDPNOpt is read as the twin of EKFAC "
    "(whose rate 0.03 they have) and, beside it, of KFAC.",
    "Second-order dynamics clips the negative eigenvalues of V_hh, and is shown for KFAC's M.",
)
Setting = tuple[str, str]
SETTINGS: tuple[Setting, ...] = (("mmc", "sigmoid"), ("ce", "sigmoid"), ("mmc", "relu"))


def setting(run: Run) -> Setting:
    """(loss, activation)."""
    return run.loss, run.network["activation"]


def label(run: Run) -> str:
    """Return the method with all that distinguishes it but its learning rate."""
    gamma = f", γ = {run.optimizer['damping']:g}" if "damping" in run.optimizer else ""
    if run.method != "ddpnopt":
        return NAMES[run.method] + gamma
    second = run.optimizer.get("dynamics") == "second"
    literal = "literal, " if run.optimizer.get("control_hessian") == "literal" else ""
    order = "second order, " if second else ""
    return f"twin of {NAMES[run.baseline]} ({order}{literal}{run.terminal}){gamma}"


def escaped(result: Result) -> bool:
    """Whether the loss ended below `ESCAPED` times that of the best constant output."""
    return result.loss < ESCAPED * float(result.measures["constant_loss"])


def share(results: Sequence[Result]) -> str:
    """Number of seeds that escaped, of how many; and how many diverged."""
    lost = sum(result.diverged for result in results)
    return f"{sum(map(escaped, results))} of {len(results)}" + (f" ({lost} diverged)" if lost else "")


def update_length(result: Result) -> float:
    """Geometric mean over the training of the length of an update; nan if nothing was recorded."""
    lengths = [value for value in result.measures["update_norm"] if value]
    return float(np.exp(np.mean(np.log(lengths)))) if lengths else math.nan


def base_of(run: Run) -> tuple[str, Setting, float | None, float | None, int]:
    """What a twin and its baseline have in common."""
    return run.baseline, setting(run), run.learning_rate, run.optimizer.get("damping"), run.seed


def length_ratio(twins: Sequence[Result], results: Sequence[Result]) -> float:
    """Geometric mean over seeds of the twin's length of an update over its baseline's."""
    own = {base_of(result.run): update_length(result) for result in results if result.run.method == result.run.baseline}
    pairs = [(update_length(twin), own.get(base_of(twin.run), math.nan)) for twin in twins]
    logs = [math.log(a / b) for a, b in pairs if math.isfinite(a) and math.isfinite(b) and a > 0 and b > 0]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def compare(title: str, results: Sequence[Result], folder: Path) -> Report:
    """Report all settings that there are."""
    cells = group(results, lambda result: setting(result.run))
    verdict, text = _verdict(results)
    tables = [_table(which, cells[which]) for which in SETTINGS if which in cells]
    tables.append(_rates_table(cells.get(SETTINGS[0], [])))
    pictures = tuple(_draw(which, _at_first_rate(cells[which]), folder) for which in SETTINGS if which in cells)
    return Report(title, verdict, text, tuple(tables), pictures, NOTES)


def _at_first_rate(results: Sequence[Result]) -> list[Result]:
    """Keep the rates that Fig. 6 has: those whose runs come first."""
    first: dict[str, float | None] = {}
    for result in results:
        first.setdefault(label(result.run), result.run.learning_rate)
    return [result for result in results if result.run.learning_rate == first[label(result.run)]]


def _verdict(results: Sequence[Result]) -> tuple[str, str]:
    main, ce, relu = (_at_first_rate([r for r in results if setting(r.run) == which]) for which in SETTINGS)
    methods = group(main, lambda result: label(result.run))
    wins = {}  # twins that escape in more than half of the seeds, where their baseline does in less
    for name, group_ in methods.items():
        keys = {base_of(r.run) for r in group_}
        own = [r for r in main if r.run.method == r.run.baseline and base_of(r.run) in keys]
        if group_[0].run.method == "ddpnopt" and _most(group_) and not _most(own):
            wins[name] = group_[0].run.baseline
    first_order = [r for r in main if r.run.method in ("sgd-vgr", "ekfac")]
    stuck = not any(map(escaped, first_order))
    ce_stuck, relu_trains = not any(map(escaped, ce)), all(map(escaped, relu))
    holds = stuck and "ekfac" in wins.values() and ce_stuck and relu_trains
    verdict = HOLDS if holds else PARTLY if wins else FAILS
    shares = "; ".join(f"{name} {share(members)}" for name, members in methods.items() if any(map(escaped, members)))
    twins = [members for members in methods.values() if members[0].run.method == "ddpnopt"]
    ratios = [ratio for members in twins if math.isfinite(ratio := length_ratio(members, main))]
    lengths = f"from {min(ratios):.2f} to {max(ratios):.2f} times" if ratios else "an unknown number of times"
    return verdict, (
        f"A training escapes if it ends below {ESCAPED:g} times the loss of the best constant output. With MMC and "
        f"sigmoid, at the rates of Fig. 6, these do in so many seeds: {shares or 'none'}. The twins' updates are "
        f"{lengths} as long as those of their baselines with the same damping (the paper: 5 to 10). With cross-entropy "
        f"{share(ce)} trainings escape (the paper: none), with ReLU {share(relu)} (the paper: all). Twins that escape "
        f"in most seeds where their baseline does not: {', '.join(wins) or 'none'}. Rule: holds if SGD-VGR and EKFAC "
        "stay at every damping, a twin of EKFAC escapes in most seeds, none escapes with cross-entropy and all with "
        "ReLU; partly if any twin escapes in most seeds where its baseline with the same damping does not."
    )


def _most(results: Sequence[Result]) -> bool:
    return 2 * sum(map(escaped, results)) > len(results)


def _table(which: Setting, results: Sequence[Result]) -> Table:
    kept = _at_first_rate(results)
    rows = []
    for name, members in group(kept, lambda result: label(result.run)).items():
        ratio = length_ratio(members, kept) if members[0].run.method == "ddpnopt" else math.nan
        lengths = estimate(update_length(member) for member in members)
        rows.append(
            (
                name,
                f"{members[0].run.learning_rate:g}",
                share(members),
                loss(members).text(2),
                accuracy(members).text(1),
                "–" if math.isnan(lengths.mean) else f"{lengths.mean:.2g}",
                "–" if math.isnan(ratio) else f"{ratio:.2f}",
            )
        )
    constant = estimate(result.measures["constant_loss"] for result in kept)
    caption = f"{which[0].upper()}, {which[1]}: loss of the best constant {constant.short(2)}"
    header = (
        "method",
        "rate",
        "escapes",
        "training loss",
        "accuracy [%]",
        "length of an update",
        "over its baseline's",
    )
    return Table(caption, header, tuple(rows))


def _rates_table(results: Sequence[Result]) -> Table:
    """Fig. 12: seeds that escape, at every learning rate."""
    rows = []
    for name, members in group(results, lambda result: label(result.run)).items():
        by_rate = group(members, lambda result: result.run.learning_rate)
        if len(by_rate) > 1:
            rows.append((name, "; ".join(f"{rate:g}: {share(by_rate[rate])}" for rate in sorted(by_rate))))
    return Table(
        "Over the learning rate (Fig. 12): seeds that escape, MMC, sigmoid", ("method", "rate: escapes"), tuple(rows)
    )


def _draw(which: Setting, results: Sequence[Result], folder: Path) -> Picture:
    """Loss above, length of the updates below; Kronecker methods by damping, then the adaptive ones; all seeds."""
    panels = group(results, lambda result: result.run.optimizer.get("damping"))
    drawn = figure(4.6 * len(panels), 6.4)
    axes = drawn.subplots(2, len(panels), squeeze=False, sharex=True)
    for column, (gamma, members) in enumerate(panels.items()):
        for number, (name, own) in enumerate(group(members, lambda result: label(result.run)).items()):
            style = {"color": LINES[number % len(LINES)], "linestyle": "-" if number < len(LINES) else "--", "lw": 1}
            for index, result in enumerate(own):
                updates = np.array(result.curves["update"], dtype=float)
                for row, values in enumerate((result.curves["train_loss"], result.measures["update_norm"])):
                    shown = np.array(values, dtype=float)  # None becomes nan, a gap
                    text = f"{name.partition(', γ')[0]}, {result.run.learning_rate:g}" if index == 0 else None
                    axes[row, column].plot(updates, shown, label=text, **style)
        axes[0, column].set_title("no damping" if gamma is None else f"γ = {gamma:g}")
        axes[0, column].set_ylim(0, 1.5 * float(results[0].measures["constant_loss"]))
        axes[1, column].set_yscale("log")
        axes[1, column].legend(fontsize=6)
        axes[1, column].set_xlabel("update")
        for ax in axes[:, column]:
            ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("training loss")
    axes[1, 0].set_ylabel("length of an update")
    caption = f"Training loss and length of the updates, {which[0].upper()}, {which[1]}; one line for each seed"
    return save(drawn, folder / f"vanishing-{which[0]}-{which[1]}.png", caption)
