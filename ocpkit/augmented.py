"""The augmented Lagrangian of a constrained Problem, as another Problem with no constraints but its control bounds.

Every constraint is rows lower ≤ g(x, u, p) ≤ upper of a set C. With multipliers y and a penalty ρ the stage cost
becomes (Rockafellar 1973; Nocedal & Wright 2006, ch. 17)

    ℓ(x, u, p) + ½ ρ dist²(g(x, u, p) + y/ρ, C),        y⁺ = ρ (s − Π_C(s)),  s = g + y/ρ,

which is smooth, covers equalities, one-sided and two-sided rows alike, and whose gradient at y is that of the
Lagrangian J + Σ y⁺ᵀ g. Multipliers and penalty enter as parameters, p' = (p, y, ρ), one row per stage: a new y
never traces or compiles anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import casadi as ca
import numpy as np

from ocpkit.differentiable import Traced, with_parameters
from ocpkit.functions import FunctionCost, FunctionDynamics, FunctionTerminalCost, LeastSquares
from ocpkit.identities import Identities
from ocpkit.problem import Array, Cost, Dynamics, Problem, Stage, TerminalCost
from ocpkit.rows import REMEMBERED, Rows, problem_rows, row_values
from ocpkit.symbol import to_casadi
from ocpkit.trace import trace_cost


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
        self.problem, self._p_size = problem, problem.parameters.shape[-1]
        self.rows = problem_rows(problem, bounds=False)
        self._width = self._p_size + max(rows.count for rows in self.rows) + 1
        parts = [
            _penalised_stage(Identities(stage, rows), self._p_size, self._width)
            for stage, rows in zip(problem.stages, self.rows)
        ]
        self._unconstrained = dataclasses.replace(
            problem,
            stages=tuple(parts),
            terminal_cost=_penalised_end(Identities(problem.terminal_cost, self.rows[-1]), self._p_size, self._width),
            terminal_constraints=(),
            parameters=self._extended(self.zeros(), 1.0),
        )

    def zeros(self) -> list[Array]:
        """Multipliers y = 0, one vector (k_t,) per stage and one for the end."""
        return [np.zeros(rows.count) for rows in self.rows]

    def lagrangian(self, multipliers: Sequence[Array], penalty: float) -> Problem:
        """Return the problem whose J is the augmented Lagrangian at (y, ρ)."""
        return self._unconstrained.replace(parameters=self._extended(multipliers, penalty))

    def values(self, states: Sequence[Array], controls: Sequence[Array]) -> list[Array]:
        """Return g of every stage and of the end."""
        return row_values(self.problem, self.rows, states, controls)

    def updated(self, values: Sequence[Array], multipliers: Sequence[Array], penalty: float) -> list[Array]:
        """Return y⁺ = ρ (s − Π_C(s)) with s = g + y/ρ."""
        shifted = [g + y / penalty for g, y in zip(values, multipliers)]
        return [penalty * (s - rows.traced.project(s)) for s, rows in zip(shifted, self.rows)]

    def _extended(self, multipliers: Sequence[Array], penalty: float) -> Array:
        """Return the rows (p, y, ρ) of stages 0 … T, (T + 1, n_p + k + 1); shorter y are padded by zeros."""
        problem = self.problem
        p = np.zeros((problem.horizon + 1, self._width))
        p[:, : self._p_size], p[:, -1] = problem.parameters, penalty
        for row, y in zip(p, multipliers):
            row[self._p_size : self._p_size + len(y)] = y
        return p


@lru_cache(maxsize=REMEMBERED)
def _penalised_stage(parts: Identities, p_size: int, width: int) -> Stage:
    stage, rows = parts.parts
    sizes = (stage.dynamics.state_size, stage.dynamics.control_size)
    cost = FunctionCost(_penalised(stage.cost, rows, (*sizes, p_size)), *sizes, parameter_size=width)
    dynamics = extend_dynamics(stage.dynamics, p_size, width)
    return Stage(dynamics, cost, stage.control_lower, stage.control_upper, name=stage.name)


@lru_cache(maxsize=REMEMBERED)
def _penalised_end(parts: Identities, p_size: int, width: int) -> TerminalCost:
    cost, rows = parts.parts
    penalised = _penalised(cost, rows, (cost.state_size, p_size))
    return FunctionTerminalCost(penalised, cost.state_size, parameter_size=width)


def _penalty_residual(rows: Rows, arguments: Sequence[ca.SX], p_size: int) -> ca.SX:
    """Return √ρ (s − Π_C(s)) (k,) of (…, p' = (p, y, …, ρ))."""
    if not rows.count:
        return ca.SX(0, 1)
    *z, extended = arguments
    y, rho = extended[p_size : p_size + rows.count], extended[-1]
    s = rows.traced.function(*z, extended[:p_size]) + y / rho
    lower, upper = rows.traced.lower, rows.traced.upper
    outside = [_outside(s[i], float(lower[i]), float(upper[i])) for i in range(rows.count)]
    return ca.sqrt(rho) * ca.vertcat(*outside)


def _outside(s: ca.SX, lower: float, upper: float) -> ca.SX:
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
        self.next_state_size = inner.next_state_size

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
