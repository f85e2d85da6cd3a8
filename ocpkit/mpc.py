"""Model predictive control: solve the problem again at every tick from the state just measured (Rawlings et al. 2017).

The solution of the last tick, shifted by one stage, is the guess for the next. With one iteration per tick this is the
real-time iteration of Diehl, Bock & Schlöder (2005): the optimiser converges while the plant moves. Where a solve
fails, the last usable plan goes on, its feedback policy included, and `Health` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ocpkit.errors import ProblemError
from ocpkit.problem import Array, Problem, _vector
from ocpkit.solution import Solution, Status
from ocpkit.solvers.ddp import DDP
from ocpkit.solvers.driver import Solver


class Health(Enum):
    """What a supervisor may expect of a command; the value is the sentence that a user reads."""

    OPTIMAL = "optimal: the plan has converged"
    IMPROVING = "improving: stopped by the iteration or time budget; the plan is usable and better than the shifted one"
    HELD = "held: the solver failed at this tick; the last usable plan goes on, corrected by its feedback"
    LOST = "lost: there is no plan, or it has been used up; bring the plant to a safe state"


USABLE = (Status.CONVERGED, Status.ITERATION_LIMIT, Status.TIME_LIMIT, Status.STALLED)


@dataclass(frozen=True)
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
    """

    control: Array
    health: Health
    plan: Solution | None
    offset: int
    seconds: float
    status: Status


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
    """

    problem: Problem
    solver: Solver = field(default_factory=DDP)
    warm_up: Solver | None = None
    delay: int = 0
    plan: Solution | None = field(default=None, init=False)
    offset: int = field(default=0, init=False)
    pending: list[Array] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.problem, Problem) or not isinstance(self.solver, Solver):
            raise ProblemError("MPC takes a Problem and a solver")
        if self.delay not in range(self.problem.horizon):
            raise ProblemError(f"delay must be between 0 and the horizon {self.problem.horizon}, got {self.delay!r}")
        if len({*self.problem.state_sizes}) > 1 or len({*self.problem.control_sizes}) > 1:
            raise ProblemError("receding horizons need states and controls of one size at all stages")
        if self.warm_up is None:
            self.warm_up = replace(self.solver, max_iterations=max(500, self.solver.max_iterations), time_limit=np.inf)
        self.pending = [np.asarray(self.problem.controls[0])] * self.delay

    def step(self, x: ArrayLike, parameters: ArrayLike | None = None) -> Command:
        """Return the control for the state just measured.

        Parameters
        ----------
        x
            Measured state (n,).
        parameters
            p for this tick, of the problem's shape; by default those of the problem.

        Raises
        ------
        ProblemError
            If the state has the wrong shape or is not finite.
        """
        start = time.perf_counter()
        changes: dict[str, Any] = {"x0": self._predict(_vector(x, self.problem.state_sizes[0], "the measured state"))}
        if parameters is not None:
            changes["parameters"] = parameters
        problem = self.problem.replace(**changes)
        if self.plan is not None:
            self.offset += 1
        solution = self._solve(problem)
        usable = solution.status in USABLE and bool(np.isfinite(solution.cost))
        if usable:
            self.plan, self.offset = solution, 0
        health = Health.OPTIMAL if solution.success else Health.IMPROVING if usable else Health.HELD
        control = self._control(problem)
        if control is None:
            health, control = Health.LOST, np.full(self.problem.control_sizes[0], np.nan)
        elif self.delay:
            self.pending = [*self.pending[1:], control]
        return Command(control, health, self.plan, self.offset, time.perf_counter() - start, solution.status)

    def _predict(self, x: Array) -> Array:
        """Move the state over the delay with the controls on their way."""
        for t, u in enumerate(self.pending):
            x = self.problem.stages[t].dynamics.step(x, u, self.problem.parameter(t))
        return x

    def _solve(self, problem: Problem) -> Solution:
        if self.plan is None:
            assert self.warm_up is not None
            return self.warm_up.solve(problem)
        guess = shifted(self.plan, self.offset)
        return self.solver.solve(problem, guess, states=guess.states if self.solver.takes_states else None)

    def _control(self, problem: Problem) -> Array | None:
        """Control of the plan's policy at the current state, inside the bounds; None when it has no stage left."""
        if self.plan is None or self.offset >= problem.horizon:
            return None
        stage = problem.stages[self.offset]
        control = self.plan.policy(self.offset, problem.x0)
        return np.clip(control, stage.control_lower, stage.control_upper) if np.isfinite(control).all() else None


def shifted(plan: Solution, ticks: int = 1) -> Solution:
    """Return the plan that starts `ticks` later, as a guess; what lies beyond its end repeats its last entries.

    The state that was really reached differs from the plan's: as a guess with states this is one gap at the first
    stage, which the solver's first full step closes through the feedback gains (Diehl's initial value embedding).
    """
    T = len(plan.controls)
    stages, points = (np.minimum(np.arange(count) + ticks, count - 1) for count in (T, T + 1))
    multipliers = plan.multipliers
    if multipliers is not None:
        multipliers = (*(multipliers[t] for t in stages), multipliers[-1])
    return replace(plan, controls=plan.controls[stages], states=plan.states[points], multipliers=multipliers)


@dataclass(frozen=True)
class ClosedLoop:
    """What happened in a simulation.

    Attributes
    ----------
    states, controls
        Of the plant, (N + 1, n) and (N, m).
    commands
        One per tick.
    lost_at
        Tick at which the controller was lost (the simulation ends there), or None.
    """

    states: Array
    controls: Array
    commands: tuple[Command, ...]
    lost_at: int | None = None

    @property
    def seconds(self) -> Array:
        """Time of each tick's solve (N,)."""
        return np.array([command.seconds for command in self.commands])

    def count(self, health: Health) -> int:
        """Return how many ticks had this health."""
        return sum(command.health is health for command in self.commands)

    def __str__(self) -> str:
        tally = ", ".join(f"{h.name.lower()} {self.count(h)}" for h in Health if self.count(h))
        worst, median = self.seconds.max(initial=0.0) * 1e3, float(np.median(self.seconds)) * 1e3
        return f"{len(self.controls)} ticks ({tally}); solve: median {median:.3f} ms, worst {worst:.3f} ms"


def simulate(
    controller: MPC,
    ticks: int,
    *,
    x0: ArrayLike | None = None,
    plant: Callable[[Array, Array], Array] | None = None,
    measurement_noise: float = 0.0,
    process_noise: float = 0.0,
    parameters: Callable[[int], ArrayLike] | None = None,
    seed: int = 0,
) -> ClosedLoop:
    """Close the loop around a plant.

    Parameters
    ----------
    controller
        The controller; its own model is the plant by default.
    ticks
        Length N.
    x0
        Start of the plant; by default the problem's.
    plant
        (x, u) → next state, where it differs from the model.
    measurement_noise, process_noise
        Standard deviations [state units] of what is added to the measured and to the true state.
    parameters
        Tick → p for the controller.
    seed
        Of the noise.
    """
    problem, rng, delay = controller.problem, np.random.default_rng(seed), list(controller.pending)
    if plant is None:
        first = problem.stages[0].dynamics

        def plant(x: Array, u: Array) -> Array:
            return first.step(x, u, problem.parameter(0))

    states = [_vector(problem.x0 if x0 is None else x0, problem.state_sizes[0], "x0")]
    controls, commands, lost_at = list[Array](), list[Command](), None
    for tick in range(ticks):
        measured = states[-1] + measurement_noise * rng.normal(size=states[-1].shape)
        command = controller.step(measured, None if parameters is None else parameters(tick))
        commands.append(command)
        if command.health is Health.LOST:
            lost_at = tick
            break
        delay.append(command.control)
        controls.append(delay.pop(0))
        following = plant(states[-1], controls[-1]) + process_noise * rng.normal(size=states[-1].shape)
        states.append(following)
    empty = np.zeros((0, problem.control_sizes[0]))
    return ClosedLoop(np.stack(states), np.stack(controls) if controls else empty, tuple(commands), lost_at)
