"""Eigenvectors of Kronecker's factors A and S: of one layer within a step, or of all layers between two steps.

Within a step layers wait for each other: with feedback the bases of one decide the factors of the one before. Between
two steps nothing waits, so that processes can divide the decompositions, the costliest part of KFAC and EKFAC.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ocpkit_nn.distributed import Processes


def decompose(memory: dict[str, Any], factor: str) -> None:
    """Renew eigenvalues and eigenvectors of a layer's averaged factor, ``"A"`` (i, i) or ``"S"`` (o, o)."""
    memory[f"values_{factor}"], memory[f"basis_{factor}"] = _eigenbasis(memory[factor])


def renew(memories: Iterable[dict[str, Any]], groups: Iterable[dict[str, Any]], processes: Processes) -> None:
    """Decompose all layers' factors at the end of an interval, each in one process, and broadcast the results."""
    tasks = [
        (memory, factor)
        for memory, options in zip(memories, groups)
        if "basis_A" in memory and (interval := options["eigenbasis_interval"]) > 1 and memory["count"] % interval == 0
        for factor in "AS"
    ]
    owners = processes.divide([len(memory[factor]) ** 3 for memory, factor in tasks])
    for (memory, factor), owner in zip(tasks, owners):
        if owner == processes.rank:
            decompose(memory, factor)
    for (memory, factor), owner in zip(tasks, owners):
        for name in (f"values_{factor}", f"basis_{factor}"):
            memory[name] = processes.broadcast(memory[name], owner)


def _eigenbasis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, in double precision and scaled to 1 where single precision fails.

    It fails with an error for many equal eigenvalues, and silently, with nan, for the tiny matrices that a vanishing
    gradient leaves.
    """
    try:
        values, basis = torch.linalg.eigh(matrix)
        if values.isfinite().all() and basis.isfinite().all():
            return values, basis
    except RuntimeError:
        pass
    size = matrix.abs().max().clamp_min(torch.finfo(matrix.dtype).tiny).double()
    values, basis = torch.linalg.eigh(matrix.double() / size)
    return (values * size).to(matrix.dtype), basis.to(matrix.dtype)
