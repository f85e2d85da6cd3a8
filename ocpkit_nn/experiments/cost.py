"""What a training step costs: CPU time in paired rounds, and the peak of the memory that torch allocates."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Step = Callable[[Tensor, Tensor], float]


def paired_times(
    step: Step, reference: Step, inputs: Tensor, targets: Tensor, *, rounds: int, seconds: float
) -> tuple[float, float]:
    """Return (CPU time of a step [s], its ratio to that of `reference`), medians over rounds that time both in turn.

    Parameters
    ----------
    rounds
        Number of rounds, after one step of each to warm up.
    seconds
        CPU time to spend on each method in a round; at least one step is taken.
    """
    steps = (step, reference)
    first = [_mean_time(each, inputs, targets, 1) for each in steps]
    first = [min(once, _mean_time(each, inputs, targets, 1)) for each, once in zip(steps, first)]
    repeats = [max(1, round(seconds / max(once, 1e-6))) for once in first]
    times = [[_mean_time(each, inputs, targets, n) for each, n in zip(steps, repeats)] for _ in range(rounds)]
    return statistics.median(own for own, _ in times), statistics.median(own / other for own, other in times)


def _mean_time(step: Step, inputs: Tensor, targets: Tensor, repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        step(inputs, targets)
    return (time.process_time() - start) / repeats


def peak_memory(build: Callable[[], Step], inputs: Tensor, targets: Tensor) -> int:
    """Return the largest number of bytes [B] of torch's CPU tensors alive at once, while a method is built and makes
    two steps; what NumPy, SciPy and Python allocate, and the batch itself, are not counted."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step = build()
        for _ in range(2):
            step(inputs, targets)
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
