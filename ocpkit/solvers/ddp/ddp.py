"""Differential dynamic programming (Alg. 1; Jacobson & Mayne 1970) and iLQR (Li & Todorov 2004).

    minimise φ(x_T) + Σ ℓ_t(x_t, u_t)   subject to   x_{t+1} = f_t(x_t, u_t)

Each iteration expands the problem along the current trajectory, computes affine policies backward
(`bellman.backward_pass`) and applies them forward. What makes it global:

* *line search* (`line_search`): α = 1, ½, ¼, … until J has fallen by at least a fraction of what the quadratic model
  promises, less what rounding makes of Σ |ℓ_t| + |φ|. With open gaps the merit J + ν s stands for J, s the share of the
  guess's gaps that is left;
* *damping* (`damping`): Q_uu + μ D, D the mean of |Q_uu|'s diagonal (`curvature.Metric`), or V_xx + μ diag |V_xx|, so
  that μ has no unit. It grows when Q_uu is not positive definite or no step is accepted, and shrinks after good steps:
  `decisions` is the table of what is done when;
* *gaps*: a state guess need not satisfy the dynamics; the forward pass multiplies the gaps by 1 − α (Mastalli et al.
  2020, FDDP), so that s falls from 1 to 0. While gaps are open the model is Gauss-Newton's: V_x is not yet a
  co-state, and V_x·f_xx would add curvature that means nothing;
* *saddles*: a stationary point counts as a minimum where the undamped recursion, with V_x·f_xx, is positive definite;
  else the driver looks for lower J along the negative curvature, and the run goes on from there (`second_order`);
* *control bounds*: the policy minimises the quadratic model inside the bounds (`box`; Tassa, Mansard & Todorov 2014),
  gains are zero where a bound holds, and the forward pass cuts at the bounds what the feedback asks beyond them.

DDP expands the dynamics to second order and converges quadratically; iLQR drops V_x·f_xx and uses
Gauss-Newton for least-squares costs, and converges linearly but with cheaper, always convex steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.renamed import accept_old_names
from ocpkit.engines.interface import AnyPolicy, Engine
from ocpkit.errors import NotPositiveDefinite, ProblemError, refuse_unused, unknown_name
from ocpkit.problem.problem import Problem
from ocpkit.recursion.bellman import Curvature
from ocpkit.recursion.box import StepBounds
from ocpkit.recursion.curvature import Exact, Metric
from ocpkit.solution.solution import Iteration, Status
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.choose import ENGINES, choose_engine
from ocpkit.solvers.ddp.compiled import CompiledRun
from ocpkit.solvers.ddp.damping import Damping
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
from ocpkit.solvers.ddp.line_search import BACKTRACKING, LineSearch, implausible
from ocpkit.solvers.ddp.switch import SwitchingRun
from ocpkit.solvers.driver import Guess, Run, Solver, bound_multipliers, not_negative, positive
from ocpkit.solvers.verdicts.optimality import LENIENCE, ROUNDING, Optimality, Spread
from ocpkit.solvers.verdicts.second_order import SLIGHT

NUMBERS = ("gradient_tolerance", "cost_tolerance", "gap_tolerance", "tikhonov", "second_order", "feedback", "scaling")
"""Options that C calls as Python does."""


@accept_old_names
@dataclass(frozen=True, kw_only=True)
class DDP(Solver):
    """Differential dynamic programming.

    Parameters
    ----------
    second_order
        Keep V_x·f_xx, V_x·f_ux, V_x·f_uu and the full Hessian of least-squares costs (DDP), or not (iLQR).
    feedback
        Keep Q_ux; without it this is stage-wise Newton (Prop. 2).
    curvature
        What stands for Q_uu; None is the exact Q_uu with the damping below. Each solve takes a copy of it, so that
        nothing is remembered from one to the next.
    gradient_tolerance
        Converged when max |Q_u + y|/√|Q_uu|, over all controls, is at most this times √S (see `optimality`); y, the
        multipliers of the control bounds, are zero where no bound holds. With ``scaling=False``: when |Q_u + y| is at
        most this [cost per unit of control].
    cost_tolerance
        Converged also when no gap is open and the undamped quadratic model promises a decrease of at most this times
        S = Σ |ℓ_t| + |φ| + 1e-60 of J's spread since the guess. With ``scaling=False``: times 1 + |J|.
    gap_tolerance
        Share of the guess's gaps that counts as closed; they all shrink by the same factor.
    tikhonov
        Constant ε added to V_xx (Alg. 3, line 12).
    damping
        Levenberg damping of the exact Q_uu and its schedule; None: ``Damping()``, but for inner solvers of
        `AugmentedLagrangian` and `InteriorPoint`, which have a schedule of their own.
    line_search
        How far to go along a step; None: always the full step, as training does.
    infeasible_start
        Start from a state guess even if there is none: x0 at every stage.
    engine
        What computes the sweeps, with equal results: ``"numpy"``, ``"vm"`` (CasADi's virtual machine), ``"c"``
        (compiled), or ``"auto"`` (see `ocpkit.solvers.choose`).
    """

    second_order: bool = True
    feedback: bool = True
    curvature: Curvature | None = None
    gradient_tolerance: float = 1e-6
    cost_tolerance: float = 1e-12
    gap_tolerance: float = 1e-9
    tikhonov: float = 0.0
    damping: Damping | None = None
    line_search: LineSearch | None = BACKTRACKING
    infeasible_start: bool = False
    engine: str = "auto"

    takes_states = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "gradient_tolerance", "cost_tolerance", "gap_tolerance")
        not_negative(self, "tikhonov")
        for name, kind in (("damping", Damping), ("line_search", LineSearch)):
            if not isinstance(getattr(self, name), (kind, type(None))):
                raise ProblemError(f"{name} must be a {kind.__name__} or None, got {getattr(self, name)!r}")
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, ENGINES)
        if self.curvature is not None:
            why = "with a curvature of its own, which is not damped; put it into the curvature, or use tikhonov"
            refuse_unused(self, why, "damping")

    @property
    def schedule(self) -> Damping:
        """The damping given, or the default."""
        return self.damping or Damping()

    @property
    def step_sizes(self) -> list[float]:
        """The α that are tried, in this order."""
        return [1.0] if self.line_search is None else self.line_search.step_sizes

    def numbers(self) -> dict[str, float]:
        """Return the options as the loop in C takes them, by the names in its struct."""
        damping, search = self.schedule, self.line_search
        numbers = {name: float(getattr(self, name)) for name in NUMBERS}
        numbers |= {"min_regularization": damping.minimum, "max_regularization": damping.maximum}
        numbers |= {"regularization_factor": damping.factor, "quadratic": damping.quadratic}
        numbers |= {"on_state": damping.on_state, "regularization": damping.initial, "growth": 1.0}
        numbers |= {"line_search": search is not None, "step_sizes": len(self.step_sizes)}
        return numbers | {"armijo": 0.0 if search is None else search.armijo}

    def begin(self, problem: Problem, guess: Guess) -> Run:
        if self.infeasible_start and guess.states is None:
            if len(set(problem.state_sizes)) > 1:
                raise ProblemError("the state size changes along the horizon: infeasible_start needs states=")
            guess = replace(guess, states=(problem.x0,) * (problem.horizon + 1))
        if problem.bounded:
            guess = replace(guess, controls=tuple(problem.clip(guess.controls)))
        obstacle = "" if self.curvature is None else "a curvature of its own is Python code"
        choice = choose_engine(problem, self.engine, obstacle)
        if choice.graph is not None and choice.library is not None:
            run: Run = CompiledRun.begin(self, problem, choice.graph, choice.library, guess)
        else:
            run = DDPRun(self, choice.engine(problem), guess)
            if choice.graph is not None:
                return SwitchingRun(run, problem, choice.graph)
        run.details["engine"] = f"{choice.name}: {choice.reason}"
        return run


@accept_old_names
@dataclass(frozen=True, kw_only=True)
class ILQR(DDP):
    """Iterative LQR: `DDP` with first-order dynamics (the Gauss-Newton form of the paper, Sec. 3.2)."""

    second_order: bool = False


@accept_old_names
@dataclass(frozen=True, kw_only=True)
class FDDP(DDP):
    """Feasibility-driven DDP: `DDP` from a state guess with gaps, by default x0 at every stage."""

    infeasible_start: bool = True


class DDPRun(Run):
    """One DDP solve in progress."""

    policy: AnyPolicy | None = None

    def __init__(self, options: DDP, engine: Engine, guess: Guess) -> None:
        self.options, self.engine = options, engine
        self.curvature = deepcopy(options.curvature)
        self.trajectory = guess.trajectory(self.engine)
        self.schedule, self.damping = options.schedule, options.schedule.start()
        self.gap_weight = 0.0
        self.idle = 0
        self.details = {}
        self.held = dict[int, Array]()
        self.spread, self.unit = Spread(), 0.0
        self.optimality = Optimality(float("nan"), 0.0, {})

    @property
    def multipliers(self) -> Sequence[Array] | None:  # type: ignore[override]
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
        promised = self._promised_decrease(self.policy)
        for step_size in self._step_sizes():
            candidate = self.engine.forward_pass(self.trajectory, self.policy, step_size)
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
        stages, terminal = self.engine.expand(self.trajectory, second_order=second_order)
        bounds = self._bounds()
        mended = False  # whether Q_uu has been indefinite with less damping
        while True:
            mu = self.damping.value
            on_state = self.schedule.on_state
            damping = 0.0 if on_state else mu
            metric = Metric(self.optimality.metric, self.trajectory.magnitude) if options.scaling else None
            curvature = self.curvature or Exact(damping, metric)
            relative = mu if on_state and options.scaling else 0.0
            try:
                self.policy = self.engine.backward_pass(
                    stages,
                    terminal,
                    curvature,
                    bounds,
                    feedback=options.feedback,
                    tikhonov=options.tikhonov + (mu if on_state and not options.scaling else 0.0),
                    state_damping=relative,
                )
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
                    self.details["reason"] = str(error) if indefinite else f"derivatives are not finite at stage {bad}"
                    self.policy = None  # the last one belongs to another trajectory
                    return False
                mended = True

    def _bounds(self) -> StepBounds | None:
        """Bounds of the steps at the current trajectory."""
        problem = self.engine.problem
        return StepBounds(problem.room(self.trajectory.controls), self.held) if problem.bounded else None

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
            flat &= not newton or promised <= LENIENCE * alone + rounding
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
        return -policy.expected_change > LENIENCE * alone + rounding

    def _undamped(self, *, second_order: bool) -> AnyPolicy | None:
        """Backward pass without damping; None where Q_uu is not positive definite."""
        bounds = self._bounds()
        if bounds is not None:
            bounds = StepBounds(bounds.steps, dict(bounds.multipliers))
        stages, terminal = self.engine.expand(self.trajectory, second_order=second_order)
        try:
            return self.engine.backward_pass(stages, terminal, Exact(), bounds, feedback=True, tikhonov=0.0)
        except NotPositiveDefinite:
            return None

    def _record(self, regularization: float | None = None, **numbers: float) -> Iteration:
        return Iteration(
            index=0,
            cost=self.trajectory.cost,
            gradient_norm=self.policy.gradient_norm if self.policy is not None else float("nan"),
            regularization=self.damping.value if regularization is None else regularization,
            gap=self.trajectory.gap,
            **numbers,
        )
