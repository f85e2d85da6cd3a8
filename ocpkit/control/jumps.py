"""Jumps of a measured state that a plan's feedback would follow, and should not.

A shifted plan is a guess whose first state is not the one measured; the solver closes that gap through the feedback
gains. Where the state has jumped, as an angle does that a sensor counts from −π to π and that nobody declared to be
one, the model goes on as if nothing had happened, while the gains answer with all they have. Then a fresh rollout of
the plan's controls is the better guess. It takes two rollouts to suspect that, so only unusual moves are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.problem.problem import Problem
from ocpkit.solution.solution import Solution

UNUSUAL = 5.0
"""Times the usual distance of an entry from the plan, and times the largest step that the plan itself takes."""
MEMORY = 0.9
"""Share of the usual distance that is left of it at the next tick."""
ROUNDING = 1e-9
"""Of the plan's states: distances as small as this are none."""
UNMOVED = 0.1
"""Part of the harm done by the feedback that the same controls without it do at most, where nothing has happened."""


@dataclass
class Jumps:
    """Usual distances of measured states from the plan's, by entry, none before the first."""

    usual: Array | None = None

    def suspected(self, problem: Problem, plan: Solution, guess: Solution, ticks: int) -> bool:
        """Whether x0 lies unusually far from a plan's stage `ticks`, and only the plan's feedback makes that matter.

        `guess` is the plan from that stage on.
        """
        moved = np.abs(problem.x0 - guess.states[0])
        usual = self.usual
        if usual is None or (moved > UNUSUAL * usual).any():
            stride = np.abs(np.diff(guess.states, axis=0)).max(axis=0) + ROUNDING * np.abs(guess.states).max(axis=0)
            if (moved > UNUSUAL * (stride if usual is None else np.maximum(stride, usual))).any():
                expected = problem.cost(guess.states, guess.controls)
                follows, stays = (
                    problem.cost(*played(problem, plan, ticks, feedback)) - expected for feedback in (True, False)
                )
                if abs(stays) <= UNMOVED * (follows if np.isfinite(follows) else abs(expected)):
                    return True
        self.usual = moved if usual is None else MEMORY * usual + (1 - MEMORY) * moved
        return False


def played(problem: Problem, plan: Solution, ticks: int, feedback: bool) -> tuple[list[Array], list[Array]]:
    """Trajectory of a plan that goes on from its stage `ticks`, from another x0, with its feedback or without.

    Controls are put inside the bounds; beyond the plan's end the last one goes on.
    """
    last, states, controls = len(plan.controls) - 1, [problem.x0], list[Array]()
    with np.errstate(all="ignore"):
        for t, stage in enumerate(problem.stages):
            now = min(ticks + t, last)
            u = plan.policy(now, states[t]) if feedback and ticks + t <= last else plan.controls[now]
            controls.append(stage.clip(u))
            states.append(stage.dynamics.step(states[t], controls[t], problem.parameter(t)))
    return states, controls
