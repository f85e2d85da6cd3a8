"""Violation by a plan of the rows of its problem and of the model's dynamics, each in units of its own.

A row is measured against what its bounds say of its size: half the range between two bounds, |bound| of a single one.
Where they say nothing (g ≤ 0, g = 0), against Σ_j |∂g/∂z_j| z̄_j, z = (x, u), with z̄ the largest |z| that the plans
have had so far. A defect of the dynamics is measured against x̄. So no share changes with the units of x, u or rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import casadi as ca
import numpy as np

from ocpkit.autodiff.differentiable import BufferedFunction
from ocpkit.boundary.arrays import Array
from ocpkit.problem.constraint_rows import ConstraintRows, problem_rows
from ocpkit.problem.problem import Problem


@dataclass(frozen=True)
class Violation:
    """Violation of one row lower ≤ g ≤ upper, or a defect of the dynamics.

    Attributes
    ----------
    row
        Name of the row; "dynamics[i]" for a defect of state i.
    stage
        Where it is; T is the end.
    amount
        Distance of g from its bounds [units of the row].
    share
        The same as a share of the row's size.
    """

    row: str
    stage: int
    amount: float
    share: float

    def __str__(self) -> str:
        return f"{self.row!r} at stage {self.stage} by {self.amount:.3g}"


@dataclass(frozen=True)
class Shortfall:
    """Largest violation by a plan.

    Attributes
    ----------
    worst
        The worst violation, as a share; None where all rows hold.
    price
        Σ |y| · distance [cost]: what J saves by it, to first order.
    """

    worst: Violation | None
    price: float = 0.0

    @property
    def share(self) -> float:
        """Share of the worst row."""
        return 0.0 if self.worst is None else self.worst.share


def unasked_at_start(problem: Problem) -> Problem:
    """Problem without what its x_0 alone decides: rows of stage 0 that no control enters lose their bounds."""
    first, rows = problem.stages[0], problem_rows(problem, bounds=False)[0]
    if not rows.count or rows.depends_on_control.all():
        return problem
    constraints, end = [], 0
    for constraint, count in zip(first.constraints, rows.traced.counts):
        own, end = slice(end, end + count), end + count
        free = ~rows.depends_on_control[own]
        lower, upper = np.where(free, -np.inf, rows.traced.lower[own]), np.where(free, np.inf, rows.traced.upper[own])
        constraints.append(replace(constraint, lower=lower, upper=upper))
    start = replace(first, constraints=tuple(constraints))
    return problem.replace(stages=(start, *problem.stages[1:]))


class PlanCheck:
    """Rows of a problem whose states and controls have one size each, evaluated along plans.

    Parameters
    ----------
    problem
        The problem as it was declared, with all its rows.
    asked
        The problem as it is solved, perhaps by `unasked_at_start`.
    """

    def __init__(self, problem: Problem, asked: Problem) -> None:
        declared = problem_rows(problem, bounds=False)
        rows = problem_rows(asked, bounds=False)
        self.any = any(each.count for each in declared)
        start = 0
        self._runs = list[_Run]()
        for _, alike in groupby(rows, key=id):
            each, *others = alike
            if each.count:
                self._runs.append(_Run(start, each, 1 + len(others), end=start == problem.horizon))
            start += 1 + len(others)
        self._at_start = _Run(0, declared[0], 1, end=False) if declared[0].count else None
        self._reach = np.zeros(problem.state_sizes[0] + problem.control_sizes[0])

    def at_start(self, problem: Problem) -> Violation | None:
        """Worst violation at x0 of a row of stage 0 that no control enters; None where there is none."""
        run = self._at_start
        if run is None:
            return None
        z = (problem.x0[None], problem.controls[0][None], problem.parameter(0)[None])
        distance = np.where(run.rows.depends_on_control[:, None], 0.0, run.distance(z))
        return _worst(run.rows.names, 0, distance, run.sizes(z, self._reach)) if distance.any() else None

    def worth(self, multipliers: Sequence[Array]) -> float:
        """Σ |y| · size [cost] over all rows whose bounds say their size: what J saves where each is broken by that."""
        found = 0.0
        for run in self._runs:
            y = np.array([y[: run.rows.count] for y in multipliers[run.stages]])
            found += float((np.abs(y) @ run.of_bounds).sum())
        return found

    def along(
        self,
        problem: Problem,
        states: Sequence[Array],
        controls: Sequence[Array],
        multipliers: Sequence[Array] | None = None,
        *,
        defects: bool = False,
    ) -> Shortfall:
        """Shortfall of a trajectory.

        Parameters
        ----------
        problem
            Gives p.
        states, controls
            T + 1 states and T controls.
        multipliers
            y of the rows, which price them; None: for nothing.
        defects
            Whether x_{t+1} − f(x_t, u_t) counts; where it is known to be zero, it need not be computed.
        """
        x, u = np.asarray(states), np.asarray(controls)
        p = np.broadcast_to(problem.parameters, (len(x), problem.parameters.shape[-1]))
        reach = np.concatenate([np.abs(x).max(axis=0), np.abs(u).max(axis=0)])
        self._reach = np.fmax(self._reach, np.where(np.isfinite(reach), reach, 0.0))
        found, price = list[Violation | None](), 0.0
        if defects:
            following = [s.dynamics.step(x[t], u[t], problem.parameter(t)) for t, s in enumerate(problem.stages)]
            distance = np.abs(np.asarray(following) - x[1:]).T
            names = [f"dynamics[{i}]" for i in range(len(distance))]
            found.append(_worst(names, 0, distance, self._reach[: len(distance)]))
        for run in self._runs:
            z = (x[run.stages], p[run.stages]) if run.end else (x[run.stages], u[run.stages], p[run.stages])
            distance = run.distance(z)
            if distance.any():
                found.append(_worst(run.rows.names, run.stages.start, distance, run.sizes(z, self._reach)))
                if multipliers is not None:
                    y = np.stack([y[: run.rows.count] for y in multipliers[run.stages]], axis=1)
                    price += float(np.sum(np.abs(y) * distance))
        return Shortfall(max((v for v in found if v is not None), key=lambda v: v.share, default=None), price)


class _Run:
    """Consecutive stages with the same rows, or the end, evaluated by one call."""

    def __init__(self, first: int, rows: ConstraintRows, count: int, *, end: bool) -> None:
        self.stages, self.rows, self.end = slice(first, first + count), rows, end
        self._count, self._values = count, BufferedFunction(rows.traced.function.map(count))
        self.of_bounds = _size_of_bounds(rows.traced.lower, rows.traced.upper)
        self._of_slopes = np.zeros(rows.count)

    def distance(self, z: Sequence[Array]) -> Array:
        """|g − Π(g)| (k, count) at the stacked arguments z; infinite where g is not a number."""
        g = self._values(*(each.ravel() for each in z))
        return np.where(np.isnan(g), np.inf, self.rows.traced.distance(g))

    def sizes(self, z: Sequence[Array], reach: Array) -> Array:
        """Size (k,) of each row."""
        known = self.of_bounds > 0
        if not known.all():
            slopes = (
                np.abs(self._slopes(*(each.ravel() for each in z))).reshape(len(known), self._count, -1).max(axis=1)
            )
            slopes = np.where(np.isfinite(slopes), slopes, 0.0)
            self._of_slopes = np.maximum(self._of_slopes, slopes @ reach[: slopes.shape[1]])
        return np.where(known, self.of_bounds, self._of_slopes)

    @cached_property
    def _slopes(self) -> BufferedFunction:
        """∂g/∂z (k, count · |z|), z = (x, u), or x at the end."""
        arguments = self.rows.traced.function.sx_in()
        jacobian = ca.jacobian(self.rows.traced.function(*arguments), ca.vertcat(*arguments[:-1]))
        return BufferedFunction(ca.Function("slopes", arguments, [ca.densify(jacobian)]).map(self._count))


def _size_of_bounds(lower: Array, upper: Array) -> Array:
    """Half the range between two bounds, |bound| of one or of an equality; 0 where nothing can be known."""
    range_ = np.where(np.isfinite(upper - lower), (upper - lower) / 2, 0.0)
    single = [np.where(np.isfinite(bound), np.abs(bound), 0.0) for bound in (lower, upper)]
    return np.where(range_ > 0, range_, np.maximum(*single))


def _worst(names: Sequence[str], first: int, distance: Array, sizes: Array) -> Violation | None:
    """Worst of distances (k, stages from `first` on), None if all are 0; what has no size counts as infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(distance > 0, distance / sizes[:, None], 0.0)
    i, t = map(int, np.unravel_index(int(shares.argmax()), shares.shape))
    share = float(shares[i, t])
    return Violation(names[i], first + t, float(distance[i, t]), share) if share > 0 else None
