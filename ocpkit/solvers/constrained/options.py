"""Options of the constrained solvers, as their runs in Python and in C read them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ocpkit.errors import ProblemError, refuse_unused
from ocpkit.solution.solution import WarmStart
from ocpkit.solvers.constrained.barrier import Barrier
from ocpkit.solvers.constrained.penalty import Penalty
from ocpkit.solvers.ddp.damping import QUADRATIC
from ocpkit.solvers.ddp.ddp import DDP
from ocpkit.solvers.driver import Solver, positive


@dataclass(frozen=True, kw_only=True)
class ConstrainedOptions(Solver):
    """Options of `AugmentedLagrangian` and `InteriorPoint`, whose documentation says what they are."""

    max_iterations: int = 50
    inner: DDP = field(default_factory=lambda: DDP(max_iterations=300))
    constraint_tolerance: float = 1e-9
    gradient_tolerance: float = 1e-6
    first_tolerance: float = 1e-2
    penalty: Penalty = Penalty()  # noqa: RUF009

    handles_constraints = True
    takes_states = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "constraint_tolerance", "gradient_tolerance", "first_tolerance")
        if not isinstance(self.penalty, Penalty):
            raise ProblemError(f"penalty must be a Penalty, got {self.penalty!r}")
        if not isinstance(self.inner, DDP):
            raise ProblemError(f"inner must be a DDP solver, got {type(self.inner).__name__}")
        name = type(self).__name__
        why = f"as the inner solver of {name}; give first_tolerance and gradient_tolerance to {name} itself"
        refuse_unused(self.inner, why, "gradient_tolerance", "cost_tolerance")

    def minimizer(self, *, penalized: bool) -> DDP:
        """Return the inner solver; functions that rows change at each outer iteration suit another damping."""
        inner = self.inner
        chosen = inner.damping is not None or inner.curvature is not None or not penalized
        return inner if chosen else replace(inner, damping=QUADRATIC)

    def first(self, warm: WarmStart | None, barrier: Barrier | None) -> WarmStart:
        """Return the first ρ, μ and inner tolerance: those of a warm start, as far as they go further."""
        tolerance = self.first_tolerance if warm is None else min(warm.tolerance, self.first_tolerance)
        mu = 0.0 if barrier is None else barrier.begin(warm)
        return WarmStart(penalty=self.penalty.first(warm), barrier=mu, tolerance=tolerance)
