"""Model predictive control: solve the problem again at every tick from the state just measured (Rawlings et al. 2017).

The solution of the last tick, shifted by one stage, is the guess for the next. With one iteration per tick this is the
real-time iteration of Diehl, Bock & Schlöder (2005): the optimizer converges while the plant moves. Where a solve
fails, the last usable plan goes on, its feedback policy included, and `Health` says so.
"""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass, field, replace
from enum import Enum
from numbers import Real
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ocpkit.boundary.arrays import Array, real_array
from ocpkit.control.jumps import Jumps, played
from ocpkit.control.shifted import shifted
from ocpkit.engines.c.build import Build
from ocpkit.engines.c.compiler import CompilerError
from ocpkit.errors import ProblemError, UnsupportedProblem, first_line
from ocpkit.problem.angles import nearest
from ocpkit.problem.problem import Problem
from ocpkit.solution.history import Iteration
from ocpkit.solution.solution import Solution, Status
from ocpkit.solution.violation import PlanCheck, Violation, unasked_at_start
from ocpkit.solvers.ddp.ddp import DDP
from ocpkit.solvers.driver import Solver, positive
from ocpkit.solvers.renamed import OldName, accept_old_names


class Health(Enum):
    """Health of a command, for a supervisor; the value is the sentence that a user reads."""

    OPTIMAL = "optimal: the plan has converged"
    IMPROVING = (
        "improving: stopped by the iteration or time budget; the plan is usable and no worse than the shifted one"
    )
    HELD = (
        "held: this tick gave no plan that is usable; the last one goes on, corrected by its feedback, or the one that "
        "breaks the constraints least"
    )
    LOST = "lost: there is no plan, or it has been used up; bring the plant to a safe state"


class Cause(Enum):
    """Why a command is HELD or LOST; the value is the sentence that a user reads."""

    MEASUREMENT = "the measured state is missing or not finite, so that no feedback acts"
    PARAMETERS = "the parameters of the tick are not finite"
    PREDICTION = "the state predicted over the delay is not finite, so that no feedback acts"
    ERROR = "the model or the solver raised an error"
    SOLVER = "the solver failed"
    VIOLATION = "the plan breaks a constraint by more than the tolerance"
    WORSE = "the plan is worse than the last one, shifted"


ENDED_WELL = (Status.CONVERGED, Status.ITERATION_LIMIT, Status.TIME_LIMIT, Status.STALLED, Status.SADDLE)
LEAST_BAD = (Status.INFEASIBLE, Status.GAVE_UP)  # under constraints still the plan that breaks them least, perhaps
NEGLIGIBLE = 1e-6  # of J, relative: no plan is worse by so little


@dataclass(frozen=True, eq=False)
class Command:
    """Command of one tick.

    Attributes
    ----------
    control
        u (m,) to apply now, NaN if `health` is LOST.
    health
        Whether to trust it.
    plan
        The plan it comes from, its stage `offset` being now; None before the first success.
    offset
        Ticks since that plan was made.
    seconds
        Time that the tick took.
    status
        Status of this tick's solve.
    tick
        Calls of the controller before this one.
    state
        The state that was measured (n,), NaN where it was not.
    cost, iterations
        J of this tick's solve (over the horizon), and how many iterations it took; NaN and 0 where there was none.
    cause
        Why it is HELD or LOST, else None.
    reason
        The same in words, with what the solver says of it; empty where there is nothing to say.
    start_violation
        Worst violation at the state that the plan starts from, by rows that no control can change there: the solve does
        not ask for them by default. None where there is none.
    plan_violation
        Worst violation along the plan of this tick's solve, where it was found beyond the tolerance.
    """

    control: Array
    health: Health
    plan: Solution | None
    offset: int
    seconds: float
    status: Status
    tick: int
    state: Array
    cost: float
    iterations: int
    cause: Cause | None = None
    reason: str = ""
    start_violation: Violation | None = None
    plan_violation: Violation | None = None


@accept_old_names(OldName("warm_up", "first_solver"))
@dataclass
class MPC:
    """A receding-horizon controller.

    Parameters
    ----------
    problem
        The horizon to be solved at each tick, written so that its stages are alike (a stage is re-used one tick later).
    solver
        Any solver; for a real-time iteration one with ``max_iterations=1`` or a ``time_limit``. What it runs on is
        compiled in a process beside, from the making of the controller on; `warm_up` waits for that.
    first_solver
        Solver of the first tick, while there is no plan; by default `solver` with its iteration limit lifted to 500.
    delay
        Ticks between measuring a state and the moment at which the control takes effect; the state is first predicted
        over these with the controls that are already on their way.
    feasibility_tolerance
        Largest violation of a row, as a share of its size (see `ocpkit.solution.violation`), with which a plan that
        has not converged is usable; beyond it, the plan that violates least goes on and is HELD.
    ask_at_start
        Ask state rows of stage 0 of the measured state as well, which no control can change: where it breaks one, the
        solve is infeasible. By default the violation is reported beside the health.
    """

    problem: Problem
    solver: Solver = field(default_factory=DDP)
    first_solver: Solver | None = None
    delay: int = 0
    feasibility_tolerance: float = 1e-2
    ask_at_start: bool = False
    tick: int = field(default=0, init=False)
    plan: Solution | None = field(default=None, init=False)
    offset: int = field(default=0, init=False)
    pending: list[Array] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.problem, Problem) or not isinstance(self.solver, Solver):
            raise ProblemError(
                f"MPC takes a Problem and a solver such as DDP(), got {self.problem!r} and {self.solver!r}"
            )
        if not (self.first_solver is None or isinstance(self.first_solver, Solver)):
            raise ProblemError(f"first_solver must be a solver such as DDP(), got {self.first_solver!r}")
        positive(self, "feasibility_tolerance")
        if self.delay not in range(self.problem.horizon):
            last = self.problem.horizon - 1
            raise ProblemError(f"delay must be a whole number from 0 to {last}, below the horizon, got {self.delay!r}")
        if not self.problem.uniform:
            raise ProblemError(
                "a receding horizon re-uses each stage one tick later, so states and controls need one size at all "
                "stages; choose free parameters once, by a plan, and give them to step as parameters"
            )
        if self.first_solver is None:
            most = max(500, self.solver.max_iterations)
            self.first_solver = replace(self.solver, max_iterations=most, time_limit=np.inf)
        self._asked = self.problem if self.ask_at_start else unasked_at_start(self.problem)
        self._check = PlanCheck(self.problem, self._asked)
        self._ahead: tuple[int, Solution] | None = None  # tick and result of the last solve, if not the plan
        self.pending, self._jumps = [np.asarray(self.problem.controls[0])] * self.delay, Jumps()
        self._builds = self._begin_builds()

    def _begin_builds(self) -> list[Build]:
        """Begin to compile what the solvers run on; C that is asked for by name is waited for here, not by a tick."""
        assert self.first_solver is not None
        builds = list[Build]()
        for solver in (self.first_solver, self.solver):
            try:
                solver.check(self._asked)
                build = solver.compile(self._asked)
            except ProblemError:  # which the first tick says
                continue
            if build is not None and all(build is not other for other in builds):
                builds.append(build)
        return builds

    def warm_up(self, seconds: float = np.inf) -> bool:
        """Wait until what the ticks run on is compiled, and rehearse two of them, so that none has to begin anything.

        Parameters
        ----------
        seconds
            Longest wait for the compiler [s], ∞ by default; after it the ticks run without, and go over to C when it
            is there.

        Returns
        -------
        bool
            Whether the ticks run in compiled C.

        Raises
        ------
        ProblemError
            If `seconds` is no number from 0 on, or the solver cannot treat the problem.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, Real) or not seconds >= 0:
            raise ProblemError(f"seconds must be a number from 0 on, got {seconds!r}")
        deadline, compiled = time.monotonic() + seconds, bool(self._builds)
        for build in self._builds:
            try:
                compiled &= build.wait(deadline - time.monotonic()) is not None
            except CompilerError:  # the ticks run without, and say why in their plan's details
                compiled = False
        rehearsal = copy(self)
        rehearsal.plan, rehearsal.pending, rehearsal._jumps = None, [*self.pending], Jumps()
        for _ in range(2):
            rehearsal.step(self.problem.x0)
        return compiled

    def step(self, x: ArrayLike | None, parameters: ArrayLike | None = None) -> Command:
        """Return the control for the state just measured.

        Whatever happens at a tick, it is counted and there is a command: where there is no measurement, or model or
        solver raise an error, the last plan goes on. Only before there is any plan are their errors passed on.

        Parameters
        ----------
        x
            Measured state (n,); None, or not finite, where there is none.
        parameters
            p for this tick (n_p,), or rows for this tick and those after it (T + 1, n_p), of which the first ones
            predict the state over a delay. By default those of the problem.

        Raises
        ------
        ProblemError
            If the state or the parameters have the wrong shape, or the solver cannot treat the problem.
        KeyboardInterrupt
            After Ctrl-C, also where the solver would return its iterate.
        """
        start = time.perf_counter()
        measured = measured_state(x, self.problem.state_sizes[0])
        p_size, points = self.problem.parameters.shape[-1], self.problem.horizon + 1
        given = None if parameters is None else _shaped(parameters, (p_size,), "parameters", (points, p_size))
        self.tick += 1
        if self.plan is not None:
            self.offset += 1
        attempt = self._attempt(measured, given)
        health, control = attempt.health, self._control(attempt.state)
        if control is None:
            health, control = Health.LOST, np.full(self.problem.control_sizes[0], np.nan)
        elif self.delay:
            self.pending = [*self.pending[1:], control]
        solution, cause = attempt.solution, attempt.cause
        return Command(
            control=control,
            health=health,
            plan=self.plan,
            offset=self.offset,
            seconds=time.perf_counter() - start,
            status=Status.INVALID_INPUT if solution is None else solution.status,
            tick=self.tick - 1,
            state=measured,
            cost=np.nan if solution is None else solution.cost,
            iterations=0 if solution is None else solution.iterations,
            cause=cause,
            reason=attempt.words,
            start_violation=attempt.start_violation,
            plan_violation=attempt.plan_violation,
        )

    def _attempt(self, measured: Array, parameters: Array | None) -> _Attempt:
        """Plan anew from the state just measured, and make the plan this controller's if it is the best there is."""
        if not np.isfinite(measured).all():
            return _Attempt(Cause.MEASUREMENT)
        if parameters is not None and not np.isfinite(parameters).all():
            return _Attempt(Cause.PARAMETERS, state=None if self.delay else measured)
        problem = self._asked if parameters is None else self._asked.replace(parameters=parameters)
        state: Array | None = None if self.delay else measured
        try:
            if self.delay:
                state = self._predict(problem, measured)
                if not np.isfinite(state).all():
                    return _Attempt(Cause.PREDICTION)
                problem = problem.replace(parameters=_later(problem, self.delay))
            state = self._counted(problem, measured if state is None else state)
            problem = problem.replace(x0=state)
            broken = self._check.at_start(problem)
            solution = self._solve(problem)
            verdict = self._judge(problem, solution)
        except Exception as error:  # a controller on a plant outlives whatever a model does
            if self.plan is None or isinstance(error, UnsupportedProblem):
                raise
            return _Attempt(Cause.ERROR, state, said=f"{type(error).__name__}: {first_line(error)}")
        if verdict.taken:
            if verdict.cause is not None and self.plan is not None:  # where rows cannot hold, ρ grows in vain
                solution = replace(solution, warm_start=self.plan.warm_start)
            self.plan, self.offset = solution, 0
        self._ahead = None if verdict.taken or verdict.cause is Cause.SOLVER else (self.tick, solution)
        reason, state = solution.details.reason, state if verdict.taken or verdict.feedback else None
        said = "" if reason is None else str(reason)
        return _Attempt(verdict.cause, state, solution, said, broken, verdict.violation)

    def _judge(self, problem: Problem, solution: Solution) -> _Verdict:
        """Whether to hold the plan or take the solution, no worse than the shifted plan (violation first)."""
        possible = ENDED_WELL + LEAST_BAD if self._check.any else ENDED_WELL
        if not solution.history or solution.status not in possible or not np.isfinite(solution.cost):
            return _Verdict(Cause.SOLVER, taken=False)
        first, last = solution.history[0], solution.history[-1]
        more = last.cost - first.cost - NEGLIGIBLE * abs(first.cost)
        dearer = more > 0 and more > self._bought(solution, first, last)
        if not dearer and (solution.success or (not self._check.any and last.infeasibility <= first.infeasibility)):
            return _Verdict(None)
        defects = solution.feedback_gains is None or not self._check.any  # else rows are all that can be broken
        along, y = self._check.along, solution.multipliers
        found = along(problem, solution.states, solution.controls, y, defects=defects)
        fine = solution.success or found.share <= self.feasibility_tolerance
        if self.plan is None or (fine and not dearer):
            return _Verdict(None) if fine else _Verdict(Cause.VIOLATION, found.worst)
        ways = [(feedback, played(problem, self.plan, self.offset, feedback)) for feedback in (True, False)]
        told = [(along(problem, *way, y), feedback, problem.cost(*way)) for feedback, way in ways]
        held, feedback, cost = min(told, key=lambda each: each[0].share)  # feedback may drive a plan against its rows
        if not fine:
            return _Verdict(Cause.VIOLATION, found.worst, found.share < held.share, feedback)
        worse = solution.cost + found.price > cost + held.price + NEGLIGIBLE * abs(cost)
        return _Verdict(Cause.WORSE, taken=False, feedback=feedback) if worse else _Verdict(None)

    def _bought(self, solution: Solution, first: Iteration, last: Iteration) -> float:
        """Largest rise of J that rows which hold better are worth, at their penalty; gaps that close are worth any."""
        if self._check.any and solution.multipliers is not None:
            return self.feasibility_tolerance * self._check.worth(solution.multipliers)
        return np.inf if last.infeasibility < first.infeasibility else 0.0

    def _predict(self, problem: Problem, x: Array) -> Array:
        """Move the state over the delay with the controls on their way."""
        for t, u in enumerate(self.pending):
            x = problem.stages[t].dynamics.step(x, u, problem.parameter(t))
        return x

    def _solve(self, problem: Problem) -> Solution:
        if self.plan is None:
            assert self.first_solver is not None
            return _uninterrupted(self.first_solver.solve(problem))
        guess = shifted(problem, self.plan, self.offset)
        if self._ahead is not None:  # its plan was no better, but its multipliers know more of this state's constraints
            made, ahead = self._ahead
            guess = replace(guess, multipliers=shifted(problem, ahead, self.tick - made).multipliers)
        if not self.solver.takes_states:
            return _uninterrupted(self.solver.solve(problem, guess, controls=guess.controls))
        warm = _uninterrupted(self.solver.solve(problem, guess, states=guess.states))
        if problem.angles or not self._jumps.suspected(problem, self.plan, guess, self.offset):
            return warm
        fresh = _uninterrupted(self.solver.solve(problem, guess, controls=guess.controls))
        return min(warm, fresh, key=lambda found: (found.status not in ENDED_WELL, found.cost))

    def _counted(self, problem: Problem, x: Array) -> Array:
        """Count the turns of angles as the plan does, whatever a sensor that jumps from π to −π says."""
        return (
            x if self.plan is None else nearest(x, self.plan.states[min(self.offset, problem.horizon)], problem.angles)
        )

    def _control(self, state: Array | None) -> Array | None:
        """Control of the plan now, with its feedback on a state that is known; None when it has no stage left."""
        if self.plan is None or self.offset >= self.problem.horizon:
            return None
        stage = self.problem.stages[self.offset]
        control = self.plan.controls[self.offset].copy() if state is None else self.plan.policy(self.offset, state)
        if not np.isfinite(control).all():
            return None
        return stage.clip(control)


class _Verdict(NamedTuple):
    """Why a solution is not usable, if so, its violation, whether it is the plan now; else whether feedback serves."""

    cause: Cause | None
    violation: Violation | None = None
    taken: bool = True
    feedback: bool = True


class _Attempt(NamedTuple):
    """Outcome of planning anew at a tick; the state is that from which the plan starts, None where it is unknown."""

    cause: Cause | None
    state: Array | None = None
    solution: Solution | None = None
    said: str = ""
    start_violation: Violation | None = None
    plan_violation: Violation | None = None

    @property
    def health(self) -> Health:
        if self.cause is not None or self.solution is None:
            return Health.HELD
        return Health.OPTIMAL if self.solution.success else Health.IMPROVING

    @property
    def words(self) -> str:
        """The cause, and what is known of it."""
        if self.cause is None:
            return self.said
        more = [f"the plan breaks {self.plan_violation}"] if self.plan_violation is not None else [self.cause.value]
        return "; ".join([*more, *([self.said] if self.said else [])])


def _uninterrupted(solution: Solution) -> Solution:
    """Pass Ctrl-C on, after which a solver returns its iterate, to the loop around the controller."""
    if solution.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return solution


def measured_state(x: ArrayLike | None, size: int) -> Array:
    """Check and copy a measurement, which may not be finite; None is NaN.

    Raises
    ------
    ProblemError
        If it has another shape than (size,).
    """
    return np.full(size, np.nan) if x is None else _shaped(x, (size,), "the measured state")


def _shaped(value: ArrayLike, shape: tuple[int, ...], what: str, other: tuple[int, ...] | None = None) -> Array:
    """Check and copy numbers of one shape, or of another, that need not be finite."""
    array = real_array(value, what)
    if array.shape not in (shape, other):
        raise ProblemError(f"{what} has shape {array.shape}, expected {shape}" + (f" or {other}" if other else ""))
    array.setflags(write=False)
    return array


def _later(problem: Problem, ticks: int) -> Array:
    """Return p as it is `ticks` later; beyond the end of its rows the last one goes on."""
    p = problem.parameters
    return p if p.ndim == 1 else p[np.minimum(np.arange(len(p)) + ticks, len(p) - 1)]
