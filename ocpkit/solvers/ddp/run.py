"""One DDP solve on an engine that sweeps in Python: NumPy or the virtual machine; the algorithm is that of `ddp`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import OutOfTime, check_time
from ocpkit.engines.interface import AnyPolicy, Engine
from ocpkit.errors import NotPositiveDefinite
from ocpkit.recursion.box import StepBounds
from ocpkit.recursion.curvature import Exact, Metric
from ocpkit.solution.details import Details, Failure, Reason
from ocpkit.solution.history import DDPIteration, History, Iteration
from ocpkit.solution.solution import Status
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.ddp.decisions import (
    BLOWN_UP,
    DECISIONS,
    IDLE_LIMIT,
    Change,
    End,
    Event,
    end_of_progress,
    of_infinity,
    of_refusal,
    of_step,
)
from ocpkit.solvers.ddp.line_search import implausible
from ocpkit.solvers.ddp.options import DDPOptions
from ocpkit.solvers.driver import NOWHERE, AnyRun, Clock, bound_multipliers
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.phases import Phases
from ocpkit.solvers.verdicts.optimality import PROMISE_FACTOR, ROUNDING, Optimality, Spread
from ocpkit.solvers.verdicts.second_order import SLIGHT


class DDPRun(AnyRun):
    """One DDP solve in progress.

    Attributes
    ----------
    policy_of
        The trajectory that the policy belongs to.
    metric
        D that its damping was measured in, by the number of controls.
    """

    trajectory: Trajectory = NOWHERE
    policy: AnyPolicy | None = None
    status: Status | None = None

    def __init__(self, options: DDPOptions, engine: Engine, guess: Guess, why: str = "") -> None:
        self.options, self.engine, self.why, self.phases = options, engine, why, Phases()
        self.reason: Reason | None = None
        self.curvature = deepcopy(options.curvature)
        self.trajectory = guess.trajectory(self.engine)
        self.schedule, self.damping = options.schedule, options.schedule.start()
        self.gap_weight = 0.0
        self.idle = 0
        self.box_multipliers = dict[int, Array]()
        self.spread, self.unit = Spread(), 0.0
        self.optimality = Optimality(float("nan"), 0.0, {})
        self.policy_of, self.metric = NOWHERE, dict[int, Array]()

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        with self._consistent():
            super().advance(history, most, clock, time_limit)

    @contextmanager
    def _consistent(self) -> Iterator[None]:
        """Drop the policy of another trajectory where a step is left before the backward pass at its end."""
        try:
            yield
        except (OutOfTime, KeyboardInterrupt):
            if self.policy_of is not self.trajectory:
                self.policy = None
            raise

    @property
    def details(self) -> Details:
        """Engine, seconds of the phases, and what failed."""
        return Details(engine=self.engine.name, why=self.why, reason=self.reason, seconds=self.phases.times)

    @property
    def multipliers(self) -> Sequence[Array] | None:
        """Those of the control bounds."""
        return bound_multipliers(self.engine.problem, self.policy)

    def certified(self) -> bool:
        options = self.options
        exact = options.second_order and options.feedback and options.curvature is None and options.tikhonov == 0
        if exact and self.damping.value == 0:
            return True
        policy = self._undamped(second_order=True)
        if policy is None:
            return False
        if exact:
            self.policy = policy
        return -policy.expected_change <= SLIGHT * self.unit + Optimality.of(policy, self.trajectory).rounding

    def leave(self, controls: Sequence[Array]) -> None:
        with self._consistent():
            self._leave(controls)

    def _leave(self, controls: Sequence[Array]) -> None:
        self.trajectory = self.engine.rollout(controls)
        self.unit = self.spread.unit(self.trajectory)
        self.damping = self.schedule.start()
        self.optimality = Optimality(float("nan"), 0.0, {})  # |Q_uu| there tells nothing of the one here
        self.idle, self.status = 0, None
        if self._backward_pass():
            self._check_convergence()

    def start(self) -> Iteration:
        self.unit = self.spread.unit(self.trajectory)
        if not self.trajectory.finite:
            self.status = Status.INVALID_INPUT
        elif self._backward_pass():
            self._check_convergence()
        return self._record()

    def step(self) -> Iteration:
        assert self.policy is not None
        damping, expected, actual = self.damping.value, 0.0, 0.0
        promised, stopwatch = self._promised_decrease(self.policy), self.phases.forward
        for step_size in self._step_sizes():
            check_time()
            with stopwatch:
                candidate = self.engine.forward_pass(self.trajectory, self.policy, step_size)
            stopwatch = self.phases.line_search
            expected, actual = step_size * promised, self._merit(self.trajectory) - self._merit(candidate)
            if self._accepts(candidate, expected, actual):
                break
        else:
            self._reject()
            return self._record(expected_decrease=promised, regularization=damping)
        self._accept(candidate, step_size, actual)
        return self._record(
            expected_decrease=expected, actual_decrease=actual, regularization=damping, step_size=step_size
        )

    def _step_sizes(self) -> list[float]:
        """The α that are tried at this iterate: one that damping may better is not halved."""
        short = self.options.curvature is None and self._implausible
        return self.options.step_sizes[:1] if short else self.options.step_sizes

    @property
    def _implausible(self) -> bool:
        assert self.policy is not None
        return implausible(-self.policy.expected_change, self.trajectory.magnitude)

    def _promised_decrease(self, policy: AnyPolicy) -> float:
        """Decrease of the merit for a full step; raises ν until closing the gaps is worth its cost."""
        share = self.trajectory.open
        if share > 0:
            self.gap_weight = max(self.gap_weight, 2 * policy.expected_change / share)
        return self.gap_weight * share - policy.expected_change

    def _merit(self, trajectory: Trajectory) -> float:
        return trajectory.cost + self.gap_weight * trajectory.open

    def _accepts(self, candidate: Trajectory, expected: float, actual: float) -> bool:
        """Armijo's condition, lenient by the rounding of J (a convex model falls by at least α times its full step)."""
        if not candidate.finite:
            return False
        search = self.options.line_search
        return search is None or search.accepts(actual, expected, self._noise)

    @property
    def _noise(self) -> float:
        """Changes of J up to this are rounding."""
        if not self.options.scaling:
            return ROUNDING * (1 + abs(self.trajectory.cost))
        return ROUNDING * self.trajectory.magnitude + self.optimality.rounding

    def _accept(self, candidate: Trajectory, step_size: float, actual: float) -> None:
        """Move there; give up after many steps that changed nothing but rounding."""
        assert self.policy is not None
        slope, lowered = self.policy.gradient_norm, actual > self._noise
        self.trajectory = candidate
        self.unit = self.spread.unit(candidate)
        self._decide(of_step(step_size))
        if not self._backward_pass():
            return
        self._check_convergence()
        self.idle = 0 if lowered or self.policy.gradient_norm < 0.9 * slope else self.idle + 1
        if self.status is None and self.spread.bottomless(candidate.cost):
            self._decide(Event.BOTTOMLESS)
        if self.status is None and self.options.line_search is not None and self.idle >= IDLE_LIMIT:
            self._decide(Event.IDLE)

    def _reject(self) -> None:
        """No step was good enough: damp more, or admit that this is the end."""
        self._decide(of_refusal(searched=self.options.line_search is not None))
        if self.status is None and self._backward_pass():
            self._check_convergence()

    def _decide(self, event: Event) -> None:
        """Change the damping, and end the solve, as the table says."""
        decision = DECISIONS[event]
        end = decision.status
        if decision.change is Change.LOWER:
            self.damping = self.schedule.lowered(self.damping)
        elif decision.change is Change.RAISE:
            if self.options.curvature is None:
                self.damping = self.schedule.raised(self.damping)
            if self.options.curvature is not None or self.schedule.exhausted(self.damping):
                end = decision.exhausted
        if end is not None:
            self.status = self._end_of_progress() if end is End.OF_PROGRESS else end

    def _backward_pass(self) -> bool:
        """Compute the policy at the current trajectory, damping Q_uu as much as it needs."""
        options = self.options
        second_order = options.second_order and self._closed
        check_time()
        with self.phases.derivatives:
            stages, terminal = self.engine.expand(self.trajectory, second_order=second_order)
        bounds, self.metric = self._bounds(), self.optimality.metric
        mended = False  # whether Q_uu has been indefinite with less damping
        while True:
            mu = self.damping.value
            on_state = self.schedule.on_state
            damping = 0.0 if on_state else mu
            metric = Metric(self.optimality.metric, self.trajectory.magnitude) if options.scaling else None
            curvature = self.curvature or Exact(damping, metric)
            relative = mu if on_state and options.scaling else 0.0
            try:
                check_time()
                with self.phases.backward:
                    self.policy = self.engine.backward_pass(
                        stages,
                        terminal,
                        curvature,
                        bounds,
                        feedback=options.feedback,
                        tikhonov=options.tikhonov + (mu if on_state and not options.scaling else 0.0),
                        state_damping=relative,
                    )
                self.policy_of = self.trajectory
                if options.scaling:
                    known, self.optimality = self.optimality.metric, Optimality.of(self.policy, self.trajectory)
                    if self._implausible:
                        self.optimality = replace(self.optimality, metric=known)
                if not (mended and self._implausible):
                    return True
                mended = False
                self._decide(Event.BARELY_DEFINITE)
            except NotPositiveDefinite as error:
                bad = self.engine.first_not_finite(stages, terminal)
                indefinite = bad is None
                self._decide(Event.INDEFINITE if indefinite else of_infinity(had_policy=self.policy is not None))
                if self.status is not None:
                    failure = Failure.NOT_POSITIVE_DEFINITE if indefinite else Failure.NOT_FINITE
                    self.reason = Reason(failure=failure, stage=error.stage if indefinite else bad)
                    self.policy = None  # the last one belongs to another trajectory
                    return False
                mended = True

    def _bounds(self) -> StepBounds | None:
        """Bounds of the steps at the current trajectory."""
        problem = self.engine.problem
        return (
            StepBounds(problem.step_bounds(self.trajectory.controls), self.box_multipliers) if problem.bounded else None
        )

    def _end_of_progress(self) -> Status:
        return end_of_progress(blown_up=abs(self.trajectory.cost) > BLOWN_UP, closed=self._closed)

    @property
    def _closed(self) -> bool:
        """Whether the gaps count as closed."""
        return self.trajectory.open <= self.options.gap_tolerance

    def _check_convergence(self) -> None:
        assert self.policy is not None
        options, promised = self.options, -self.policy.expected_change
        if not self._closed or not self.trajectory.magnitude <= BLOWN_UP:
            return
        newton = options.curvature is None and options.feedback
        undamped = newton and self.damping.value == 0
        if options.scaling:
            rounding, alone = self.optimality.rounding, options.gradient_tolerance**2 * self.unit
            if not undamped:  # V_xx of a policy that hardly feeds back can be anything
                rounding = min(rounding, SLIGHT * self.trajectory.magnitude)
            flat = self.optimality.decrement <= alone + rounding
            flat &= not newton or promised <= PROMISE_FACTOR * alone + rounding
            flat &= not self.schedule.on_state or self.damping.value == 0  # else Q_uu itself is damped
            settled = undamped and promised <= options.cost_tolerance * self.unit + rounding
        else:
            flat = self.policy.gradient_norm <= options.gradient_tolerance
            settled = undamped and promised <= options.cost_tolerance * (1 + abs(self.trajectory.cost))
        closed = self.trajectory.gaps is None  # else what closing the gaps costs can hide what the controls save
        if (flat and not self._promises_more()) or (settled and closed):
            self.status = Status.CONVERGED

    def _promises_more(self) -> bool:
        """Whether the whole undamped step promises more than its controls alone, which a stiff Q_uu hides from them."""
        options = self.options
        if not options.scaling or self.damping.value == 0 or not options.feedback or options.curvature is not None:
            return False
        policy = self._undamped(second_order=options.second_order and self._closed)
        if policy is None:
            return False
        alone, rounding = options.gradient_tolerance**2 * self.unit, Optimality.of(policy, self.trajectory).rounding
        return -policy.expected_change > PROMISE_FACTOR * alone + rounding

    def _undamped(self, *, second_order: bool) -> AnyPolicy | None:
        """Backward pass without damping; None where Q_uu is not positive definite."""
        bounds = self._bounds()
        if bounds is not None:
            bounds = StepBounds(bounds.steps, dict(bounds.multipliers))
        with self.phases.derivatives:
            stages, terminal = self.engine.expand(self.trajectory, second_order=second_order)
        try:
            with self.phases.backward:
                return self.engine.backward_pass(stages, terminal, Exact(), bounds, feedback=True, tikhonov=0.0)
        except NotPositiveDefinite:
            return None

    def _record(self, regularization: float | None = None, **numbers: float) -> Iteration:
        return DDPIteration(
            index=0,
            cost=self.trajectory.cost,
            gradient_norm=self.policy.gradient_norm if self.policy is not None else float("nan"),
            regularization=self.damping.value if regularization is None else regularization,
            gap=self.trajectory.gap,
            **numbers,
        )
