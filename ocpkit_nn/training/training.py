"""A training run in progress: its steps, and the state with which it can be resumed."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from ocpkit.errors import ProblemError, first_line
from ocpkit_nn.data import Dataset, batches, load
from ocpkit_nn.distributed import ALONE, Processes, own_device
from ocpkit_nn.layers.losses import Loss, by_name
from ocpkit_nn.training import checkpoint
from ocpkit_nn.training.networks import build
from ocpkit_nn.training.optimizers import OPTIMIZERS
from ocpkit_nn.training.options import TrainOptions
from ocpkit_nn.training.record import Row, Step

EVALUATION_BATCH = 1000
OnBatch = Callable[[Step], object]
"""Gets each step; returns True to have the next one's update measured, at the price of a copy of the weights."""


class TrainingDiverged(ArithmeticError):
    """The loss or the weights are no longer finite; the last good checkpoint is kept."""


class Training:
    """A run in progress; `state` returns all that changes during it, `restore` takes it.

    Attributes
    ----------
    epochs_done, batches_done
        Whole epochs, and batches of the one that has begun.
    seconds
        Time of all steps [s].
    rows
        One for each whole epoch.
    """

    def __init__(self, options: TrainOptions, shared: Processes = ALONE) -> None:
        data = load(options.data, seed=options.seed)
        self.options = options = options.resolved(data.name)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        assert options.epochs is not None
        self.device, self.epochs, self.processes = torch.device(own_device(options.device)), options.epochs, shared
        self.fingerprint = _fingerprint(data)
        self.loss = by_name(options.loss, data.classes)
        self.model = _network(options.model, data).to(self.device)
        self.data = _moved(data, self.device)
        self._check_fit()
        self._check_processes()
        together = () if shared.count == 1 else (shared,)  # a factory of one's own need not know of processes
        self.optimizer = OPTIMIZERS[options.optimizer](self.model, self.loss, options, *together)
        if options.schedule != "constant" and not hasattr(self.optimizer, "param_groups"):
            raise ProblemError(f"{options.optimizer} has no learning rate to schedule")
        self.order = torch.Generator().manual_seed(options.seed)
        self.epochs_done = self.batches_done = 0
        self.seconds = 0.0
        self.rows: list[Row] = []
        self._measured = False  # whether somebody wants the length of the next update
        self._order_of_epoch = self.order.get_state()
        if shared.rank > 0:  # the weights are drawn; dropout and Monte-Carlo are to differ from sample to sample
            torch.manual_seed(options.seed + shared.rank)
            if (draws := getattr(self.optimizer, "generator", None)) is not None:
                draws.manual_seed(options.seed + shared.rank)

    def advance(self, on_batch: OnBatch | None, stop: Callable[[], bool]) -> bool:
        """Train until the epoch is whole (then True) or `stop` says so (then False)."""
        size = self.options.batch_size
        assert size is not None
        total = math.ceil(len(self.data.train_inputs) / size)
        self.order.set_state(self._order_of_epoch)
        self.model.train()
        every = batches(self.data.train_inputs, self.data.train_targets, size, self.order)
        for index, (inputs, targets) in enumerate(every):
            if index < self.batches_done:
                continue
            if self.processes.any(stop(), self.device):
                return False
            before = self._weights() if self._measured else None
            began = time.perf_counter()
            self._schedule((self.epochs_done * total + index) / (self.epochs * total))
            loss = self._step(inputs, targets)
            self.batches_done = index + 1
            self.seconds += time.perf_counter() - began
            if on_batch is not None:
                length = None if before is None else float((self._weights() - before).norm())
                place = (self.epochs_done + 1, self.epochs, self.batches_done, total)
                self._measured = on_batch(Step(*place, len(inputs), loss, self._learning_rate(), length)) is True
        self.rows.append(self._evaluate())
        self._order_of_epoch = self.order.get_state()
        self.epochs_done, self.batches_done = self.epochs_done + 1, 0
        return True

    def _schedule(self, progress: float) -> None:
        """Set the learning rate for the share of the run that is over."""
        if self.options.schedule == "cosine":
            for group in self.optimizer.param_groups:  # type: ignore[attr-defined]
                group["lr"] = self.options.lr * 0.5 * (1 + math.cos(math.pi * progress))  # type: ignore[operator]

    def _learning_rate(self) -> float | None:
        groups = getattr(self.optimizer, "param_groups", None)
        return None if groups is None else float(groups[0]["lr"])

    def _weights(self) -> Tensor:
        """Return a copy of all weights in one vector."""
        return parameters_to_vector(self.model.parameters()).detach()

    def _step(self, inputs: Tensor, targets: Tensor) -> float:
        try:
            loss = self.optimizer.step(self.processes.share(inputs), self.processes.share(targets))
        except ProblemError:
            raise
        except (RuntimeError, ValueError, TypeError, FloatingPointError) as error:
            # A step that is not finite is refused; drawing from, or decomposing, what is not raises too.
            diverged = isinstance(error, (torch.linalg.LinAlgError, FloatingPointError))  # type: ignore[attr-defined]
            if diverged or not is_finite(self.model, inputs):
                raise self._diverged(f"the step failed ({first_line(error)})", f"in {self._place()}") from error
            what = f"{type(error).__name__}: {first_line(error)}"
            raise ProblemError(f"{self._place()}, inputs {tuple(inputs.shape)}: {what}") from error
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}", f"in {self._place()}")
        return float(loss)

    @torch.no_grad()
    def _evaluate(self) -> Row:
        self.model.eval()
        data = self.data
        train_loss, train_accuracy = self._measure(data.train_inputs, data.train_targets)
        test_loss, accuracy = self._measure(data.test_inputs, data.test_targets)
        weights = _finite_weights(self.model)
        if not (weights and math.isfinite(train_loss) and math.isfinite(test_loss)):
            what = f"the losses are {train_loss} and {test_loss}" if weights else "the weights are not finite"
            raise self._diverged(what, f"at the end of epoch {self.epochs_done + 1}")
        return Row(self.epochs_done + 1, train_loss, test_loss, accuracy, self.seconds, train_accuracy)

    def _measure(self, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """Return mean loss and accuracy over the samples of all processes."""
        inputs, targets = self.processes.share(inputs), self.processes.share(targets)
        self.processes.begin_batch(len(inputs), self.device)
        here = torch.tensor(mean_loss_and_accuracy(self.model, self.loss, inputs, targets), dtype=torch.float64)
        loss, accuracy = self.processes.average(here.to(self.device)).tolist()
        return loss, accuracy

    def _check_processes(self) -> None:
        """Check that the processes take the same steps."""
        norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules())
        if self.processes.count > 1 and norms:
            raise ProblemError(
                f"the network {self.options.model!r} has batch normalization, which each process would do on its own "
                "samples; use layer or group normalization, or one process"
            )

    @torch.no_grad()
    def _check_fit(self) -> None:
        """Run two test samples through the network and the loss."""
        self.model.eval()
        inputs, targets, classes = self.data.test_inputs[:2], self.data.test_targets[:2], self.data.classes
        try:
            outputs = self.model(inputs)
        except Exception as error:  # whatever a network of one's own raises
            raise ProblemError(
                f"the network {self.options.model!r} cannot take samples of shape {self.data.input_shape}: "
                f"{type(error).__name__}: {error}"
            ) from error
        expected = (len(inputs), classes)
        if not isinstance(outputs, Tensor) or tuple(outputs.shape) != expected:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ProblemError(
                f"the network {self.options.model!r} must map (B, …) to (B, {classes}), one output for each class; "
                f"{len(inputs)} samples gave {found}"
            )
        self.loss.value(outputs, targets)

    def _place(self) -> str:
        return f"epoch {self.epochs_done + 1}, batch {self.batches_done + 1}"

    def _diverged(self, what: str, place: str) -> TrainingDiverged:
        out = self.options.out
        kept = "" if out is None else f" {Path(out) / checkpoint.LATEST} holds the last good weights."
        advice = f"Start again with a smaller lr (now {self.options.lr:g})."
        return TrainingDiverged(f"training diverged {place}: {what}.{kept} {advice}")

    def state(self) -> dict[str, Any]:
        """Return the state with which a run can be resumed here."""
        random, *others = self.processes.gather(self._random_state())
        return {
            "options": self.options.record(),
            "fingerprint": self.fingerprint,
            "epochs_done": self.epochs_done,
            "batches_done": self.batches_done,
            "seconds": self.seconds,
            "rows": [asdict(row) for row in self.rows],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self._order_of_epoch,
            **random,
            "others": others,
        }

    def _random_state(self) -> dict[str, Any]:
        """Return the state of the generators of this process."""
        draws = getattr(self.optimizer, "generator", None)
        return {
            "draws": None if draws is None else draws.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises
        ------
        ProblemError
            If options, data or network are not those of the saved run.
        """
        begun = state["epochs_done"] + (state["batches_done"] > 0)
        self.options.check_continues(state["options"], begun)
        if state["fingerprint"] != self.fingerprint:
            raise ProblemError(f"cannot resume: the data of {self.options.data} are not those the run began with")
        checkpoint.load_weights(self.model, state["model"], self.options.model)
        self.optimizer.load_state_dict(state["optimizer"])
        self.epochs_done, self.batches_done = state["epochs_done"], state["batches_done"]
        self.seconds, self.rows = state["seconds"], [Row(**row) for row in state["rows"]]
        self._order_of_epoch = state["order"]
        everyone = [state, *state.get("others", [])]
        if self.processes.rank < len(everyone):  # a process that has joined keeps its own first draws
            self._restore_random(everyone[self.processes.rank])

    def _restore_random(self, state: dict[str, Any]) -> None:
        if state["draws"] is not None:
            self.optimizer.generator.set_state(state["draws"])  # type: ignore[attr-defined]
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)


@torch.no_grad()
def mean_loss_and_accuracy(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the mean loss over the samples and the share of them that is classified rightly [%]."""
    total, right = 0.0, 0
    for x, y in zip(inputs.split(EVALUATION_BATCH), targets.split(EVALUATION_BATCH)):
        outputs = model(x)
        total += float(loss.value(outputs, y).double().sum())
        right += int((loss.predict(outputs) == y).sum())
    return total / len(inputs), 100 * right / len(inputs)


@contextmanager
def reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch inside the block, with cuDNN's sums in a fixed order; leave random state and threads as they were."""
    devices, threads = [device] if device.type == "cuda" else [], torch.get_num_threads()
    with torch.random.fork_rng(devices), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _network(spec: str, data: Dataset) -> nn.Module:
    try:
        return build(spec, data)
    except (ValueError, TypeError, OSError):
        raise
    except Exception as error:  # whatever a file of one's own raises
        raise ProblemError(f"network {spec!r}: {type(error).__name__}: {error}") from error


def _moved(data: Dataset, device: torch.device) -> Dataset:
    names = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return data if device.type == "cpu" else replace(data, **{name: getattr(data, name).to(device) for name in names})


def _fingerprint(data: Dataset) -> int:
    """Return a checksum of all samples: a resumed run must see the data it began with."""
    value = 0
    for part in (data.train_inputs, data.train_targets, data.test_inputs, data.test_targets):
        value = zlib.crc32(part.contiguous().numpy().data, value)
    return value


def is_finite(model: nn.Module, inputs: Tensor) -> bool:
    """Return whether the weights, and the outputs for these inputs, are finite."""
    with torch.no_grad():
        if not _finite_weights(model):
            return False
        try:
            return bool(model(inputs).isfinite().all())
        except (RuntimeError, ValueError, TypeError):  # then it is the network that failed, not its numbers
            return True


def _finite_weights(model: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in model.parameters())
