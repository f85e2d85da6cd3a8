"""The loop that every solver shares: limits, callbacks, interrupts, and the Solution at the end."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ocpkit.boundary.arrays import Array, whole_number
from ocpkit.boundary.deadline import OutOfTime, ending_at
from ocpkit.engines.interface import AnyPolicy, Gains
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.errors import ProblemError, UnsupportedProblem, refuse_hidden_fields
from ocpkit.problem.problem import Problem
from ocpkit.solution.details import Details
from ocpkit.solution.history import History, Iteration
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.solution import Solution, Status, WarmStart, as_series
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.verdicts.second_order import examine

if TYPE_CHECKING:
    from ocpkit.engines.c.build import Build

GRACE = 0.01  # seconds, and share of a longer time limit, for a step to end by itself
PATIENCE = 0.04  # the same for the guess's rollout, where there is nothing else to return
MOST_DEPARTURES = 20  # stationary points that a solve leaves behind, each with a lower J than the one before

Callback = Callable[[Iteration], object]
"""Called after every iteration; returning ``False`` stops the solver."""


class AnyRun(ABC):
    """One solve in progress: holds the best iterate, advances by `step`, and says when it is over.

    A `Run` keeps what it has found; others read it from where it is, such as the memory of C.
    """

    @property
    @abstractmethod
    def trajectory(self) -> Trajectory:
        """Best iterate so far."""

    @property
    @abstractmethod
    def status(self) -> Status | None:
        """None while there is more to do."""

    @status.setter
    @abstractmethod
    def status(self, status: Status | None) -> None: ...

    @property
    @abstractmethod
    def details(self) -> Details:
        """Details beside the numbers."""

    @property
    def policy(self) -> Gains | None:
        """Policy and value models at the iterate, if the method has them."""
        return None

    @property
    def multipliers(self) -> Sequence[Array] | None:
        """Of the constraints at stages 0 … T-1 and at the end, if the method has them."""
        return None

    @property
    def scaling(self) -> Scaling | None:
        """Natural units that its tolerances are meant in, if it has found them."""
        return None

    @property
    def warm_start(self) -> WarmStart | None:
        """Warm start of the next solve, if the method has more to carry over than multipliers."""
        return None

    @abstractmethod
    def start(self) -> Iteration:
        """Evaluate the guess."""

    @abstractmethod
    def step(self) -> Iteration:
        """Do one iteration."""

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        """Append up to `most` ≥ 1 iterations, the first of a solve being `start`; this default does one."""
        line = self.step() if len(history) else self.start()
        history.append(replace(line, seconds=clock()))

    def certified(self) -> bool:
        """Whether the undamped exact recursion is positive definite at this iterate, and promises nothing more."""
        return False

    def objective(self, problem: Problem) -> Problem:
        """Return the problem without constraints whose J the iterate makes stationary."""
        return problem

    def leave(self, controls: Sequence[Array]) -> None:
        """Go on from these controls, where J is lower than at the stationary point that was found."""
        raise NotImplementedError

    def costates(self) -> Sequence[Array] | None:
        """Return V_x along the trajectory, T + 1 vectors, if the method knows it."""
        return None if self.policy is None else self.policy.value_gradients


NOWHERE = Trajectory((), (), float("nan"))
"""Before there is an iterate."""


class Run(AnyRun):
    """A run that keeps its iterate, policy, status and details in attributes of its own."""

    trajectory: Trajectory = NOWHERE
    policy: Gains | None = None
    status: Status | None = None
    details: Details = Details()


class UnbegunRun(Run):
    """Stand-in for the run of a solve whose time was over before it had an iterate."""

    def start(self) -> Iteration:
        raise OutOfTime

    def step(self) -> Iteration:
        raise OutOfTime


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """Options that all solvers share, and `solve`.

    Parameters
    ----------
    max_iterations
        Iteration limit.
    time_limit
        Wall-clock budget [s] from the call on, checked between the steps of what a solve begins with, between the
        sweeps of an iteration, and between the calls of your functions.
    scaling
        Measure tolerances, penalties and dampings in the problem's natural units (see `ocpkit.solution.scaling`);
        False: in the user's units of J, x, u and rows.
    """

    max_iterations: int = 500
    time_limit: float = float("inf")
    scaling: bool = True

    handles_constraints = False  # beyond control bounds, which every solver respects
    handles_noise = False
    takes_states = False  # whether a state guess with gaps is a start for it

    def __post_init__(self) -> None:
        refuse_hidden_fields(self)
        positive(self, "time_limit")
        whole_number(self.max_iterations, "max_iterations", 0)

    @abstractmethod
    def begin(self, problem: Problem, guess: Guess) -> AnyRun:
        """Set up a run."""

    def compile(self, problem: Problem) -> Build | None:
        """Begin to compile what solves of this problem's structure run on, in a process beside.

        Returns
        -------
        Build or None
            ``wait()`` waits for it; None where this solver compiles nothing.
        """
        return None

    def solve(
        self,
        problem: Problem,
        guess: Solution | None = None,
        *,
        controls: ArrayLike | Sequence[ArrayLike] | None = None,
        states: ArrayLike | Sequence[ArrayLike] | None = None,
        callback: Callback | None = None,
    ) -> Solution:
        """Solve a problem.

        Parameters
        ----------
        problem
            What to solve.
        guess
            Warm start: the controls of an earlier solution, its multipliers, and where its solver stood (`WarmStart`).
        controls, states
            Guesses that take precedence; T controls, T + 1 states (which may leave gaps).
        callback
            Called with every `Iteration`; return ``False`` to stop.

        Returns
        -------
        Solution
            Also when interrupted or out of time; look at its ``status``.

        Raises
        ------
        KeyboardInterrupt
            If interrupted before there is an iterate, in the guess's rollout.
        ProblemError
            If a guess does not fit the problem, or the solver cannot treat it.
        """
        clock = Clock()
        check_call(problem, guess, callback)
        self.check_noise(problem)
        self.check(problem)
        chosen = Guess.choose(problem, guess, controls, states)
        return drive(self, problem, chosen, callback, clock)

    def find_stationary(
        self, problem: Problem, guess: Solution | None = None, *, controls: Any = None, states: Any = None
    ) -> Solution:
        """Solve a problem inside another solver, which looks itself whether the last point is a minimum.

        Raises
        ------
        OutOfTime
            If there was no time for a first iterate.
        """
        clock, chosen = Clock(), Guess.choose(problem, guess, controls, states)
        return drive(self, problem, chosen, None, clock, confirm=False)

    def check_noise(self, problem: Problem) -> None:
        """Refuse problems whose expected cost this solver would leave out."""
        for t, stage in problem.distinct_stages:
            if stage.noise is not None and not self.handles_noise:
                raise UnsupportedProblem(
                    f"{type(self).__name__} cannot treat the noise of stage {t} ({stage.name!r}); use the solver "
                    "'ilqg', or ocpkit.without_noise(problem)"
                )

    def check(self, problem: Problem) -> None:
        """Refuse problems that this solver would silently solve wrongly."""
        if self.handles_constraints:
            return
        quietly = ", on ocpkit.without_noise(problem)" if any(s.noise for _, s in problem.distinct_stages) else ""
        advice = f"{type(self).__name__} cannot treat %s; use the solver 'al' or 'ipopt'{quietly}"
        for t, stage in problem.distinct_stages:
            if stage.constraints:
                raise UnsupportedProblem(advice % f"the constraints of stage {t} ({stage.name!r})")
        if problem.terminal_constraints:
            raise UnsupportedProblem(advice % "terminal constraints")


@dataclass
class Clock:
    """Seconds since the start of a solve."""

    start: float = field(default_factory=perf_counter)

    def __call__(self) -> float:
        return perf_counter() - self.start


def drive(
    solver: Solver, problem: Problem, guess: Guess, callback: Callback | None, clock: Clock, *, confirm: bool = True
) -> Solution:
    """Iterate until the run is over, a limit is reached, or somebody stops it; `clock` began with the solve."""
    history, status, departures = History(), Status.INTERRUPTED, 0
    run: AnyRun = UnbegunRun()
    setup, unit = float("nan"), max(1.0, solver.time_limit)
    deadline = clock.start + solver.time_limit + GRACE * unit
    try:
        with ending_at(deadline):
            run = solver.begin(problem, guess)
        setup = clock()
        while True:
            most = 1 if callback is not None else int(solver.max_iterations) + 1 - len(history)
            with ending_at(deadline), np.errstate(all="ignore"):  # a blow-up is a status, not a warning
                run.advance(history, most, clock, solver.time_limit)
                while confirm and run.status is Status.CONVERGED and _left_behind(run, problem, departures):
                    departures += 1
            stopped = callback is not None and callback(history[-1]) is False
            if run.status is not None:
                status = run.status
            elif stopped:
                status = Status.STOPPED
            elif len(history) > solver.max_iterations:
                status = Status.ITERATION_LIMIT
            elif clock() >= solver.time_limit:
                status = Status.TIME_LIMIT
            else:
                continue
            break
    except OutOfTime:
        status = Status.TIME_LIMIT
        if run.trajectory is NOWHERE:
            if not confirm:  # inside another solver, which has something to return
                raise
            run, setup = UnbegunRun(), clock()
            run.trajectory = guess.unmoved(problem, PATIENCE * unit)
    except KeyboardInterrupt:
        if run.trajectory is NOWHERE:
            raise
    details = _record(run.details, problem.horizon)
    details = replace(details, seconds=replace(details.seconds, trace=setup))
    return as_solution(
        solver,
        problem,
        run.trajectory,
        status=status,
        history=history,
        seconds=clock(),
        details=replace(details, stationary_points_left=departures) if departures else details,
        policy=run.policy,
        multipliers=run.multipliers,
        scaling=run.scaling,
        warm_start=run.warm_start,
    )


def _record(details: Details | Mapping[str, str], horizon: int) -> Details:
    """Details as a record, also those of a solver that was written for an older version."""
    if isinstance(details, Details):
        return details
    warnings.warn("Run.details as a dict is deprecated: give it a Details", DeprecationWarning, stacklevel=2)
    return Details.from_words(details, horizon)


def _left_behind(run: AnyRun, problem: Problem, departures: int) -> bool:
    """Let a run that has found a stationary point go on from a lower one, if there is one, or call it a saddle.

    A first-order point counts as converged only if it is a minimum (see `second_order`). A run without `leave` has been
    confirmed by an inner one.
    """
    if type(run).leave is AnyRun.leave or run.certified():
        return False
    engine = NumpyEngine(run.objective(problem))
    finding = examine(engine, engine.rollout([np.asarray(u) for u in run.trajectory.controls]))
    if finding.lower is not None and departures < MOST_DEPARTURES:
        run.leave(finding.lower.controls)
        return True
    if not finding.minimum:
        run.status = Status.SADDLE
    return False


def as_solution(
    solver: Solver,
    problem: Problem,
    best: Trajectory,
    *,
    status: Status,
    history: Sequence[Iteration],
    seconds: float,
    details: Details,
    policy: Gains | None = None,
    costates: Sequence[Array] | None = None,
    multipliers: Sequence[Array] | None = None,
    scaling: Scaling | None = None,
    warm_start: WarmStart | None = None,
) -> Solution:
    """Return the Solution of what a solver has found; V_x are those of the policy, or the co-states without one."""
    return Solution(
        problem_name=problem.name,
        angles=problem.angles,
        solver=type(solver).__name__,
        states=as_series(best.states),
        controls=as_series(best.controls),
        cost=best.cost,
        status=status,
        history=history,
        feedforward=None if policy is None else as_series(policy.feedforward),
        feedback_gains=None if policy is None else as_series(policy.feedback_gains),
        value_gradients=as_series(costates if policy is None else policy.value_gradients),
        value_hessians=None if policy is None else as_series(policy.value_hessians),
        multipliers=None if multipliers is None else tuple(multipliers),
        seconds=seconds,
        details=details,
        scaling=scaling,
        warm_start=warm_start,
    )


def bound_multipliers(problem: Problem, policy: AnyPolicy | None) -> list[Array] | None:
    """Return y of the controls that have a bound at stages 0 … T-1, and none at the end; None without bounds."""
    if policy is None or policy.multipliers is None:
        return None
    return [*(y[stage.bounded_controls] for y, stage in zip(policy.multipliers, problem.stages)), np.zeros(0)]


def check_call(problem: Any, guess: Any, callback: Any) -> None:
    """Check the kinds of the arguments of `solve`."""
    if not isinstance(problem, Problem):
        raise ProblemError(f"expected a Problem to solve, got {type(problem).__name__}")
    if guess is not None and not isinstance(guess, Solution):
        raise ProblemError(f"a warm start must be a Solution, got {type(guess).__name__}; give arrays as controls=")
    if callback is not None and not callable(callback):
        raise ProblemError(f"callback must be a function of one Iteration, got {type(callback).__name__}")


def positive(options: Any, *names: str) -> None:
    """Check that the named options of a solver are positive numbers."""
    for name in names:
        value = getattr(options, name)
        if not (isinstance(value, (int, float, np.number)) and value > 0):
            raise ProblemError(f"{name} must be a positive number, got {value!r}")


def not_negative(options: Any, *names: str) -> None:
    """Check that the named options of a solver are finite numbers of at least 0."""
    for name in names:
        value = getattr(options, name)
        if not (isinstance(value, (int, float, np.number)) and 0 <= value < float("inf")):
            raise ProblemError(f"{name} must be a number of at least 0, got {value!r}")
