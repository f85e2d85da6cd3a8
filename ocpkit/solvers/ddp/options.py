"""Options of DDP, as its runs on all engines read them."""

from __future__ import annotations

from dataclasses import dataclass

from ocpkit.engines.interface import ENGINES
from ocpkit.errors import ProblemError, refuse_unused, unknown_name
from ocpkit.recursion.bellman import Curvature
from ocpkit.solvers.ddp.damping import Damping
from ocpkit.solvers.ddp.line_search import BACKTRACKING, LineSearch
from ocpkit.solvers.driver import Solver, not_negative, positive

NUMBERS = ("gradient_tolerance", "cost_tolerance", "gap_tolerance", "tikhonov", "second_order", "feedback", "scaling")
"""Options that C calls as Python does."""


@dataclass(frozen=True, kw_only=True)
class DDPOptions(Solver):
    """Options of `DDP`, whose documentation says what they are."""

    second_order: bool = True
    feedback: bool = True
    curvature: Curvature | None = None
    gradient_tolerance: float = 1e-6
    cost_tolerance: float = 1e-12
    gap_tolerance: float = 1e-9
    tikhonov: float = 0.0
    damping: Damping | None = None
    line_search: LineSearch | None = BACKTRACKING
    infeasible_start: bool = False
    engine: str = "auto"

    takes_states = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "gradient_tolerance", "cost_tolerance", "gap_tolerance")
        not_negative(self, "tikhonov")
        for name, kind in (("damping", Damping), ("line_search", LineSearch)):
            if not isinstance(getattr(self, name), (kind, type(None))):
                raise ProblemError(f"{name} must be a {kind.__name__} or None, got {getattr(self, name)!r}")
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, ENGINES)
        if self.curvature is not None:
            why = "with a curvature of its own, which is not damped; put it into the curvature, or use tikhonov"
            refuse_unused(self, why, "damping")

    @property
    def schedule(self) -> Damping:
        """The damping given, or the default."""
        return self.damping or Damping()

    @property
    def obstacle(self) -> str:
        """Why only NumPy can treat these options, if so."""
        return "" if self.curvature is None else "a curvature of its own is Python code"

    @property
    def step_sizes(self) -> list[float]:
        """The α that are tried, in this order."""
        return [1.0] if self.line_search is None else self.line_search.step_sizes

    def numbers(self) -> dict[str, float]:
        """Return the options as the loop in C takes them, by the names in its struct."""
        damping, search = self.schedule, self.line_search
        numbers = {name: float(getattr(self, name)) for name in NUMBERS}
        numbers |= {"min_regularization": damping.minimum, "max_regularization": damping.maximum}
        numbers |= {"regularization_factor": damping.factor, "quadratic": damping.quadratic}
        numbers |= {"on_state": damping.on_state, "regularization": damping.initial, "growth": 1.0}
        numbers |= {"line_search": search is not None, "step_sizes": len(self.step_sizes)}
        return numbers | {"armijo": 0.0 if search is None else search.armijo}
