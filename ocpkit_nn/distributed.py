"""Data-parallel training: every process sees its share of a batch, and all take the step of the whole batch.

Of a DDPNOpt step only expectations over the samples, E[·], couple the samples: the gradient E[Q_u], what M is made of
(second moments, Kronecker's A and S), and the feedback E[K_i δx_i]. Each process computes its own mean, `average`
weighs it by the process's share of the samples and sums over the processes; then all have the same bits and stay in
step. V_x, V_xx, K_i and both trajectories belong to samples and stay where these are.

This is the only module that communicates. `torchrun` sets up the processes (gloo between CPUs, NCCL between GPUs):

    torchrun --nproc-per-node 4 -m ocpkit train digits --out runs/digits
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ocpkit.errors import ProblemError, first_line

T = TypeVar("T")


class ProcessLost(ProblemError):
    """Another process has ended, so that no batch is whole any more."""


class Processes:
    """This process among those that share each batch; by itself it is one of one, and nothing is communicated.

    Attributes
    ----------
    rank, count
        Which process this is, of how many.
    bytes_exchanged
        Size of all that `average` and `broadcast` have exchanged so far.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self.bytes_exchanged = 0
        self._share = 1.0

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's samples of a batch (B, …): contiguous, at most one more than another's.

        Raises
        ------
        ProblemError
            If there are fewer samples than processes.
        """
        if len(batch) < self.count:
            raise ProblemError(
                f"a batch of {len(batch)} samples cannot be shared by {self.count} processes; choose a batch size "
                "whose last batch is not smaller than the number of processes, or fewer processes"
            )
        return batch.tensor_split(self.count)[self.rank]

    def begin_batch(self, samples: int, device: torch.device) -> int:
        """Begin a step on so many samples of this process; return their number in all processes."""
        if self.count == 1:
            return samples
        total = torch.tensor(samples, dtype=torch.int64, device=device)
        self._communicate(lambda: dist.all_reduce(total))
        self._share = samples / int(total)
        return int(total)

    def average(self, local: Tensor) -> Tensor:
        """Return E[·] over all samples from the mean over those here; may overwrite it."""
        if self.count == 1:
            return local
        mean = local.mul_(self._share) if local.is_contiguous() else local * self._share
        self._communicate(lambda: dist.all_reduce(mean))
        self.bytes_exchanged += mean.numel() * mean.element_size()
        return mean

    def divide(self, costs: Sequence[float]) -> list[int]:
        """Assign tasks to processes by their costs: the costliest first, each to the least loaded process."""
        owners, burdens = [0] * len(costs), [0.0] * self.count
        for task in sorted(range(len(costs)), key=lambda task: -costs[task]):
            owners[task] = burdens.index(min(burdens))
            burdens[owners[task]] += costs[task]
        return owners

    def broadcast(self, tensor: Tensor, owner: int) -> Tensor:
        """Return one process's tensor in all of them; the others give one of its shape."""
        if self.count == 1:
            return tensor
        whole = tensor.contiguous() if owner == self.rank else tensor.new_empty(tensor.shape)
        self._communicate(lambda: dist.broadcast(whole, owner))
        self.bytes_exchanged += whole.numel() * whole.element_size()
        return whole

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether a condition is true in any process."""
        if self.count == 1:
            return here
        flag = torch.tensor(int(here), device=device)
        self._communicate(lambda: dist.all_reduce(flag, op=dist.ReduceOp.MAX))
        return bool(flag)

    def gather(self, here: T) -> list[T]:
        """Return the objects of all processes, by rank."""
        if self.count == 1:
            return [here]
        everything: list[Any] = [None] * self.count
        self._communicate(lambda: dist.all_gather_object(everything, here))
        return everything

    def from_first(self, read: Callable[[], T]) -> T:
        """Read something in the first process and return it in all."""
        if self.count == 1:
            return read()
        box: list[Any] = [read() if self.rank == 0 else None]
        self._communicate(lambda: dist.broadcast_object_list(box))
        return box[0]

    def _communicate(self, call: Callable[[], object]) -> None:
        try:
            call()
        except RuntimeError as error:  # what gloo and NCCL raise when a peer is gone
            raise ProcessLost(
                f"process {self.rank} of {self.count} has lost another one, which was killed or has failed "
                f"({first_line(error)}); the last checkpoint is whole: the same command with --resume goes on"
            ) from error


ALONE = Processes()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join the processes that `torchrun` has started; without it, be alone.

    Parameters
    ----------
    device
        What the batches are on: ``"cuda"`` takes NCCL, anything else gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    if device.startswith("cuda"):  # NCCL, and generators made for "cuda", take the current GPU, else the first for all
        torch.cuda.set_device(own_device(device))
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def own_device(device: str) -> str:
    """Return the GPU of this process where ``"cuda"`` was asked for on a machine with several processes."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return os.environ.get("RANK", "0") == "0"
