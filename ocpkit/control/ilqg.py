"""Iterative LQG for noise that depends on states and controls (Todorov & Li 2005), as a fixed point over DDP.

    minimize E[φ(x_T) + Σ ℓ_t(x_t, u_t)]   subject to   x_{t+1} = f_t(x_t, u_t) + F_t(x_t, u_t) ε_t,   ε_t ~ N(0, I)

One outer iteration minimizes φ + Σ ℓ_t + ½ tr(F_tᵀ W_t F_t) by DDP, warm-started, and then sets W_t to the V_xx at
t + 1 that DDP found. Where W no longer changes, the recursion is that of iLQG: Q_uu holds Σ_i C_iᵀ V_xx' C_i, V the
traces. Since W is fixed inside, the line search compares one and the same function, in every engine. W at T − 1 is
right after one outer iteration, W at T − 2 after two, …, so on a linear-quadratic problem it ends, after T at most.

Where V_xx has negative eigenvalues they count as zero in W: the model would otherwise pay for noise, without bound.

V_xx does not vary with x in this model: where it does (curved problems, free parameters that the noise meets), the
result is the optimum of the model, near that of the true expectation while the noise is small.

The policy is that of the state. With additive noise and linear measurements the separation principle lets the gains be
used on a Kalman filter's estimate (`ocpkit.control.estimator`). With other noise, given the filter, controller and
filter are found in turn (`ocpkit.control.lqg`): after every outer iteration the filter's gains are those for the new
policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.control.estimator import KalmanFilter
from ocpkit.control.lqg import EstimationCost, estimation_cost
from ocpkit.control.noise import ExpectedCost
from ocpkit.errors import ProblemError
from ocpkit.problem.problem import Problem
from ocpkit.solution.history import DDPIteration, Iteration
from ocpkit.solution.solution import Solution, Status
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.ddp.ddp import DDP
from ocpkit.solvers.driver import Run, Solver, positive
from ocpkit.solvers.guess import Guess


@dataclass(frozen=True, kw_only=True)
class ILQG(Solver):
    """DDP under noise in the dynamics: the expected cost, to second order in the noise.

    The solution's J is the expected one, the states are those of ε = 0 under the policy.

    Parameters
    ----------
    inner
        The solver at fixed W; its iteration limit is per outer iteration.
    hessian_tolerance
        Converged when the largest change of an entry of W is at most this times the largest entry.
    estimator
        Where given, the policy is the best one on the estimates of this filter, with the gains that are best for it,
        ``estimator.along(solution.states, solution.controls, solution.feedback_gains).gains``; J is that of both.
    """

    max_iterations: int = 200
    inner: DDP = field(default_factory=DDP)
    hessian_tolerance: float = 1e-8
    estimator: KalmanFilter | None = None

    handles_noise = True
    takes_states = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "hessian_tolerance")
        if not self.scaling:
            raise ProblemError("ILQG measures nothing itself: set scaling=False on the inner solver")
        if not isinstance(self.inner, DDP):
            raise ProblemError(f"inner must be a DDP solver, got {type(self.inner).__name__}")

    def check(self, problem: Problem) -> None:
        """Accept what the inner solver does."""
        self.inner.check(problem)

    def begin(self, problem: Problem, guess: Guess) -> ILQGRun:
        return ILQGRun(self, problem, guess)


class ILQGRun(Run):
    """One solve in progress; its steps are outer iterations."""

    multipliers: Sequence[Array] | None = None

    def __init__(self, options: ILQG, problem: Problem, guess: Guess) -> None:
        self.options, self.problem = options, problem
        self.guess = replace(guess, controls=tuple(problem.clip(guess.controls)))
        self.expected = ExpectedCost(problem)
        self.W = [np.zeros((n, n)) for n in problem.state_sizes[1:]]
        self.inner: Solution | None = None
        self.inner_iterations = 0

    def start(self) -> Iteration:
        controls = [np.asarray(u) for u in self.guess.controls]
        states, cost = self.problem.rollout(controls)
        self.trajectory = Trajectory(states, controls, cost)
        return DDPIteration(index=0, cost=cost)

    def step(self) -> Iteration:
        before, problem = self.trajectory.cost, self.expected.at(self.W)
        if self.inner is None:
            inner = self.options.inner.solve(problem, controls=self.guess.controls, states=self.guess.states)
        else:
            # no open-loop rollout, and no jump to another minimum, which would give another W in turn
            inner = self.options.inner.find_stationary(problem, self.inner, states=self.inner.states)
        self.inner_iterations += inner.iterations
        spent = self.details.seconds + inner.details.seconds
        self.details = replace(self.details, inner_iterations=self.inner_iterations, seconds=spent)
        if inner.value_hessians is None or not np.isfinite(inner.cost):
            self.status = inner.status if inner.status is not Status.CONVERGED else Status.DIVERGED
            return DDPIteration(index=0, cost=before)
        estimation = self._estimation_cost(problem, inner)
        change = self._update(inner, estimation)
        self.inner = self.policy = inner
        self.multipliers = inner.multipliers
        cost = inner.cost if estimation is None else inner.cost + estimation.cost
        self.trajectory = Trajectory(list(inner.states), list(inner.controls), cost)
        self.details = replace(self.details, cost_without_noise=self.problem.cost(inner.states, inner.controls))
        if change <= self.options.hessian_tolerance or inner.status is Status.INTERRUPTED:
            self.status = inner.status  # what holds at fixed W holds where W is the right one
        last = inner.last_iteration
        return DDPIteration(
            index=0,
            cost=cost,
            actual_decrease=before - cost,
            gradient_norm=last.gradient_norm,
            regularization=last.regularization,
            step_size=1.0,
            gap=last.gap,
        )

    def _estimation_cost(self, problem: Problem, inner: Solution) -> EstimationCost | None:
        """Cost of not knowing the state, with the filter that is best for the inner solution."""
        estimator, options = self.options.estimator, self.options.inner
        if estimator is None:
            return None
        filtering = estimator.along(inner.states, inner.controls, inner.feedback_gains)
        return estimation_cost(problem, inner, filtering, second_order=options.second_order)

    def _update(self, inner: Solution, estimation: EstimationCost | None) -> float:
        """Take W from the inner solution; return its largest relative change."""
        new = [_positive_part(np.asarray(V)) for V in inner.value_hessians[1:]]
        if estimation is not None:
            new = [V + more for V, more in zip(new, estimation.hessians)]
        change = max(float(np.abs(a - b).max()) for a, b in zip(new, self.W))
        size = max(float(np.abs(a).max()) for a in new)
        self.W = new
        return change / size if size > 0 else 0.0


def _positive_part(V: Array) -> Array:
    """Return the symmetric matrix without its negative eigenvalues."""
    values, vectors = np.linalg.eigh((V + V.T) / 2)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T
