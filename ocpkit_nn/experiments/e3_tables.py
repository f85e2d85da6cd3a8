"""Tables of E3: beside Tables 9 and 10, where the gain comes from, and the practitioner's rivals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ocpkit_nn.experiments import paper
from ocpkit_nn.experiments.cells import DEFAULT_TERMINAL, Cells
from ocpkit_nn.experiments.methods import NAMES
from ocpkit_nn.experiments.report import Table
from ocpkit_nn.experiments.run import Result
from ocpkit_nn.experiments.statistics import Estimate, accuracy, loss
from ocpkit_nn.experiments.twins import RIVALS

Printed = dict[str, dict[float, tuple[float, ...]]]


def beside_table_9(cells: Cells) -> Table:
    """Mean training loss, ours over the paper's."""
    return _beside("Training loss beside Table 9: ours (the paper's)", cells, paper.TABLE_9, loss, 4)


def medians_of_table_9(cells: Cells) -> Table:
    """The cells of Table 9 by a statistic that one seed cannot spoil."""
    return _beside("Median training loss in the cells of Table 9", cells, {}, loss, 4, Estimate.median_text)


def beside_table_10(cells: Cells) -> Table:
    """Mean accuracy, ours over the paper's."""
    return _beside("Accuracy [%] beside Table 10: ours (the paper's)", cells, paper.TABLE_10, accuracy, 2)


def _beside(
    caption: str,
    cells: Cells,
    printed: Printed,
    mean: Callable[[Sequence[Result]], Estimate],
    digits: int,
    say: Callable[[Estimate, int], str] = Estimate.short,
) -> Table:
    """One row for each learning rate; the columns are the baseline, ε = 0, and ε from small to large."""
    rows = []
    for name in cells.baselines:
        epsilons = [epsilon for epsilon in paper.EPSILONS.get(name, paper.EPSILONS["rmsprop"])]
        for rate in cells.rates(name):
            theirs = printed.get(name, {}).get(rate, ())
            results = [cells.of(name, rate, name), *(cells.twin(name, rate, "full", e) for e in (0.0, *epsilons))]
            numbers: list[float | None] = [None] * len(results)
            if theirs:
                numbers[0], numbers[2:] = theirs[0], list(theirs[1:])
            texts = (_pair(mean(group), number, digits, say) for group, number in zip(results, numbers))
            rows.append((NAMES[name], f"{rate:g}", *texts))
    header = ("baseline", "rate", "baseline", "twin, ε = 0", "ε₁", "ε₂", "ε₃", "ε₄")
    epsilons_text = "; ".join(
        f"{NAMES[name]} {', '.join(f'{e:g}' for e in values)}" for name, values in paper.EPSILONS.items()
    )
    return Table(f"{caption}. ε₁ to ε₄: {epsilons_text}; Adam as RMSprop", header, tuple(rows))


def _pair(ours: Estimate, theirs: float | None, digits: int, say: Callable[[Estimate, int], str]) -> str:
    text = "–" if ours.seeds == 0 else say(ours, digits)
    return text if theirs is None else f"{text} ({theirs:.{digits}f})"


def source_table(cells: Cells, terminal: str) -> Table:
    """Where the gain comes from, by baseline and rate, at ε = 0."""
    rows = []
    for name in cells.baselines:
        for rate in cells.rates(name):
            source = cells.source(name, rate, terminal=terminal)
            parts = (source.baseline, source.noise, source.value, source.feedback, source.total)
            texts = [part.text(4) for part in parts]
            texts.insert(1, source.baseline.median_text(4))
            rows.append((NAMES[name], f"{rate:g}", *texts, source.total.median_text(4)))
    return Table(
        f"Where the gain comes from, {cells.name}, terminal curvature {terminal!r}, ε = 0: changes of the training "
        "loss, mean ± standard error of paired differences",
        (
            "baseline",
            "rate",
            "loss of the baseline",
            "its median",
            "none − baseline",
            "value − baseline",
            "full − value",
            "full − baseline",
            "its median",
        ),
        tuple(rows),
    )


def rivals_table(cells: Cells) -> Table:
    """Mean training loss of the twins and of a practitioner's remedies, at the same rates."""
    return _rivals(cells, "Training loss", lambda estimate: (estimate.mean, estimate.text(4)))


def rivals_medians(cells: Cells) -> Table:
    """The same by medians."""
    return _rivals(cells, "Median training loss", lambda estimate: (estimate.median, estimate.median_text(4)))


def _rivals(cells: Cells, what: str, say: Callable[[Estimate], tuple[float, str]]) -> Table:
    other = next((t for t in cells.terminals() if t != DEFAULT_TERMINAL), "ggn")
    every = list(dict.fromkeys(rival for rivals in RIVALS.values() for rival in rivals))
    rows = []
    for name in cells.baselines:
        for rate in cells.rates(name):
            twins = [
                cells.twin(name, rate, feedback, 0.0, terminal)
                for terminal in (DEFAULT_TERMINAL, other)
                for feedback in ("full", "value")
            ]
            results = [cells.of(name, rate, name), *twins, *(cells.of(name, rate, rival) for rival in every)]
            said = [say(loss(group)) if group else (math.inf, "") for group in results]
            best = min(number for number, _ in said)
            texts = (f"**{text}**" if number == best and text else text for number, text in said)
            rows.append((NAMES[name], f"{rate:g}", *texts))
    header = (
        "baseline",
        "rate",
        "baseline",
        "full",
        "value",
        f"full, {other}",
        f"value, {other}",
        *(NAMES[r] for r in every),
    )
    caption = f"{what} beside a practitioner's remedies, {cells.name}, ε = 0 (lowest of a row in bold)"
    return Table(caption, header, tuple(rows))
