"""What is timed, in a process of its own, which is asked for one timing after the other.

A script that reads names and answers in JSON, line by line; the packages under test are on PYTHONPATH.
It knows no other file of the benchmarks, since it runs beside old versions of the packages too.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

Action = Callable[[], object]
SECONDS, LEAST_CALLS = 0.2, 3


def importing() -> Any:
    """`import ocpkit` with a first solver, after what it needs of others."""
    import casadi  # noqa: F401
    import scipy.linalg  # noqa: F401

    def action() -> None:
        import ocpkit

        _ = ocpkit.DDP

    return action


def cartpole() -> Action:
    """Solve the cart-pole by DDP in C."""
    from ocpkit import DDP, models

    problem, solver = models.get("cartpole").build(), DDP(engine="c")
    return lambda: solver.solve(problem)


def quadrotor() -> Action:
    """Solve the quadrotor by DDP in C."""
    from ocpkit import DDP, models

    problem, solver = models.get("quadrotor").build(), DDP(engine="c")
    return lambda: solver.solve(problem)


def readable() -> Action:
    """Three iterations of iLQR on the pendulum in the NumPy engine."""
    from ocpkit import ILQR, models

    problem, solver = models.get("pendulum").build(), ILQR(engine="numpy", max_iterations=3)
    return lambda: solver.solve(problem)


def mpc() -> Action:
    """One iteration of an MPC of the quadrotor, T = 50."""
    from ocpkit import DDP, MPC, models

    problem = models.get("quadrotor").build(horizon=50, time_step=0.04)
    controller = MPC(problem, DDP(engine="c", max_iterations=1))
    return lambda: controller.step(problem.x0)


def training() -> Action:
    """One step of DDPNOpt, a fully connected network of width 32, 32 samples."""
    import torch

    try:
        from ocpkit_nn import DDPNOpt, networks
    except ImportError:  # a version before it exported names
        from ocpkit_nn import networks
        from ocpkit_nn.optim import DDPNOpt

    torch.manual_seed(0)
    torch.set_num_threads(1)
    optimizer = DDPNOpt(networks.fcn(784, 10, width=32), lr=1e-4)
    inputs, targets = torch.randn(32, 784), torch.randint(10, (32,))
    return lambda: optimizer.step(inputs, targets)


TIMINGS: dict[str, Callable[[], Action]] = {
    "import": importing,
    "cart-pole, DDP in C": cartpole,
    "quadrotor, DDP in C": quadrotor,
    "pendulum, NumPy engine": readable,
    "quadrotor, one MPC tick": mpc,
    "DDPNOpt, one step": training,
}


def seconds_of(name: str) -> float:
    """Return the processor time of a call [s]: median of those after the first, but an import happens once."""
    action = TIMINGS[name]()
    first = _once(action)
    if name == "import":
        return first
    times: list[float] = []
    while len(times) < LEAST_CALLS or sum(times) < SECONDS:
        times.append(_once(action))
    return statistics.median(times)


def _once(action: Action) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def origins() -> list[str]:
    """Return the files of all modules under test."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("ocpkit", "ocpkit_nn")]
    return sorted(str(module.__file__) for module in modules)


def main() -> None:
    """Answer each name with its time, or what an older version said instead, and the files imported so far."""
    # An editable installation would lend an old version the modules that it lacks.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        seconds: float | str
        try:
            seconds = seconds_of(line.strip())
        except Exception as error:  # whatever a version raises that has no such thing yet
            seconds = f"{type(error).__name__}: {error}"
        print(json.dumps({"seconds": seconds, "files": origins()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
