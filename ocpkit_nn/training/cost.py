"""Cost of a training step: its time, and the memory that it takes at its peak."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

StepFunction = Callable[[Tensor, Tensor], float]


def mean_time(step: StepFunction, inputs: Tensor, targets: Tensor, repeats: int) -> float:
    """Return the mean time of a step [s] over `repeats` of them: CPU time, or on a GPU the time that passes."""
    clock = time.perf_counter if inputs.is_cuda else time.process_time
    if inputs.is_cuda:
        torch.cuda.synchronize()
    start = clock()
    for _ in range(repeats):
        step(inputs, targets)
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return (clock() - start) / repeats


def paired_times(
    step: StepFunction, reference: StepFunction, inputs: Tensor, targets: Tensor, *, rounds: int, seconds: float
) -> tuple[float, float]:
    """Return (time of a step [s], its ratio to that of `reference`), medians over rounds that time both in turn.

    Each round spends so many `seconds` on each method, and at least one step.
    """
    steps = (step, reference)
    first = [mean_time(each, inputs, targets, 1) for each in steps]  # to warm up
    first = [min(once, mean_time(each, inputs, targets, 1)) for each, once in zip(steps, first)]
    repeats = [max(1, round(seconds / max(once, 1e-6))) for once in first]
    times = [[mean_time(each, inputs, targets, n) for each, n in zip(steps, repeats)] for _ in range(rounds)]
    return statistics.median(own for own, _ in times), statistics.median(own / other for own, other in times)


def peak_memory(build: Callable[[], StepFunction], inputs: Tensor, targets: Tensor) -> int:
    """Return the largest number of bytes [B] of torch's tensors that live at once while a method makes two steps.

    Building it counts; what NumPy, SciPy and Python allocate, and the batch itself, do not.
    """

    def run() -> None:
        step = build()
        for _ in range(2):
            step(inputs, targets)

    gc.collect()
    if inputs.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
