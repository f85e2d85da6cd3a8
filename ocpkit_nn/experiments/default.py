"""Beyond the paper: which form of the feedback is DDPNOpt's default? Chosen by a protocol stated beforehand.

Candidates are trained on settings that differ in data, activation and batch size, with three baselines at a customary
and at a large rate each. *Selection* sees seeds 1000, 1001, … and a fifth of the training set as validation data.
A candidate takes the incumbent's place if its validation accuracy is clearly lower on no setting and clearly higher on
one at least; of several, the one that is higher on average. Test data and the seeds 0, 1, … of the *report* are looked
at afterwards, once, for all candidates alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocpkit.errors import ProblemError
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import FAILS, HOLDS, LINES, PARTLY, Picture, Report, Table, figure, save
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.search import FIRST_SEED
from ocpkit_nn.experiments.statistics import Estimate, capped_loss, estimate, group, percent
from ocpkit_nn.experiments.trial import train
from ocpkit_nn.experiments.twins import QUICK, seeds

__all__ = ["TITLE", "report", "runs", "train"]

TITLE = "Beyond the paper: the default form of the feedback, by a protocol stated beforehand"
CANDIDATES: dict[str, dict[str, Any]] = {
    "full, empirical": {"feedback": "full", "terminal": "empirical"},
    "value, empirical": {"feedback": "value", "terminal": "empirical"},
    "full, montecarlo": {"feedback": "full", "terminal": "montecarlo"},
    "full, ggn": {"feedback": "full", "terminal": "ggn"},
    "none": {"feedback": "none"},
}
INCUMBENT = "full, empirical"
"""The paper's form, and DDPNOpt's default."""
RATES = {"sgd": (0.1, 0.5), "rmsprop": (0.001, 0.01), "adam": (0.001, 0.01)}
VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class Setting:
    """Data, activation of the hidden layers, batch size, and what a training costs."""

    dataset: str
    activation: str
    batch_size: int
    epochs: int
    samples: int | None = None

    @property
    def name(self) -> str:
        return f"{self.dataset}, {self.activation}, B = {self.batch_size}"


SETTINGS = (
    Setting("digits", "tanh", 8, 4),
    Setting("digits", "relu", 64, 20),
    Setting("wine", "relu", 8, 20),
    Setting("wine", "tanh", 32, 60),
    Setting("mnist", "relu", 32, 8, 2000),
    Setting("mnist", "tanh", 128, 20, 2000),
)


def runs(options: Options) -> list[Run]:
    """Return every candidate on every setting, for the selection and for the report.

    Raises
    ------
    ProblemError
        If a data set is in no setting.
    """
    names = options.datasets or (("wine",) if options.quick else tuple(setting.dataset for setting in SETTINGS))
    if unknown := set(names) - {setting.dataset for setting in SETTINGS}:
        raise ProblemError(f"no setting has the data {', '.join(sorted(unknown))}; digits, wine and mnist are there")
    chosen = [setting for setting in SETTINGS if setting.dataset in names]
    return [
        Run(
            item="default",
            dataset=setting.dataset,
            method="ddpnopt",
            baseline=baseline,
            learning_rate=rate,
            epsilon=None if candidate["feedback"] == "none" else 0.0,
            seed=seed + (FIRST_SEED if part == VALIDATION else 0),
            batch_size=setting.batch_size,
            network={"activation": setting.activation},
            optimizer=candidate,
            evaluated_on=part,
            device=options.device,
            **(QUICK if options.quick else {"epochs": setting.epochs, "samples": setting.samples}),
        )
        for seed in seeds(options)
        for part in (VALIDATION, TEST)
        for setting in chosen
        for baseline, rates in RATES.items()
        for rate in (rates[-1:] if options.quick else rates)
        for candidate in CANDIDATES.values()
    ]


def candidate_of(run: Run) -> str:
    """Return the name of a run's candidate."""
    return next(name for name, options in CANDIDATES.items() if options == run.optimizer)


def setting_of(run: Run) -> str:
    """Return the name of a run's setting."""
    return Setting(run.dataset, run.network["activation"], run.batch_size, run.epochs).name


class Part:
    """The results of the selection, or of the report."""

    def __init__(self, results: Sequence[Result], evaluated_on: str) -> None:
        own = [result for result in results if result.run.evaluated_on == evaluated_on]
        self.settings = {name: _by_place(members) for name, members in group(own, lambda r: setting_of(r.run)).items()}

    def change(self, candidate: str, setting: str | None = None, value: Any = percent) -> Estimate:
        """Mean over baselines, rates and seeds of a candidate's value minus the incumbent's, on one setting or all."""
        places = [self.settings[setting]] if setting else list(self.settings.values())
        pairs = [(each[candidate], each[INCUMBENT]) for place in places for each in place.values()]
        return estimate(value(own) - value(other) for own, other in pairs)

    def chosen(self) -> str:
        """Return the candidate that the protocol chooses."""
        passing = [name for name in CANDIDATES if name != INCUMBENT and self._passes(name)]
        return max(passing, key=lambda name: self.change(name).mean, default=INCUMBENT)

    def _passes(self, candidate: str) -> bool:
        changes = [self.change(candidate, setting) for setting in self.settings]
        clear = [change.mean for change in changes if change.significant]
        return bool(clear) and min(clear) > 0


def _by_place(results: Sequence[Result]) -> dict[tuple[Any, ...], dict[str, Result]]:
    """Return the candidates' results by baseline, rate and seed."""
    places: dict[tuple[Any, ...], dict[str, Result]] = {}
    for result in results:
        run = result.run
        places.setdefault((run.baseline, run.learning_rate, run.seed), {})[candidate_of(run)] = result
    return places


def report(results: Sequence[Result], folder: Path) -> Report:
    """Apply the protocol to the selection, and set the report's numbers beside."""
    selection, confirmation = Part(results, VALIDATION), Part(results, TEST)
    chosen = selection.chosen()
    kept = chosen == INCUMBENT
    others = [name for name in CANDIDATES if name not in (INCUMBENT, "none")]
    after = ", ".join(f"“{name}” by {confirmation.change(name).text(2)}" for name in others)
    stands = confirmation.chosen() == chosen
    verdict = HOLDS if kept and stands else PARTLY if kept else FAILS
    none = confirmation.change("none")
    text = (
        f"Claim: DDPNOpt's default, “{INCUMBENT}”, is the right one. The protocol chooses “{chosen}”; by the same rule "
        f"the report's seeds and test data would have chosen “{confirmation.chosen()}”. On those the other forms "
        f"change the accuracy on average ({after}, in points), and leaving the feedback out by {none.text(2)}. Rule: "
        "holds if both keep the default, partly if only the selection does."
    )
    tables = (
        _table("Selection: validation accuracy minus the default's, in points", selection, percent, 2),
        _table("Report: test accuracy minus the default's, in points", confirmation, percent, 2),
        _table("Report: final training loss minus the default's", confirmation, capped_loss, 4),
        _by_rate(results),
    )
    return Report(
        TITLE, verdict, text, tables, (_draw(selection, confirmation, folder),), NOTES, notes_heading="How to read it"
    )


NOTES = (
    "Means over "
    + ", ".join(f"{NAMES[name]} at {' and '.join(f'{rate:g}' for rate in rates)}" for name, rates in RATES.items())
    + " and over the seeds, ± standard error; in bold what is more than two standard errors from zero.",
    "A training that diverged counts as accuracy 0, and as the loss before the first update. FCNs of width 32, depth "
    "5; 2000 samples of MNIST.",
)


CHALLENGERS = [name for name in CANDIDATES if name != INCUMBENT]


def _table(caption: str, part: Part, value: Any, digits: int) -> Table:
    def line(setting: str | None) -> tuple[str, ...]:
        return (setting or "all", *(part.change(name, setting, value).marked(digits) for name in CHALLENGERS))

    rows = [line(setting) for setting in (*part.settings, None)]
    return Table(caption, ("setting", *CHALLENGERS), tuple(rows))


def _by_rate(results: Sequence[Result]) -> Table:
    rows = []
    for (baseline, rate), members in group(results, lambda r: (r.run.baseline, r.run.learning_rate)).items():
        part = Part(members, TEST)
        rows.append((f"{NAMES[baseline]}, {rate:g}", *(part.change(name).marked(2) for name in CHALLENGERS)))
    caption = "Report: test accuracy minus the default's, in points, over all settings"
    return Table(caption, ("baseline, rate", *CHALLENGERS), tuple(rows))


def _draw(selection: Part, confirmation: Part, folder: Path) -> Picture:
    drawn = figure(10, 3.6)
    axes = drawn.subplots(1, 2, sharey=True)
    for ax, part, title in zip(axes, (selection, confirmation), ("selection: validation", "report: test")):
        for index, (name, colour) in enumerate(zip(CHALLENGERS, LINES)):
            changes = [part.change(name, setting) for setting in part.settings]
            places = [place + 0.15 * (index - 1.5) for place in range(len(changes))]
            errors = [2 * change.error for change in changes]
            ax.errorbar(
                places, [change.mean for change in changes], errors, fmt="o", color=colour, label=name, capsize=2
            )
        ax.axhline(0.0, color="0.5", linewidth=1)
        ax.set_xticks(range(len(part.settings)), [name.replace(", B", ",\nB") for name in part.settings], fontsize=7)
        ax.set_title(title)
        ax.grid(alpha=0.3, axis="y")
    axes[0].set_ylabel(f"accuracy minus that of\n“{INCUMBENT}” [points]")
    drawn.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=len(CHALLENGERS), fontsize=8)
    return save(drawn, folder / "default.png", "Change of the accuracy against the default, with two standard errors")
