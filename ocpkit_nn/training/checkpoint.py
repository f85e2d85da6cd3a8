"""Checkpoint files: written atomically, the previous one kept, checked for damage when read."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocpkit.boundary.atomic import write_atomically
from ocpkit.boundary.sizes import check_zip
from ocpkit.errors import ProblemError, first_line
from ocpkit_nn.data import Dataset
from ocpkit_nn.training.networks import build

LATEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
FORMAT = 1


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `checkpoint.pt`; the one before becomes `checkpoint.previous.pt`."""
    _write(folder / LATEST, state, keep=folder / PREVIOUS)


def _write(path: Path, state: dict[str, Any], keep: Path | None = None) -> None:
    try:
        write_atomically(path, lambda file: torch.save({"format": FORMAT, **state}, file), keep)
    except RuntimeError as error:  # torch hides what the file said, that the disk is full
        raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load(folder: Path) -> dict[str, Any] | None:
    """Read the latest checkpoint that is whole, on the CPU; None where there is none at all.

    If the latest is damaged it is replaced by the previous one, with a warning.

    Raises
    ------
    ProblemError
        If there are checkpoints, all damaged.
    """
    damaged: list[str] = []
    for path in (folder / LATEST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            state = _read(path)
        except Exception as error:  # whatever a damaged file makes its readers raise
            damaged.append(f"{path} is damaged ({first_line(error)})")
            continue
        if damaged:
            os.replace(path, folder / LATEST)
            warnings.warn(f"{damaged[0]}; going on from the checkpoint before it", stacklevel=2)
        return state
    if damaged:
        raise ProblemError(f"{' and '.join(damaged)}: nothing to resume from; start again in another folder")
    return None


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
        check_zip(archive)
        if (record := archive.testzip()) is not None:
            raise ValueError(f"wrong checksum of {record}")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("format") != FORMAT:
        raise ValueError(f"format {state.get('format')!r}, expected {FORMAT}")
    return state


def save_model(path: Path, model: nn.Module, spec: str, dataset: Dataset) -> None:
    """Write the weights with what `load_model` needs to build the network again."""
    state = {
        "model": spec,
        "data": dataset.name,
        "input_shape": list(dataset.input_shape),
        "classes": dataset.classes,
        "state_dict": {name: value.detach().cpu() for name, value in model.state_dict().items()},
    }
    _write(path, state)


def load_model(path: str | os.PathLike[str], *, run_files: bool = False) -> nn.Module:
    """Build the network that a run has saved as `model.pt`, with its weights, in evaluation mode, on the CPU.

    Its inputs are standardized ones.

    Parameters
    ----------
    path
        A file that `save_model` wrote. Nothing in it is ever run.
    run_files
        A network from a file of one's own, ``"path/to/file.py:function"``, is built by running that file again, whose
        path the saved model names: only where this is asked for.

    Raises
    ------
    ProblemError
        If the file is damaged, its weights do not fit the network, or it names a file to be run and `run_files` is
        not set.
    """
    path = Path(path)
    try:
        state = _read(path)
        if ".py:" in state["model"] and not run_files:
            raise ProblemError(f"its network is built by running {state['model']!r}; if you trust it, run_files=True")
        one = torch.zeros(1, *state["input_shape"]), torch.zeros(1, dtype=torch.int64)
        model = build(state["model"], Dataset(state["data"], *one, *one, classes=state["classes"]))
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ProblemError(f"{path} cannot be loaded: {first_line(error)}") from error
    load_weights(model, state["state_dict"], state["model"])
    return model.eval()


def load_weights(model: nn.Module, weights: dict[str, Tensor], spec: str) -> None:
    """Load weights, or say in one line that they belong to another network.

    Raises
    ------
    ProblemError
        If names or shapes differ.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split("\n", 1)[-1].split())
        raise ProblemError(f"the saved weights are not those of the network {spec!r}: {detail}") from error
