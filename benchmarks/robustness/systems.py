"""Who solves: solvers of ocpkit by name, and IPOPT and fatrop through CasADi.

``default`` is what `ocpkit solve` takes for a problem on which nobody has chosen; any other name is one of
`ocpkit.registry`, with its default options, or one of `PEERS`. Compiling comes before the clock starts, for ocpkit as
for the peers. The peers run at the tolerance 1e-8, with exact Hessians, else their defaults.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from typing import Any, Protocol

from benchmarks.first_solve.cases import recommended
from benchmarks.robustness.program import Program, arguments, split
from ocpkit import Problem, Solution, Status, registry
from ocpkit.boundary.arrays import Array
from ocpkit.solvers.driver import Solver

TOLERANCE = 1e-8
DEFAULT = "default"
LEFT_OUT = {"crocoddyl": "takes models in its own terms, and here every problem is a declaration of ocpkit"}
REPEATED, LEAST = 0.2, 3  # a solve of fewer seconds is repeated, up to so many in all, and the fastest counts


class Claim(Enum):
    """What a system says of its answer."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Answer:
    """What a system returned.

    Attributes
    ----------
    seconds
        Of the processor, from the call to the answer.
    """

    states: Sequence[Array]
    controls: Sequence[Array]
    claim: Claim
    status: str
    iterations: int
    seconds: float


Solve = Callable[[Problem], Answer]


class System(Protocol):
    """Prepares for a family of problems, and returns what solves each of them from the guess it declares."""

    def __call__(self, problem: Problem, limit: float) -> Solve: ...


@dataclass(frozen=True)
class Ours:
    """A solver of ocpkit."""

    make: Callable[[Problem, float], Solver]

    def __call__(self, problem: Problem, limit: float) -> Solve:
        solver = self.make(problem, limit)
        if (build := solver.compile(problem)) is not None:
            build.wait()

        def solve(problem: Problem) -> Answer:
            solution, seconds = _timed(lambda: solver.solve(problem))
            claim = _CLAIMS.get(solution.status, Claim.NOTHING)
            return Answer(
                solution.states, solution.controls, claim, solution.status.name, _iterations(solution), seconds
            )

        return solve


def _iterations(solution: Solution) -> int:
    return solution.details.inner_iterations or solution.iterations


_CLAIMS = {Status.CONVERGED: Claim.OPTIMAL, Status.INFEASIBLE: Claim.INFEASIBLE}


@dataclass(frozen=True)
class Peer:
    """A plugin of CasADi on the program of `benchmarks.robustness.program`."""

    plugin: str
    options: dict[str, Any]
    limits: Callable[[float], dict[str, Any]]

    def __call__(self, problem: Problem, limit: float) -> Solve:
        own = {"print_level": 0, "tol": TOLERANCE} | self.options | self.limits(limit)
        options: dict[str, Any] = {"detect_simple_bounds": True, self.plugin: own}
        if self.plugin == "fatrop":
            given = arguments(problem, problem.simulate(problem.controls), problem.controls)
            equal = [bool(a == b) for a, b in zip(given["lbg"], given["ubg"])]
            options |= {"structure_detection": "auto", "equality": equal}
        solver = Program.of(problem).solver(self.plugin, options, compiled=shutil.which("gcc") is not None)

        def solve(problem: Problem) -> Answer:
            states = problem.simulate(problem.controls) if problem.states is None else problem.states
            given = arguments(problem, states, problem.controls)
            found, seconds = _timed(lambda: solver(**given))
            stats = solver.stats()
            status = str(stats["return_status"])
            claim = Claim.OPTIMAL if stats["success"] and status != _ACCEPTABLE else Claim.NOTHING
            if status in _SAY_INFEASIBLE:
                claim = Claim.INFEASIBLE
            x, u = split(problem, found["x"].full()[:, 0])
            iterations = int(stats["iter_count"])
            return Answer(x, u, claim, status, iterations if 0 <= iterations < _MOST else 0, seconds)

        return solve


_ACCEPTABLE = "Solved_To_Acceptable_Level"
_SAY_INFEASIBLE = ("Infeasible_Problem_Detected", "Invalid_Problem_Definition")  # the second: bounds of x_0 contradict
_MOST = 1_000_000  # IPOPT's count is any number where it refuses a program

PEERS: dict[str, System] = {
    "ipopt": Peer("ipopt", {"sb": "yes", "max_iter": 3000}, lambda limit: {"max_cpu_time": limit}),
    "ipopt-adaptive": Peer(
        "ipopt", {"sb": "yes", "max_iter": 3000, "mu_strategy": "adaptive"}, lambda limit: {"max_cpu_time": limit}
    ),
    "fatrop": Peer("fatrop", {}, lambda limit: {}),
}


def get(name: str) -> System:
    """Return a system.

    Raises
    ------
    ProblemError
        If there is none of this name.
    """
    if name in PEERS:
        return PEERS[name]
    if name == DEFAULT:
        return Ours(recommended)
    registry.get(name)
    return Ours(lambda problem, limit: registry.make(name, time_limit=limit))


def left_out(names: Sequence[str]) -> list[str]:
    """Say in a line each which known peers take no part."""
    return [f"{name} left out: {why}" for name, why in LEFT_OUT.items() if name not in names and find_spec(name)]


def _timed(solve: Callable[[], Any]) -> tuple[Any, float]:
    """Return an answer, and the processor's seconds: the least of a few where it is quick."""
    least, answer = float("inf"), None
    for _ in range(LEAST):
        began = time.process_time()
        answer = solve()
        least = min(least, time.process_time() - began)
        if least > REPEATED:
            break
    return answer, least
