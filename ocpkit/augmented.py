"""The augmented Lagrangian of a constrained Problem, as another Problem with no constraints but its control bounds.

Every constraint is rows lower ≤ g(x, u, p) ≤ upper of a set C. With multipliers y and a penalty ρ the stage cost
becomes (Rockafellar 1973; Nocedal & Wright 2006, ch. 17)

    ℓ(x, u, p) + ½ ρ dist²(g(x, u, p) + y/ρ, C),        y⁺ = ρ (s − Π_C(s)),  s = g + y/ρ,

which is smooth, covers equalities, one-sided and two-sided rows alike, and whose gradient at y is that of the
Lagrangian J + Σ y⁺ᵀ g. Multipliers and penalty enter as parameters, p' = (p, y, ρ), one row per stage: a new y
never traces or compiles anything. The costs also bring y⁺, |g − Π_C(g)| and ℓ as graphs, which the C engine needs for
the outer iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from ocpkit.differentiable import Traced, with_parameters
from ocpkit.functions import FunctionCost, FunctionDynamics, FunctionTerminalCost, LeastSquares
from ocpkit.identities import Identities
from ocpkit.problem import Array, Cost, Dynamics, Problem, Stage, TerminalCost
from ocpkit.rows import REMEMBERED, Rows, row_values, rows_of
from ocpkit.symbol import to_casadi
from ocpkit.trace import trace_cost

NEGLIGIBLE = 1e-300  # J tells nothing of a violation v with ρ v² below its rounding; the gradient does


class Augmented:
    """A constrained problem's augmented Lagrangian, and the arithmetic of its rows.

    Parameters
    ----------
    problem
        Any problem whose costs and constraints can be traced.

    Attributes
    ----------
    rows
        The `Rows` of stages 0 … T-1 and of the end.

    Raises
    ------
    UnsupportedProblem
        If a cost is a black box; names the stage.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.own = problem, problem.parameters.shape[-1]
        parts = Identities(problem.stages, problem.terminal_cost, problem.terminal_constraints)
        self.structure = _structure(parts, self.own)
        self.rows, self.template = self.structure.rows, self.structure.template

    @cached_property
    def _unconstrained(self) -> Problem:
        problem = self.problem
        return self.template.replace(x0=problem.x0, controls=problem.controls, states=problem.states)

    def zeros(self) -> list[Array]:
        """Multipliers y = 0, one vector (k_t,) per stage and one for the end."""
        return [np.zeros(rows.count) for rows in self.rows]

    def first_multipliers(self, given: Sequence[Array] | None) -> list[Array] | None:
        """Return those of a warm start, less those of the control bounds, which come last; None if they do not fit."""
        if given is None or [len(y) for y in given] != np.diff(self.structure.cuts).tolist():
            return None
        return [y[: rows.count] for y, rows in zip(given, self.rows)]

    def multipliers(self, extended: Array, of_controls: Array) -> list[Array]:
        """Return y of the constraints, from the rows (p, y, ρ), and then of the bounds, from y of all controls."""
        y = np.concatenate([extended.ravel(), of_controls])[self.structure.places]
        return [y[a:b] for a, b in pairwise(self.structure.cuts)]

    def lagrangian(self, multipliers: Sequence[Array], penalty: float) -> Problem:
        """Return the problem whose J is the augmented Lagrangian at (y, ρ)."""
        return self._unconstrained.replace(parameters=self.extended(multipliers, penalty))

    def values(self, states: Sequence[Array], controls: Sequence[Array]) -> list[Array]:
        """Return g of every stage and of the end."""
        return row_values(self.problem, self.rows, states, controls)

    def updated(self, values: Sequence[Array], multipliers: Sequence[Array], penalty: float) -> list[Array]:
        """Return y⁺ = ρ (s − Π_C(s)) with s = g + y/ρ."""
        shifted = [g + y / penalty for g, y in zip(values, multipliers)]
        return [penalty * (s - rows.traced.project(s)) for s, rows in zip(shifted, self.rows)]

    def extended(self, multipliers: Sequence[Array] | None, penalty: float) -> Array:
        """Return the rows (p, y, ρ) of stages 0 … T, (T + 1, n_p + k + 1); shorter y, or None, are padded by zeros."""
        p = np.zeros(self.template.parameters.shape)
        p[:, : self.own], p[:, -1] = self.problem.parameters, penalty
        for row, y in zip(p, multipliers or ()):
            row[self.own : self.own + len(y)] = y
        return p


@dataclass(frozen=True)
class _Structure:
    """What all problems of the same parts share.

    Attributes
    ----------
    rows
        Of stages 0 … T-1 and of the end.
    template
        The problem that prices them, with numbers (x0, p', guesses) yet to be set.
    places, cuts
        Where y of the constraints and of the bounded controls lies, stage by stage, in the rows (p, y, ρ) followed by
        the multipliers of all controls; where each stage's begin and end among these.
    """

    rows: tuple[Rows, ...]
    template: Problem
    places: NDArray[np.intp]
    cuts: list[int]


@lru_cache(maxsize=32)
def _structure(parts: Identities, p_size: int) -> _Structure:
    stages, end, terminal_constraints = parts.parts
    rows = rows_of(stages, end, terminal_constraints, p_size, bounds=False)
    width = p_size + max(each.count for each in rows) + 1
    parameters = np.zeros((len(rows), width))
    parameters[:, -1] = 1.0
    template = Problem(
        stages=tuple(_penalised_stage(Identities(*pair), p_size, width) for pair in zip(stages, rows)),
        terminal_cost=_penalised_end(Identities(end, rows[-1]), p_size, width),
        x0=np.zeros(stages[0].dynamics.state_size),
        parameters=parameters,
    )
    _ = template.control_bounds  # computed once here, for all problems that are made from it
    return _Structure(rows, template, *_places(stages, rows, p_size, width))


def _places(
    stages: Sequence[Stage], rows: Sequence[Rows], p_size: int, width: int
) -> tuple[NDArray[np.intp], list[int]]:
    places, control = list[NDArray[np.intp]](), len(rows) * width
    for t, each in enumerate(rows):
        bounded = stages[t].bounded_controls if t < len(stages) else np.zeros(0, dtype=np.intp)
        places.append(np.concatenate([t * width + p_size + np.arange(each.count), control + bounded]))
        control += stages[t].dynamics.control_size if t < len(stages) else 0
    return np.concatenate(places), np.cumsum([0, *map(len, places)]).tolist()


@lru_cache(maxsize=REMEMBERED)
def _penalised_stage(parts: Identities, p_size: int, width: int) -> Stage:
    stage, rows = parts.parts
    sizes = (stage.dynamics.state_size, stage.dynamics.control_size)
    graph = _rows(stage.cost, rows, (*sizes, p_size), width)
    cost = FunctionCost(_penalised(stage.cost, rows, (*sizes, p_size)), *sizes, parameter_size=width, rows=graph)
    dynamics = extend_dynamics(stage.dynamics, p_size, width)
    return Stage(dynamics, cost, stage.control_lower, stage.control_upper, name=stage.name)


@lru_cache(maxsize=REMEMBERED)
def _penalised_end(parts: Identities, p_size: int, width: int) -> TerminalCost:
    cost, rows = parts.parts
    sizes = (cost.state_size, p_size)
    graph = _rows(cost, rows, sizes, width)
    return FunctionTerminalCost(_penalised(cost, rows, sizes), cost.state_size, parameter_size=width, rows=graph)


def _rows(cost: Cost | TerminalCost, rows: Rows, sizes: tuple[int, ...], width: int) -> ca.Function:
    """Return (…, p') → y⁺ (k,), |g − Π_C(g)| (k,), ℓ (1,)."""
    arguments = [ca.SX.sym("z", size) for size in (*sizes[:-1], width)]
    g, y, rho = _priced(rows, arguments, sizes[-1])
    own = [*arguments[:-1], arguments[-1][: sizes[-1]]]
    value = trace_cost(cost, sizes, "the cost under constraints")(*own)
    return ca.Function("rows", arguments, [rho * _outside(rows, g + y / rho), ca.fabs(_outside(rows, g)), value])


def _priced(rows: Rows, arguments: Sequence[ca.SX], p_size: int) -> tuple[ca.SX, ca.SX, ca.SX]:
    """Return g (k,), y (k,) and ρ of (…, p' = (p, y, …, ρ))."""
    *z, extended = arguments
    if not rows.count:  # a slice of no entries would be a row
        return ca.SX(0, 1), ca.SX(0, 1), extended[-1]
    return rows.traced.function(*z, extended[:p_size]), extended[p_size : p_size + rows.count], extended[-1]


def _penalty_residual(rows: Rows, arguments: Sequence[ca.SX], p_size: int) -> ca.SX:
    """Return √ρ (s − Π_C(s)) (k,) of (…, p')."""
    g, y, rho = _priced(rows, arguments, p_size)
    return ca.sqrt(rho) * _outside(rows, g + y / rho)


def _outside(rows: Rows, s: ca.SX) -> ca.SX:
    """Return s − Π_C(s) (k,)."""
    bounds = zip(rows.traced.lower.tolist(), rows.traced.upper.tolist())
    return ca.vertcat(ca.SX(0, 1), *(_beyond(s[i], *pair) for i, pair in enumerate(bounds)))


def _beyond(s: ca.SX, lower: float, upper: float) -> ca.SX:
    """s − Π(s) for the interval; smooth for an equality."""
    if lower == upper:
        return s - upper
    excess = ca.fmax(s - upper, 0.0) if np.isfinite(upper) else ca.SX(0)
    return excess - ca.fmax(lower - s, 0.0) if np.isfinite(lower) else excess


def _penalised(cost: Cost | TerminalCost, rows: Rows, sizes: tuple[int, ...]) -> Any:
    """ℓ + ½‖r‖² with the rows' residuals r; stays least squares where ℓ is."""
    p_size = sizes[-1]

    def split(arguments: Sequence[Any]) -> tuple[list[ca.SX], list[ca.SX]]:
        *z, extended = map(to_casadi, arguments)
        return [*z, extended], [*z, extended[:p_size]]

    if isinstance(cost, (FunctionCost, FunctionTerminalCost)) and cost.scalar.least_squares:
        g = cost.scalar.g
        if isinstance(g, Traced):
            graph = g.graph

            def residual(*arguments: Any) -> ca.SX:
                extended, own = split(arguments)
                return ca.vertcat(graph(*own), _penalty_residual(rows, extended, p_size))

            return LeastSquares(residual)
    value = trace_cost(cost, sizes, "the cost under constraints")

    def penalised(*arguments: Any) -> ca.SX:
        extended, own = split(arguments)
        return value(*own) + ca.sumsqr(_penalty_residual(rows, extended, p_size)) / 2

    return penalised


class _WithLongerParameters(Dynamics):
    """Hand-written dynamics that read only the first entries of p."""

    def __init__(self, inner: Dynamics, p_size: int) -> None:
        self.inner, self.p_size = inner, p_size
        self.state_size, self.control_size = inner.state_size, inner.control_size
        self.next_state_size, self.curved = inner.next_state_size, inner.curved

    def step(self, x: Array, u: Array, p: Array) -> Array:
        return self.inner.step(x, u, p[: self.p_size])

    def jacobians(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        return self.inner.jacobians(x, u, p[: self.p_size])

    def hessian_product(self, x: Array, u: Array, p: Array, costate: Array) -> tuple[Array, Array, Array]:
        return self.inner.hessian_product(x, u, p[: self.p_size], costate)


def extend_dynamics(dynamics: Dynamics, p_size: int, width: int) -> Dynamics:
    """Let dynamics of p take a longer p', whose first entries are p."""
    if not (isinstance(dynamics, FunctionDynamics) and isinstance(dynamics.f, Traced)):
        return _WithLongerParameters(dynamics, p_size)
    function = with_parameters(dynamics.function, 3, "dynamics")

    def step(x: Any, u: Any, extended: Any) -> Any:
        return function(x, u, extended[:p_size])

    sizes = (dynamics.state_size, dynamics.control_size)
    return FunctionDynamics(step, *sizes, next_state_size=dynamics.next_state_size, parameter_size=width)
