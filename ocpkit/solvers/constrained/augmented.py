"""The augmented Lagrangian of a constrained Problem, as another Problem with no constraints but its control bounds.

Every constraint is rows lower ≤ g(x, u, p) ≤ upper of a set C. With multipliers y and a penalty ρ the stage cost
becomes (Rockafellar 1973; Nocedal & Wright 2006, ch. 17)

    ℓ(x, u, p) + ½ Σ ρ_i dist²(g_i(x, u, p) + y_i/ρ_i, C_i),        y⁺ = ρ (s − Π_C(s)),  s = g + y/ρ,

which is smooth, covers equalities, one-sided and two-sided rows alike, and whose gradient at y is that of the
Lagrangian J + Σ y⁺ᵀ g. Or inequalities, control bounds among them, have the price of `barrier`, with its
own μ.

Multipliers, penalties and barrier enter as parameters, p' = (p, y, ρ, μ), one row per stage, with a ρ_i for every row:
neither a new y nor other units trace or compile anything. The costs also bring y⁺, |g − Π_C(g)| and ℓ as graphs, which
the outer iteration needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from ocpkit.autodiff.identities import Identities
from ocpkit.autodiff.symbol import to_casadi
from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import in_time
from ocpkit.boundary.series import blocks_of, join
from ocpkit.engines.mapped import AlongStages
from ocpkit.problem.constraint_rows import REMEMBERED, ConstraintRows, rows_of, worst_row
from ocpkit.problem.longer_parameters import LongerParameters, Price
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Cost, Stage, TerminalCost
from ocpkit.recursion.linalg import half_square
from ocpkit.solution.details import WorstRow
from ocpkit.solvers.constrained.barrier import barrier_price, one_sided

NEGLIGIBLE = 1e-300  # J tells nothing of a violation v with ρ v² below its rounding; the gradient does
NARROWEST = 1e-3  # distance of two bounds beside the size of their row, below which rounding would count as violation
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Measured:
    """Measurements of a trajectory for the outer iteration.

    Attributes
    ----------
    updated
        y⁺ of all stages and the end.
    violation, squares
        The largest |g − Π_C(g)| and Σ |g − Π_C(g)|² [units of the rows].
    worst
        The largest again in the user's units, and whose it is.
    distances
        |g − Π_C(g)| of all stages and the end, in the user's units.
    cost
        J.
    """

    updated: Sequence[Array]
    distances: Sequence[Array]
    violation: float
    squares: float
    worst: WorstRow
    cost: float

    def in_units(self, rows: Array) -> float:
        """Return the largest distance in units (T + 1, k) of the rows."""
        return max(float((each / unit).max(initial=0.0)) for unit, each in by_blocks(rows, self.distances))


class Augmented:
    """A constrained problem's augmented Lagrangian, and the arithmetic of its rows.

    Parameters
    ----------
    problem
        Any problem whose costs and constraints can be traced.
    barrier
        Price inequalities by the barrier, control bounds as well.

    Attributes
    ----------
    rows
        The priced `ConstraintRows` of stages 0 … T-1 and of the end.
    parameter_size, widest
        Length of p, and the largest number k of rows of a stage.
    sides
        What the natural units of the rows follow from.
    template
        The problem that prices them, with numbers (x0, p', guesses) yet to be set.

    Raises
    ------
    UnsupportedProblem
        If a cost is a black box; names the stage.
    """

    def __init__(self, problem: Problem, *, barrier: bool = False) -> None:
        self.problem, self.parameter_size = problem, problem.parameters.shape[-1]
        parts = Identities(problem.stages, problem.terminal_cost, problem.terminal_constraints)
        self._structure = _structure(parts, self.parameter_size, barrier, problem.angles)
        self.rows, self.template = self._structure.rows, self._structure.template
        self.widest, self.sides = max(rows.count for rows in self.rows), self._structure.sides

    @cached_property
    def _unconstrained(self) -> Problem:
        problem = self.problem
        return self.template.replace(x0=problem.x0, controls=problem.controls, states=problem.states)

    def zeros(self) -> list[Array]:
        """Multipliers y = 0, one vector (k_t,) per stage and one for the end."""
        return [np.zeros(rows.count) for rows in self.rows]

    def first_multipliers(self, given: Sequence[Array] | None) -> list[Array] | None:
        """Return those of the priced rows from those of a Solution; None if they do not fit."""
        structure = self._structure
        if given is None or [len(y) for y in given] != np.diff(structure.cuts).tolist():
            return None
        places, lowest, highest = structure.of_given
        y = np.clip(np.concatenate(given)[places], lowest, highest)
        return [y[a:b] for a, b in pairwise(structure.row_cuts)]

    def multipliers(self, extended: Array, of_controls: Array) -> list[Array]:
        """Return y of the constraints as declared and then of the bounds.

        Parameters
        ----------
        extended
            The rows (p, y, ρ, μ).
        of_controls
            y of all controls of all stages where the inner solver keeps the bounds, else none (0,).
        """
        every = np.concatenate([extended.ravel(), of_controls, np.zeros(1)])
        y = every[self._structure.places].sum(axis=0)
        return [y[a:b] for a, b in pairwise(self._structure.cuts)]

    def lagrangian(self, extended: Array) -> Problem:
        """Return the problem whose J is the augmented Lagrangian with the rows (p, y, ρ, μ)."""
        return self._unconstrained.replace(parameters=extended)

    def extended(self, multipliers: Sequence[Array] | None, penalty: float | Array, barrier: float = 0.0) -> Array:
        """Return the rows (p, y, ρ, μ) of stages 0 … T, (T + 1, n_p + 2 k + 1); shorter y, or None, end in zeros.

        `penalty` is one ρ for all rows, or (T + 1, k).
        """
        p, first = np.zeros(self.template.parameters.shape), self.parameter_size
        p[:, :first], p[:, first + self.widest : -1], p[:, -1] = self.problem.parameters, penalty, barrier
        if multipliers is not None and len(multipliers):
            for place, y in by_blocks(p[:, first:], multipliers):
                place[:] = y
        return p

    def slopes(self, states: Sequence[Array], controls: Sequence[Array], extended: Array) -> Sequence[Array]:
        """Return [g, g_u, g_x] (k, 1 + m + n) of every stage, and [g, g_x] of the end, along a trajectory."""
        return self._structure.slopes(states, controls, extended)

    def measure(
        self, states: Sequence[Array], controls: Sequence[Array], extended: Array, units: Array | None = None
    ) -> Measured:
        """Return y⁺, the largest violation in units (T + 1, k) of the rows, by default the user's, and J."""
        updated, distances, costs, squares, first = list[Array](), list[Array](), list[float](), 0.0, 0
        for numbers in blocks_of(self._structure.evaluate(states, controls, extended)):
            k, last = numbers.shape[1] // 2, first + len(numbers)
            updated.append(numbers[:, :k])
            distances.append(numbers[:, k:-1])
            costs += numbers[:, -1].tolist()
            relative = distances[-1] if units is None else distances[-1] / units[first:last, :k]
            squares += float(np.vdot(relative, relative))
            first = last
        violation, amount, t, i = worst_row(join(distances), units)
        worst = WorstRow.of(self.rows, amount, t, i)
        return Measured(join(updated), join(distances), violation, squares, worst, float(sum(costs)))


def by_blocks(rows: Array, *series: Sequence[Array]) -> Iterator[tuple[Array, ...]]:
    """Yield the numbers of the rows (T + 1, k) of successive stages with as many rows, and those of each series."""
    first = 0
    for blocks in zip(*map(blocks_of, series)):
        last = first + len(blocks[0])
        yield rows[first:last, : blocks[0].shape[1]], *blocks
        first = last


@dataclass(frozen=True)
class Sides:
    """Slopes from which the natural units of all rows (T + 1, k) follow; beyond the rows of a stage they are 1.

    Attributes
    ----------
    span
        Half the distance between two bounds; ∞ where there is one, or both are the same.
    lower_size, upper_size
        Sizes of the bounds; ∞ where there is none.
    weights
        Random numbers of mean 0 and variance 1, for random combinations of rows; 0 beyond.
    groups, first
        A number for each stage and the end; stages with the same number share their units. And the first of each.
    """

    span: Array
    lower_size: Array
    upper_size: Array
    weights: Array
    groups: Indices
    first: list[int]

    @classmethod
    def of(cls, declared: Sequence[ConstraintRows], sources: Sequence[Indices]) -> Sides:
        """Return those of rows that follow from declared ones."""
        shape = len(declared), max(map(len, sources))
        span, lower, upper = np.full((3, *shape), np.inf)
        weights = np.random.default_rng(0).uniform(-np.sqrt(3), np.sqrt(3), shape)
        for t, (rows, source) in enumerate(zip(declared, sources)):
            low, high, k = rows.traced.lower[source], rows.traced.upper[source], len(source)
            span[t, :k] = np.where(high > low, (high - low) / 2, np.inf)
            lower[t, :k], upper[t, :k], weights[t, k:] = np.abs(low), np.abs(high), 0.0
        known = dict[int, int]()
        groups = [known.setdefault(id(rows), len(known)) for rows in declared]
        return cls(span, lower, upper, weights, np.array(groups), [groups.index(group) for group in known.values()])

    def shared(self, sizes: Array) -> Array:
        """Return the largest of sizes (T + 1, k) of the rows of each kind of stage."""
        shared = sizes.copy()
        for group in range(len(self.first)):
            shared[self.groups == group] = sizes[self.groups == group].max(axis=0)
        return shared

    def wide(self, shared: Array) -> Array:
        """Return the units of rows that come to these sizes on a trajectory, however near two bounds are."""
        return np.minimum(np.maximum(self.lower_size, shared), np.maximum(self.upper_size, shared))

    def units(self, shared: Array) -> Array:
        """Return the units of rows that come to these sizes on a trajectory; 0 where nothing tells."""
        found = np.minimum(self.wide(shared), np.maximum(self.span, NARROWEST * shared))
        return np.where(np.isinf(found), 1.0, found)

    def at_rest(self, shared: Array) -> Array:
        """Whether there are two bounds, and a trajectory does not tell whether they are near to each other."""
        return (shared == 0) & np.isfinite(self.span)


@dataclass(frozen=True)
class _Structure:
    """Parts shared by all problems of the same stages.

    Attributes
    ----------
    rows
        Of stages 0 … T-1 and of the end, as they are priced.
    template
        See `Augmented`.
    evaluate, slopes
        (x, u, p') → y⁺, |g − Π_C(g)|, ℓ of every stage and of the end, in one vector; and [g, g_u, g_x] (k, 1 + m + n).
    sides
        What the units of the priced rows follow from.
    sources
        Which declared row each priced one belongs to, by stage.
    places, cuts
        y of a declared row, or of a bounded control, is the sum of two numbers at `places` (2, rows) in the rows (p, y,
        ρ, μ), the multipliers of all controls and a zero; `cuts` divide them by stage.
    """

    rows: tuple[ConstraintRows, ...]
    template: Problem
    evaluate: AlongStages
    slopes: AlongStages
    sides: Sides
    sources: list[Indices]
    places: Indices
    cuts: list[int]

    @cached_property
    def row_cuts(self) -> list[int]:
        """Offsets of the penalized rows of each stage among those of all, and the end of the last ones."""
        cuts: list[int] = np.cumsum([0, *(rows.count for rows in self.rows)]).tolist()
        return cuts

    @cached_property
    def of_given(self) -> tuple[Indices, Array, Array]:
        """Index among a Solution's multipliers of y of each penalized row, and the bounds of y (rows,)."""
        lower = np.concatenate([rows.traced.lower for rows in self.rows])
        upper = np.concatenate([rows.traced.upper for rows in self.rows])
        places = np.concatenate([cut + source for cut, source in zip(self.cuts, self.sources)])
        return places, np.where(np.isfinite(lower), -np.inf, 0.0), np.where(np.isfinite(upper), np.inf, 0.0)


@lru_cache(maxsize=32)
def _structure(parts: Identities, p_size: int, barrier: bool, angles: tuple[int, ...]) -> _Structure:
    stages, end, terminal_constraints = parts.parts
    declared = rows_of(stages, end, terminal_constraints, p_size, bounds=barrier)
    split = [one_sided(each) for each in declared] if barrier else []
    rows = tuple(each.rows for each in split) if barrier else declared
    sources = [each.source for each in split] if barrier else [np.arange(each.count) for each in rows]
    width = p_size + 2 * max(each.count for each in rows) + 1
    parameters, longer = np.ones((len(rows), width)), LongerParameters(p_size, width)
    template = Problem(
        stages=tuple(_priced_stage(Identities(*pair), longer, barrier) for pair in in_time(zip(stages, rows))),
        terminal_cost=_priced_end(Identities(end, rows[-1]), longer, barrier),
        x0=np.zeros(stages[0].dynamics.state_size),
        parameters=parameters,
        angles=angles,
    )
    _ = template.control_bounds  # computed once here, for all problems that are made from it
    costs: list[Cost | TerminalCost] = [*(stage.cost for stage in template.stages), template.terminal_cost]
    evaluate, slopes = _evaluations(costs, slice(3), rank=1), _evaluations(costs, slice(3, 4), rank=2)
    places, counts = _places(declared, sources, [] if barrier else stages, p_size, width)
    sides = Sides.of(declared, sources)
    return _Structure(rows, template, evaluate, slopes, sides, sources, places, np.cumsum([0, *counts]).tolist())


def _places(
    declared: Sequence[ConstraintRows], sources: Sequence[Indices], bounded: Sequence[Stage], p_size: int, width: int
) -> tuple[Indices, list[int]]:
    """Return the places of `_Structure`, and their number by stage; `bounded`: stages whose bounds are not priced."""
    pairs, control = list[Indices](), len(declared) * width
    for t, (rows, source) in enumerate(zip(declared, sources)):
        pair = np.full((2, rows.count), -1)
        for place, row in enumerate(source.tolist(), t * width + p_size):
            pair[int(pair[0, row] >= 0), row] = place
        if t < len(bounded):
            of_bounds = control + bounded[t].bounded_controls
            pair = np.concatenate([pair, [of_bounds, np.full_like(of_bounds, -1)]], axis=1)
            control += bounded[t].dynamics.control_size
        pairs.append(pair)
    return np.concatenate(pairs, axis=1), [pair.shape[1] for pair in pairs]


def _evaluations(costs: Sequence[Cost | TerminalCost], results: slice, rank: int) -> AlongStages:
    """Return the graphs that the costs bring, with some of their results below each other; equal costs share theirs."""
    known = dict[int, ca.Function]()
    for cost in in_time(costs):
        if id(cost) not in known:
            assert cost.rows is not None
            z = cost.rows.sx_in()
            known[id(cost)] = ca.Function("stacked", z, [ca.densify(ca.vertcat(*cost.rows.call(z)[results]))])
    return AlongStages([known[id(cost)] for cost in costs], rank)


@lru_cache(maxsize=REMEMBERED)
def _priced_stage(parts: Identities, longer: LongerParameters, barrier: bool) -> Stage:
    stage, rows = parts.parts
    where, free = f"stage {stage.name!r}: cost under constraints", (-np.inf, np.inf)
    price = _Rows(rows, longer, barrier).price(stage.cost, where)
    lower, upper = free if barrier else (stage.control_lower, stage.control_upper)
    return longer.stage(stage, price, where, control_lower=lower, control_upper=upper, constraints=(), noise=None)


@lru_cache(maxsize=REMEMBERED)
def _priced_end(parts: Identities, longer: LongerParameters, barrier: bool) -> TerminalCost:
    cost, rows = parts.parts
    where = "the terminal cost under constraints"
    return longer.terminal_cost(cost, _Rows(rows, longer, barrier).price(cost, where), where)


@dataclass(frozen=True)
class _Rows:
    """Rows with multipliers, penalties and barrier, as expressions of (…, p')."""

    rows: ConstraintRows
    longer: LongerParameters
    barrier: bool

    def price(self, cost: Cost | TerminalCost, where: str) -> Price:
        """Return what they cost; squares of residuals unless under a barrier."""
        if self.barrier:
            return Price(lambda *z: barrier_price(self.rows, *self._row(z))[0], rows=self._graph(cost, where))
        return Price(
            lambda *z: half_square(self._residual(*self._row(z))),
            lambda *z: self._residual(*self._row(z)),
            self._graph(cost, where),
        )

    def _graph(self, cost: Cost | TerminalCost, where: str) -> ca.Function:
        """Return (…, p') → y⁺ (k,), |g − Π_C(g)| (k,), ℓ (1,), [g, g_u, g_x] (k, 1 + m + n), at the end [g, g_x]."""
        *sizes, p_size = cost.argument_sizes(self.longer.p_size)
        z = [ca.SX.sym("z", size) for size in (*sizes, self.longer.width)]
        g, y, rho, mu = self._row(z)
        updated = barrier_price(self.rows, g, y, rho, mu)[1] if self.barrier else rho * _outside(self.rows, g + y / rho)
        value = cost.value_graph(p_size, where)(*self.longer.own(*z))
        slopes = ca.horzcat(g, *(ca.jacobian(g, each) for each in reversed(z[:-1])))
        return ca.Function("rows", z, [updated, ca.fabs(_outside(self.rows, g)), value, ca.densify(slopes)])

    def _row(self, arguments: Sequence[Any]) -> tuple[ca.SX, ca.SX, ca.SX, ca.SX]:
        """Return g, y and ρ (k,) each, and μ."""
        extended, k, p_size, width = to_casadi(arguments[-1]), self.rows.count, self.longer.p_size, self.longer.width
        if not k:  # a slice of no entries would be a row
            return ca.SX(0, 1), ca.SX(0, 1), ca.SX(0, 1), extended[-1]
        g, of_penalties = self.rows.traced.function(*self.longer.own(*arguments)), (p_size + width - 1) // 2
        return g, extended[p_size : p_size + k], extended[of_penalties : of_penalties + k], extended[-1]

    def _residual(self, g: ca.SX, y: ca.SX, rho: ca.SX, mu: ca.SX) -> ca.SX:
        """Return √ρ (s − Π_C(s)) (k,)."""
        return ca.sqrt(rho) * _outside(self.rows, g + y / rho)


def _outside(rows: ConstraintRows, s: ca.SX) -> ca.SX:
    """Return s − Π_C(s) (k,)."""
    bounds = zip(rows.traced.lower.tolist(), rows.traced.upper.tolist())
    return ca.vertcat(ca.SX(0, 1), *(_beyond(s[i], *pair) for i, pair in enumerate(bounds)))


def _beyond(s: ca.SX, lower: float, upper: float) -> ca.SX:
    """s − Π(s) for the interval; smooth for an equality."""
    if lower == upper:
        return s - upper
    excess = ca.fmax(s - upper, 0.0) if np.isfinite(upper) else ca.SX(0)
    return excess - ca.fmax(lower - s, 0.0) if np.isfinite(lower) else excess
