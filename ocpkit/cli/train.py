"""`ocpkit train`: train a network, watch it, stop it and go on."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ocpkit.cli.exits import INTERRUPTED, NOT_CONVERGED
from ocpkit.cli.report import print_json
from ocpkit.errors import ProblemError

if TYPE_CHECKING:
    from ocpkit_nn.training.train import TrainOptions, TrainResult

BY_DATA = "the data's"
BY_OPTIMIZER = "the optimizer's"


def train_command(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="wine, digits, mnist, fashion-mnist, svhn, cifar10, clusters:8, FILE.npz, or an image folder or zip.",
        ),
    ],
    model: Annotated[str, typer.Option(help="fcn, cnn, residual, transformer, or path.py:build.")] = "fcn",
    optimizer: Annotated[str, typer.Option(help="ddpnopt, sgd, rmsprop, adam, kfac, ekfac, ….")] = "ddpnopt",
    curvature: Annotated[
        str | None, typer.Option(help="identity, diagonal, adam, kronecker, ekfac or exact.", show_default="diagonal")
    ] = None,
    feedback: Annotated[str | None, typer.Option(help="full, value or none.", show_default="full")] = None,
    gains: Annotated[
        str | None, typer.Option(help="exact, or separable: faster, for element-wise curvatures.", show_default="exact")
    ] = None,
    terminal: Annotated[
        str | None,
        typer.Option(help="empirical, ggn, montecarlo or rank.", show_default="empirical, montecarlo for a cnn"),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Columns for --terminal rank or montecarlo.")] = None,
    control_hessian: Annotated[str | None, typer.Option(help="proximal or literal.", show_default=BY_OPTIMIZER)] = None,
    loss: Annotated[str, typer.Option(help="ce, mse or mmc.")] = "ce",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.", show_default=BY_DATA)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per step.", show_default=BY_DATA)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default=BY_OPTIMIZER)] = None,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: constant or cosine.")] = "constant",
    momentum: Annotated[float | None, typer.Option(help="Of sgd, rmsprop and the identity curvature.")] = None,
    weight_decay: Annotated[float, typer.Option(help="Factor of the running cost ½‖u‖².")] = 0.0,
    decay: Annotated[float | None, typer.Option(help="Of averaged second moments.", show_default=BY_OPTIMIZER)] = None,
    damping: Annotated[
        float | None, typer.Option(help="Of Kronecker and exact curvature.", show_default=BY_OPTIMIZER)
    ] = None,
    eigenbasis_interval: Annotated[
        int | None, typer.Option(help="Steps between eigendecompositions.", show_default=BY_OPTIMIZER)
    ] = None,
    basis_every: Annotated[int | None, typer.Option(hidden=True)] = None,
    max_grad_norm: Annotated[float | None, typer.Option(help="Clip the gradient at this norm.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, batches and draws.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ….")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="Of the processor.", show_default="1 for an fcn, else torch's")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Results.", show_default="runs/DATA-1, -2, …")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show the epochs.")] = False,
) -> None:
    """Train a classifier, with DDPNOpt or a baseline.

    DIR gets model.pt, metrics.json, metrics.csv, learning-curve.png and a checkpoint of each epoch.

    Exit status: 0 trained, 1 diverged, 2 wrong input, 130 Ctrl-C (saved; --resume goes on).
    """
    given = {name: value for name, value in locals().items() if name not in ("resume", "as_json", "quiet")}
    check_installed()
    from ocpkit_nn.distributed import is_first
    from ocpkit_nn.training.train import TrainOptions

    if resume and out is None:
        raise ProblemError("--resume needs --out, the folder of the run to go on with")
    options = TrainOptions(**given)
    options = replace(options, out=_free_folder(options.data) if out is None else out)
    with _warnings_in_one_line():
        result = _train(options, resume, visible=is_first() and not (quiet or as_json))
    if not is_first():  # of several processes that train together
        return
    if as_json:
        print_json(json.loads((Path(str(options.out)) / "metrics.json").read_text(encoding="utf-8")))
    else:
        _report(result)


def check_installed() -> None:
    """Refuse to train without torch."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ProblemError("training needs torch, which is not installed: pip install 'ocpkit[nn]'") from error


def _free_folder(data: str) -> Path:
    """Name a new folder under runs/."""
    stem = Path(data).stem.replace(":", "-")
    return next(folder for i in count(1) if not (folder := Path("runs") / f"{stem}-{i}").exists())


def _train(options: TrainOptions, resume: bool, *, visible: bool) -> TrainResult:
    """Train under the dashboard; divergence and Ctrl-C end in an exit status and a line of advice."""
    from ocpkit.cli.dashboard import Dashboard
    from ocpkit_nn.training.train import TrainingDiverged, TrainingInterrupted, train

    try:
        with Dashboard(f"{options.data}, {options.model}, {options.optimizer}", visible=visible) as dashboard:
            return train(options, dashboard.add, dashboard.advance, resume=resume)
    except TrainingDiverged as error:
        typer.secho("error: ", fg="red", err=True, nl=False)
        typer.echo(str(error), err=True)
        raise typer.Exit(NOT_CONVERGED) from error
    except TrainingInterrupted as error:
        command = shlex.join(["ocpkit", "train", *options.command(), "--resume"])
        typer.echo(f"{error}; saved in {options.out}. Go on with\n  {command}", err=True)
        raise typer.Exit(INTERRUPTED) from error


def _report(result: TrainResult) -> None:
    last, folder = result.rows[-1], result.folder
    typer.echo(
        f"test accuracy {last.test_accuracy:.2f} %, test loss {last.test_loss:.4g}, train loss {last.train_loss:.4g} "
        f"after {last.epoch} epochs, {last.seconds:.1f} s of training"
    )
    typer.echo(f"wrote {folder}: model.pt, metrics.json, metrics.csv, learning-curve.png", err=True)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show what the trainer warns of as this program speaks."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
        yield
