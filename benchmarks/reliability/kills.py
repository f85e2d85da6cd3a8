"""Training runs killed with SIGKILL and resumed: ``python -m benchmarks.reliability.kills --moments 20``.

A run is killed at random moments of its duration, and before each of its system calls that put a file on the disk or
in its place. Each time it is resumed in the same folder, and its final weights are compared with those of a run that
nobody killed. The runs are forks of one process that has trained once, so that torch and all it loads late are there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocpkit.boundary.atomic import TEMPORARY
from ocpkit_nn.training import train as training
from ocpkit_nn.training.checkpoint import LATEST, load_model
from ocpkit_nn.training.train import TrainOptions, train

EPOCHS = 5


def run(moments: int, seed: int = 0) -> dict[str, Any]:
    """Kill and resume.

    Returns
    -------
    dict
        ``moments`` and ``operations`` killed at; in how many of these the run had not saved anything, was writing a
        file, or was over already; and ``differ``, how many ended with other weights or not at all.
    """
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        _write_data(Path("data.npz"))
        train(_options(Path("whole")))
        began = time.perf_counter()
        _finish(Path("again"))
        duration, reference = time.perf_counter() - began, _weights(Path("whole"))
        found = {"moments": moments, "operations": 0, "unsaved": 0, "writing": 0, "over": 0, "differ": 0}
        for i, share in enumerate(np.random.default_rng(seed).uniform(0, 1, moments)):
            folder = Path(f"moment-{i}")
            child = _fork(folder)
            time.sleep(share * duration)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            _resume(folder, reference, found)
        while _dies_before(found["operations"] + 1, folder := Path(f"operation-{found['operations']}")):
            found["operations"] += 1
            _resume(folder, reference, found)
        os.chdir("/")
    return found


def _resume(folder: Path, reference: torch.Tensor, found: dict[str, Any]) -> None:
    """Count what the kill has left, and go on to the end."""
    found["unsaved"] += not (folder / LATEST).exists()
    found["writing"] += any(folder.glob(f"*{TEMPORARY}"))
    found["over"] += (folder / "model.pt").exists()
    found["differ"] += _finish(folder) != 0 or not torch.equal(_weights(folder), reference)


def _dies_before(operation: int, folder: Path) -> bool:
    """Start a run that kills itself before this file operation; False where it has no so many."""
    return os.WIFSIGNALED(os.waitpid(_fork(folder, operation), 0)[1])


def _finish(folder: Path) -> int:
    return os.waitpid(_fork(folder), 0)[1]


def _fork(folder: Path, fatal_operation: int = 0) -> int:
    """Train in a process of its own, which kills itself before the file operation of that number, from 1 on."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        operations = iter(range(1, 10**9))

        def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                if next(operations) == fatal_operation:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return counted

        os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
        train(_options(folder), resume=True)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _options(folder: Path) -> TrainOptions:
    return TrainOptions(data="data.npz", epochs=EPOCHS, batch_size=16, out=str(folder), threads=1)


def _weights(folder: Path) -> torch.Tensor:
    state = load_model(folder / "model.pt").state_dict()
    return torch.cat([value.flatten().double() for value in state.values()])


def _write_data(path: Path) -> None:
    random = np.random.default_rng(0)
    targets = np.arange(60) % 3
    inputs = random.normal(size=(3, 4))[targets] * 2 + random.normal(size=(60, 4))
    np.savez(path, x_train=inputs, y_train=targets, x_test=inputs[:21], y_test=targets[:21])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    torch.set_num_threads(1)
    training.draw_learning_curve = lambda folder, title, rows: None  # type: ignore[assignment]
    print(json.dumps(run(**vars(parser.parse_args()))))
