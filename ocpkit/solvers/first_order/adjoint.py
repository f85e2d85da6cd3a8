"""Adjoint sweep of gradient descent and Pontryagin's methods, and their test of optimality.

The co-state p_t of Eq. 19b and the back-propagated gradient ∇_{x_t} J are one recursion (Lemma 5): the
Bellman step without second derivatives, p_t = Q_x, and ∇_u H = ∇_{u_t} J = Q_u (Eq. 21, 22).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import OutOfTime
from ocpkit.engines.numpy import NumpyEngine, Policy, first_not_finite
from ocpkit.problem.problem import Problem
from ocpkit.recursion.bellman import Curvature
from ocpkit.recursion.curvature import Identity
from ocpkit.solution.details import Details, Failure, Reason
from ocpkit.solution.history import Iteration
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.solution import Status
from ocpkit.solvers.driver import MOST_DEPARTURES, Run, Solver, positive
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.verdicts.natural_units import control_units, natural_units, sweep
from ocpkit.solvers.verdicts.stationarity import descent, held, hidden_decrease

LEAST_UNIT = 1e-3
"""The unit of J at a solution as a share of that at the guess, at least: J may end at zero, in rounding."""


@dataclass(frozen=True, kw_only=True)
class FirstOrderSolver(Solver):
    """Options of the methods that know gradients only.

    Parameters
    ----------
    gradient_tolerance
        Converged when max_t ‖∇_u J‖_∞, projected on the control bounds, is at most this, and a probe finds no
        cost lower than this tolerance admits (see `stationarity`); both in natural units (see `natural_units`), or
        in the user's without `scaling`.
    """

    max_iterations: int = 2000
    gradient_tolerance: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "gradient_tolerance")


class FirstOrderRun(Run):
    """A run that keeps one trajectory, its co-states and its projected gradient."""

    curvature: Curvature = Identity(1.0)
    policy: Policy | None = None
    scaling: Scaling = Scaling()
    departures = 0

    def __init__(self, options: FirstOrderSolver, problem: Problem, guess: Guess) -> None:
        self.tolerance, self.scaled = options.gradient_tolerance, options.scaling
        self.engine, self.problem = NumpyEngine(problem), problem
        self.trajectory = self.engine.rollout(problem.clip(guess.controls))
        sizes = problem.control_sizes, problem.state_sizes
        self.scaling = Scaling(1.0, *(tuple(np.ones(size) for size in series) for series in sizes))
        self.details = Details(engine=self.engine.name)

    def start(self) -> Iteration:
        if self.trajectory.finite:
            self.measure()
            self.adjoint_sweep()
        else:
            self.status = Status.INVALID_INPUT
        return self.record()

    def measure(self) -> None:
        """Take the natural units at the guess."""
        if self.scaled:
            self.scaling = natural_units(self.engine, self.trajectory)
        self.first_unit = self.scaling.cost

    def adjoint_sweep(self) -> None:
        """Eq. 19b backward along the current trajectory; sets the status where the gradient vanishes."""
        try:
            stages, terminal = self.engine.expand_first_order(self.trajectory)
            bad = first_not_finite(stages, terminal)
            if bad is not None:
                self.fail(Failure.NOT_FINITE, stage=bad)
                self.status = Status.INVALID_INPUT if self.policy is None else Status.DIVERGED
                return
            self.policy = self.engine.backward_pass(stages, terminal, self.curvature, feedback=False, tikhonov=0.0)
        except (OutOfTime, KeyboardInterrupt):
            self.policy = None  # it is that of another trajectory
            raise
        if self._stationary() and self._stationary_in_own_units():
            self._vanished()

    def _stationary_in_own_units(self) -> bool:
        """Whether the gradient vanishes also where J counts in what it is now; a far guess may have hidden it."""
        if self.scaled:
            units = control_units(self.engine, self.trajectory, sweep(self.engine, self.trajectory))
            cost = max(units.cost, abs(self.trajectory.cost), LEAST_UNIT * self.first_unit)
            self.scaling = replace(self.scaling, cost=min(self.scaling.cost, cost))
        return self._stationary()

    def _stationary(self) -> bool:
        units = zip(self._free_gradients(), self.scaling.controls)
        return all((np.abs(g) * s <= self.tolerance * self.scaling.cost).all() for g, s in units)

    def _vanished(self) -> None:
        """Converged, unless a probe finds J lower than the gradient admits: then go on from there, so many times."""
        least = self.tolerance * self.scaling.cost
        if hidden_decrease(self.engine, self.trajectory) <= least:
            self.status = Status.CONVERGED
        elif self.departures < MOST_DEPARTURES:
            self.departures += 1
            self.leave(descent(self.engine, self.trajectory).controls)
        else:
            self.fail(Failure.SATURATED, amount=self.trajectory.cost)
            self.status = Status.STALLED

    def fail(self, failure: Failure, **where: Any) -> None:
        """Keep why the run ends."""
        self.details = replace(self.details, reason=Reason(failure=failure, **where))

    def leave(self, controls: Sequence[Array]) -> None:
        """Go on from controls where J is lower."""
        self.trajectory, self.status = self.engine.rollout(self.problem.clip(controls)), None
        self.adjoint_sweep()

    def gradients(self) -> list[Array]:
        """∇_{u_t} J of every stage (Eq. 22)."""
        assert self.policy is not None
        return [step.Q.u for step in self.policy.steps]

    @property
    def multipliers(self) -> Sequence[Array] | None:
        """Those of the control bounds: what holds ∇_{u_t} J in balance where a bound holds the control."""
        bounded = [stage.bounded_controls for stage in self.problem.stages]
        if self.policy is None or not any(len(controls) for controls in bounded):
            return None
        free = zip(self._free_gradients(), self.gradients(), bounded)
        return [*((f - g)[controls] for f, g, controls in free), np.zeros(0)]

    def costate_after(self, t: int) -> Array:
        """p_{t+1}, the co-state that the Hamiltonian of stage t uses."""
        costates = self.costates()
        assert costates is not None
        return costates[t + 1]

    def gradient_norm(self) -> float:
        """max_t ‖∇_{u_t} J‖_∞ of the controls that no bound holds, in the user's units."""
        return max((float(np.abs(g).max()) for g in self._free_gradients() if g.size), default=0.0)

    def _free_gradients(self) -> list[Array]:
        """∇_{u_t} J of every stage, zero for controls that a bound holds.

        The step u − clip(u − ∇J) would not do: a narrow box makes it short, however steep J is. A bound holds from
        where step and slope multiply to the tolerance squared, so that a minimizer's rounding does not count.
        """
        negligible = self.tolerance**2 * self.scaling.cost
        parts = zip(self.problem.stages, self.trajectory.controls, self.gradients())
        return [np.where(held(stage, u, g, negligible), 0.0, g) for stage, u, g in parts]

    def record(self, **numbers: float) -> Iteration:
        """One line of history at the current iterate."""
        norm = self.gradient_norm() if self.policy is not None else float("nan")
        return Iteration(index=0, cost=self.trajectory.cost, gradient_norm=norm, **numbers)
