"""The engine that needs no compiler: the recursion of `bellman` traced by CasADi and run by its virtual machine.

Each type of stage gives one function that holds its derivatives and the Bellman step; it is chained over a run of
equal stages (`mapaccum`), so that a sweep over the horizon is one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from threading import get_ident
from typing import Any

import casadi as ca
import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import check_time
from ocpkit.boundary.series import blocks_of, gather, join
from ocpkit.engines.graphs import ProblemGraph, StageGraph, TerminalGraph
from ocpkit.engines.interface import AnyPolicy
from ocpkit.engines.mapped import Sweep, rows_between
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.engines.unrolled import SymbolicCholesky, UnrolledBounds
from ocpkit.errors import NotPositiveDefinite
from ocpkit.problem.angles import TURN
from ocpkit.problem.problem import Problem
from ocpkit.recursion.bellman import ActionValue, Operator, bellman_step
from ocpkit.recursion.box import StepBounds
from ocpkit.recursion.curvature import Exact, Symmetric, damping_unit
from ocpkit.recursion.value import Value
from ocpkit.solution.trajectory import ROUNDING, SMALL, Trajectory, relative_gap

SIDES = "control_lower", "control_upper"
WORTH_SHARING = 7000
"""Stages that a sweep has gone through when looking for its common subexpressions begins to pay.

That takes 13 microseconds for each operation, and saves a quarter of the 7 nanoseconds that one takes.
"""


@dataclass(frozen=True)
class SweepPolicy:
    """The result of a backward pass, stage by stage: affine policies and value models."""

    feedforward: Sequence[Array]
    feedback_gains: Sequence[Array] | None
    value_gradients: Sequence[Array]
    value_hessians: Sequence[Array]
    gradient_norm: float
    expected_change: float
    multipliers: Sequence[Array] | None = None
    slopes: Sequence[Array] = ()
    curvatures: Sequence[Array] = ()


@dataclass(frozen=True)
class Expanded:
    """The trajectory that a backward pass expands along, and to which order."""

    trajectory: Trajectory
    second_order: bool


@dataclass(frozen=True)
class StageRun:
    """Stages first … last - 1, all of one type."""

    stage_type: StageGraph
    first: int
    last: int

    @property
    def length(self) -> int:
        """Number of stages."""
        return self.last - self.first


class VMEngine:
    """Rollouts and the two passes of DDP on CasADi's virtual machine; the interface of `NumpyEngine`."""

    name = "vm"

    def __init__(self, problem: Problem, graph: ProblemGraph) -> None:
        self.problem, self.graph = problem, graph
        self.runs, t = list[StageRun](), 0
        for stage_type, stages in groupby(graph.type_of_stage):
            count = len(list(stages))
            self.runs.append(StageRun(graph.stage_types[stage_type], t, t + count))
            t += count

    def rollout(self, controls: Sequence[Array]) -> Trajectory:
        """Simulate from x0 (Alg. 1, input)."""
        controls = gather(controls)
        blocks, costs = [self.problem.x0[None]], list[Array]()
        for run in self.runs:
            sweep = _sweep("rollout", run)
            x, cost = sweep(blocks[-1][-1], _rows(controls, run), self._parameters(run))
            blocks.append(x)
            costs.append(cost)
        J, magnitude = self._cost(costs, blocks[-1][-1])
        return Trajectory(join(blocks), controls, J, magnitude=magnitude)

    def with_gaps(self, states: Sequence[Array], controls: Sequence[Array]) -> Trajectory:
        """Take a state guess as it is; its first state is replaced by x0."""
        states, controls = gather([self.problem.x0, *states[1:]]), gather(controls)
        blocks, costs = list[Array](), list[Array]()
        for run in self.runs:
            f, cost = _sweep("step", run)(_rows(states, run), _rows(controls, run), self._parameters(run))
            blocks.append(f - np.stack(states[run.first + 1 : run.last + 1]))
            costs.append(cost)
        J, magnitude = self._cost(costs, states[-1])
        gaps = join(blocks)
        largest = relative_gap(gaps, states)
        if largest <= ROUNDING:
            return Trajectory(states, controls, J, magnitude=magnitude)
        return Trajectory(states, controls, J, gaps, magnitude, 0.0 if largest <= SMALL else 1.0)

    def expand(self, trajectory: Trajectory, *, second_order: bool) -> tuple[Expanded, Value]:
        """Derivatives of the terminal cost; those of the stages are computed inside the backward pass."""
        _, gradient, hessian = _build_terminal(self.graph.terminal, second_order, get_ident())(
            trajectory.states[-1], self._final_parameter()
        )
        return Expanded(trajectory, second_order), Value(gradient[0], hessian[0])

    def backward_pass(
        self,
        stages: Expanded,
        terminal: Value,
        curvature: Exact,
        bounds: StepBounds | None = None,
        *,
        feedback: bool,
        tikhonov: float,
        state_damping: float = 0.0,
    ) -> AnyPolicy:
        """Alg. 1, lines 2-6; by NumPy where a search in the bounds takes more steps than were unrolled.

        Raises
        ------
        NotPositiveDefinite
            With the stage at which Q_uu + μ D has no Cholesky factor.
        """
        trajectory, metric = stages.trajectory, curvature.metric
        V, blocks, slope, change = (terminal.x, terminal.xx), list[list[Array]](), 0.0, 0.0
        for run in reversed(self.runs):
            sweep = _sweep("backward", run, stages.second_order, trajectory.gaps is not None, feedback)
            backward = [_rows(series, run)[::-1] for series in (trajectory.states, trajectory.controls)]
            gaps = [] if trajectory.gaps is None else [_rows(trajectory.gaps, run)[::-1]]
            p = self._parameters(run)[::-1]
            limits = _limits(bounds, run) if run.stage_type.bounded and bounds is not None else []
            m = run.stage_type.control_size
            known = np.ones(m) if metric is None else metric.known.get(m, np.zeros(m))
            magnitude = 1.0 if metric is None else metric.magnitude
            *outputs, slopes, hessian_diagonals, changes, pivots, unfinished = sweep(
                *V, *backward, p, curvature.regularization, known, magnitude, tikhonov, state_damping, *gaps, *limits
            )
            failed = np.flatnonzero(~(pivots.min(axis=1, initial=np.inf) > 0) | ~np.isfinite(pivots.sum(axis=1)))
            done = int(failed[0]) if len(failed) else run.length
            if unfinished[:done].any():
                reference = NumpyEngine(self.problem)
                expanded = reference.expand(trajectory, second_order=stages.second_order)
                return reference.backward_pass(
                    *expanded, curvature, bounds, feedback=feedback, tikhonov=tikhonov, state_damping=state_damping
                )
            if bounds is not None:
                bounds.multipliers.update(zip(range(run.last - 1, run.first - 1, -1), outputs[-1][:done]))
            if len(failed):
                raise NotPositiveDefinite(run.last - 1 - done)
            V = outputs[0][-1], outputs[1][-1]
            blocks.insert(0, [output[::-1] for output in (*outputs, slopes, hessian_diagonals)])
            slope = np.maximum(slope, np.abs(slopes).max(initial=0.0))  # a NaN stays one, unlike with max
            change += changes.sum()
        Vx, Vxx, k, *K, y, slope_rows, bend_rows = ([block[i] for block in blocks] for i in range(len(blocks[0])))
        return SweepPolicy(
            join(k),
            join(K[0]) if K else None,
            join([*Vx, terminal.x[None]]),
            join([*Vxx, terminal.xx[None]]),
            float(slope),
            float(change),
            None if bounds is None else join(y),
            join(slope_rows),
            join(bend_rows),
        )

    def forward_pass(self, nominal: Trajectory, policy: AnyPolicy, step_size: float) -> Trajectory:
        """Alg. 1, lines 7-12: u ← u + α k + K (x̂ − x) along x̂; open gaps shrink by (1 − α)."""
        keep_gaps, feedback = nominal.gaps is not None and step_size < 1, policy.feedback_gains is not None
        remaining = None
        if keep_gaps and nominal.gaps is not None:
            remaining = join([(1 - step_size) * gaps for gaps in blocks_of(nominal.gaps)])
        states, controls, costs = [nominal.states[0][None]], list[Array](), list[Array]()
        for run in self.runs:
            sweep = _sweep("forward", run, feedback, keep_gaps, *self.problem.angles)
            around = [_rows(series, run) for series in (nominal.states, nominal.controls, policy.feedforward)]
            gains = [_rows(series, run) for series in (policy.feedback_gains, remaining) if series is not None]
            limits = [_rows(side, run) for side in self.problem.control_limits if run.stage_type.bounded]
            x, u, cost = sweep(states[-1][-1], *around, self._parameters(run), step_size, *gains, *limits)
            states.append(x)
            controls.append(u)
            costs.append(cost)
        share = (1 - step_size) * nominal.open if keep_gaps else 0.0
        J, magnitude = self._cost(costs, states[-1][-1])
        return Trajectory(join(states), join(controls), J, remaining, magnitude, share)

    def first_not_finite(self, stages: Expanded, terminal: Value) -> int | None:
        """Return the first stage (T: the terminal cost) whose derivatives are not finite, or None."""
        trajectory = stages.trajectory
        for run in self.runs:
            series = _rows(trajectory.states, run), _rows(trajectory.controls, run), self._parameters(run)
            (derivatives,) = _sweep("derivatives", run, stages.second_order)(*series)
            failed = np.flatnonzero(~np.isfinite(derivatives).all(axis=1))
            if len(failed):
                return run.first + int(failed[0])
        finite = np.isfinite(terminal.x).all() and np.isfinite(terminal.xx).all()
        return None if finite else self.problem.horizon

    def _parameters(self, run: StageRun) -> Array:
        p = self.problem.parameters
        return np.broadcast_to(p, (run.length, len(p))) if p.ndim == 1 else p[run.first : run.last]

    def _final_parameter(self) -> Array:
        return self.problem.parameter(self.problem.horizon)

    def _cost(self, costs: list[Array], final: Array) -> tuple[float, float]:
        """J and Σ |ℓ_t| + |φ| from the running costs; summed from the first stage on, like the other engines do."""
        phi = _build_terminal(self.graph.terminal, False, get_ident())(final, self._final_parameter())[0]
        running = np.concatenate(costs)[:, 0].tolist()
        return float(sum(running) + phi[0, 0]), float(sum(map(abs, running)) + abs(phi[0, 0]))


@lru_cache(maxsize=256)
def _build(kind: str, stage: StageGraph, length: int, flags: tuple[bool | int, ...], share: bool, thread: int) -> Sweep:
    """Chain the function of one stage over a run; kept, one for each thread, since it owns memory.

    With `share`, common subexpressions are computed once, which changes no number.
    """
    build: Callable[..., tuple[ca.Function, int, tuple[int, ...]]] = _BUILDERS[kind]
    check_time()
    function, carried, ranks = build(stage, *flags)
    if share:
        check_time()
        arguments = function.sx_in()
        function = ca.Function("stage", arguments, ca.cse(function.call(arguments)))
    check_time()
    if length > 1:  # a stage whose state changes size follows no stage of its type
        function = function.mapaccum("sweep", length, carried) if carried else function.map(length)
    return Sweep(function, length, ranks)


def _sweep(kind: str, run: StageRun, *flags: bool | int) -> Sweep:
    sweep = _build(kind, run.stage_type, run.length, flags, False, get_ident())
    if kind == "backward" and sweep.done >= WORTH_SHARING:  # the others have next to nothing in common
        return _build(kind, run.stage_type, run.length, flags, True, get_ident())
    return sweep


def _step(stage: StageGraph) -> tuple[ca.Function, int, tuple[int, ...]]:
    """(x, u, p) → f, ℓ."""
    x, u, p, _ = stage.symbols()
    return _function([x, u, p], stage.step(x, u, p)), 0, (1, 1)


def _derivatives(stage: StageGraph, second_order: bool) -> tuple[ca.Function, int, tuple[int, ...]]:
    """(x, u, p) → the entries of f_x, f_u and of the derivatives of ℓ that are not zero everywhere."""
    x, u, p, _ = stage.symbols()
    blocks = stage.dynamics.jacobian(x, u, p), *stage.cost.expand(ca.vertcat(x, u), (x, u, p), second_order)
    entries = [entry for block in blocks for entry in block.nonzeros()]
    return ca.Function("stage", [x, u, p], [ca.vertcat(ca.SX(0, 1), *entries)]), 0, (1,)


def _rollout(stage: StageGraph) -> tuple[ca.Function, int, tuple[int, ...]]:
    """The same, with x carried from stage to stage."""
    return _step(stage)[0], 1, (1, 1)


def _forward(stage: StageGraph, feedback: bool, gaps: bool, *angles: int) -> tuple[ca.Function, int, tuple[int, ...]]:
    """(x̂; x, u, k, p, α[, K][, gap][, lower, upper]) → x̂', u + α k + K (x̂ − x) inside the bounds, ℓ."""
    x, u, p, gap = stage.symbols()
    new, k, alpha = ca.SX.sym("x", x.shape[0]), ca.SX.sym("k", u.shape[0]), ca.SX.sym("alpha")
    K, moved = ca.SX.sym("K", u.shape[0], x.shape[0]), new - x
    for i in angles:
        moved[i] -= TURN * ca.floor(moved[i] / TURN + 0.5)
    control = u + alpha * k + (K @ moved if feedback else 0)
    limits = [ca.SX.sym(side, u.shape[0]) for side in SIDES if stage.bounded]
    if stage.bounded:
        control = ca.fmin(ca.fmax(control, limits[0]), limits[1])
    following, cost = stage.step(new, control, p)
    arguments = [new, x, u, k, p, alpha, *([K] if feedback else []), *([gap] if gaps else []), *limits]
    return _function(arguments, (following - gap if gaps else following, control, cost)), 1, (1, 1, 1)


def _backward(
    stage: StageGraph, second_order: bool, gaps: bool, feedback: bool
) -> tuple[ca.Function, int, tuple[int, ...]]:
    """(V_x', V_xx'; x, u, p, μ, D, Σ|ℓ|, ε, μ_x[, gap][, lower, upper, y]) → V_x, V_xx, k[, K], y, Q_u + y, and …

    … the diagonal of Q_uu, the expected change, the pivots of Q_uu + μ D, and whether the search in the bounds needs
    more steps. D is zero where it is not known; bounds are those of k here.
    """
    x, u, p, gap = stage.symbols()
    size, mu, epsilon = stage.next_state_size, ca.SX.sym("mu"), ca.SX.sym("epsilon")
    known, magnitude, on_state = ca.SX.sym("D", u.shape[0]), ca.SX.sym("magnitude"), ca.SX.sym("on_state")
    Vx, Vxx = ca.SX.sym("Vx", size), ca.SX.sym("Vxx", size, size)
    V = Value(Vx, Vxx).regularized(epsilon, on_state)
    expansion = stage.expand(x, u, p, Vx + V.xx @ gap if gaps else Vx, second_order=second_order)
    check_time()
    limits = [ca.SX.sym(name, u.shape[0]) for name in (*SIDES, "y") if stage.bounded]
    checks = list[ca.SX]()
    bounds = UnrolledBounds(limits, checks) if stage.bounded else None

    def damped(t: int, Q: ActionValue) -> tuple[Operator, Any]:
        matrix = Q.uu + ca.diag(ca.if_else(mu > 0, mu * damping_unit(known, Q, magnitude), 0.0))
        if stage.bounded:
            return Symmetric(matrix), Q.u
        factor = SymbolicCholesky(matrix)
        checks.extend([factor.pivots, ca.SX(0)])
        return factor, Q.u

    step = bellman_step(0, replace(expansion, gap=gap if gaps else None), V, damped, bounds, feedback=feedback)
    check_time()
    policy = [step.k, step.K] if feedback else [step.k]
    y = step.multipliers if stage.bounded else ca.SX.zeros(*u.shape)
    outputs = [step.value.x, step.value.xx, *policy, y, step.slope, ca.diag(step.Q.uu), step.expected_change, *checks]
    arguments = [Vx, Vxx, x, u, p, mu, known, magnitude, epsilon, on_state, *([gap] if gaps else []), *limits]
    return _function(arguments, outputs), 2, (1, 2, 1, *([2] if feedback else []), 1, 1, 1, 1, 1, 1)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "step": _step,
    "derivatives": _derivatives,
    "rollout": _rollout,
    "forward": _forward,
    "backward": _backward,
}


def _function(arguments: Sequence[ca.SX], outputs: Sequence[ca.SX]) -> ca.Function:
    return ca.Function("stage", list(arguments), [ca.densify(ca.SX(output)) for output in outputs])


@lru_cache(maxsize=64)
def _build_terminal(terminal: TerminalGraph, second_order: bool, thread: int) -> Sweep:
    """(x, p) → φ, φ_x, φ_xx."""
    x, p = ca.SX.sym("x", terminal.state_size), ca.SX.sym("p", terminal.parameter_size)
    return Sweep(_function([x, p], terminal.expand(x, p, second_order=second_order)), 1, (1, 1, 2))


def _limits(bounds: StepBounds, run: StageRun) -> list[Array]:
    """Return the bounds of k and the multipliers that the searches begin with, from the last stage of a run on."""
    steps = np.array(bounds.steps[run.first : run.last])[::-1]
    unknown = np.zeros(run.stage_type.control_size)
    multipliers = [bounds.multipliers.get(t, unknown) for t in reversed(range(run.first, run.last))]
    return [steps[:, 0], steps[:, 1], np.array(multipliers)]


def _rows(series: Sequence[Array], run: StageRun) -> Array:
    return rows_between(series, run.first, run.last)
