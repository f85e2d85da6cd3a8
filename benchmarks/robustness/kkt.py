"""The check that no system shares: is (x, u) a Karush–Kuhn–Tucker point of its problem?

First the dynamics, rows and bounds have to hold to `FEASIBLE`, relative to the largest entry of each along the answer.
Then multipliers are sought, none of which a system is asked for: with w = (u_0, x_1, u_1, …, x_T), C all rows and A
their Jacobian, by CasADi's derivatives of each stage,

    minimize over y   ½ ‖S (∇J + Aᵀ y)‖² + ½ Σ (y_i d_i)²/θ²,    y_i ≥ 0 near an upper bound, ≤ 0 near a lower one,

where d is the distance from the nearer bound, zero for equalities. S makes slopes relative to the units of J and w. It
is solved as a sparse least-squares problem, those multipliers fixed at zero that come out with the wrong sign; where
that does not pass, a linear program seeks the y with the smallest largest residual. A point passes if the residual is
at most `STATIONARY` of the largest sum of magnitudes that cancel in it, of each kind of variable, and no
|y_i| d_i is above `COMPLEMENTARY`, in units of J. Co-states are free in it, so that nothing is rolled out: also of
unstable systems the residual is not made of rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import casadi as ca
import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog
from scipy.sparse.linalg import splu

from ocpkit import Problem
from ocpkit.boundary.arrays import Array
from ocpkit.problem.graphs import TracedConstraints, trace_constraints, trace_stage, trace_terminal

FEASIBLE, STATIONARY, COMPLEMENTARY = 1e-6, 1e-4, 1e-5
SMALLEST = 0.1  # scale of a state or row, at least
FLAT = 1e-4  # slopes below are as good as zero, times STATIONARY, in units of J and w
REGULARIZATION, REFINEMENTS, ROUNDS = 1e-10, 5, 12
PATIENCE = 10.0  # seconds for the linear program


@dataclass(frozen=True)
class Verdict:
    """What was found of an answer.

    Attributes
    ----------
    cost
        J, summed anew.
    violation
        Largest relative violation of dynamics, rows and bounds.
    slope
        Largest relative residual of the Lagrangian's gradient; infinite where it was not looked at.
    """

    cost: float
    violation: float
    slope: float = np.inf
    left: float = np.inf

    @property
    def feasible(self) -> bool:
        """Whether dynamics, rows and bounds hold."""
        return self.violation <= FEASIBLE

    @property
    def holds(self) -> bool:
        """Whether the point is a Karush–Kuhn–Tucker point."""
        return self.feasible and self.slope <= STATIONARY and self.left <= COMPLEMENTARY


def check(problem: Problem, states: Sequence[Array], controls: Sequence[Array]) -> Verdict:
    """Judge an answer of any system."""
    finite = all(np.isfinite(z).all() for z in (*states, *controls))
    if not finite:
        return Verdict(float("nan"), float("inf"))
    at = _Point(problem, states, controls)
    if not np.isfinite(at.cost) or not at.violation <= FEASIBLE:
        return Verdict(at.cost, at.violation)
    return Verdict(at.cost, at.violation, *_multiply(at))


class _Point:
    """Values and derivatives at an answer, variables and rows in one vector each."""

    def __init__(self, problem: Problem, states: Sequence[Array], controls: Sequence[Array]) -> None:
        self.problem, self.x, self.u = problem, states, controls
        sizes = [size for pair in zip((0, *problem.state_sizes[1:]), (*problem.control_sizes, 0)) for size in pair]
        self.starts = np.cumsum([0, *sizes])
        p_size, T = problem.parameters.shape[-1], problem.horizon
        self.stages = [
            [value.full() for value in _stage_function(stage, p_size)(x, u, problem.parameter(t))]
            for t, (stage, x, u) in enumerate(zip(problem.stages, states, controls))
        ]
        end = _terminal_function(problem, p_size)
        self.end = [value.full() for value in end(states[-1], problem.parameter(T))]
        self.cost = float(sum(stage[1].item() for stage in self.stages) + self.end[0].item())
        magnitude = sum(abs(stage[1].item()) for stage in self.stages) + abs(self.end[0].item())
        self.unit = max(float(magnitude), 1e-8)

    @cached_property
    def gaps(self) -> list[Array]:
        """x_0 less the given one, and x_{t+1} − f_t."""
        following = [self.problem.x0, *(stage[0][:, 0] for stage in self.stages)]
        return [x - f for x, f in zip(self.x, following)]

    @cached_property
    def rows(self) -> list[tuple[Array, Array, Array]]:
        """Values, lower and upper bounds of the rows of each stage, then of the end, then of the controls."""
        problem, p_size = self.problem, self.problem.parameters.shape[-1]
        found = [
            (stage[2][:, 0], limits.lower, limits.upper)
            for stage, limits in zip(self.stages, (_limits(stage, p_size) for stage in problem.stages))
        ]
        end = _end_limits(problem, p_size)
        found.append((self.end[1][:, 0], end.lower, end.upper))
        for stage, u in zip(problem.stages, self.u):
            found.append((u, *(np.broadcast_to(b, len(u)) for b in (stage.control_lower, stage.control_upper))))
        return found

    @cached_property
    def violation(self) -> float:
        """Largest relative violation."""
        problem, worst = self.problem, [0.0]
        size = {n: _largest([x for x in self.x if len(x) == n]) for n in set(problem.state_sizes)}
        worst += [float(np.max(np.abs(gap) / size[len(gap)], initial=0.0)) for gap in self.gaps]
        for value, lower, upper in self.rows:
            sides = [np.where(np.isfinite(side), np.abs(side), 0.0) for side in (lower, upper)]
            scale = np.maximum.reduce([np.abs(value), *sides, np.full(len(value), SMALLEST)])
            excess = np.maximum(lower - value, value - upper)
            worst.append(float(np.max(excess / scale, initial=0.0)))
        return float("nan") if any(map(np.isnan, worst)) else max(worst)

    @cached_property
    def gradient(self) -> Array:
        """∇J by w."""
        g = np.zeros(self.starts[-1])
        for t, stage in enumerate(self.stages):
            for place, slopes in zip((2 * t, 2 * t + 1), stage[5:7]):
                if t or place % 2:
                    g[self.starts[place] : self.starts[place + 1]] += slopes[0]
        g[self.starts[-3] : self.starts[-2]] += self.end[2][0]
        return g

    @cached_property
    def jacobian(self) -> sp.csr_matrix:
        """Jacobian by w of x_{t+1} − f_t and of all `rows`."""
        return sp.csr_matrix(sp.vstack([self._dynamics(), *self._rows_by_w()]))

    def _dynamics(self) -> Any:
        blocks = []
        for t, stage in enumerate(self.stages):
            n = len(stage[0])
            parts = [(2 * t, -stage[3]), (2 * t + 1, -stage[4]), (2 * t + 2, np.eye(n))]
            blocks.append(self._embedded(n, parts))
        return sp.vstack(blocks)

    def _rows_by_w(self) -> Iterator[Any]:
        for t, stage in enumerate(self.stages):
            yield self._embedded(len(stage[2]), [(2 * t, stage[7]), (2 * t + 1, stage[8])])
        yield self._embedded(len(self.end[1]), [(2 * self.problem.horizon, self.end[3])])
        for t, u in enumerate(self.u):
            yield self._embedded(len(u), [(2 * t + 1, np.eye(len(u)))])

    def _embedded(self, count: int, parts: Sequence[tuple[int, Array]]) -> Any:
        """Rows of blocks at some places of w; x_0 is none."""
        blocks = [(self.starts[place], block) for place, block in parts if place]
        columns = np.concatenate([first + np.arange(block.shape[1]) for first, block in blocks])
        values = np.hstack([block for _, block in blocks])
        rows = np.repeat(np.arange(count), len(columns))
        return sp.csr_matrix((values.ravel(), (rows, np.tile(columns, count))), (count, self.starts[-1]))

    @cached_property
    def units(self) -> Array:
        """Of each variable of w: largest entry of its kind along the answer, or what lies between its bounds."""
        return np.concatenate([self._kinds(self.x[1:], 0), self._kinds(self.u, 1)])[self._order]

    @cached_property
    def kinds(self) -> NDArrayInt:
        """A number for each variable of w, the same for the same entry of x or u."""
        x = [1000 * len(z) + np.arange(len(z)) for z in self.x[1:]]
        u = [-1000 * len(z) - np.arange(len(z)) - 1 for z in self.u]
        return np.concatenate([*x, *u])[self._order]

    @cached_property
    def _order(self) -> NDArrayInt:
        """Takes (x_1, …, x_T, u_0, …) to w."""
        of_x, of_u = self.problem.state_sizes[1:], self.problem.control_sizes
        x_starts = np.cumsum([0, *of_x])
        u_starts = x_starts[-1] + np.cumsum([0, *of_u])
        pieces = [np.arange(u_starts[0], u_starts[1])]
        for t in range(1, self.problem.horizon + 1):
            pieces.append(np.arange(x_starts[t - 1], x_starts[t]))
            if t < self.problem.horizon:
                pieces.append(np.arange(u_starts[t], u_starts[t + 1]))
        return np.concatenate(pieces)

    def _kinds(self, series: Sequence[Array], way: int) -> Array:
        size = {n: _largest([z for z in series if len(z) == n]) for n in {len(z) for z in series}}
        return np.concatenate([size[len(z)] for z in series])


NDArrayInt = Any


def _largest(series: Sequence[Array]) -> Array:
    """Largest magnitude of each entry, at least `SMALLEST`."""
    return np.maximum(np.abs(np.stack(series)).max(axis=0, initial=0.0), SMALLEST)


def _multiply(at: _Point) -> tuple[float, float]:
    """Return the residual of the best multipliers that are found, and what they leave of J."""
    S = sp.diags(at.units / at.unit)
    slopes, columns = S @ at.gradient, S @ at.jacobian.T
    free = sum(len(gap) for gap in at.gaps[1:])
    distance, sign = (np.concatenate([np.zeros(free), each]) for each in _sides(at.rows))
    held = np.isfinite(distance)
    columns, distance, sign = sp.csc_matrix(columns)[:, held], distance[held], sign[held]
    norms = np.maximum(np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0)).ravel()), 1e-12)
    columns, distance = columns @ sp.diags(1 / norms), distance / norms

    def judge(y: Array) -> tuple[float, float]:
        cancelling = np.abs(slopes) + abs(columns) @ np.abs(y)
        residual = np.abs(slopes + columns @ y)
        worst = 0.0
        for kind in np.unique(at.kinds):
            of_kind = at.kinds == kind
            worst = max(worst, residual[of_kind].max() / max(cancelling[of_kind].max(), FLAT))
        return float(worst), float(np.max(np.abs(y) * distance, initial=0.0))

    best = (np.inf, np.inf)
    for y in _candidates(slopes, columns, distance, sign):
        found = judge(y)
        best = min(best, found, key=lambda each: max(each[0] / STATIONARY, each[1] / COMPLEMENTARY))
        if best[0] <= STATIONARY and best[1] <= COMPLEMENTARY:
            break
    return best


def _sides(rows: Sequence[tuple[Array, Array, Array]]) -> tuple[Array, Array]:
    """Distance of each row from its nearer bound, and the sign that its multiplier has there; 0: any."""
    value, lower, upper = (np.concatenate([each[i] for each in rows]) for i in range(3))
    below, above = np.maximum(value - lower, 0.0), np.maximum(upper - value, 0.0)
    equal = lower == upper
    return np.where(equal, 0.0, np.minimum(below, above)), np.where(equal, 0.0, np.where(above <= below, 1.0, -1.0))


def _candidates(slopes: Array, columns: Any, distance: Array, sign: Array) -> Iterator[Array]:
    """Yield multipliers: of least squares, with more and more wrong signs fixed at zero, then of a linear program."""
    weight = distance * STATIONARY / COMPLEMENTARY
    kept = np.ones(len(sign), bool)
    for _ in range(ROUNDS):
        y = np.zeros(len(sign))
        y[kept] = _least_squares(slopes, columns[:, kept], weight[kept])
        wrong = kept & (y * sign < 0)
        yield np.where(wrong, 0.0, y)
        if not wrong.any():
            break
        kept &= ~wrong
    y = _linear_program(slopes, columns, weight, sign)
    if y is not None:
        yield y


def _least_squares(slopes: Array, columns: Any, weight: Array) -> Array:
    """Minimize ‖s + C y‖² + ‖weight · y‖² by the proximal point method, factored once."""
    normal = sp.csc_matrix(columns.T @ columns + sp.diags(weight**2 + REGULARIZATION))
    factors, y = splu(normal), np.zeros(columns.shape[1])
    for _ in range(REFINEMENTS):
        y -= factors.solve(columns.T @ (slopes + columns @ y) + weight**2 * y)
    return np.asarray(y)


def _linear_program(slopes: Array, columns: Any, weight: Array, sign: Array) -> Array | None:
    """Minimize t where |s + C y| ≤ t and |weight · y| ≤ t; None where that takes too long."""
    count, ones = columns.shape[1], np.ones((len(slopes), 1))
    weighted = np.flatnonzero(weight > 0)
    W = sp.csr_matrix((weight[weighted] * sign[weighted], (np.arange(len(weighted)), weighted)), (len(weighted), count))
    rows = sp.bmat([[columns, -ones], [-columns, -ones], [W, -np.ones((len(weighted), 1))]])
    limits = np.concatenate([-slopes, slopes, np.zeros(len(weighted))])
    bounds = np.column_stack([np.where(sign > 0, 0.0, -np.inf), np.where(sign < 0, 0.0, np.inf)])
    found = linprog(
        np.concatenate([np.zeros(count), [1.0]]),
        A_ub=sp.csr_matrix(rows),
        b_ub=limits,
        bounds=[*bounds, (0.0, None)],
        method="highs",
        options={"time_limit": PATIENCE},
    )
    return None if found.x is None else np.asarray(found.x[:count])


@lru_cache(maxsize=64)
def _stage_function(stage: Any, p_size: int) -> ca.Function:
    """(x, u, p) → f, ℓ, g and their derivatives by x and u."""
    traced, sizes = trace_stage(stage, p_size), (stage.dynamics.state_size, stage.dynamics.control_size, p_size)
    x, u, p = z = [ca.SX.sym(name, size) for name, size in zip("xup", sizes)]
    f, cost, g = traced.f(*z), traced.l(*z), traced.constraints.function(*z)
    slopes = [ca.densify(ca.jacobian(of, by)) for of in (f, cost, g) for by in (x, u)]
    return ca.Function("stage", [x, u, p], [f, cost, g, *slopes], {"cse": True})


def _terminal_function(problem: Problem, p_size: int) -> ca.Function:
    """(x, p) → φ, g and their derivatives by x."""
    traced = trace_terminal(problem.terminal_cost, problem.terminal_constraints, p_size)
    x, p = ca.SX.sym("x", problem.state_sizes[-1]), ca.SX.sym("p", p_size)
    phi, g = traced.phi(x, p), traced.constraints.function(x, p)
    return ca.Function("end", [x, p], [phi, g, *(ca.densify(ca.jacobian(of, x)) for of in (phi, g))])


@lru_cache(maxsize=64)
def _limits(stage: Any, p_size: int) -> TracedConstraints:
    return trace_stage(stage, p_size).constraints


def _end_limits(problem: Problem, p_size: int) -> TracedConstraints:
    return trace_constraints(problem.terminal_constraints, (problem.state_sizes[-1], p_size), "the end")
