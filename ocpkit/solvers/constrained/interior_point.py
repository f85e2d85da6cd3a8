"""Constrained problems by an interior point around DDP (Armand & Omheni 2017; Pavlov, Shames & Manzie 2021).

    minimise φ(x_T) + Σ ℓ_t(x_t, u_t)   subject to   x_{t+1} = f_t(x_t, u_t),   c_t(x_t, u_t) + s_t = 0, s_t > 0

The outer iteration is that of `constrained`, with the inequalities under a logarithmic barrier μ (`barrier`)
whose slacks are eliminated in closed form: the inner DDP minimises a smooth function, s y = μ holds at each of its
iterates, and the start may be infeasible. Equalities keep the price of the augmented Lagrangian. After each inner solve
y moves, μ falls, and ρ grows where |c + s| has not fallen enough; at the end s y is `last_barrier` at every row.

Control bounds are rows like any other here, not kept by the inner solver: they hold to the constraint tolerance, and
what is returned is moved inside them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocpkit.errors import ProblemError
from ocpkit.solvers.constrained.augmented_lagrangian import AugmentedLagrangian, Barrier
from ocpkit.solvers.driver import positive


@dataclass(frozen=True, kw_only=True)
class InteriorPoint(AugmentedLagrangian):
    """DDP inside a logarithmic barrier: control bounds, stage and terminal constraints, equalities and inequalities.

    Parameters
    ----------
    first_barrier, last_barrier
        First and last μ [natural unit of J, at most |J|]: s y of every inequality. J is too high by at most μ per row.
    barrier_factor
        What μ is multiplied by after each inner solve.
    """

    gradient_tolerance: float = 1e-7  # the barrier's own curvature makes slopes look small that y can feel
    first_barrier: float = 1e-3
    last_barrier: float = 1e-9
    barrier_factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "first_barrier", "last_barrier", "barrier_factor")
        if self.barrier_factor >= 1:
            raise ProblemError(f"barrier_factor must be below 1, got {self.barrier_factor!r}")

    @property
    def barrier(self) -> Barrier:
        return Barrier(self.first_barrier, self.last_barrier, self.barrier_factor)
