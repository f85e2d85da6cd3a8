"""One solver for any problem: it takes the method that suits, and a sturdier one where that stalls."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from ocpkit.control.ilqg import ILQG
from ocpkit.engines.c.build import Build
from ocpkit.engines.graphs import trace_problem
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem.constraint_rows import has_rows, problem_rows
from ocpkit.problem.problem import Problem
from ocpkit.solution.solution import Solution, Status
from ocpkit.solvers.constrained.augmented_lagrangian import AugmentedLagrangian
from ocpkit.solvers.ddp.ddp import DDP
from ocpkit.solvers.driver import AnyRun, Callback, Clock, Solver, check_call, positive
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.primal_dual.primal_dual import PrimalDual

SEARCH = 200  # iterations of the interior point; where it has not arrived by then, others do more often
LEAST = 1e-9  # seconds of a time limit that has passed
ENDED = (Status.CONVERGED, Status.STOPPED, Status.INTERRUPTED, Status.TIME_LIMIT, Status.INVALID_INPUT)
_log = logging.getLogger("ocpkit")


class Method(NamedTuple):
    """A solver, and why it is taken."""

    solver: Solver
    why: str


@dataclass(frozen=True, kw_only=True)
class Automatic(Solver):
    """DDP where nothing but the controls has bounds, else the primal-dual interior point; where one stalls the next.

    Parameters
    ----------
    tolerance
        Main tolerance of every method, in natural units; None: its own.
    engine
        Of the sweeps of DDP and of the augmented Lagrangian around it. Where one is named, only these are taken: the
        interior point has sweeps of its own.

    Notes
    -----
    ``solution.solver`` names the method whose solution it is, and ``solution.details.notes["method"]`` says why.
    """

    tolerance: float | None = None
    engine: str = "auto"

    handles_constraints = True
    handles_noise = True
    takes_states = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tolerance is not None:
            positive(self, "tolerance")
        DDP(engine=self.engine)  # which says what is wrong with it

    def begin(self, problem: Problem, guess: Guess) -> AnyRun:
        return self._limited(next(self.methods(problem, guess.states is not None)).solver).begin(problem, guess)

    def compile(self, problem: Problem) -> Build | None:
        return next(self.methods(problem, problem.states is not None)).solver.compile(problem)

    def methods(self, problem: Problem, gaps: bool) -> Iterator[Method]:
        """Yield what is tried in turn; `gaps`: states are guessed as well."""
        if any(stage.noise is not None for _, stage in problem.distinct_stages):
            yield Method(ILQG(), "stages have noise")
            return
        rows = has_rows(problem)
        if not rows and not gaps:
            yield Method(DDP(engine=self.engine), "only controls have bounds")
            if self.engine != "auto":
                return
        if self.engine == "auto" and traceable(problem):
            yield Method(
                PrimalDual(max_iterations=SEARCH),
                "there are rows of constraints" if rows else "states are guessed as well",
            )
        inner = DDP(engine=self.engine)
        sturdy = AugmentedLagrangian(inner=replace(inner, max_iterations=300)) if rows else inner
        yield Method(sturdy, "it takes any engine" if self.engine != "auto" else "it works where others stall")

    def _limited(self, solver: Solver, done: int = 0, seconds: float = 0.0) -> Solver:
        """Return a solver with what is left of the limits; a method of outer iterations keeps its own if it is less."""
        left = min(int(self.max_iterations) - done, int(solver.max_iterations))
        limits: dict[str, Any] = {"max_iterations": max(left, 0), "time_limit": max(self.time_limit - seconds, LEAST)}
        if self.tolerance is not None:
            limits["tolerance" if isinstance(solver, PrimalDual) else "gradient_tolerance"] = self.tolerance
        return (
            replace(solver, **limits) if isinstance(solver, ILQG) else replace(solver, **limits, scaling=self.scaling)
        )

    def solve(
        self,
        problem: Problem,
        guess: Solution | None = None,
        *,
        controls: ArrayLike | Sequence[ArrayLike] | None = None,
        states: ArrayLike | Sequence[ArrayLike] | None = None,
        callback: Callback | None = None,
    ) -> Solution:
        """Solve a problem; see `Solver.solve`."""
        check_call(problem, guess, callback)
        clock, best, done = Clock(), None, 0
        gaps = states is not None or (guess is None and controls is None and problem.states is not None)
        for method in self.methods(problem, gaps):
            solver = self._limited(method.solver, done, clock())
            name = type(solver).__name__
            _log.info("%s: %s", name, method.why)
            found = solver.solve(problem, guess, controls=controls, states=states, callback=callback)
            note = f"{name}: {method.why}"
            if best is not None:
                note += f", after {best.solver} ended as {best.status.name.lower().replace('_', ' ')}"
            notes = {**found.details.notes, "method": note}
            found = replace(found, details=replace(found.details, notes=notes), seconds=clock())
            best, done = _better(best, found), done + found.iterations
            if found.status in ENDED or done >= self.max_iterations or clock() >= self.time_limit:
                break
        assert best is not None
        return best


def traceable(problem: Problem) -> bool:
    """Whether all functions can be traced."""
    try:
        trace_problem(problem)
        problem_rows(problem, bounds=False)
    except UnsupportedProblem:
        return False
    return True


def _better(before: Solution | None, after: Solution) -> Solution:
    """The one that converged, else the one that a limit or an obstacle stopped nearer to the constraints."""
    if before is None or after.success:
        return after
    if before.success or before.status is Status.INFEASIBLE:
        return before
    worse = after.last_iteration.infeasibility > before.last_iteration.infeasibility
    return before if worse or after.cost != after.cost else after


def solve(
    problem: Problem,
    guess: Solution | None = None,
    *,
    controls: ArrayLike | Sequence[ArrayLike] | None = None,
    states: ArrayLike | Sequence[ArrayLike] | None = None,
    callback: Callback | None = None,
    max_iterations: int = 500,
    time_limit: float = float("inf"),
) -> Solution:
    """Solution of a problem by the method that suits it; `Automatic` with these options.

    Parameters
    ----------
    problem
        What to solve.
    guess
        Warm start, an earlier solution.
    controls, states
        Guesses that take precedence; T controls (m,), T + 1 states (n,), which may leave gaps.
    callback
        Called with every `Iteration`; return ``False`` to stop.
    max_iterations, time_limit
        Limits of all methods together [1, s].

    Returns
    -------
    Solution
        Look at its ``status``; ``details.notes["method"]`` says which method it is by, and why.

    Raises
    ------
    ProblemError
        If a guess does not fit the problem.

    Examples
    --------
    >>> import ocpkit
    >>> from ocpkit.models import get
    >>> ocpkit.solve(get("double-integrator").build()).success
    True
    """
    solver = Automatic(max_iterations=max_iterations, time_limit=time_limit)
    return solver.solve(problem, guess, controls=controls, states=states, callback=callback)
