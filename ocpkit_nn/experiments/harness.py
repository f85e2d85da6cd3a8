"""Harness of `ocpkit reproduce`: train what is missing, keep every run, write report and page.

A run depends on its `Run` alone: neither the number of processes nor their order changes a result. The package says
which files count as done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from ocpkit.errors import ProblemError, unknown_name
from ocpkit_nn.experiments import trial
from ocpkit_nn.experiments.report import NOT_JUDGED, Page, Report, prose, provenance
from ocpkit_nn.experiments.run import COLLECTED, Options, Result, Run, read_results, write, write_results

ITEMS = ("search", "e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8", "robustness", "feedback", "default")
"""Each is the module `ocpkit_nn.experiments.NAME`; see the package for what it must have."""
PAGE = "reproduction.md"

Train = Callable[[Run], Result]


class Item(Protocol):
    """Contents of an item's module; and a `train(run)`, where `trial.train` is not enough."""

    PAGE: Page

    def runs(self, options: Options) -> list[Run]: ...

    def report(self, results: Sequence[Result], folder: Path) -> Report: ...


@dataclass(frozen=True)
class Progress:
    """Progress of an item: runs done, and CPU time for the missing ones, None before one of each kind is trained."""

    done: int
    total: int
    seconds_left: float | None


OnProgress = Callable[[Progress], object]


def find(name: str) -> Item:
    """Return the item of a name; `ProblemError` if there is none."""
    if name not in ITEMS:
        raise unknown_name("item", name, (*ITEMS, "all", "page"))
    return import_module(f"ocpkit_nn.experiments.{name}")  # type: ignore[return-value]


def reproduce(name: str, options: Options, **how: Any) -> Report:
    """Train what OUT/ITEM lacks; write results.json.gz, report.md and the figures there. `how` is that of `execute`.

    `ProblemError` if the item or a data set is unknown, or a file in OUT is damaged.
    """
    item, folder, results = find(name), options.out / name, estimate(name, options, estimate_only=False, **how)
    write_results(folder / COLLECTED, results)
    report = report_of(item, results, folder)
    write(folder / "report.md", report.markdown(folder).encode())
    return report


def estimate(name: str, options: Options, *, estimate_only: bool = True, **how: Any) -> list[Result]:
    """Train one run of each kind, from which `on_progress` hears how long the others will take."""
    item = find(name)
    train = getattr(item, "train", trial.train)
    return execute(item.runs(options), train, options.out / name, estimate_only=estimate_only, **how)


def report_of(item: Item, results: Sequence[Result], folder: Path) -> Report:
    """Return an item's report; on the quick form, which trains on few samples, it passes no verdict."""
    report = item.report(results, folder)
    quick = any(result.run.is_quick for result in results)
    verdict = NOT_JUDGED if quick and report.verdict else report.verdict
    return replace(report, verdict=verdict, provenance=provenance(results))


def execute(
    runs: Sequence[Run],
    train: Train,
    folder: Path,
    *,
    jobs: int = 1,
    on_progress: OnProgress = lambda progress: None,
    estimate_only: bool = False,
) -> list[Result]:
    """Train what is missing and return all results, in the order of `runs`.

    One run of each kind (`Run.kind`) goes first, from which the time of the others is estimated.
    A run that occurs twice is trained once. With more than one process `train` must be a function of a module.
    `on_progress` is called before the first run and after each. With `estimate_only` it stops when one run of each kind
    is there. `ProblemError` if a run's file or the collected results are damaged, or `jobs` is below 1.
    """
    if jobs < 1:
        raise ProblemError(f"jobs must be at least 1, got {jobs}")
    unique = {run.key: run for run in runs}
    found = _found(unique, folder)

    def train_all(missing: list[Run]) -> None:
        for result in _train_each(missing, train, folder, jobs):
            found[result.run.key] = result
            on_progress(Progress(len(found), len(unique), _seconds_left(unique, found)))

    on_progress(Progress(len(found), len(unique), _seconds_left(unique, found)))
    of_each_kind = {run.kind(): run for run in reversed(unique.values())}
    of_each_kind |= {result.run.kind(): result.run for result in found.values()}
    train_all([run for key, run in unique.items() if key not in found and of_each_kind[run.kind()] is run])
    if not estimate_only:
        train_all([run for key, run in unique.items() if key not in found])
    return [found[key] for key in unique if key in found]


def _found(unique: dict[str, Run], folder: Path) -> dict[str, Result]:
    """Return the results that are there; a run's own file takes precedence over the collected ones."""
    collected = read_results(folder / COLLECTED) if (folder / COLLECTED).exists() else []
    found = {result.run.key: result for result in collected if result.run.key in unique}
    return found | {key: read_results(path)[0] for key in unique if (path := _file(folder, key)).exists()}


def _seconds_left(unique: dict[str, Run], found: dict[str, Result]) -> float | None:
    """Sum over the missing runs of what their kind has taken on average."""
    times: dict[tuple[str, ...], list[float]] = {}
    for result in found.values():
        times.setdefault(result.run.kind(), []).append(result.seconds)
    missing = [times.get(run.kind()) for key, run in unique.items() if key not in found]
    return None if None in missing else sum(sum(own) / len(own) for own in missing if own)


def _train_each(missing: list[Run], train: Train, folder: Path, jobs: int) -> Iterable[Result]:
    if jobs == 1 or len(missing) <= 1:
        return (train_and_keep(run, train, folder) for run in missing)
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
    return cast(Iterable[Result], parallel(delayed(train_and_keep)(run, train, folder) for run in missing))


def train_and_keep(run: Run, train: Train, folder: Path) -> Result:
    row = train(run).row()
    write(_file(folder, run.key), (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return Result.from_row(row)  # as kept, so that a report does not depend on what was trained just now


def _file(folder: Path, key: str) -> Path:
    return folder / "runs" / f"{key}.json"


def write_page(out: Path) -> Path:
    """Write the reports of all items in OUT as one page beside it, redrawing the figures; return its path.

    `ProblemError` if there are no results in OUT.
    """
    items = {name: find(name) for name in ITEMS}
    there = [name for name in ITEMS if (out / name / COLLECTED).is_file()]
    if not there:
        raise ProblemError(f"there are no results in {out}: run an item first")
    reports = {name: report_of(items[name], read_results(out / name / COLLECTED), out / name) for name in there}
    verdicts = {name: report.verdict or "nothing to judge" for name, report in reports.items()}
    parts = [
        prose("introduction").format(folder=out.name, out=out.name if out.is_absolute() else out),
        "## Summary\n\n"
        + "\n".join(f"- {item.PAGE.title}: **{verdicts.get(name, 'not run yet')}**" for name, item in items.items()),
        *(report.markdown(out.parent, level=2) for report in reports.values()),
    ]
    page = out.parent / PAGE
    write(page, ("\n\n".join(part.rstrip() for part in parts) + "\n").encode())
    return page
