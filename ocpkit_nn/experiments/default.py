"""Beyond the paper: which form of the feedback is DDPNOpt's default? Chosen by a protocol stated beforehand.

Candidates are trained on settings that differ in data, activation and batch size, with three baselines at a customary
and at a large rate each. *Selection* sees seeds 1000, 1001, … and a fifth of the training set as validation data.
A candidate takes the incumbent's place if its validation accuracy is clearly lower on no setting and clearly higher on
one at least; of several, the one that is higher on average. Test data and the seeds 0, 1, … of the *report* are looked
at afterwards, once, for all candidates alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocpkit.errors import ProblemError
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import LINES, Page, Picture, Report, Table, panels
from ocpkit_nn.experiments.results import Estimate, Results, Value, capped_loss, percent
from ocpkit_nn.experiments.run import Options, Result, Run, common, twin_run
from ocpkit_nn.experiments.search import FIRST_SEED

CANDIDATES: dict[str, dict[str, Any]] = {
    "full, empirical": {"feedback": "full", "terminal": "empirical"},
    "value, empirical": {"feedback": "value", "terminal": "empirical"},
    "full, montecarlo": {"feedback": "full", "terminal": "montecarlo"},
    "full, ggn": {"feedback": "full", "terminal": "ggn"},
    "none": {"feedback": "none"},
}
INCUMBENT = "full, empirical"
"""The paper's form, and DDPNOpt's default."""
CHALLENGERS = [name for name in CANDIDATES if name != INCUMBENT]
RATES = {"sgd": (0.1, 0.5), "rmsprop": (0.001, 0.01), "adam": (0.001, 0.01)}
VALIDATION, TEST = "validation", "test"
_EACH = (f"{NAMES[name]} at {' and '.join(f'{rate:g}' for rate in rates)}" for name, rates in RATES.items())
PAGE = Page("default", incumbent=INCUMBENT, rates=", ".join(_EACH))
SETTINGS = tuple(
    (data, {"network": {"activation": activation}, "batch_size": batch_size, "epochs": epochs, "samples": samples})
    for data, activation, batch_size, epochs, samples in (
        ("digits", "tanh", 8, 4, None),
        ("digits", "relu", 64, 20, None),
        ("wine", "relu", 8, 20, None),
        ("wine", "tanh", 32, 60, None),
        ("mnist", "relu", 32, 8, 2000),
        ("mnist", "tanh", 128, 20, 2000),
    )
)
"""Data, and fields of the runs; the activation is that of the hidden layers."""


def runs(options: Options) -> list[Run]:
    """Return every candidate on every setting, for the selection and for the report.

    `ProblemError` if a data set is in no setting.
    """
    known = {data for data, _ in SETTINGS}
    names = options.datasets or (("wine",) if options.quick else known)
    if unknown := set(names) - known:
        raise ProblemError(f"no setting has the data {', '.join(sorted(unknown))}; digits, wine and mnist are there")
    return [
        twin_run(common("default", data, baseline, options, evaluated_on=part, **setting), rate, first + seed, **form)
        for seed in options.seed_range
        for part, first in ((VALIDATION, FIRST_SEED), (TEST, 0))
        for data, setting in SETTINGS
        if data in names
        for baseline, rates in RATES.items()
        for rate in (rates[-1:] if options.quick else rates)
        for form in CANDIDATES.values()
    ]


def setting_of(run: Run) -> str:
    return f"{run.dataset}, {run.network['activation']}, B = {run.batch_size}"


def change(results: Results, candidate: str, value: Value = percent) -> Estimate:
    """Mean over settings, baselines, rates and seeds of a candidate's value minus the incumbent's."""
    own, incumbent = (results.where(optimizer=CANDIDATES[name]) for name in (candidate, INCUMBENT))
    return own.minus(incumbent, value, on=("dataset", "batch_size", "baseline", "learning_rate", "seed"))


def chosen(results: Results) -> str:
    """Return the candidate that the protocol chooses."""
    passing, settings = [], results.by(setting_of).values()
    for name in CHALLENGERS:
        clear = [c.mean for setting in settings if (c := change(setting, name)).below or c.above]
        if clear and min(clear) > 0:
            passing.append(name)
    return max(passing, key=lambda name: change(results, name).mean, default=INCUMBENT)


def report(results: Sequence[Result], folder: Path) -> Report:
    selection, confirmation = (Results(results).where(evaluated_on=part) for part in (VALIDATION, TEST))
    by_rate = [
        (f"{NAMES[baseline]}, {rate:g}", *_changes(members))
        for (baseline, rate), members in confirmation.by("baseline", "learning_rate").items()
    ]
    tables = (
        _table("Selection: validation accuracy minus the default's, in points", selection),
        _table("Report: test accuracy minus the default's, in points", confirmation),
        _table("Report: final training loss minus the default's", confirmation, capped_loss, 4),
        PAGE.table("Rates", by_rate, CHALLENGERS),
    )
    return PAGE.report(_verdict(selection, confirmation), tables, [_draw(selection, confirmation, folder)])


def _verdict(selection: Results, confirmation: Results) -> tuple[str, str]:
    choice, again, none = chosen(selection), chosen(confirmation), change(confirmation, "none")
    others = [name for name in CHALLENGERS if name != "none"]
    after = ", ".join(f"“{name}” by {change(confirmation, name).text(2)}" for name in others)
    said = {"choice": choice, "again": again, "after": after, "none": none.text(2)}
    return PAGE.judged(holds=choice == again == INCUMBENT, partly=choice == INCUMBENT, **said)


def _changes(results: Results, value: Value = percent, digits: int = 2) -> list[str]:
    return [change(results, name, value).marked(digits) for name in CHALLENGERS]


def _table(what: str, results: Results, value: Value = percent, digits: int = 2) -> Table:
    parts = {**results.by(setting_of), "all": results}
    rows = [(name, *_changes(part, value, digits)) for name, part in parts.items()]
    return PAGE.table("Settings", rows, CHALLENGERS, what=what)


def _draw(selection: Results, confirmation: Results, folder: Path) -> Picture:
    drawn, (axes,) = panels(10, 3.6, 1, 2, [f"accuracy minus that of\n“{INCUMBENT}” [points]"], sharey=True)
    for ax, part, title in zip(axes, (selection, confirmation), ("selection: validation", "report: test")):
        settings = part.by(setting_of)
        for index, (name, color) in enumerate(zip(CHALLENGERS, LINES)):
            changes = [change(setting, name) for setting in settings.values()]
            places = [place + 0.15 * (index - 1.5) for place in range(len(changes))]
            means, errors = [each.mean for each in changes], [2 * each.error for each in changes]
            ax.errorbar(places, means, errors, fmt="o", color=color, label=name, capsize=2)
        ax.axhline(0.0, color="0.5", linewidth=1)
        ax.set_xticks(range(len(settings)), [name.replace(", B", ",\nB") for name in settings], fontsize=7)
        ax.set_title(title)
        ax.grid(visible=False, axis="x")
    drawn.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=len(CHALLENGERS), fontsize=8)
    return PAGE.figure("Figure", drawn, folder / "default.png")
