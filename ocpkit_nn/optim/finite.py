"""Check that the numbers of a training step are finite, and the error that names those that are not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ocpkit_nn.distributed import Processes

LARGE = 0.25
"""Numbers up to the largest one to this power have products of four factors that do not overflow."""


def finite_mean(inputs: Tensor, values: Tensor, others: Sequence[Tensor], processes: Processes) -> tuple[float, bool]:
    """Return the mean of the losses (B,) over all samples, and whether the others are small enough to multiply.

    Raises
    ------
    FloatingPointError
        If that mean or one of the others is not finite, in all processes.
    """
    norms = torch._foreach_norm(list(others)) if others else ()  # as cheap as sums
    sizes = [norm.to(values.dtype) for norm in norms]
    mean, *largest = processes.average(torch.stack([values.mean(), *sizes])).tolist()
    if not all(map(math.isfinite, (mean, *largest))):  # a mean or norm may overflow where no number has
        wrong = any(not tensor.isfinite().all() for tensor in (values, *others))
        if processes.any(wrong, inputs.device):
            raise refusal(inputs, values)
    limit = torch.finfo(values.dtype).max ** LARGE
    return mean, all(size <= limit for size in largest)


def first_not_finite(samples: Tensor | None) -> int | None:
    """Return the index of the first sample of (B, …) that is not finite."""
    if samples is None:
        return None
    wrong = (~samples.isfinite()).reshape(len(samples), -1).any(1)
    return int(wrong.nonzero()[0]) if bool(wrong.any()) else None


def refusal(inputs: Tensor, values: Tensor | None) -> FloatingPointError:
    """Say what of a step is not finite: a sample of the inputs (B, …), one's loss (B,), or the derivatives."""
    if (sample := first_not_finite(inputs)) is not None:
        what = f"sample {sample} of the inputs is not finite; leave such samples out"
    elif values is not None and (sample := first_not_finite(values)) is not None:
        what = f"the loss of sample {sample} is {float(values[sample])}; look at its target, or lower lr"
    else:
        what = "its loss is finite, but not its derivatives; lower lr, or look for huge inputs and infinite derivatives"
    return FloatingPointError(f"the step is refused: {what}. Weights, moments and buffers are as before")
