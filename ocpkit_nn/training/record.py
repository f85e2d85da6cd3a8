"""Records of a training run: metrics as JSON and CSV, the learning curve, TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ocpkit.boundary.atomic import TEMPORARY, write_atomically


@dataclass(frozen=True)
class Row:
    """One epoch.

    Attributes
    ----------
    epoch
        1, 2, ….
    train_loss, test_loss
        Mean loss over the whole training and test set after the epoch.
    test_accuracy
        Share of the test set that is classified rightly [%].
    seconds
        Wall-clock time of all training steps so far [s]; evaluation and saving are left out.
    train_accuracy
        As `test_accuracy`, of the training set; None in epochs of runs begun before it was recorded.
    """

    epoch: int
    train_loss: float
    test_loss: float
    test_accuracy: float
    seconds: float
    train_accuracy: float | None = None


@dataclass(frozen=True)
class Step:
    """One batch of training, just after its update.

    Attributes
    ----------
    epoch, epochs, batch, batches
        This epoch of all, and this batch of the epoch's, counted from one.
    samples
        In the batch.
    loss
        Mean over the batch, before the update.
    learning_rate
        η; None for an optimizer that has none.
    update_length
        ‖Δu‖ over all weights; None where it was not measured.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    samples: int
    loss: float
    learning_rate: float | None
    update_length: float | None


def machine(device: torch.device) -> dict[str, Any]:
    """Return the versions, processor or GPU, and threads on which the numbers of a run depend."""
    from ocpkit.boundary.machine import package_version, processor

    versions = {name: package_version(name) for name in ("ocpkit", "torch", "numpy", "scikit-learn")}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "versions": {"python": platform.python_version(), **versions},
        "machine": f"{name}, {torch.get_num_threads()} torch threads",
    }


def write_metrics(folder: Path, header: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write `metrics.json` (header and rows) and `metrics.csv` (rows)."""
    record = {**header, "rows": [asdict(row) for row in rows]}
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "metrics.json", lambda file: file.write(text.encode()))
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_atomically(folder / "metrics.csv", lambda file: file.write(table.getvalue().encode()))


def draw_learning_curve(folder: Path, title: str, rows: Sequence[Row]) -> Path | None:
    """Draw losses and accuracy over the epochs as `learning-curve.png`; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    losses, accuracy = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    losses.plot(epochs, [row.train_loss for row in rows], "o-", color="#0072B2", markersize=3, label="training set")
    losses.plot(epochs, [row.test_loss for row in rows], "s--", color="#D55E00", markersize=3, label="test set")
    positive = any(loss > 0 for row in rows for loss in (row.train_loss, row.test_loss))
    losses.set(ylabel="mean loss", yscale="log" if positive else "linear")
    losses.legend()
    accuracy.plot(epochs, [row.test_accuracy for row in rows], "s--", color="#D55E00", markersize=3)
    best = max(rows, key=lambda row: row.test_accuracy)
    accuracy.set(
        ylabel="test accuracy [%]", title=f"last {rows[-1].test_accuracy:.2f} %, best {best.test_accuracy:.2f} %"
    )
    for axes in (losses, accuracy):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    path = folder / "learning-curve.png"
    temporary = path.with_name(path.name + TEMPORARY)
    figure.savefig(temporary, dpi=150, format="png")
    os.replace(temporary, path)
    return path


class TensorBoard:
    """Scalars for TensorBoard in `DIR/tensorboard`, where it is installed."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        self.writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_done + 1)  # type: ignore[no-untyped-call]

    def add(self, row: Row) -> None:
        """Add one epoch."""
        if self.writer is None:
            return
        for name in ("train_loss", "test_loss", "test_accuracy"):
            self.writer.add_scalar(name, getattr(row, name), row.epoch)

    def close(self) -> None:
        """Write what is pending."""
        if self.writer is not None:
            self.writer.close()
