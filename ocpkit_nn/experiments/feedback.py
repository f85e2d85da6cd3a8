"""Beyond the paper: does another form of the feedback do better than Alg. 3?

Twins of SGD, RMSprop and Adam at three rates, small to large, that differ in the terminal curvature (the paper's outer
product, r leading columns of the loss's Hessian, random columns, all of them), in how far the feedback may move a layer
(trust region), or that do without a linearisation: layer after layer, the gradient is taken anew at the new state
(Gauss-Seidel sweep, the limit of Eq. 18). And DDP of the batch as one problem, whose V_xx couples the samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ocpkit_nn.experiments.cells import Cells
from ocpkit_nn.experiments.e3 import BEST_RATES, RATES
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import FAILS, HOLDS, LINES, PARTLY, Picture, Report, Table, figure, log_scale, save
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.statistics import Estimate, accuracy, capped_loss, difference, estimate, quartiles
from ocpkit_nn.experiments.trial import train
from ocpkit_nn.experiments.twins import baseline_run, common, seeds, twin_run

__all__ = ["TITLE", "report", "runs", "train"]

TITLE = "Beyond the paper: other forms of the feedback"
BASELINES = ("sgd", "rmsprop", "adam")
TWINS: dict[str, dict[str, Any]] = {
    "Alg. 3": {"terminal": "empirical"},
    "rank 1": {"terminal": "rank", "rank": 1},
    "rank 3": {"terminal": "rank", "rank": 3},
    "random column": {"terminal": "montecarlo"},
    "all columns": {"terminal": "ggn"},
}
RADII = (0.1, 1.0)
STACKED: dict[str, dict[str, Any]] = {
    "stacked": {},
    "stacked, no K δx": {"feedback": "value"},
    "stacked, own k": {"open_loop": "levenberg"},
    "stacked, all columns": {"terminal": "ggn"},
    "stacked, all columns, own k": {"terminal": "ggn", "open_loop": "levenberg"},
}
PAPER, SWEEP = "Alg. 3", "Gauss-Seidel"
WITHOUT = {PAPER: "no K δx", "stacked": "stacked, no K δx"}
"""The same form without its second forward pass."""


def runs(options: Options) -> list[Run]:
    """Return the baselines and every form at ε = 0."""
    return [
        run
        for dataset in options.datasets or ("digits", "wine")
        for baseline in BASELINES
        for rate in rates(baseline, options.quick)
        for seed in seeds(options)
        for run in _cell(common("feedback", dataset, baseline, options), rate, seed)
    ]


def rates(baseline: str, quick: bool = False) -> tuple[float, ...]:
    """Return the baseline's best rate on DIGITS, and the smallest and largest of Table 9."""
    chosen = (BEST_RATES[baseline], RATES[baseline][0], RATES[baseline][-1])
    return chosen[-1:] if quick else chosen


def _cell(shared: dict[str, Any], rate: float, seed: int) -> Iterator[Run]:
    yield baseline_run(shared, rate, seed)
    yield twin_run(shared, rate, seed, "value")
    for options in TWINS.values():
        optimizer = {"feedback": "full", **options}
        yield Run(**shared, method="ddpnopt", learning_rate=rate, epsilon=0.0, seed=seed, optimizer=optimizer)
    for radius in RADII:
        yield Run(**shared, method="trust-region", learning_rate=rate, seed=seed, optimizer={"radius": radius})
    yield Run(**shared, method="gauss-seidel", learning_rate=rate, seed=seed)
    for options in STACKED.values():
        yield Run(**shared, method="stacked", learning_rate=rate, seed=seed, optimizer=options)


def form(run: Run) -> str:
    """Return the form of a run's feedback."""
    if run.method == "gauss-seidel":
        return SWEEP
    if run.method == "trust-region":
        return f"ρ = {run.optimizer['radius']:g}"
    if run.method == "stacked":
        return next(name for name, options in STACKED.items() if options == run.optimizer)
    if run.method != "ddpnopt":
        return "baseline"
    if run.feedback == "value":
        return "no K δx"
    wanted = {name: value for name, value in run.optimizer.items() if name != "feedback"}
    return next(name for name, options in TWINS.items() if options == wanted)


class Cell:
    """All forms of one baseline at one rate."""

    def __init__(self, cells: Cells, baseline: str, rate: float) -> None:
        self.name = f"{cells.name}, {NAMES[baseline]}, {rate:g}"
        own = [r for r in cells.results if (r.run.baseline, r.run.learning_rate) == (baseline, rate)]
        self.results: dict[str, list[Result]] = {}
        for result in own:
            self.results.setdefault(form(result.run), []).append(result)

    def loss(self, name: str) -> Estimate:
        return estimate(map(capped_loss, self.results[name]))

    def change(self, name: str, reference: str) -> Estimate:
        """Mean of a form's loss minus the reference's, paired by seed."""
        return difference(self.results[name], self.results[reference], capped_loss)


def report(results: Sequence[Result], folder: Path) -> Report:
    """Count in how many cells a form is better, and worse, than Alg. 3 and than the baseline."""
    every = Cells.each(results)
    cells = [Cell(of, name, rate) for of in every for name in of.baselines for rate in of.rates(name)]
    verdict, text = _verdict(cells)
    tables = (_counts(cells), _losses(cells), _accuracies(cells))
    pictures = tuple(_draw(of, folder) for of in every)
    return Report(TITLE, verdict, text, tables, pictures, NOTES, notes_heading="How to read it")


NOTES = (
    "The loss is that of the whole training set at the end; where training diverged or made it worse, the one before "
    "training. “Lower” and “higher” are by more than two standard errors of the difference, paired by seed.",
    "“rank r”: the r leading columns of the loss's own Hessian; “all columns”: as many as there are classes; “random "
    "column”: one unbiased draw. “ρ”: Alg. 3 with ‖E[K δx]‖ ≤ ρ ‖k‖ on every layer; “no K δx”: ρ = 0.",
    "The Gauss-Seidel sweep takes one back-propagation for each layer and has no value recursion: what it gains over "
    "the baseline is what aiming at the new state is worth when it is done exactly.",
    "“stacked”: the batch as one optimal control problem with the samples' states below each other; K δx sums over "
    "the samples where Alg. 3 averages. “own k”: k = −Q_uu⁻¹ Q_u with the stacked Q_uu in the place of the baseline's "
    "step, which makes it Alg. 1 of that problem (with “all columns”: iLQR, but for the proximal cost).",
)


def _clear(changes: Sequence[Estimate]) -> tuple[int, int]:
    """Return in how many cells a loss is clearly lower, and clearly higher."""
    lower = sum(change.mean < 0 and change.significant for change in changes)
    return lower, sum(change.mean > 0 and change.significant for change in changes)


def _others(cells: Sequence[Cell]) -> list[str]:
    names = dict.fromkeys(name for cell in cells for name in cell.results)
    return [name for name in names if name not in (PAPER, "baseline")]


def _verdict(cells: Sequence[Cell]) -> tuple[str, str]:
    counts = {name: _clear([cell.change(name, PAPER) for cell in cells]) for name in _others(cells)}
    best = max(counts, key=lambda name: counts[name][0] - counts[name][1])
    lower, higher = counts[best]
    verdict = HOLDS if 2 * lower > len(cells) and not higher else PARTLY if lower > higher else FAILS
    second_pass = " ".join(_share_of_the_second_pass(cells, name) for name in WITHOUT)
    own, sweep = ([cell.change(name, "baseline") for cell in cells] for name in (PAPER, SWEEP))
    text = (
        f"Claim: another form of the feedback is better than Alg. 3. The best of them against it is “{best}”: its "
        f"training loss is lower in {lower} and higher in {higher} of {len(cells)} cells. Against the baseline, Alg. 3 "
        f"is lower in {_clear(own)[0]} and higher in {_clear(own)[1]}; the gradient taken anew at the new state "
        f"({SWEEP}) in {_clear(sweep)[0]} and {_clear(sweep)[1]}; against Alg. 3 in {counts[SWEEP][0]} and "
        f"{counts[SWEEP][1]}. {second_pass} Rule: holds if one form is lower than Alg. 3 in more than half "
        "of the cells and higher in none, partly if one is lower in more cells than higher."
    )
    return verdict, text


def _share_of_the_second_pass(cells: Sequence[Cell], name: str) -> str:
    both = [cell.change(name, WITHOUT[name]) for cell in cells if WITHOUT[name] in cell.results]
    lower, higher = _clear(both)
    return f"K δx makes {name} lower in {lower} and higher in {higher} of {len(both)} cells."


def _counts(cells: Sequence[Cell]) -> Table:
    rows = []
    for name in (PAPER, *_others(cells)):
        texts = []
        for reference in ("baseline", PAPER):
            lower, higher = _clear([cell.change(name, reference) for cell in cells])
            texts += ["–", "–"] if name == reference else [str(lower), str(higher)]
        rows.append((name, *texts))
    header = ("form", "lower than the baseline", "higher", f"lower than {PAPER}", "higher")
    return Table(f"In how many of {len(cells)} cells the training loss is clearly lower or higher", header, tuple(rows))


def _losses(cells: Sequence[Cell]) -> Table:
    names = ["baseline", PAPER, *_others(cells)]

    def row(cell: Cell) -> tuple[str, ...]:
        means = {name: cell.loss(name) for name in names}
        best = min(mean.mean for mean in means.values())
        return tuple(f"**{mean.text(3)}**" if mean.mean == best else mean.text(3) for mean in means.values())

    lines = tuple((cell.name, *row(cell)) for cell in cells)
    return Table("Training loss, mean ± standard error; the lowest in bold", ("cell", *names), lines)


def _accuracies(cells: Sequence[Cell]) -> Table:
    names = ["baseline", PAPER, *_others(cells)]
    lines = tuple((cell.name, *(accuracy(cell.results[name]).text(1) for name in names)) for cell in cells)
    return Table("Accuracy [%], mean ± standard error", ("cell", *names), lines)


def _draw(of: Cells, folder: Path) -> Picture:
    """One panel for each baseline: the median loss of every form at every rate, and the middle half of the seeds."""
    drawn = figure(4.2 * len(of.baselines) + 1.2, 3.6)
    axes = drawn.subplots(1, len(of.baselines), squeeze=False)[0]
    handles: dict[str, Any] = {}
    for ax, baseline in zip(axes, of.baselines):
        steps = of.rates(baseline)
        for place, rate in enumerate(steps):
            cell = Cell(of, baseline, rate)
            names = ["baseline", PAPER, *_others([cell])]
            for index, name in enumerate(names):
                low, middle, high = quartiles([capped_loss(result) for result in cell.results[name]])
                colour = "0.6" if name == "baseline" else LINES[(index - 1) % len(LINES)]
                marker = "o" if index <= len(LINES) else "s"
                x = place + 0.8 * (index / (len(names) - 1) - 0.5)
                ax.plot([x, x], [low, high], color=colour, linewidth=1.5)
                handles[name] = ax.plot(x, middle, marker, color=colour, markersize=6)[0]
        ax.set_xticks(range(len(steps)), [f"{rate:g}" for rate in steps])
        ax.set(title=NAMES[baseline], xlabel="learning rate")
        log_scale(ax)
        ax.grid(alpha=0.3, axis="y")
    axes[0].set_ylabel("training loss")
    drawn.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    caption = f"Training loss of every form, {of.name}: median and the middle half of the seeds"
    return save(drawn, folder / f"forms-{of.stem}.png", caption)
