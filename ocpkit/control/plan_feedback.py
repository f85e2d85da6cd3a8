"""The feedback of one plan as a controller: u = u*_t + K_t (x − x*_t), without planning anew."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from ocpkit.boundary.arrays import Array
from ocpkit.control.mpc import Cause, Command, Health, measured_state
from ocpkit.errors import ProblemError
from ocpkit.problem.problem import Problem
from ocpkit.solution.solution import Solution


@dataclass
class PlanFeedback:
    """A controller that follows a plan; beyond its end the last stage's feedback goes on.

    Parameters
    ----------
    problem
        What was solved.
    plan
        Its solution, by a solver that returns feedback gains.

    Raises
    ------
    ProblemError
        If the plan is not one of the problem's horizon.
    """

    problem: Problem
    plan: Solution
    tick: int = field(default=0, init=False)
    pending: list[Array] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if len(self.plan.controls) != self.problem.horizon:
            raise ProblemError(f"the plan has {len(self.plan.controls)} stages, the problem {self.problem.horizon}")

    @property
    def stage(self) -> int:
        """Stage of the plan that the next tick is."""
        return min(self.tick, self.problem.horizon - 1)

    def step(self, x: ArrayLike | None, parameters: ArrayLike | None = None) -> Command:
        """Return the control for the state just measured, inside the bounds; parameters change nothing.

        Without a measurement (None, or not finite) it is the plan's own control, and HELD.
        """
        start, stage = time.perf_counter(), self.stage
        measured = measured_state(x, self.problem.state_sizes[stage])
        known = bool(np.isfinite(measured).all())
        control = self.plan.policy(stage, measured) if known else np.array(self.plan.controls[stage])
        control = self.problem.stages[stage].clip(control)
        usual = Health.OPTIMAL if self.plan.success else Health.IMPROVING
        self.tick += 1
        return Command(
            control=control,
            health=usual if known else Health.HELD,
            plan=self.plan,
            offset=stage,
            seconds=time.perf_counter() - start,
            status=self.plan.status,
            tick=self.tick - 1,
            state=measured,
            cost=self.plan.cost,
            iterations=0,
            cause=None if known else Cause.MEASUREMENT,
            reason="" if known else Cause.MEASUREMENT.value,
        )
