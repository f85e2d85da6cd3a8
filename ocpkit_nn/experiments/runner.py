"""Train the runs of an item that are not there yet, in several processes, and keep each in a file of its own.

``OUT/ITEM/runs/<key>.json`` is written in full or not at all, so an item that was stopped, or is asked for more
seeds, only trains what is missing. A run depends on its `Run` alone: neither the number of processes nor their
order changes a result. What OUT/ITEM/results.json has counts as done too, so the published results, without runs/, can
be gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocpkit.boundary.atomic import write_atomically
from ocpkit.errors import ProblemError
from ocpkit_nn.experiments.run import Result, Run

Train = Callable[[Run], Result]


@dataclass(frozen=True)
class Progress:
    """How far an item is.

    Attributes
    ----------
    done, total
        Runs.
    seconds_left
        CPU time that the missing runs will take, from one run of each kind that has been trained; None before.
    """

    done: int
    total: int
    seconds_left: float | None


OnProgress = Callable[[Progress], object]


def execute(
    runs: Sequence[Run],
    train: Train,
    folder: Path,
    *,
    jobs: int = 1,
    on_progress: OnProgress | None = None,
    estimate_only: bool = False,
) -> list[Result]:
    """Train what is missing and return all results, in the order of `runs`.

    One run of each kind (`Run.kind`) goes first, from which the time of the others is estimated.

    Parameters
    ----------
    runs
        All runs of an item; a run that occurs twice is trained once.
    train
        Must be importable, as a function of a module, for more than one process.
    folder
        OUT/ITEM.
    jobs
        Processes.
    on_progress
        Called before the first run and after each.
    estimate_only
        Stop when one run of each kind is there; the results are then those that there are.

    Raises
    ------
    ProblemError
        If a run's file or results.json is damaged, or jobs is below 1.
    """
    if jobs < 1:
        raise ProblemError(f"jobs must be at least 1, got {jobs}")
    unique = {run.key: run for run in runs}
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    found = _found(unique, folder)

    def report() -> None:
        if on_progress is not None:
            on_progress(Progress(len(found), len(unique), _seconds_left(unique, found)))

    def train_all(missing: list[Run]) -> None:
        for result in _train_each(missing, train, folder, jobs):
            found[result.run.key] = result
            report()

    report()
    kinds = {result.run.kind() for result in found.values()}
    train_all([run for run in _one_of_each_kind(unique.values()) if run.kind() not in kinds])
    if not estimate_only:
        train_all([run for key, run in unique.items() if key not in found])
    return [found[key] for key in unique if key in found]


def _found(unique: dict[str, Run], folder: Path) -> dict[str, Result]:
    """Return the results that are there; a run's own file takes precedence over results.json."""
    collected = read_results(folder / "results.json") if (folder / "results.json").exists() else []
    found = {result.run.key: result for result in collected if result.run.key in unique}
    return found | {key: read_run(path) for key in unique if (path := _file(folder, key)).exists()}


def _one_of_each_kind(runs: Iterable[Run]) -> list[Run]:
    first: dict[tuple[str, ...], Run] = {}
    for run in runs:
        first.setdefault(run.kind(), run)
    return list(first.values())


def _seconds_left(unique: dict[str, Run], found: dict[str, Result]) -> float | None:
    """Sum over the missing runs of what their kind has taken on average."""
    times: dict[tuple[str, ...], list[float]] = {}
    for result in found.values():
        times.setdefault(result.run.kind(), []).append(result.seconds)
    missing = [run.kind() for key, run in unique.items() if key not in found]
    if any(kind not in times for kind in missing):
        return None
    return sum(sum(times[kind]) / len(times[kind]) for kind in missing)


def _train_each(missing: list[Run], train: Train, folder: Path, jobs: int) -> Iterator[Result]:
    if jobs == 1 or len(missing) <= 1:
        yield from (train_and_keep(run, train, folder) for run in missing)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
    yield from parallel(delayed(train_and_keep)(run, train, folder) for run in missing)


def train_and_keep(run: Run, train: Train, folder: Path) -> Result:
    """Train one run and write its file."""
    row = train(run).row()
    text = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(_file(folder, run.key), lambda file: file.write(text.encode()))
    return Result.from_row(row)  # as kept, so that a report does not depend on what was trained just now


def _file(folder: Path, key: str) -> Path:
    return folder / "runs" / f"{key}.json"


def read_run(path: Path) -> Result:
    """Read one run's file.

    Raises
    ------
    ProblemError
        If it is not one.
    """
    try:
        return Result.from_row(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise ProblemError(f"{path} is damaged ({error}); delete it, and the run is trained again") from error


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write a JSON list, one row a line, without spaces between its items."""
    lines = (json.dumps(result.row(), ensure_ascii=False, allow_nan=False, separators=(",", ":")) for result in results)
    text = ",\n".join(lines)
    write_atomically(path, lambda file: file.write(f"[\n{text}\n]\n".encode()))


def read_results(path: Path) -> list[Result]:
    """Read what `write_results` wrote.

    Raises
    ------
    ProblemError
        If the file is missing or is not one.
    """
    if not path.is_file():
        raise ProblemError(f"there are no results at {path}: run the item first")
    try:
        return [Result.from_row(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, AttributeError) as error:
        raise ProblemError(f"{path} is damaged ({error}); run the item again to write it anew") from error
