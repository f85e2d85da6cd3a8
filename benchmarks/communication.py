"""What processes that train together exchange: ``python -m benchmarks.communication [--markdown FILE]``.

Two processes on this machine take one step of each method on a batch, and count the bytes that `Processes.average`
hands to the collective. What the network sends for it is up to gloo or NCCL: a ring sends 2 (N − 1)/N times as much
from each of N processes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from benchmarks import page
from benchmarks.machine import describe
from ocpkit_nn.distributed import Processes
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes import eigenbases

METHODS = (
    *(("diagonal", "none"), ("diagonal", "value"), ("diagonal", "full"), ("adam", "full")),
    *(("kronecker", "none"), ("kronecker", "full"), ("ekfac", "full")),
)
WIDTHS, BATCH, REPEATS = (32, 256, 1024), 32, 9


def network(width: int) -> nn.Sequential:
    """64 inputs, three hidden layers, ten classes."""
    sizes = [64, width, width, width, 10]
    layers = [module for n, o in pairwise(sizes) for module in (nn.Linear(n, o), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def measure(rank: int, count: int, folder: str) -> None:
    """Take one step of each method, and save the bytes of this process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    exchanged: dict[tuple[str, str, int], tuple[int, int]] = {}
    for width in WIDTHS:
        inputs, targets = torch.randn(BATCH, 64), torch.randint(10, (BATCH,))
        for curvature, feedback in METHODS:
            shared, model = Processes(rank, count), network(width)
            optimizer = DDPNOpt(model, curvature=curvature, feedback=feedback, processes=shared)
            optimizer.step(shared.share(inputs), shared.share(targets))
            size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
            exchanged[curvature, feedback, width] = shared.bytes_exchanged, size
    if rank == 0:
        torch.save(exchanged, Path(folder) / "exchanged.pt")
    dist.barrier()
    dist.destroy_process_group()


def time_renewal(rank: int, count: int, folder: str) -> None:
    """Take some steps that each end with new bases of all layers; save the seconds that the renewals take."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    seconds = {}
    for width in WIDTHS:
        shared, model = Processes(rank, count), network(width)
        optimizer = DDPNOpt(model, curvature="kronecker", eigenbasis_interval=2, processes=shared)
        optimizer.step(torch.randn(BATCH, 64), torch.randint(10, (BATCH,)))
        memories = [memory | {"count": 2} for memory in optimizer.state.values()]
        groups = optimizer.param_groups * len(memories)
        taken = []
        for _ in range(REPEATS):
            dist.barrier()
            begin = time.perf_counter()
            eigenbases.renew(memories, groups, shared)
            dist.barrier()
            taken.append(time.perf_counter() - begin)
        seconds[width] = statistics.median(taken)
    if rank == 0:
        torch.save(seconds, Path(folder) / "seconds.pt")
    dist.destroy_process_group()


def renewals() -> dict[int, dict[int, float]]:
    """Return the seconds of a renewal by number of processes, then by width."""
    seconds = {}
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(time_renewal, (count, folder), nprocs=count)
            seconds[count] = torch.load(Path(folder) / "seconds.pt", weights_only=True)
    return seconds


def main(markdown: Path | None) -> None:
    """Print the table, or write it into a page."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(measure, (2, folder), nprocs=2)
        exchanged = torch.load(Path(folder) / "exchanged.pt", weights_only=True)
    lines = []
    for curvature, feedback in METHODS:
        cells = []
        for width in WIDTHS:
            volume, size = exchanged[curvature, feedback, width]
            cells.append(f"{volume / 1e6:.3g} MB ({volume / size:.2f}×)")
        lines.append([curvature, feedback, *cells])
    alone, two = renewals().values()
    gains = [
        f"{1e3 * alone[width]:.3g} ms, {1e3 * two[width]:.3g} ms ({alone[width] / two[width]:.2f}×)" for width in WIDTHS
    ]
    sections = [
        f"Exchanged per process and step, float32, and the same over the size of the parameters; fcn of three hidden "
        f"layers, batch of {BATCH} (it does not depend on it):",
        page.markdown(["curvature", "feedback", *(f"width {width}" for width in WIDTHS)], lines),
        f"Renewing the eigenvectors of all its Kronecker factors, by one process and by two, of one thread each, with "
        f"what they then exchange (median of {REPEATS}):",
        page.markdown([f"width {width}" for width in WIDTHS], [gains]),
    ]
    print("\n\n".join(sections))
    if markdown is not None:
        command = f"python -m benchmarks.communication --markdown {markdown}"
        page.write(markdown, "Many machines", command, describe("torch"), sections)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path)
    main(**vars(parser.parse_args()))
