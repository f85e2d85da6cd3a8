"""Throughput of `solve_batch` against the compiled engine: ``python -m benchmarks.batch [--markdown FILE]``.

Cart-poles from random states, ten iterations of iLQR each, so that every problem costs the same and no straggler
decides. `solve_batch` in both precisions against the C engine in a loop, and against the same loop in joblib processes.
Times on a CPU are the processor's, torch and C on one thread each, so that other jobs on the machine count less; of
several processes it is the longest one's. Times on other devices are by the clock. A second table compares ways to the
derivatives: f_x and f_u of one cart-pole step by the translated graph, by `torch.func`, and with ``--compile``, which
takes minutes, by the graph through `torch.compile`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import casadi as ca
import numpy as np
import torch
from joblib import Parallel, delayed

import ocpkit.math as m
from benchmarks import page
from benchmarks.machine import describe
from ocpkit import ILQR, Problem, models, rk4
from ocpkit.autodiff.symbol import symbols, to_casadi
from ocpkit.engines.batch.elementwise import elementwise
from ocpkit.solvers.ddp.solve_batch import solve_batch

SIZES = tuple(4**i for i in range(9))  # 1 … 65536
ITERATIONS = 10
TITLE = "Batches"


def starts(count: int) -> np.ndarray:
    """Random initial states (count, 4) around hanging at rest."""
    return 0.5 * np.random.default_rng(0).normal(size=(count, 4))


def at_once(problem: Problem, x0: np.ndarray, dtype: str, device: str) -> float:
    """Solve as a batch; return the time [s]."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    solve_batch(problem, x0=x0, solver=ILQR(max_iterations=ITERATIONS), dtype=dtype, device=device)
    return clock() - began


def one_by_one(problem: Problem, x0: np.ndarray) -> float:
    """Solve on the compiled engine in a loop; return the time [s]."""
    solver, began = ILQR(engine="c", max_iterations=ITERATIONS), time.process_time()
    for x in x0:
        solver.solve(problem.replace(x0=x))
    return time.process_time() - began


def in_processes(pool: Parallel, x0: np.ndarray) -> float:
    """The same in the processes of a pool; return the longest one's time [s]."""
    return max(pool(delayed(_part)(part) for part in np.array_split(x0, pool.n_jobs)))


def _part(x0: np.ndarray) -> float:
    problem = models.get("cartpole").build()
    one_by_one(problem, x0[:1])  # loaded before the clock starts
    return one_by_one(problem, x0)


def throughput(most: int, seconds: float, device: str) -> Iterator[list[str]]:
    """Yield lines of problems per second; a solver whose last line took longer than this is not asked for more."""
    problem = models.get("cartpole").build()
    with Parallel(n_jobs=os.cpu_count() or 1) as pool:
        solvers: list[Callable[[np.ndarray], float] | None] = [
            lambda x0: at_once(problem, x0, "float64", device),
            lambda x0: at_once(problem, x0, "float32", device),
            lambda x0: one_by_one(problem, x0),
            lambda x0: in_processes(pool, x0),
        ]
        one_by_one(problem, starts(1))  # compiled before the clock starts
        for size in (size for size in SIZES if size <= most):
            line = [str(size)]
            for i, solve in enumerate(solvers):
                if solve is None:
                    line.append("–")
                    continue
                took = solve(starts(size))
                line.append(f"{size / took:.3g}")
                if took > seconds:
                    solvers[i] = None
            yield line


def swing(x: Any, u: Any) -> Any:
    """One step of a cart-pole, 1 kg and 0.1 kg, 0.5 m."""

    def rates(x: Any, u: Any) -> Any:
        sin, cos = m.sin(x[1]), m.cos(x[1])
        mass, pull = 1 + 0.1 * sin * sin, 0.05 * x[3] ** 2
        fall = -u[0] * cos - pull * cos * sin - 1.1 * 9.81 * sin
        return m.stack([x[2], x[3], (u[0] + sin * (pull + 0.981 * cos)) / mass, fall / (0.5 * mass)])

    return rk4(rates, 0.02)(x, u)


def derivatives(size: int, with_compiler: bool) -> list[list[str]]:
    """Return lines of nanoseconds per problem for f_x and f_u of `swing`."""
    (x, xs), (u, us) = symbols("x", 4), symbols("u", 1)
    translated = elementwise([x, u], [ca.jacobian(to_casadi(swing(xs, us)), ca.vertcat(x, u))])
    functional = torch.func.vmap(torch.func.jacfwd(swing, argnums=(0, 1)))
    ways: dict[str, Callable[..., Any]] = {"translated graph": translated, "torch.func": functional}
    if with_compiler:
        ways["translated graph, compiled"] = torch.compile(translated, dynamic=True)
    arguments = torch.rand(size, 4, dtype=torch.float64), torch.rand(size, 1, dtype=torch.float64)
    lines = []
    for name, way in ways.items():
        began = time.perf_counter()  # compilers are other processes
        way(*arguments)
        first, times = time.perf_counter() - began, []
        for _ in range(5):
            began = time.process_time()
            way(*arguments)
            times.append(time.process_time() - began)
        lines.append([name, f"{1e9 * float(np.median(times)) / size:.0f}", f"{first:.1f}"])
    return lines


def main(most: int, seconds: float, device: str, compile: bool, markdown: Path | None) -> None:
    """Print both tables, or write them into a page."""
    torch.set_num_threads(1)
    machine = describe("torch", "casadi", "numpy")
    if device != "cpu":
        machine["device"] = torch.cuda.get_device_name(device)
    header = ["B", "float64", "float32", "C in a loop", f"C in {os.cpu_count()} processes"]
    lines = []
    for line in throughput(most, seconds, device):
        print(line, flush=True)
        lines.append(line)
    size = 4096
    sections = [
        f"Problems per second, {ITERATIONS} iterations of iLQR on a cart-pole, T = 100 (–: over {seconds:g} s before):",
        page.markdown(header, lines),
        f"f_x and f_u of one step of a cart-pole for {size} problems:",
        page.markdown(["way", "ns per problem", "first call [s]"], derivatives(size, compile)),
    ]
    print("\n\n".join(sections))
    if markdown is not None:
        page.write(markdown, TITLE, shlex.join(["python", "-m", "benchmarks.batch", *sys.argv[1:]]), machine, sections)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="largest batch")
    parser.add_argument("--seconds", type=float, default=30, help="a solver that took longer gets no larger batch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well, which takes minutes")
    parser.add_argument("--markdown", type=Path)
    main(**vars(parser.parse_args()))
