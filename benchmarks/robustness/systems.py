"""Who solves: solvers of ocpkit by name, and their peers.

``default`` is what `ocpkit solve` takes for a problem on which nobody has chosen. Any other name is one of
`ocpkit.registry`, with its default options, or ``ipopt``, ``ipopt-adaptive``, ``fatrop`` (`peers`) or ``crocoddyl``
(`crocoddyl`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from benchmarks.first_solve.cases import recommended
from benchmarks.robustness import crocoddyl
from benchmarks.robustness.contract import Answer, Claim, Solve, System, timed
from benchmarks.robustness.peers import PEERS
from ocpkit import Problem, Status, registry
from ocpkit.solvers.driver import Solver

DEFAULT, CROCODDYL = "default", "crocoddyl"


@dataclass(frozen=True)
class Ours:
    """A solver of ocpkit, made of a problem and the limit of a solve [s]."""

    make: Callable[[Problem, float], Solver]

    def __call__(self, problem: Problem, limit: float) -> Solve:
        solver = self.make(problem, limit)
        _compile(solver, problem)
        return partial(_solve, solver)


def _compile(solver: Solver, problem: Problem) -> None:
    if (build := solver.compile(problem)) is not None:
        build.wait()


def _solve(solver: Solver, problem: Problem) -> Answer:
    _compile(solver, problem)  # with other bounds the same library has to be found again
    found, seconds = timed(lambda: solver.solve(problem))
    claim, count = CLAIMS.get(found.status, Claim.NOTHING), found.details.inner_iterations or found.iterations
    return Answer(found.states, found.controls, claim, found.status.name, count, seconds)


CLAIMS = {Status.CONVERGED: Claim.OPTIMAL, Status.INFEASIBLE: Claim.INFEASIBLE}


def get(name: str) -> System:
    """Return a system.

    Raises
    ------
    ProblemError
        If there is none of this name.
    """
    if name in PEERS:
        return PEERS[name]
    if name == CROCODDYL:
        return crocoddyl.prepare
    if name == DEFAULT:
        return Ours(lambda problem, limit: recommended(limit))
    registry.get(name)
    return Ours(lambda problem, limit: registry.make(name, time_limit=limit))


def installed(name: str) -> bool:
    """Whether a system can run here; only Crocoddyl may be missing."""
    return name != CROCODDYL or find_spec(name) is not None
