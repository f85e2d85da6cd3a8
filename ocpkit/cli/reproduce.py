"""`ocpkit reproduce`: the paper's experiments, each by one command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ocpkit.cli.train import check_installed
from ocpkit.errors import ProblemError

if TYPE_CHECKING:
    from ocpkit_nn.experiments.harness import Progress as Done
    from ocpkit_nn.experiments.run import Options

SECONDS_BETWEEN_LINES = 30


def reproduce_command(
    item: Annotated[
        str, typer.Argument(metavar="ITEM", help="search, e1, …, e8, robustness, feedback, default; all; or page.")
    ],
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", help="Repeat it for more.", show_default="the item's")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ….")] = 10,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Of a Dask scheduler; all its workers train, instead of --jobs."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small form, to see that it works.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ….")] = "cpu",
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Train one run of each kind and print how long all take.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results.", show_default="results, results-quick")
    ] = None,
) -> None:
    """Train what an item lacks, and report it beside the paper's numbers.

    `search` tunes hyper-parameters on training data for e1; `page` writes all reports in DIR as DIR/../reproduction.md.

    DIR/ITEM gets runs/ (one file for each), results.json.gz, report.md and figures. A stopped item goes on where it
    was, and a run that is in either of the first two is not trained again: with --out docs/results only what is new.

    Exit status: 0 done (whatever the verdict), 2 wrong input, 130 Ctrl-C (every finished run is kept).
    """
    check_installed()
    from ocpkit_nn.experiments import harness
    from ocpkit_nn.experiments.run import Options

    folder = out or Path("results-quick" if quick else "results")
    options = Options(datasets=tuple(dataset or ()), seeds=seeds, quick=quick, device=device, out=folder)
    if item == "page":
        typer.echo(f"wrote {harness.write_page(folder)}")
        return
    with workers(cluster):
        for name in harness.ITEMS if item == "all" else (item,):
            _reproduce(name, options, jobs if cluster is None else max(jobs, 2), estimate)  # Dask counts its workers


@contextmanager
def workers(cluster: str | None) -> Iterator[None]:
    """Let joblib send its work to a Dask cluster inside the block.

    Raises
    ------
    ProblemError
        If `distributed` is not installed, or nobody answers at the address.
    """
    if cluster is None:
        yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ProblemError("--cluster needs Dask: pip install distributed") from error
    from joblib import parallel_config

    try:
        client = Client(cluster, timeout=10)
    except (OSError, ValueError) as error:
        raise ProblemError(f"no Dask scheduler answers at {cluster!r}: {error}") from error
    with client, parallel_config(backend="dask"):
        yield


def _reproduce(name: str, options: Options, jobs: int, estimate: bool) -> None:
    from ocpkit_nn.experiments import harness

    harness.find(name)
    with _ProgressBar(name) as bar:
        try:
            if estimate:
                harness.estimate(name, options, jobs=jobs, on_progress=bar.show)
            else:
                report = harness.reproduce(name, options, jobs=jobs, on_progress=bar.show)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {bar.last}, kept in {options.out / name}; the same command goes on", err=True)
            raise
        except (ValueError, ImportError) as error:  # of data sets: DataError and its kin
            raise ProblemError(str(error)) from error
    if estimate:
        typer.echo(f"{name}: {bar.last}")
        return
    typer.echo("\n".join(filter(None, (report.title, report.verdict, report.text))))
    typer.echo(f"wrote {options.out / name}: results.json.gz, report.md, figures", err=True)


class _ProgressBar:
    """Runs that are done and CPU time that is left: a bar in a terminal, a line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task, self.name, self.last = self.bar.add_task(name, total=None), name, ""
        self.spoken = time.monotonic()

    def __enter__(self) -> _ProgressBar:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def show(self, progress: Done) -> None:
        """Show how far the item is."""
        left = "" if progress.seconds_left is None else f", about {progress.seconds_left / 60:.1f} CPU minutes left"
        self.last = f"{progress.done} of {progress.total} runs{left}"
        text = f"{self.name}: {self.last}"
        self.bar.update(self.task, total=progress.total, completed=progress.done, description=text)
        if self.bar.disable and time.monotonic() - self.spoken > SECONDS_BETWEEN_LINES:
            self.spoken = time.monotonic()
            typer.echo(text, err=True)
