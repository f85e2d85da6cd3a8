"""Constrained problems by an interior point around DDP (Armand & Omheni 2017; Pavlov, Shames & Manzie 2021).

    minimize φ(x_T) + Σ ℓ_t(x_t, u_t)   subject to   x_{t+1} = f_t(x_t, u_t),   c_t(x_t, u_t) + s_t = 0, s_t > 0

The outer iteration is that of `augmented_lagrangian`, with the inequalities under a logarithmic barrier μ (`barrier`)
whose slacks are eliminated in closed form: the inner DDP minimizes a smooth function, s y = μ holds at each of its
iterates, and the start may be infeasible. Equalities keep the price of the augmented Lagrangian. After each inner solve
y moves, μ falls, and ρ grows where |c + s| has not fallen enough; at the end s y is the last μ at every row.

Control bounds are rows like any other here, not kept by the inner solver: they hold to the constraint tolerance, and
what is returned is moved inside them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocpkit.engines.c.build import Build
from ocpkit.errors import ProblemError
from ocpkit.problem.problem import Problem
from ocpkit.solvers.constrained.augmented_lagrangian import OLD_PENALTY, begin_run, compile_run
from ocpkit.solvers.constrained.barrier import Barrier
from ocpkit.solvers.constrained.options import ConstrainedOptions
from ocpkit.solvers.driver import AnyRun
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.renamed import OldNames, accept_old_names

OF_BARRIER = {"first_barrier": "first", "last_barrier": "last", "barrier_factor": "factor"}


@accept_old_names(OLD_PENALTY, OldNames("barrier", Barrier(), OF_BARRIER))
@dataclass(frozen=True, kw_only=True)
class InteriorPoint(ConstrainedOptions):
    """DDP inside a logarithmic barrier: control bounds, stage and terminal constraints, equalities and inequalities.

    Parameters
    ----------
    inner, constraint_tolerance, gradient_tolerance, first_tolerance, penalty
        As of `AugmentedLagrangian`; ρ prices equalities, and c + s of the inequalities.
    barrier
        Schedule of μ.
    """

    gradient_tolerance: float = 1e-7  # the barrier's own curvature makes slopes look small that y can feel
    barrier: Barrier = Barrier()  # noqa: RUF009

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.barrier, Barrier):
            raise ProblemError(f"barrier must be a Barrier, got {self.barrier!r}")

    def begin(self, problem: Problem, guess: Guess) -> AnyRun:
        return begin_run(self, problem, guess, self.barrier)

    def compile(self, problem: Problem) -> Build | None:
        return compile_run(self, problem, barrier=True)
