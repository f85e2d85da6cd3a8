"""Crocoddyl's own C++ actions: the linear-quadratic one and the unicycle, solved by its SolverDDP.

An iteration is `calcDiff` + `backwardPass` + `forwardPass`, called one by one, without the checks and stopping
criteria of its loop: the shortest that an iteration can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from benchmarks.control.clock import once
from benchmarks.control.contestant import Contestant, Outcome, Unavailable, compiled_batch
from benchmarks.control.tasks import LQR, Task, Unicycle


def load() -> Any:
    """Import crocoddyl, or say how to get it."""
    try:
        import crocoddyl
    except ImportError as error:
        raise Unavailable("needs Crocoddyl: pip install 'ocpkit[bench]'") from error
    return crocoddyl


def contestant(
    crocoddyl: Any, task: Task, running: Any, terminal: Any, batch: int, method: str = "SolverDDP"
) -> Contestant:
    """Set a solver up on T times the running action."""
    problem = task.problem
    shooting = crocoddyl.ShootingProblem(np.asarray(problem.x0), [running] * problem.horizon, terminal)
    if shooting.nthreads > 1:
        shooting.nthreads = 1
    solver = getattr(crocoddyl, method)(shooting)
    solver.th_stop = 1e-9
    guess = [np.asarray(u) for u in problem.controls]
    states = list(shooting.rollout(guess))

    def solve() -> Outcome:
        solver.solve(states, guess, 500, True)
        return Outcome(solver.us.tolist(), solver.iter + 1)

    def iterate(k: int, controls: Sequence[np.ndarray]) -> None:
        solver.setCandidate(list(shooting.rollout(list(controls))), list(controls), True)
        shooting.calc(solver.xs, solver.us)
        for _ in range(k):
            solver.calcDiff()
            solver.backwardPass()
            solver.forwardPass(1.0)

    solve()  # also moves its counter off 0, where calcDiff would repeat calc
    return Contestant(solve, iterate, batch, _phases(solver))


def _phases(solver: Any) -> str:
    """Median time of the three phases."""
    phases = {
        "calcDiff": solver.calcDiff,
        "backwardPass": solver.backwardPass,
        "forwardPass": lambda: solver.forwardPass(1.0),
    }
    times = {name: 1e6 * median(once(phase) for _ in range(15)) for name, phase in phases.items()}
    return "µs: " + ", ".join(f"{name} {time:.0f}" for name, time in times.items())


@dataclass(frozen=True)
class CrocoddylCpp:
    """SolverDDP on actions compiled in C++."""

    name: str = "Crocoddyl C++"

    def accepts(self, task: Task) -> bool:
        return isinstance(task.source, (LQR, Unicycle))

    def prepare(self, task: Task) -> Contestant:
        crocoddyl = load()
        return contestant(crocoddyl, task, *_actions(crocoddyl, task.source), compiled_batch(task.problem.horizon))


def _actions(crocoddyl: Any, source: LQR | Unicycle) -> tuple[Any, Any]:
    """Return the running and the terminal action."""
    if isinstance(source, Unicycle):
        return crocoddyl.ActionModelUnicycle(), crocoddyl.ActionModelUnicycle()
    n, m = source.B.shape
    drift, none = np.zeros(n), np.zeros((n, m))
    return (
        crocoddyl.ActionModelLQR(source.A, source.B, source.Q, source.R, none, drift, drift, np.zeros(m)),
        crocoddyl.ActionModelLQR(source.A, source.B, source.F, source.R, none, drift, drift, np.zeros(m)),
    )


SYSTEMS = (CrocoddylCpp(),)
