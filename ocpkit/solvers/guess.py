"""Guess that a solve begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array, checked_rows
from ocpkit.boundary.deadline import OutOfTime, ending_at
from ocpkit.engines.interface import Engine
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.errors import ProblemError
from ocpkit.problem.angles import continued
from ocpkit.problem.problem import Problem
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.solution import Solution, WarmStart
from ocpkit.solution.trajectory import Trajectory


@dataclass(frozen=True)
class Guess:
    """Start of a run: controls, states if the start may be infeasible, and what a warm start has beside them.

    Controls and states are a tuple of vectors, one per stage, or one array with a row per stage.
    """

    controls: Sequence[Array]
    states: Sequence[Array] | None
    multipliers: tuple[Array, ...] | None = None
    scaling: Scaling | None = None
    warm_start: WarmStart | None = None

    @classmethod
    def choose(cls, problem: Problem, solution: Solution | None, controls: Any, states: Any) -> Guess:
        """Take the arguments first, then the warm start, then the problem's own guess, which it has checked."""
        if controls is None and solution is not None:
            controls = solution.controls
            if len(controls) != problem.horizon:
                raise ProblemError(
                    f"the warm start has {len(controls)} entries, expected {problem.horizon}, one per stage; where a "
                    "horizon moves on or shrinks, take ocpkit.shifted(problem, solution), else give controls="
                )
        own_states = problem.states if solution is None else None
        chosen = own_states if states is None else checked_rows(states, problem.state_sizes, "states")
        if chosen is not None and problem.angles:
            chosen = tuple(continued([problem.x0, *chosen[1:]], problem.angles))
        return cls(
            problem.controls if controls is None else checked_rows(controls, problem.control_sizes, "controls"),
            chosen,
            None if solution is None else solution.multipliers,
            None if solution is None else solution.scaling,
            None if solution is None else solution.warm_start,
        )

    def trajectory(self, engine: Engine) -> Trajectory:
        """Roll the controls out, or keep the states with their gaps."""
        if self.states is None:
            return engine.rollout(self.controls)
        return engine.with_gaps(self.states, self.controls)

    def unmoved(self, problem: Problem, seconds: float) -> Trajectory:
        """Trajectory of a solve that has come to nothing: NaN where the model takes longer than so many seconds."""
        inside = replace(self, controls=problem.clip(self.controls))
        try:
            with ending_at(perf_counter() + seconds):
                return inside.trajectory(NumpyEngine(problem))
        except OutOfTime:
            unknown = [problem.x0, *(np.full(size, np.nan) for size in problem.state_sizes[1:])]
            return Trajectory(unknown if self.states is None else self.states, inside.controls, float("nan"))
