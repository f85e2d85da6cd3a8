"""The items by name, and what `ocpkit reproduce` does with one: train what is missing, write the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Protocol

from ocpkit.boundary.atomic import write_atomically
from ocpkit.errors import unknown_name
from ocpkit_nn.experiments.report import NOT_JUDGED, Report, provenance
from ocpkit_nn.experiments.run import Options, Result, Run
from ocpkit_nn.experiments.runner import OnProgress, execute, write_results

ITEMS = ("search", "e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8", "robustness", "feedback", "default")
"""Each is the module `ocpkit_nn.experiments.NAME`; see the package for what it must have."""


class Item(Protocol):
    """What the module of an item has."""

    TITLE: str

    def runs(self, options: Options) -> list[Run]: ...

    def train(self, run: Run) -> Result: ...

    def report(self, results: Sequence[Result], folder: Path) -> Report: ...


def find(name: str) -> Item:
    """Return the item of a name.

    Raises
    ------
    ProblemError
        If there is none.
    """
    if name not in ITEMS:
        raise unknown_name("item", name, (*ITEMS, "all", "page"))
    return import_module(f"ocpkit_nn.experiments.{name}")  # type: ignore[return-value]


def reproduce(name: str, options: Options, *, jobs: int = 1, on_progress: OnProgress | None = None) -> Report:
    """Train what OUT/ITEM lacks; write results.json, report.md and the figures there.

    Raises
    ------
    ProblemError
        If the item or a data set is unknown, or a file in OUT is damaged.
    """
    item, folder = find(name), options.out / name
    results = execute(item.runs(options), item.train, folder, jobs=jobs, on_progress=on_progress)
    write_results(folder / "results.json", results)
    report = report_of(item, results, folder)
    text = report.markdown(folder)
    write_atomically(folder / "report.md", lambda file: file.write(text.encode()))
    return report


def report_of(item: Item, results: Sequence[Result], folder: Path) -> Report:
    """Return an item's report; on the quick form, which trains on few samples, it passes no verdict."""
    report = item.report(results, folder)
    quick = any(result.run.is_quick for result in results)
    verdict = NOT_JUDGED if quick and report.verdict else report.verdict
    return replace(report, verdict=verdict, provenance=provenance(results))


def estimate(name: str, options: Options, *, jobs: int = 1, on_progress: OnProgress | None = None) -> None:
    """Train one run of each kind, from which `on_progress` hears how long the others will take."""
    item = find(name)
    runs = item.runs(options)
    execute(runs, item.train, options.out / name, jobs=jobs, on_progress=on_progress, estimate_only=True)
