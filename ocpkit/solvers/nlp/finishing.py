"""Finish of a plugin's optimum without rows: by the exact recursion, which may find that it is none.

A plugin's claim is as good as the units of its program: a gap is small beside the states that a guess visited, and a
slope beside the J that it had, though both may have fallen by many decades since; and a barrier stays away from bounds
by what its tolerance allows. DDP measures anew at each iterate, closes gaps along the feedback, so that the trajectory
is one of the problem also where the system is unstable, puts controls on their bounds, and knows a saddle. From a point
that is optimal it has no step to do.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocpkit.engines.numpy import NumpyEngine
from ocpkit.problem.problem import Problem
from ocpkit.solution.solution import Solution, Status
from ocpkit.solution.trajectory import SMALL, Trajectory, relative_gap
from ocpkit.solvers.ddp.damping import QUADRATIC
from ocpkit.solvers.ddp.ddp import DDP

NEGLIGIBLE = 1e-9
"""A difference of J, as a share of Σ |ℓ_t| + |φ|, that is none."""
STEPS = 20
"""Iterations of DDP after which a point is too far from the optimum: the plugin shall go on itself."""
NO_TIME = 1e-9


@dataclass(frozen=True)
class Finish:
    """Point that DDP reached from a plugin's.

    Attributes
    ----------
    solution, trajectory
        DDP's.
    differs
        Whether its J is another one, or the plugin's trajectory has gaps.
    cut_short
        Whether a limit of the user's ended it.
    """

    solution: Solution
    trajectory: Trajectory
    differs: bool
    cut_short: bool

    @property
    def confirmed(self) -> bool:
        """Whether this is a minimum."""
        return self.solution.status is Status.CONVERGED


def finish(problem: Problem, nominal: Trajectory, most: int, seconds: float) -> Finish:
    """Go on by DDP from a trajectory, which may have gaps, for at most so many iterations and so long.

    Raises
    ------
    KeyboardInterrupt
        If interrupted.
    """
    solver = DDP(
        max_iterations=max(0, min(most, STEPS)),
        time_limit=max(seconds, NO_TIME),
        engine="numpy",
        damping=QUADRATIC,  # of few steps, those of small changes get farther from a saddle
    )
    found = solver.solve(problem, controls=nominal.controls, states=nominal.states)
    if found.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    end = NumpyEngine(problem).with_gaps(found.states, found.controls)
    open_gaps = nominal.gaps is not None and relative_gap(nominal.gaps, nominal.states) > SMALL
    same = abs(nominal.cost - end.cost) <= NEGLIGIBLE * nominal.magnitude
    by_iterations = found.status is Status.ITERATION_LIMIT and most < STEPS
    return Finish(found, end, open_gaps or not same, by_iterations or found.status is Status.TIME_LIMIT)
