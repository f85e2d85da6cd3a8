"""Train a classifier: the same seed gives the same weights, and a run that was stopped goes on where it was.

`train` drives a `training.Training` and keeps its folder. The checkpoint there holds all that changes during a run,
so that one that was killed and resumed ends with the weights, bit for bit, of one that was not.

Under `torchrun` all processes train on one batch (see `distributed`), and the first of them keeps the folder:

    torchrun --nproc-per-node 2 -m ocpkit train digits --out runs/digits
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from ocpkit.boundary.atomic import TEMPORARY
from ocpkit.errors import ProblemError, first_line
from ocpkit_nn.distributed import is_first, own_device, processes
from ocpkit_nn.training import checkpoint
from ocpkit_nn.training.interrupt import DeferredInterrupt
from ocpkit_nn.training.optimizers import OPTIMIZERS
from ocpkit_nn.training.options import TrainOptions
from ocpkit_nn.training.record import Row, Step, TensorBoard, draw_learning_curve, machine, write_metrics
from ocpkit_nn.training.training import OnBatch, Training, TrainingDiverged, reproducible

__all__ = [
    "OPTIMIZERS",
    "Row",
    "Step",
    "TrainOptions",
    "TrainResult",
    "TrainingDiverged",
    "TrainingInterrupted",
    "train",
]

OnEpoch = Callable[[Row], object]
Save = Callable[[bool], object]


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C; what was trained so far is saved, if there is a folder, and can be resumed."""


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes
    ----------
    model
        The trained network, in evaluation mode.
    rows
        One for each epoch.
    options
        The options with all defaults filled in.
    folder
        Where the files are, if any.
    """

    model: nn.Module
    rows: tuple[Row, ...]
    options: TrainOptions
    folder: Path | None

    @property
    def test_accuracy(self) -> float:
        """Of the last epoch [%]."""
        return self.rows[-1].test_accuracy


def train(
    options: TrainOptions, on_epoch: OnEpoch | None = None, on_batch: OnBatch | None = None, *, resume: bool = False
) -> TrainResult:
    """Train, and write what `options.out` is to hold: checkpoint, metrics, model and learning curve.

    Parameters
    ----------
    options
        What to train.
    on_epoch
        Called with each epoch's `Row`, after it was saved.
    on_batch
        Called after each step with its `Step`; where it returns True, the next one's `update_length` is measured.
    resume
        Go on with the run in `options.out`; begin it if the folder is missing or empty.

    Raises
    ------
    ProblemError
        If options, data, network or folder are wrong, or the network fails on a batch.
    TrainingDiverged
        If the loss or the weights become NaN or infinite.
    TrainingInterrupted
        After Ctrl-C, when the run is saved.
    """
    folder = None if options.out is None else Path(options.out)
    with _one_kind_of_error():
        device = _device(own_device(options.device))
        if is_first():
            _check_folder(folder, resume)
    with (
        processes(options.device) as shared,
        DeferredInterrupt() as interrupt,
        reproducible(device, options.seed),
    ):
        with _one_kind_of_error():
            run = Training(options, shared)
            saved = shared.from_first(lambda: checkpoint.load(folder) if resume and folder is not None else None)
            if saved is not None:
                run.restore(saved)
        if folder is None:
            _advance_to_the_end(run, lambda whole: None, on_epoch, on_batch, interrupt)
        elif shared.rank > 0:
            if saved is None:
                run.state()  # all take part in what the first one saves
            _advance_to_the_end(run, lambda whole: run.state(), on_epoch, on_batch, interrupt)
        else:
            with RunFolder(folder, run) as files:
                if saved is None:
                    files.save(whole=False)
                _advance_to_the_end(run, files.save, on_epoch, on_batch, interrupt)
                files.save_model()
    return TrainResult(run.model.eval(), tuple(run.rows), run.options, folder)


def _advance_to_the_end(
    run: Training, save: Save, on_epoch: OnEpoch | None, on_batch: OnBatch | None, interrupt: DeferredInterrupt
) -> None:
    while run.epochs_done < run.epochs:
        whole = run.advance(on_batch, lambda: interrupt.asked)
        save(whole)
        if whole and on_epoch is not None:
            on_epoch(run.rows[-1])
        if interrupt.asked and run.epochs_done < run.epochs:
            raise TrainingInterrupted(f"interrupted in epoch {run.epochs_done + 1} of {run.epochs}")


class RunFolder:
    """Context manager of a run's files; however the run ends, its metrics and learning curve are there."""

    def __init__(self, folder: Path, run: Training) -> None:
        self.folder, self.run = folder, run
        self.header = {"options": run.options.record(), **machine(run.device)}
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(f"*{TEMPORARY}"):  # of a run that was killed while it wrote
            unfinished.unlink(missing_ok=True)
        self.board = TensorBoard(folder, run.epochs_done)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run = self.run
        self.board.close()
        write_metrics(self.folder, self.header, run.rows)
        if run.rows:
            title = f"{run.data.name}, {run.options.model}, {run.options.optimizer}"
            draw_learning_curve(self.folder, title, run.rows)

    def save(self, whole: bool) -> None:
        """Write the checkpoint, then what is derived from it; `whole` where an epoch has just ended."""
        checkpoint.save(self.folder, self.run.state())
        write_metrics(self.folder, self.header, self.run.rows)
        if whole:
            self.board.add(self.run.rows[-1])

    def save_model(self) -> None:
        """Write the final weights."""
        checkpoint.save_model(self.folder / "model.pt", self.run.model, self.run.options.model, self.run.data)


def _check_folder(folder: Path | None, resume: bool) -> None:
    if folder is None:
        if resume:
            raise ProblemError("to resume, give the folder of the run: out")
        return
    if folder.exists() and not folder.is_dir():
        raise ProblemError(f"{folder} is a file, not a folder for results")
    files = [path for path in folder.glob("*") if path.suffix != TEMPORARY]
    if files and not resume:
        raise ProblemError(f"{folder} is not empty: resume the run in it, or choose another folder")
    if files and not any((folder / name).exists() for name in (checkpoint.LATEST, checkpoint.PREVIOUS)):
        raise ProblemError(f"{folder} is not empty and holds no checkpoint to resume from")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ProblemError(f"device {name!r} cannot be used here: {first_line(error)}") from error
    return device


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Turn what data, networks and files raise before training into a ProblemError."""
    try:
        yield
    except ProblemError:
        raise
    except ImportError as error:
        raise ProblemError(f"{error}: pip install 'ocpkit[nn]' has what the data sets need") from error
    except (ValueError, TypeError, OSError) as error:
        raise ProblemError(str(error)) from error
