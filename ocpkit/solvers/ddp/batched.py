"""DDP on many problems at once: every decision of `ddp` taken problem by problem, on tensors.

Damping, step size, status and the count of iterations belong to each problem. Those that are over leave the batch, and
the passes go on with the others. So each one is solved as `DDP` would solve it alone, up to the rounding of the engine.
Step sizes are tried in groups (1, then 2, 4, …), of which each problem takes the largest that is good enough: the
sequence of `DDP` in fewer sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ocpkit.boundary.arrays import Array
from ocpkit.engines.batch.torch import PerProblem, Policies, TorchEngine, Trajectories, join
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.problem.problem import Problem
from ocpkit.solution.solution import Status
from ocpkit.solvers.ddp.damping import Level
from ocpkit.solvers.ddp.decisions import (
    BLOWN_UP,
    DECISIONS,
    IDLE_LIMIT,
    LARGE,
    Change,
    End,
    Event,
    end_of_progress,
    of_infinity,
    of_refusal,
)
from ocpkit.solvers.ddp.line_search import implausible
from ocpkit.solvers.ddp.options import DDPOptions
from ocpkit.solvers.driver import MOST_DEPARTURES, Clock
from ocpkit.solvers.verdicts.optimality import BOTTOMLESS, PROMISE_FACTOR, SPREAD
from ocpkit.solvers.verdicts.second_order import SLIGHT, examine

STATUSES = tuple(Status)
RUNNING = -1


@dataclass
class Progress(PerProblem):
    """State of B solves.

    Attributes
    ----------
    number
        Which problem of the whole batch each one is (B,).
    along, policy
        Trajectories and policies at them.
    damping, growth
        μ and the last factor of its schedule (B,).
    unit, highest, first
        D of the damping, zero where it is not known (1, B, m), the highest J so far and the first |J| that was not
        zero, both (B,).
    box_multipliers
        Multipliers (T, B, m) from which the next search in the box begins; None without bounds.
    idle, iterations, departures
        Steps in a row that changed nothing but rounding, all of them, and stationary points left behind (B,).
    status
        Index into `STATUSES`, or `RUNNING` (B,).
    """

    number: Tensor
    along: Trajectories
    policy: Policies
    damping: Tensor
    growth: Tensor
    unit: Tensor
    highest: Tensor
    first: Tensor
    box_multipliers: Tensor | None
    idle: Tensor
    departures: Tensor
    iterations: Tensor
    status: Tensor

    @property
    def running(self) -> Tensor:
        """Numbers, inside this record, of the problems that go on."""
        return (self.status == RUNNING).nonzero()[:, 0]

    def end(self, problems: Tensor, status: Status) -> None:
        """Set a status."""
        self.status[problems] = STATUSES.index(status)


class BatchedDDP:
    """One solve of a batch in progress."""

    def __init__(self, options: DDPOptions, problem: Problem, engine: TorchEngine, start: Trajectories) -> None:
        self.options, self.problem, self.engine = options, problem, engine
        limits = torch.finfo(engine.dtype)
        self.rounding = 16 * float(limits.eps)  # in float64 that of `ddp`
        self.blown_up = min(BLOWN_UP, float(limits.max) ** 0.5)
        self.bottomless = min(BOTTOMLESS, float(limits.max) ** 0.5)
        count = start.states.shape[1]
        zeros = torch.zeros(count, dtype=torch.int64, device=engine.device)
        self.progress = Progress(
            number=torch.arange(count, device=engine.device),
            along=start,
            policy=engine.no_policies(count, feedback=options.feedback),
            damping=torch.full_like(start.cost, options.schedule.initial),
            growth=torch.ones_like(start.cost),
            unit=torch.zeros_like(start.controls[:1]),
            highest=torch.full_like(start.cost, -torch.inf),
            first=torch.zeros_like(start.cost),
            box_multipliers=None if engine.bounds is None else torch.zeros_like(start.controls),
            idle=zeros,
            departures=zeros.clone(),
            iterations=zeros.clone(),
            status=torch.full_like(zeros, RUNNING),
        )
        self.over = list[Progress]()

    def run(self, clock: Clock) -> Progress:
        """Iterate until every problem is over, or a limit is reached; return them in their first order."""
        self._start()
        self._retire()
        for _ in range(self.options.max_iterations):
            if not len(self.progress.number):
                break
            if clock() >= self.options.time_limit:
                self.progress.end(self.progress.running, Status.TIME_LIMIT)
                break
            self._step()
            self._retire()
        self.progress.end(self.progress.running, Status.ITERATION_LIMIT)
        everything = join([*self.over, self.progress])
        return everything.take(everything.number.argsort())

    def _start(self) -> None:
        now = self.progress
        now.end((~now.along.finite).nonzero()[:, 0], Status.INVALID_INPUT)
        self._backward_pass()
        self._check_convergence()

    def _step(self) -> None:
        """One iteration of all problems; all of them are running."""
        now, options = self.progress, self.options
        noise, slope = self._noise(), now.policy.gradient_norm.clone()
        step_size, actual = self._line_search(noise)
        accepted = step_size > 0
        searched = options.line_search is not None
        for event, problems in (
            (Event.LARGE_STEP, step_size >= LARGE),
            (Event.SMALL_STEP, accepted & (step_size < LARGE)),
            (of_refusal(searched=searched), ~accepted),
        ):
            self._decide(event, problems.nonzero()[:, 0])
        self._backward_pass()
        self._check_convergence()
        changed = (actual > noise) | (now.policy.gradient_norm < 0.9 * slope) | ~accepted
        now.idle = torch.where(changed, torch.where(accepted, 0, now.idle), now.idle + 1)
        if searched:
            idle = accepted & (now.status == RUNNING) & (now.idle >= IDLE_LIMIT)
            self._decide(Event.IDLE, idle.nonzero()[:, 0])
        falling = (now.first > 0) & (now.along.cost < -self.bottomless * now.first)
        self._decide(Event.BOTTOMLESS, (falling & (now.status == RUNNING)).nonzero()[:, 0])
        now.iterations += 1

    def _noise(self) -> Tensor:
        """Changes of J up to this are rounding, (B,)."""
        now = self.progress
        if not self.options.scaling:
            return self.rounding * (1 + now.along.cost.abs())
        return self.rounding * now.along.magnitude + self._floor()

    def _floor(self) -> Tensor:
        """Change of J by the rounding of controls and states, (B,)."""
        return torch.nan_to_num(self.rounding**2 * self.progress.policy.rounding, posinf=0.0)

    def _retire(self) -> None:
        """Let the problems that are over leave."""
        over = self.progress.status != RUNNING
        if bool(over.any()):
            self.over.append(self.progress.take(over))
            self.progress = self.progress.take(~over)

    def _line_search(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Move every problem that has a good enough step; return α, zero where there is none, and the decrease of J."""
        now = self.progress
        cost, promised = now.along.cost.clone(), -now.policy.expected_change
        step_size, decrease = torch.zeros_like(cost), torch.zeros_like(cost)
        search, halve = self.options.line_search, ~implausible(promised, now.along.magnitude)
        remaining = now.running
        for group in self._step_sizes():
            whole = len(remaining) == len(cost)
            along = now.along if whole else now.along.take(remaining)
            trials = self.engine.forward_pass(along, now.policy if whole else now.policy.take(remaining), group)
            actual = cost[remaining] - trials.cost
            good = trials.finite
            if search is not None:
                good = good & search.accepts(actual, group[:, None] * promised[remaining], noise[remaining])
            found, first = good.any(0), good.int().argmax(0)
            moved = remaining[found]
            trial = replace(trials, parameters=along.parameters).choose(first)
            now.along.put(moved, trial.take(found))
            step_size[moved], decrease[moved] = group[first][found], actual.gather(0, first[None])[0][found]
            remaining = remaining[~found & halve[remaining]]
            if not len(remaining):
                break
        return step_size, decrease

    def _step_sizes(self) -> list[Tensor]:
        """The α of `DDP` in groups of 1, 2, 4, …"""
        alphas = self.engine.tensor(self.options.step_sizes)
        return [alphas[2**i - 1 : 2 ** (i + 1) - 1] for i in range(len(alphas).bit_length())]

    def _decide(self, event: Event, problems: Tensor) -> Tensor:
        """Change the damping of the named problems, and end them, as the table says; return those that go on."""
        now, schedule, decision = self.progress, self.options.schedule, DECISIONS[event]
        over = torch.full_like(problems, decision.status is not None, dtype=torch.bool)
        end = decision.status
        if decision.change is not Change.KEEP:
            level = Level(now.damping[problems], now.growth[problems])
            level = schedule.raised(level) if decision.change is Change.RAISE else schedule.lowered(level)
            now.damping[problems], now.growth[problems] = level.value, level.growth
            if decision.change is Change.RAISE:
                over, end = schedule.exhausted(level), decision.exhausted
        if end is End.OF_PROGRESS:
            self._end_of_progress(problems[over])
        elif end is not None:
            now.end(problems[over], end)
        return problems[~over]

    def _backward_pass(self) -> None:
        """Compute the policies of all running problems, damping each Q_uu as much as it needs."""
        now = self.progress
        todo = now.running
        mended = torch.zeros_like(now.status, dtype=torch.bool)  # whether Q_uu was indefinite with less damping
        while len(todo):
            new = self._policies(todo)
            wild = implausible(-new.expected_change, now.along.magnitude[todo])
            barely = ~new.failed & mended[todo] & wild
            again, good, tame = todo[barely], ~new.failed & ~barely, ~new.failed & ~wild
            failed = todo[new.failed]
            now.policy.put(todo[good], new.take(good))
            now.unit[:, todo[tame]] = new.unit[:, tame]
            broken, finite = failed[~new.finite[new.failed]], failed[new.finite[new.failed]]
            first = now.iterations[broken] == 0
            # an iterate other than the guess that is not finite has been reached from one that was
            started = now.policy.gradient_norm[broken].isfinite()
            at_guess = first & ~started
            self._decide(of_infinity(had_policy=False), broken[at_guess])
            self._decide(of_infinity(had_policy=True), broken[~at_guess])
            todo = self._decide(Event.INDEFINITE, finite)
            now.policy.forget(torch.cat([broken, finite[~torch.isin(finite, todo)]]))
            mended[todo], mended[again] = True, False
            todo = torch.cat([todo, self._decide(Event.BARELY_DEFINITE, again)]).sort().values

    def _policies(self, problems: Tensor) -> Policies:
        now, options = self.progress, self.options
        whole = len(problems) == len(now.number)
        along = now.along if whole else now.along.take(problems)
        box_multipliers = (
            now.box_multipliers if whole or now.box_multipliers is None else now.box_multipliers[:, problems]
        )
        damping, none = now.damping[problems], torch.zeros_like(now.damping[problems])
        on_state, relative = options.schedule.on_state, options.scaling
        policies = self.engine.backward_pass(
            along,
            none if on_state else damping,
            box_multipliers,
            second_order=options.second_order,
            feedback=options.feedback,
            tikhonov=options.tikhonov + (damping if on_state and not relative else none),
            state_damping=damping if on_state and relative else none,
            unit=now.unit[:, problems] if relative else None,
        )
        if now.box_multipliers is not None and box_multipliers is not None and not whole:
            now.box_multipliers[:, problems] = box_multipliers
        return policies

    def _check_convergence(self) -> None:
        """End the problems that have found a minimum, and let those that have found another point leave it."""
        while True:
            now = self.progress
            found = (self._stationary() & (now.status == RUNNING)).nonzero()[:, 0]
            uncertain = found[~self._certified(found)]
            left, saddles = self._left_behind(uncertain)
            now.end(saddles, Status.SADDLE)
            staying = torch.isin(found, torch.cat([left, saddles]), invert=True)
            now.end(found[staying], Status.CONVERGED)
            if not len(left):
                return
            self._backward_pass()

    def _stationary(self) -> Tensor:
        """Whether the conditions of first order hold, (B,)."""
        now, options = self.progress, self.options
        now.highest = torch.maximum(now.highest, now.along.cost)
        now.first = torch.where(now.first == 0, now.along.cost.abs(), now.first)
        tolerance, promised = max(options.cost_tolerance, self.rounding), -now.policy.expected_change
        undamped = (now.damping == 0) & options.feedback
        if options.scaling:
            unit, floor = self._unit(), self._floor()
            # V_xx of a policy that hardly feeds back can be anything
            floor = torch.where(undamped, floor, torch.minimum(floor, SLIGHT * now.along.magnitude))
            # no finer than J itself, in which float32 matters
            alone = max(options.gradient_tolerance**2, self.rounding) * unit
            flat = now.policy.decrement <= alone + floor
            flat &= (promised <= PROMISE_FACTOR * alone + floor) | (not options.feedback)
            if options.schedule.on_state:
                flat &= now.damping == 0  # else Q_uu itself is damped
            settled = promised <= tolerance * unit + floor
        else:
            flat = now.policy.gradient_norm <= options.gradient_tolerance
            settled = promised <= tolerance * (1 + now.along.cost.abs())
        return (flat | (settled & undamped)) & (now.along.magnitude <= self.blown_up)

    def _unit(self) -> Tensor:
        """Unit of J's tolerances, (B,)."""
        now = self.progress
        return now.along.magnitude + SPREAD * (now.highest - now.along.cost)

    def _certified(self, problems: Tensor) -> Tensor:
        """Whether the undamped exact recursion is positive definite at the named problems, and promises no more."""
        now, options = self.progress, self.options
        exact = options.second_order and options.feedback and options.tikhonov == 0
        certain = (now.damping[problems] == 0) & exact
        doubtful = problems[~certain]
        if len(doubtful):
            zero = torch.zeros_like(now.damping[doubtful])
            box_multipliers = None if now.box_multipliers is None else now.box_multipliers[:, doubtful]
            undamped = self.engine.backward_pass(
                now.along.take(doubtful),
                zero,
                box_multipliers,
                second_order=True,
                feedback=True,
                tikhonov=zero,
                state_damping=zero,
                unit=None,
            )
            slight = max(SLIGHT, self.rounding) * self._unit()[doubtful] + self._floor()[doubtful]
            good = ~undamped.failed & undamped.finite & (-undamped.expected_change <= slight)
            if exact:
                now.policy.put(doubtful[good], undamped.take(good))
            certain[~certain] = good
        return certain

    def _left_behind(self, problems: Tensor) -> tuple[Tensor, Tensor]:
        """Move the named problems to where J is lower, if that is near; return those, and those at a saddle."""
        left, saddles, now = list[int](), list[int](), self.progress
        for i in problems.tolist():
            one = self.problem.replace(
                x0=_array(now.along.states[0, i]), parameters=_array(now.along.parameters[:, i]), states=None
            )
            engine = NumpyEngine(one)
            finding = examine(engine, engine.rollout(list(_array(now.along.controls[:, i]))))
            if finding.lower is not None and now.departures[i] < MOST_DEPARTURES:
                left.append(i)
                now.along.controls[:, i] = self.engine.tensor(np.stack(finding.lower.controls))
            elif not finding.minimum:
                saddles.append(i)
        moved = torch.tensor(left, dtype=torch.int64, device=self.engine.device)
        if left:
            along = now.along.take(moved)
            now.along.put(moved, self.engine.rollout(along.states[0], along.controls, along.parameters))
            now.damping[moved], now.growth[moved] = self.options.schedule.initial, 1.0
            now.unit[:, moved] = 0.0  # |Q_uu| there tells nothing of the one here
            now.idle[moved] = 0
            now.departures[moved] += 1
        return moved, torch.tensor(saddles, dtype=torch.int64, device=self.engine.device)

    def _end_of_progress(self, problems: Tensor) -> None:
        blown_up = self.progress.along.cost[problems].abs() > self.blown_up
        for flag, chosen in ((True, problems[blown_up]), (False, problems[~blown_up])):
            self.progress.end(chosen, end_of_progress(blown_up=flag, closed=True))


def _array(tensor: Tensor) -> Array:
    """Return a tensor as an array of float64."""
    return tensor.cpu().numpy().astype(float)
