"""The nonlinear program of multiple shooting, in natural units.

minimize J(w)   subject to   f_t(x_t, u_t) − x_{t+1} = 0,   lower ≤ g_t(x_t, u_t) ≤ upper,   u in its bounds
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.engines.graphs import trace_problem
from ocpkit.problem.constraint_rows import problem_rows
from ocpkit.problem.problem import Problem
from ocpkit.solution.scaling import Scaling
from ocpkit.solvers.primal_dual.blocks import Blocks, Values
from ocpkit.solvers.primal_dual.functions import StageRun, stage_runs
from ocpkit.solvers.primal_dual.layout import Layout


class Program:
    """The functions of the nonlinear program, evaluated for all stages of one kind by one call of CasADi.

    Parameters
    ----------
    problem
        Any problem whose stages can be traced.
    units
        Natural units; every number that goes in or comes out is in these.

    Attributes
    ----------
    layout
        Where everything lies.
    lower, upper
        Bounds of w: those of the controls, none of the states.
    row_lower, row_upper
        Bounds of the rows.

    Raises
    ------
    UnsupportedProblem
        If a stage cannot be traced; names it.
    """

    def __init__(self, problem: Problem, units: Scaling) -> None:
        self.problem, self.rows = problem, problem_rows(problem, bounds=False)
        self.layout = Layout(
            tuple(problem.state_sizes), tuple(problem.control_sizes), tuple(rows.count for rows in self.rows)
        )
        self._runs = stage_runs(trace_problem(problem), self.rows)
        free = [np.full(n, np.inf) for n in problem.state_sizes]
        lower, upper = problem.control_limits
        self._bounds = self.join([-x for x in free], lower), self.join(free, upper)
        self._row_bounds = (
            np.concatenate([rows.traced.lower for rows in self.rows]),
            np.concatenate([rows.traced.upper for rows in self.rows]),
        )
        p = problem.parameters
        self._p = np.broadcast_to(p, (problem.horizon + 1, len(p))) if p.ndim == 1 else p
        self._measure_in(units)

    def in_units(self, units: Scaling) -> Program:
        """Return the same program in other units."""
        other = copy(self)
        other._measure_in(units)
        return other

    def _measure_in(self, units: Scaling) -> None:
        self.cost_unit, self.unit = units.cost, self.join(units.states, units.controls)
        self.gap_unit, self.row_unit = np.concatenate(units.states[1:]), np.concatenate(units.rows)
        self.lower, self.upper = (side / self.unit for side in self._bounds)
        self.row_lower, self.row_upper = (side / self.row_unit for side in self._row_bounds)

    def join(self, states: Sequence[Array], controls: Sequence[Array]) -> Array:
        """Return states and controls as one vector."""
        return np.concatenate([*(each for pair in zip(states, controls) for each in pair), states[-1]])

    def split(self, w: Array) -> tuple[list[Array], list[Array]]:
        """Return the states and the controls of w, in the user's units."""
        w = w * self.unit
        return [w[x] for x in self.layout.x], [w[u] for u in self.layout.u]

    def values(self, w: Array) -> Values:
        """Evaluate J, gaps and rows."""
        w = w * self.unit
        cost, gaps, rows = 0.0, list[Array](), list[Array]()
        for run in self._runs:
            x, u = self._arguments(w, run)
            if run.last > self.layout.horizon:
                phi, g = run.sweep("values")(x, self._p[run.first : run.last])
                rows.append(g.ravel())
                cost += float(phi.sum())
                continue
            f, cost_t, g = run.sweep("values")(x, u, self._p[run.first : run.last])
            gaps.append((f - self._following(w, run)).ravel())
            rows.append(g.ravel())
            cost += float(cost_t.sum())
        return Values(cost / self.cost_unit, np.concatenate(gaps) / self.gap_unit, np.concatenate(rows) / self.row_unit)

    def rollout(
        self, w: Array, step: Array, gains: Sequence[Array], sides: tuple[Array, Array], step_size: float
    ) -> Array:
        """Follow the dynamics with u + α δu + K (x̂ − x − α δx) inside bounds, gaps shrunk by 1 − α; return w there.

        Parameters
        ----------
        w, step
            Variables and their Newton step, whose δu belong to its δx.
        gains
            K (m, n) of every stage, in natural units.
        sides
            Bounds of w that controls are kept in.
        """
        layout, unit = self.layout, self.unit
        nominal, moved = w * unit, (w + step_size * step) * unit
        low, high = sides[0] * unit, sides[1] * unit
        found, x = moved.copy(), nominal[layout.x[0]]
        for run in self._runs[:-1]:
            L, n = run.last - run.first, layout.states[run.first]
            at, by = (self._arguments(each, run) for each in (nominal, moved))
            z = unit[layout.starts[run.first] : layout.starts[run.last]].reshape(L, -1)
            K = np.stack(gains[run.first : run.last]) * z[:, n:, None] / z[:, None, :n]
            limits = [self._arguments(side, run)[1] for side in (low, high)]
            p = self._p[run.first : run.last]
            following, u = run.sweep("rollout")(x, *at, *by, self._following(nominal, run), p, step_size, K, *limits)
            for t in range(L):
                found[layout.u[run.first + t]] = u[t]
                found[layout.x[run.first + t + 1]] = following[t]
            x = following[-1]
        return found / unit

    def _following(self, w: Array, run: StageRun) -> Array:
        """Return the states (L, n') at the ends of the stages of a run."""
        return np.stack([w[x] for x in self.layout.x[run.first + 1 : run.last + 1]])

    def derivatives(self, w: Array, costates: Array, multipliers: Array, weight: float = 1.0) -> Blocks:
        """Differentiate, the Hessian being that of `weight` J + λᵀ f + yᵀ g."""
        layout, gradients, w = self.layout, list[Array](), w * self.unit
        costates, multipliers, weight = costates / self.gap_unit, multipliers / self.row_unit, weight / self.cost_unit
        dynamics, rows, hessians = list[Array](), list[Array](), list[Array]()
        for run in self._runs:
            x, u = self._arguments(w, run)
            L, p = run.last - run.first, self._p[run.first : run.last]
            unit = self.unit[layout.starts[run.first] : layout.starts[run.last]].reshape(L, 1, -1)
            y = multipliers[layout.row[run.first].start : layout.row[run.last - 1].stop].reshape(L, -1)
            if run.last > layout.horizon:
                slope, gz, hessian = run.sweep("derivatives")(x, p, y, weight)
            else:
                v = costates[layout.gap[run.first].start : layout.gap[run.last - 1].stop].reshape(L, -1)
                slope, fz, gz, hessian = run.sweep("derivatives")(x, u, p, v, y, weight)
                of_gaps = self.gap_unit[layout.gap[run.first].start : layout.gap[run.last - 1].stop]
                dynamics.append((fz * unit / of_gaps.reshape(L, -1, 1)).ravel())
            gradients.append(slope.ravel())
            of_rows = self.row_unit[layout.row[run.first].start : layout.row[run.last - 1].stop]
            rows.append((gz * unit / of_rows.reshape(L, -1, 1)).ravel())
            hessians.append((hessian * unit * unit.swapaxes(1, 2)).ravel())
        gradient = np.concatenate(gradients) * self.unit / self.cost_unit
        return Blocks(layout, gradient, *(np.concatenate(each) for each in (dynamics, rows, hessians)))

    def _arguments(self, w: Array, run: StageRun) -> tuple[Array, Array]:
        """Return x and u (L, …) of a run."""
        a, b = self.layout.starts[run.first], self.layout.starts[run.last]
        z = w[a:b].reshape(run.last - run.first, -1)
        n = self.layout.states[run.first]
        return z[:, :n], z[:, n:]
