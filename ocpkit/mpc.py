"""Model predictive control: solve the problem again at every tick from the state just measured (Rawlings et al. 2017).

The solution of the last tick, shifted by one stage, is the guess for the next. With one iteration per tick this is the
real-time iteration of Diehl, Bock & Schlöder (2005): the optimiser converges while the plant moves. Where a solve
fails, the last usable plan goes on, its feedback policy included, and `Health` says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike

from ocpkit.angles import nearest
from ocpkit.arrays import checked_vector
from ocpkit.errors import ProblemError
from ocpkit.jumps import Jumps
from ocpkit.problem import Array, Problem
from ocpkit.solution import Solution, Status
from ocpkit.solvers.ddp import DDP
from ocpkit.solvers.driver import Solver, positive


class Health(Enum):
    """What a supervisor may expect of a command; the value is the sentence that a user reads."""

    OPTIMAL = "optimal: the plan has converged"
    IMPROVING = "improving: stopped by the iteration or time budget; the plan is usable and better than the shifted one"
    HELD = "held: the solver failed at this tick; the last usable plan goes on, corrected by its feedback"
    LOST = "lost: there is no plan, or it has been used up; bring the plant to a safe state"


USABLE = (Status.CONVERGED, Status.ITERATION_LIMIT, Status.TIME_LIMIT, Status.STALLED)


@dataclass(frozen=True, eq=False)
class Command:
    """What to do at one tick.

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
        The state that was measured (n,).
    cost, iterations
        J of this tick's solve (over the horizon), and how many iterations it took.
    reason
        What the solver says of a failure, such as the row that the state violates; empty if it says nothing.
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
    reason: str = ""


@dataclass
class MPC:
    """A receding-horizon controller.

    Parameters
    ----------
    problem
        The horizon to be solved at each tick, written so that its stages are alike (a stage is re-used one tick later).
    solver
        Any solver; for a real-time iteration one with ``max_iterations=1`` or a ``time_limit``. The first solve has
        `warm_up` instead.
    warm_up
        Solver of the first tick, while there is no plan; by default `solver` with its iteration limit lifted to 500.
    delay
        Ticks between measuring a state and the moment at which the control takes effect; the state is first predicted
        over these with the controls that are already on their way.
    feasibility_tolerance
        A plan that has not converged replaces the last one only if its gaps and its constraints' violations are at
        most this [units of the states and rows], or no larger than those of the last plan from the present state.
    """

    problem: Problem
    solver: Solver = field(default_factory=DDP)
    warm_up: Solver | None = None
    delay: int = 0
    feasibility_tolerance: float = 1e-2
    tick: int = field(default=0, init=False)
    plan: Solution | None = field(default=None, init=False)
    offset: int = field(default=0, init=False)
    pending: list[Array] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.problem, Problem) or not isinstance(self.solver, Solver):
            raise ProblemError(
                f"MPC takes a Problem and a solver such as DDP(), got {self.problem!r} and {self.solver!r}"
            )
        if not (self.warm_up is None or isinstance(self.warm_up, Solver)):
            raise ProblemError(f"warm_up must be a solver such as DDP(), got {self.warm_up!r}")
        positive(self, "feasibility_tolerance")
        if self.delay not in range(self.problem.horizon):
            last = self.problem.horizon - 1
            raise ProblemError(f"delay must be a whole number from 0 to {last}, below the horizon, got {self.delay!r}")
        if not self.problem.uniform:
            raise ProblemError(
                "a receding horizon re-uses each stage one tick later, so states and controls need one size at all "
                "stages; choose free parameters once, by a plan, and give them to step as parameters"
            )
        if self.warm_up is None:
            self.warm_up = replace(self.solver, max_iterations=max(500, self.solver.max_iterations), time_limit=np.inf)
        self.pending, self._jumps = [np.asarray(self.problem.controls[0])] * self.delay, Jumps()

    def step(self, x: ArrayLike, parameters: ArrayLike | None = None) -> Command:
        """Return the control for the state just measured.

        Parameters
        ----------
        x
            Measured state (n,).
        parameters
            p for this tick, of the problem's shape; by default those of the problem. Rows are those of this tick and of
        the ticks after it; over a delay the state is predicted with the first ones.

        Raises
        ------
        ProblemError
            If the state has the wrong shape or is not finite.
        KeyboardInterrupt
            After Ctrl-C, also where the solver would return its iterate.
        """
        start = time.perf_counter()
        measured = checked_vector(x, self.problem.state_sizes[0], "the measured state")
        problem = self.problem if parameters is None else self.problem.replace(parameters=parameters)
        if self.plan is not None:
            self.offset += 1
        state = self._counted(problem, self._predict(problem, measured))
        problem = problem.replace(x0=state, parameters=_later(problem, self.delay))
        solution = self._solve(problem)
        if solution.status is Status.INTERRUPTED:  # which is meant for the loop around this one
            raise KeyboardInterrupt
        usable = self._usable(solution)
        if usable:
            self.plan, self.offset = solution, 0
        health = Health.OPTIMAL if solution.success else Health.IMPROVING if usable else Health.HELD
        control = self._control(problem)
        if control is None:
            health, control = Health.LOST, np.full(self.problem.control_sizes[0], np.nan)
        elif self.delay:
            self.pending = [*self.pending[1:], control]
        self.tick += 1
        return Command(
            control=control,
            health=health,
            plan=self.plan,
            offset=self.offset,
            seconds=time.perf_counter() - start,
            status=solution.status,
            tick=self.tick - 1,
            state=measured,
            cost=solution.cost,
            iterations=solution.iterations,
            reason=solution.details.get("reason", ""),
        )

    def _usable(self, solution: Solution) -> bool:
        """Whether a solution may replace the plan: finite, and if stopped early no less feasible than its guess."""
        if solution.status not in USABLE or not np.isfinite(solution.cost):
            return False
        allowed = max(self.feasibility_tolerance, solution.history[0].gap)
        return solution.success or solution.history[-1].gap <= allowed

    def _predict(self, problem: Problem, x: Array) -> Array:
        """Move the state over the delay with the controls on their way."""
        for t, u in enumerate(self.pending):
            x = problem.stages[t].dynamics.step(x, u, problem.parameter(t))
        return x

    def _counted(self, problem: Problem, x: Array) -> Array:
        """Count the turns of angles as the plan does, whatever a sensor that jumps from π to −π says."""
        return (
            x if self.plan is None else nearest(x, self.plan.states[min(self.offset, problem.horizon)], problem.angles)
        )

    def _solve(self, problem: Problem) -> Solution:
        if self.plan is None:
            assert self.warm_up is not None
            return self.warm_up.solve(problem)
        guess = shifted(problem, self.plan, self.offset)
        if not self.solver.takes_states:
            return self.solver.solve(problem, guess, controls=guess.controls)
        warm = self.solver.solve(problem, guess, states=guess.states)
        if problem.angles or not self._jumps.suspected(problem, self.plan, guess, self.offset):
            return warm
        fresh = self.solver.solve(problem, guess, controls=guess.controls)
        return min(warm, fresh, key=lambda found: (not self._usable(found), found.cost))

    def _control(self, problem: Problem) -> Array | None:
        """Control of the plan's policy at the current state, inside the bounds; None when it has no stage left."""
        if self.plan is None or self.offset >= problem.horizon:
            return None
        stage = problem.stages[self.offset]
        control = self.plan.policy(self.offset, problem.x0)
        return np.clip(control, stage.control_lower, stage.control_upper) if np.isfinite(control).all() else None


def _later(problem: Problem, ticks: int) -> Array:
    """Return p as it is `ticks` later; beyond the end of its rows the last one goes on."""
    p = problem.parameters
    return p if p.ndim == 1 or not ticks else p[np.minimum(np.arange(len(p)) + ticks, len(p) - 1)]


def shifted(problem: Problem, plan: Solution, ticks: int = 1) -> Solution:
    """Return the plan that starts `ticks` later, as a guess; beyond its end the last control is held.

    The states beyond the end follow the model from the last one, so the only gap is that at the first stage: the state
    that was really reached differs from the plan's. The solver's first full step closes it through the feedback gains
    (Diehl's initial value embedding).
    """
    T = len(plan.controls)
    stages, points = (np.minimum(np.arange(count) + ticks, count - 1) for count in (T, T + 1))
    multipliers = plan.multipliers
    if multipliers is not None:
        multipliers = (*(multipliers[t] for t in stages), multipliers[-1])
    controls, states = plan.controls[stages], np.array(plan.states[points])
    for t in range(max(T - ticks, 0), T):
        following = problem.stages[t].dynamics.step(states[t], controls[t], problem.parameter(t))
        if not np.isfinite(following).all():
            break
        states[t + 1] = following
    return replace(plan, controls=controls, states=states, multipliers=multipliers)
