"""Natural units of a constrained problem: of each row, and of J beside the rows; in C, engines/c/kernel/units.c.

All are measured on a trajectory, so that they change with the user's units as what they measure does:

* a row counts in the larger of its bound and of G = max_t (|g| + |g_x| X), with X the largest |x| on the way, and in no
  more than half the distance between two bounds (or G/1000); stages of one kind share theirs. Where all that is zero,
  or G alone is, between two bounds, G is what controls of natural size do to the row by the linearized dynamics.
  Whether it holds in the end is asked in its unit there, if that is smaller (`rows_here`); where that is less than
  1/1000 after the first inner solve, the guess was far away, and all units are measured again;
* J counts in what it costs to move a row by its unit. With a_j the gradient of row j, in its unit, by all controls, and
  H the Hessian of J, that is S_j = 1 / a_jᵀH⁻¹a_j, and the multiplier of the row converges by 1 / (1 + ρ S/S_j) with
  each outer iteration. S is the harmonic mean of all S_j. Where H tells nothing, S is |J| and what its gradient
  says, the largest |∂J/∂u_i| / |∂g/∂u_i|.

One backward pass of J, by Gauss-Newton, with a random combination of the rows stands for the sums over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import in_time
from ocpkit.boundary.series import blocks_of, gather
from ocpkit.solution.scaling import Scaling
from ocpkit.solvers.constrained.augmented import Augmented
from ocpkit.solvers.guess import Guess

OFF = 1e-150  # ρ and μ that take the price of the rows out of J
RESIDUE = 1e-100  # slopes and curvatures up to this are what they leave


@dataclass(frozen=True)
class Units:
    """Units of the rows (T + 1, k), and of J."""

    rows: Array
    cost: float

    @classmethod
    def of_user(cls, augmented: Augmented) -> Units:
        """Those in which the problem is declared."""
        return cls(np.ones_like(augmented.sides.weights), 1.0)

    @property
    def prices(self) -> Array:
        """Penalty of each row (T + 1, k) at ρ = 1."""
        prices: Array = self.cost / self.rows**2
        return prices

    def scaling(self, augmented: Augmented) -> Scaling:
        """Return them as what a Solution says."""
        sides = augmented.sides
        kinds = [self.rows[t, : augmented.rows[t].count].copy() for t in sides.first]
        return Scaling(self.cost, rows=tuple([kinds[group] for group in sides.groups.tolist()]))


SMALLEST = 1e-3  # of a row's first unit; what is left of a size that vanishes is rounding
FAR = 1e-3  # of a row's first unit: a guess on which it came to more was too far away to tell
LARGEST_COST = 10.0  # of |J| at the guess: rows that only a far greater J could move are out of reach


def first_units(augmented: Augmented, guess: Guess, *, scaling: bool) -> Units | None:
    """Return the units that a warm start brings, or without scaling the user's; None: they are to be measured."""
    units, given = Units.of_user(augmented), guess.scaling
    if not scaling:
        return units
    if given is None or [len(row) for row in given.rows] != [rows.count for rows in augmented.rows]:
        return None
    for row, found in zip(units.rows, given.rows):
        row[: len(found)] = found
    return Units(units.rows, given.cost)


def measure_units(
    augmented: Augmented, states: Sequence[Array], controls: Sequence[Array], cost: float
) -> Units | None:
    """Measure the units on a trajectory, which may have gaps, of that J; None where the model is not finite there."""
    at, sides = _Point(augmented, states, controls), augmented.sides
    shared = sides.shared(at.sizes())
    rows = np.where(sides.at_rest(shared), 0.0, sides.units(shared))
    if not rows.all():
        wide = np.where(rows > 0, sides.wide(shared), np.inf)  # what is narrow tells nothing of how far others move
        reached = sides.units(sides.shared(at.reached(at.backward(sides.weights / wide))))
        rows = np.where(rows > 0, rows, np.where(reached > 0, reached, 1.0))
    sums = at.backward(sides.weights / rows)
    unit = sums.cost_unit(float(np.sum(sides.weights**2)), cost)
    unit = min(unit, LARGEST_COST * abs(cost)) if cost != 0 else unit
    return Units(rows, unit) if np.isfinite(unit) and np.isfinite(rows).all() else None


def rows_here(augmented: Augmented, states: Sequence[Array], controls: Sequence[Array], rows: Array) -> Array:
    """Units of the rows (T + 1, k) on a trajectory, no larger than the given ones.

    What is zero at x_0 and has no bound may vanish on the way: it keeps `SMALLEST` of its unit.
    """
    at, sides = _Point(augmented, states, controls), augmented.sides
    found = sides.units(sides.shared(at.sizes()))
    certain = sides.units(sides.shared(at.sizes(start_alone=True))) > 0
    here: Array = np.where(found < rows, np.maximum(found, np.where(certain, 0.0, SMALLEST * rows)), rows)
    return here


@dataclass
class _Sums:
    """Over all stages, for each control: Σ Q_u², Σ Q_uu², Σ a²; and aᵀH⁻¹a."""

    slope: Array
    curvature: Array
    reach: Array
    cheap: float = 0.0

    def add(self, slope: Array, curvature: Array, reach: Array, cheap: float) -> None:
        """Add a stage."""
        for total, each in ((self.slope, slope), (self.curvature, curvature), (self.reach, reach)):
            total[: len(each)] += each**2
        self.cheap += cheap

    def cost_unit(self, count: float, cost: float) -> float:
        """Return S for so many rows, by the squares of their factors, and J; 1 where nothing tells."""
        with np.errstate(all="ignore"):
            by_slope = np.where(self.reach > 0, np.sqrt(self.slope * count / self.reach), 0.0)
            by_curvature = count / self.cheap if self.cheap > 0 else 0.0
        return float(by_curvature or by_slope.max(initial=0.0) + abs(cost) or 1.0)


@dataclass(frozen=True)
class _Step:
    """Stage of the backward pass of J: |Q_u|, the diagonal of |Q_uu|, Q_uu = L Lᵀ where it can be, and Y = L⁻¹ Q_ux."""

    fx: Array
    fu: Array
    slope: Array
    curvature: Array
    L: Array | None
    Y: Array


class _Point:
    """A trajectory with the derivatives of its rows."""

    def __init__(self, augmented: Augmented, states: Sequence[Array], controls: Sequence[Array]) -> None:
        self.augmented, self.problem = augmented, augmented.template
        self.states, self.controls = gather(states), gather(controls)
        self.p = augmented.extended(None, OFF, OFF)
        self.slopes = augmented.slopes(self.states, self.controls, self.p)

    def sizes(self, *, start_alone: bool = False) -> Array:
        """Return |g| + |g_x| X (T + 1, k), or |g_x| |x_0|."""
        largest = np.zeros(max(map(len, self.states)))
        for x in blocks_of(self.states[:1] if start_alone else self.states):
            n = x.shape[1]
            largest[:n] = np.maximum(largest[:n], np.abs(x).max(axis=0))
        found, sizes = np.zeros_like(self.augmented.sides.weights), self.problem.state_sizes
        first = 0
        for slopes in blocks_of(self.slopes):
            last, k = first + len(slopes), slopes.shape[1]
            n = sizes[first]
            moved = np.abs(slopes[:, :, slopes.shape[2] - n :]) @ largest[:n]
            found[first:last, :k] = moved if start_alone else np.abs(slopes[:, :, 0]) + moved
            first = last
        return found

    def backward(self, factors: Array) -> _Sums:
        """Return the sums for the rows' combination with these factors (T + 1, k).

        Controls are eliminated where Q_uu of J allows, so that aᵀH⁻¹a is exact; elsewhere its diagonal stands for H.
        """
        sums = _Sums(*np.zeros((3, max(self.problem.control_sizes))))
        a = factors[-1, : len(self.slopes[-1])] @ self.slopes[-1][:, 1:]
        for t, step in zip(reversed(range(self.problem.horizon)), self._steps):
            own, m = factors[t, : len(self.slopes[t])] @ self.slopes[t][:, 1:], len(step.slope)
            a_x, a_u = own[m:] + step.fx.T @ a, own[:m] + step.fu.T @ a
            if step.L is None:
                a, cheap = a_x, a_u[a_u != 0] ** 2 / step.curvature[a_u != 0]
            else:
                y = np.linalg.solve(step.L, a_u)
                a, cheap = a_x - step.Y.T @ y, y**2
            sums.add(step.slope, step.curvature, a_u, float(cheap.sum()))
        return sums

    @cached_property
    def _steps(self) -> list[_Step]:
        """Backward pass of J alone, from the last stage on."""
        end, x, p, steps = self.problem.terminal_cost, self.states[-1], self.p[-1], list[_Step]()
        v, V = end.gradient(x, p), end.gauss_newton_hessian(x, p)
        for t in in_time(reversed(range(self.problem.horizon))):
            stage, z = self.problem.stages[t], (self.states[t], self.controls[t], self.p[t])
            (fx, fu), (lx, lu), (lxx, lux, luu) = stage.dynamics.jacobians(*z), *self._cost(t)
            of_x, of_u = fx.T @ V, fu.T @ V
            Q_xx, Q_ux, Q_uu = lxx + of_x @ fx, lux + of_u @ fx, luu + of_u @ fu
            Q_x, Q_u = lx + fx.T @ v, lu + fu.T @ v
            slope, curvature = _cut(Q_u), _cut(np.diag(Q_uu))
            L = None if not curvature.all() else _factor(Q_uu)
            if L is None:
                v, V, Y = Q_x, Q_xx, Q_ux
            else:
                Y, q = (np.linalg.solve(L, right).astype(float) for right in (Q_ux, Q_u))
                v, V = Q_x - Y.T @ q, Q_xx - Y.T @ Y
            steps.append(_Step(fx, fu, slope, curvature, L, Y))
        return steps

    def _cost(self, t: int) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        cost, z = self.problem.stages[t].cost, (self.states[t], self.controls[t], self.p[t])
        return cost.gradient(*z), cost.gauss_newton_hessian(*z)

    def reached(self, sums: _Sums) -> Array:
        """Return |δg| (T + 1, k) for controls that move by their natural size at every stage."""
        size = self._control_sizes(sums)
        found = np.zeros_like(self.augmented.sides.weights)
        dx = np.zeros_like(self.states[0])
        for t, slopes in enumerate(in_time(self.slopes)):
            end = t == self.problem.horizon
            du = size[:0] if end else size[: len(self.controls[t])]
            found[t, : len(slopes)] = np.abs(slopes[:, 1:] @ np.concatenate([du, dx]))
            if not end:
                fx, fu = self.problem.stages[t].dynamics.jacobians(self.states[t], self.controls[t], self.p[t])
                dx = fx @ dx + fu @ du
        return found

    def _control_sizes(self, sums: _Sums) -> Array:
        """Return Newton's step for J, else half the range or the largest number of bounds and guess, else 1 / |a|."""
        size, span = np.zeros_like(sums.slope), np.full_like(sums.slope, np.inf)
        for stage, u in zip(self.augmented.problem.stages, self.controls):
            m, bounds = len(u), np.abs(np.stack([stage.control_lower, stage.control_upper, u]))
            size[:m] = np.maximum(size[:m], np.where(np.isfinite(bounds), bounds, 0.0).max(axis=0))
            span[:m] = np.minimum(span[:m], (np.asarray(stage.control_upper) - np.asarray(stage.control_lower)) / 2)
        with np.errstate(all="ignore"):
            newton, alone = np.sqrt(sums.slope / sums.curvature), 1 / np.sqrt(sums.reach)
        for other in (newton, alone):
            size = np.where(size > 0, size, np.where(np.isfinite(other), other, 0.0))
        return np.minimum(size, np.where(span > 0, span, np.inf))


def _factor(Q_uu: Array) -> Array | None:
    """Return its Cholesky factor, if it has one."""
    try:
        return np.asarray(np.linalg.cholesky(Q_uu), dtype=float)
    except np.linalg.LinAlgError:
        return None


def _cut(series: Array) -> Array:
    """Return sizes without what the price that is off leaves."""
    sizes: Array = np.abs(series)
    return np.where(sizes < RESIDUE, 0.0, sizes)
