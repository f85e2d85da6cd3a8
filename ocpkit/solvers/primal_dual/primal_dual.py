"""Options of the primal-dual interior point."""

from __future__ import annotations

from dataclasses import dataclass

from ocpkit.engines.c.build import Build
from ocpkit.problem.problem import Problem
from ocpkit.solvers.driver import AnyRun, Solver, positive
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.primal_dual.kkt import KERNEL
from ocpkit.solvers.primal_dual.run import PrimalDualRun


@dataclass(frozen=True, kw_only=True)
class PrimalDual(Solver):
    """Interior point on the KKT system of multiple shooting, with a filter line search and a feasibility restoration.

    The class of IPOPT (Wächter & Biegler 2006) and fatrop (Vanroye et al. 2023).

    Parameters
    ----------
    tolerance
        Of the optimality conditions, in natural units.
    """

    max_iterations: int = 500
    tolerance: float = 1e-8

    handles_constraints = True
    takes_states = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tolerance")

    def compile(self, problem: Problem) -> Build | None:
        """Begin to compile the kernel of the sweeps, which is the same for all problems."""
        KERNEL.look()
        return None

    def begin(self, problem: Problem, guess: Guess) -> AnyRun:
        return PrimalDualRun(problem, guess, self.tolerance, scaling=self.scaling)
