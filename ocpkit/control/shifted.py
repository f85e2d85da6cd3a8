"""A plan some ticks later, as a guess for a controller that moves on, or for a horizon that shrinks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ocpkit.errors import ProblemError
from ocpkit.problem.problem import Problem
from ocpkit.solution.solution import Solution


def shifted(problem: Problem, plan: Solution, ticks: int = 1) -> Solution:
    """Plan that starts `ticks` later, as a guess for a problem whose horizon is the same, or another if it shrinks.

    Beyond the plan's end the last control is held, and the states follow the model from the last one, so the only gap
    is that at the first stage: the state that was really reached differs from the plan's. The solver's first full step
    closes it through the feedback gains (Diehl's initial value embedding). What the solver knew beside the trajectory,
    the multipliers and its `WarmStart`, goes along; the policy does not.

    Raises
    ------
    ProblemError
        If the sizes of states or controls change along the horizon, or are not the plan's.
    """
    T, last = problem.horizon, len(plan.controls)
    sizes = (problem.state_sizes[0], problem.control_sizes[0])
    if not problem.uniform or (np.shape(plan.states)[1:], np.shape(plan.controls)[1:]) != ((sizes[0],), (sizes[1],)):
        raise ProblemError(f"a plan is shifted where all states and controls have one size, here {sizes}")
    points = np.minimum(np.arange(T + 1) + ticks, last)
    stages = np.minimum(points[:-1], last - 1)
    multipliers = plan.multipliers
    if multipliers is not None:
        pairs = [(multipliers[t], multipliers[min(place, last - 1)]) for place, t in enumerate(stages.tolist())]
        fitting = (y if len(y) == len(own) else np.zeros(len(own)) for y, own in pairs)  # a first stage may have fewer
        multipliers = (*fitting, multipliers[-1])
    controls, states = plan.controls[stages], plan.states[points]  # copies
    for t in range(max(last - ticks, 0), T):
        following = problem.stages[t].dynamics.step(states[t], controls[t], problem.parameter(t))
        if not np.isfinite(following).all():
            break
        states[t + 1] = following
    no_policy: dict[str, Any] = dict.fromkeys(("feedforward", "feedback_gains", "value_gradients", "value_hessians"))
    return replace(plan, controls=controls, states=states, multipliers=multipliers, **no_policy)
