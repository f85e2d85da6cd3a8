"""The readable reference engine: a Python loop over the stages, NumPy inside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import in_time
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Stage
from ocpkit.recursion.bellman import BellmanStep, Curvature, backward_pass
from ocpkit.recursion.box import StepBounds
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.policy import AffinePolicy
from ocpkit.recursion.value import Value
from ocpkit.solution.trajectory import ROUNDING, SMALL, Trajectory, relative_gap


@dataclass(frozen=True)
class Policy:
    """The result of a backward pass: affine policies and value models along a trajectory."""

    steps: list[BellmanStep]
    terminal: Value

    @property
    def feedforward(self) -> list[Array]:
        """k of every stage."""
        return [step.k for step in self.steps]

    @property
    def feedback_gains(self) -> list[Array] | None:
        """K of every stage; None without feedback."""
        return [step.K for step in self.steps] if self.steps[0].K is not None else None

    @property
    def value_gradients(self) -> list[Array]:
        """V_x at x_0 … x_T, the co-states."""
        return [*(step.value.x for step in self.steps), self.terminal.x]

    @property
    def value_hessians(self) -> list[Array] | None:
        """V_xx at x_0 … x_T; None where it is not kept as dense matrices."""
        values = [*(step.value.xx for step in self.steps), self.terminal.xx]
        return values if isinstance(self.terminal.xx, np.ndarray) else None

    @property
    def multipliers(self) -> list[Array] | None:
        """y of every stage's control bounds, (m,) each; None without bounds."""
        found = [step.multipliers for step in self.steps]
        return None if found[0] is None else found

    @property
    def slopes(self) -> list[Array]:
        """Q_u + y of every stage, (m,) each."""
        return [step.slope for step in self.steps]

    @property
    def curvatures(self) -> list[Array]:
        """Diagonal of every stage's undamped Q_uu, (m,) each."""
        return [np.zeros(len(s.k)) if s.Q.uu is None else np.diagonal(s.Q.uu) for s in self.steps]

    @property
    def gradient_norm(self) -> float:
        """max_t ‖Q_u + y‖_∞."""
        return float(np.max([np.abs(s.slope).max() for s in self.steps if s.Q.u.size], initial=0.0))

    @cached_property
    def expected_change(self) -> float:
        """Change of J that the quadratic model predicts for the full step."""
        return float(sum(s.expected_change for s in self.steps))


class NumpyEngine:
    """Rollouts, expansions and the two passes of DDP on one problem."""

    name = "numpy"

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def rollout(self, controls: Sequence[Array]) -> Trajectory:
        """Simulate from x0 (Alg. 1, input)."""
        return self._trajectory(self.problem.simulate(controls), [np.asarray(u) for u in controls])

    def with_gaps(self, states: Sequence[Array], controls: Sequence[Array]) -> Trajectory:
        """Take a state guess as it is; its first state is replaced by x0."""
        problem = self.problem
        states, controls = [problem.x0, *states[1:]], list(controls)
        with np.errstate(all="ignore"):
            gaps = [
                stage.dynamics.step(states[t], controls[t], problem.parameter(t)) - states[t + 1]
                for t, stage in enumerate(in_time(problem.stages))
            ]
        largest = relative_gap(gaps, states)
        if largest <= ROUNDING:
            return self._trajectory(states, controls)
        return self._trajectory(states, controls, gaps, 0.0 if largest <= SMALL else 1.0)

    def _trajectory(
        self,
        states: Sequence[Array],
        controls: Sequence[Array],
        gaps: Sequence[Array] | None = None,
        share: float = 0.0,
    ) -> Trajectory:
        costs = self.problem.costs(states, controls)
        return Trajectory(states, controls, float(sum(costs)), gaps, float(sum(map(abs, costs))), share)

    def expand(self, trajectory: Trajectory, *, second_order: bool) -> tuple[list[Expansion], Value]:
        """Derivatives of every stage and of the terminal cost along a trajectory."""
        problem, x, u, gaps = self.problem, trajectory.states, trajectory.controls, trajectory.gaps
        final, p_final = x[-1], problem.parameter(problem.horizon)
        gap_at = [None] * problem.horizon if gaps is None else gaps
        with np.errstate(all="ignore"):
            stages = [
                expand(stage, x[t], u[t], problem.parameter(t), second_order=second_order, gap=gap_at[t])
                for t, stage in enumerate(in_time(problem.stages))
            ]
            phi = problem.terminal_cost
            hessian = (phi.hessian if second_order else phi.gauss_newton_hessian)(final, p_final)
            return stages, Value(phi.gradient(final, p_final), hessian)

    def expand_first_order(self, trajectory: Trajectory) -> tuple[list[Expansion], Value]:
        """Gradients only, for back-propagation and Pontryagin's adjoint."""
        problem, x, u = self.problem, trajectory.states, trajectory.controls
        with np.errstate(all="ignore"):
            stages = [
                expand_first_order(stage, x[t], u[t], problem.parameter(t))
                for t, stage in enumerate(in_time(problem.stages))
            ]
            return stages, Value(problem.terminal_cost.gradient(x[-1], problem.parameter(problem.horizon)))

    def backward_pass(
        self,
        stages: list[Expansion],
        terminal: Value,
        curvature: Curvature,
        bounds: StepBounds | None = None,
        *,
        feedback: bool,
        tikhonov: float,
        state_damping: float = 0.0,
    ) -> Policy:
        """Alg. 1, lines 2-6 (raises NotPositiveDefinite, see `bellman.backward_pass`)."""
        with np.errstate(all="ignore"):
            steps = backward_pass(
                stages, terminal, curvature, bounds, feedback=feedback, tikhonov=tikhonov, state_damping=state_damping
            )
        return Policy(steps, terminal)

    def forward_pass(self, nominal: Trajectory, policy: Policy, step_size: float) -> Trajectory:
        """Alg. 1, lines 7-12: u ← u + α k + K (x̂ − x) along x̂; open gaps shrink by (1 − α).

        Stops early, with cost +inf, where the new states are not finite.
        """
        problem, x, gaps = self.problem, nominal.states, nominal.gaps
        affine = AffinePolicy(x, nominal.controls, policy.feedforward, policy.feedback_gains, problem.difference)
        states, controls = [x[0]], list[Array]()
        with np.errstate(all="ignore"):
            for t, stage in enumerate(in_time(problem.stages)):
                u = stage.clip(affine.control(t, states[t], step_size))
                following = stage.dynamics.step(states[t], u, problem.parameter(t))
                if gaps is not None and step_size < 1:
                    following = following - (1 - step_size) * gaps[t]
                if not np.isfinite(following).all():
                    return Trajectory(states, controls, float("inf"))
                controls.append(u)
                states.append(following)
        if gaps is None or step_size == 1:
            return self._trajectory(states, controls)
        remaining = [(1 - step_size) * gap for gap in gaps]
        return self._trajectory(states, controls, remaining, (1 - step_size) * nominal.open)

    def first_not_finite(self, stages: Sequence[Expansion], terminal: Value) -> int | None:
        """Return the first stage (T: the terminal cost) whose derivatives are not finite, or None."""
        return first_not_finite(stages, terminal)


def first_not_finite(stages: Sequence[Expansion], terminal: Value) -> int | None:
    """Return the first stage (T: the terminal cost) whose derivatives are not finite, or None."""
    for t, stage in enumerate(stages):
        blocks = (stage.fx, stage.fu, stage.lx, stage.lu, stage.lxx, stage.lux, stage.luu)
        if not all(np.isfinite(block).all() for block in blocks):
            return t
    finite = np.isfinite(terminal.x).all() and (terminal.xx is None or np.isfinite(terminal.xx).all())
    return None if finite else len(stages)


def expand(stage: Stage, x: Array, u: Array, p: Array, *, second_order: bool, gap: Array | None = None) -> Expansion:
    """Expand a stage at (x, u): to second order in everything that is `curved`, or by Gauss-Newton."""
    fx, fu = stage.dynamics.jacobians(x, u, p)
    lx, lu = stage.cost.gradient(x, u, p)
    hessian = stage.cost.hessian if second_order else stage.cost.gauss_newton_hessian
    lxx, lux, luu = hessian(x, u, p)
    curved = second_order and stage.dynamics.curved
    contract = (lambda v: stage.dynamics.hessian_product(x, u, p, v)) if curved else None
    return Expansion(fx, fu, lx, lu, lxx, lux, luu, contract, gap)


def expand_first_order(stage: Stage, x: Array, u: Array, p: Array) -> Expansion:
    """Gradients only, for methods that carry a co-state but no value Hessian."""
    return Expansion(*stage.dynamics.jacobians(x, u, p), *stage.cost.gradient(x, u, p))
