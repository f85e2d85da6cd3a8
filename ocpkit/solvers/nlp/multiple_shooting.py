"""The nonlinear program of a Problem by direct multiple shooting (Bock & Plitt 1984), in natural units.

    minimize over w = (x_0, u_0, x_1, u_1, …, x_T)   φ(x_T) + Σ ℓ_t(x_t, u_t)
    subject to   x_{t+1} − f_t(x_t, u_t) = 0,   x_0 − x̄_0 = 0,   lower ≤ g_t(x_t, u_t) ≤ upper,   u bounds.

The rows are ordered stage by stage, the dynamics first, as fatrop's block structure wants them. The
multiplier of x_{t+1} − f_t in the Lagrangian J + λᵀ(…) is −V_x at t + 1, and that of x_0 − x̄_0 is −V_x at 0.

A plugin is given w̃ = (w − origin) / unit, rows (g − origin) / unit and J / unit, since its tolerances are absolute and
it widens bounds by 1e-8 of their size. The origin is the middle between two bounds, or the only bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import casadi as ca
import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.problem.graphs import TracedConstraints, TracedStage, TracedTerminal, trace_stage, trace_terminal
from ocpkit.problem.problem import Problem
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.trajectory import Trajectory

RELAXATION = 1e-8
"""By how much IPOPT and fatrop widen bounds, relative to max(1, |bound|) of the scaled program."""

T = TypeVar("T")


@dataclass(frozen=True)
class Point:
    """Variables w̃ of the scaled program, and multipliers of their bounds and of the rows: ∇J + λᵀ ∇g + μ = 0."""

    w: Array
    of_bounds: Array
    of_rows: Array


@dataclass(frozen=True)
class _Block:
    """Some rows lower ≤ g ≤ upper, and their units and origins."""

    g: ca.MX
    lower: Array
    upper: Array
    unit: Array
    origin: Array


class Program:
    """Graphs and bounds of the scaled nonlinear program, and the way from w̃ to trajectories and back.

    Parameters
    ----------
    problem
        Any problem whose stages can be traced.
    scaling
        Units of J, states, controls and constraints; None: the user's, and no origins.

    Attributes
    ----------
    nlp
        CasADi's dictionary of x (here w̃), f (J), g (the rows) and p (x̄_0 and the parameters).
    p
        Numbers for p.
    bounds
        ``lbx``, ``ubx`` of w̃ and ``lbg``, ``ubg`` of the rows.
    row_counts
        Rows of each stage 0 … T that are not dynamics.
    scaling
        As given.

    Raises
    ------
    UnsupportedProblem
        If a part of a stage cannot be traced.
    """

    def __init__(self, problem: Problem, scaling: Scaling | None = None) -> None:
        self.problem, self.scaling, self._moved = problem, scaling, scaling is not None
        stages, terminal = _trace(problem)
        limits = [*(stage.constraints for stage in stages), terminal.constraints]
        units = scaling or _ones(problem, limits)
        self._limits, self._cost_unit, self._rows_of = limits, units.cost, [len(each.lower) for each in limits]
        n = problem.state_sizes
        self._cuts = np.cumsum([0, *(size for pair in zip(n, (*problem.control_sizes, 0)) for size in pair)]).tolist()
        sides = [(np.asarray(stage.control_lower), np.asarray(stage.control_upper)) for stage in problem.stages]
        self._unit = _interleave(units.states, units.controls)
        self._origin = _interleave([np.zeros(size) for size in n], [self._center(*pair) for pair in sides])
        scaled, p = ca.MX.sym("w", self._cuts[-1]), ca.MX.sym("p", n[0] + problem.parameters.size)
        cost, blocks = self._write(scaled, p, stages, terminal, units)
        free = [np.full(size, np.inf) for size in n]
        lower, upper = (_interleave([way * x for x in free], each) for way, each in zip((-1, 1), zip(*sides)))
        self._finish(scaled, p, cost / units.cost, blocks, (lower, upper))

    def _center(self, lower: Array, upper: Array) -> Array:
        """Return the middle between two bounds, or the only one."""
        if not self._moved:
            return np.zeros(len(lower))
        low, high = (
            np.where(np.isfinite(a), a, np.where(np.isfinite(b), b, 0.0)) for a, b in ((lower, upper), (upper, lower))
        )
        return low + (high - low) / 2

    def _write(
        self, scaled: ca.MX, p: ca.MX, stages: Sequence[TracedStage], terminal: TracedTerminal, units: Scaling
    ) -> tuple[ca.MX, list[_Block]]:
        """Return J and the rows of w̃ and p."""
        n, s = self.problem.state_sizes, units.states
        x0, stage_p, following = p[: n[0]], self._parameters(p[n[0] :]), ca.vertsplit(scaled, self._cuts)[2::2]
        pieces = ca.vertsplit(self._origin + self._unit * scaled if self._moved else scaled, self._cuts)
        x, u = pieces[0::2], pieces[1::2]
        cost, blocks = terminal.phi(x[-1], stage_p[-1]), list[_Block]()

        def equality(g: ca.MX, unit: Array) -> _Block:
            zeros = np.zeros(len(unit))
            return _Block(g, zeros, zeros, unit, zeros)

        def limit(limits: TracedConstraints, unit: Array, *z: ca.MX) -> _Block:
            g, origin = limits.function(*z), self._center(limits.lower, limits.upper)
            return _Block((g - origin) / unit if self._moved else g, limits.lower, limits.upper, unit, origin)

        for t, stage in enumerate(stages):
            z = (x[t], u[t], stage_p[t])
            cost += stage.l(*z)
            blocks.append(equality(following[t] - stage.f(*z) / s[t + 1], s[t + 1]))  # fatrop wants a factor of 1
            blocks += [equality((x[0] - x0) / s[0], s[0])] if t == 0 else []
            blocks.append(limit(stage.constraints, units.rows[t], *z))
        return cost, [*blocks, limit(terminal.constraints, units.rows[-1], x[-1], stage_p[-1])]

    def _parameters(self, p: ca.MX) -> list[ca.MX]:
        """Return p of the stages 0 … T; a shared p is the same symbol everywhere."""
        count = self.problem.horizon + 1
        if self.problem.parameters.ndim == 1:
            return [p] * count
        return list(ca.vertsplit(p, self.problem.parameters.shape[1])) if p.numel() else [p] * count

    def _finish(
        self, scaled: ca.MX, p: ca.MX, cost: ca.MX, blocks: Sequence[_Block], sides: tuple[Array, Array]
    ) -> None:
        problem, rows = self.problem, ca.vertcat(*(block.g for block in blocks))
        self.nlp = {"x": scaled, "f": cost, "g": rows, "p": p}
        self.p = np.concatenate([problem.x0, problem.parameters.ravel()])
        self._row_unit = np.concatenate([block.unit for block in blocks])
        lower, upper = ((side - self._origin) / self._unit for side in sides)
        self.bounds = {"lbx": lower, "ubx": upper} | {
            name: np.concatenate([(getattr(block, side) - block.origin) / block.unit for block in blocks])
            for name, side in (("lbg", "lower"), ("ubg", "upper"))
        }
        multipliers = ca.MX.sym("lam", rows.numel())
        slope = ca.gradient(cost + ca.dot(multipliers, rows), scaled)
        self._evaluate = ca.Function("check", [scaled, p, multipliers], [rows, slope])

    @property
    def row_counts(self) -> list[int]:
        """Rows of each stage 0 … T that are not dynamics: the initial state and the constraints."""
        return [self._rows_of[0] + self.problem.state_sizes[0], *self._rows_of[1:]]

    def join(self, states: Sequence[Array], controls: Sequence[Array]) -> Array:
        """Return w̃ of a trajectory."""
        return (_interleave(states, controls) - self._origin) / self._unit

    def carry(self, point: Point, program: Program) -> dict[str, Array]:
        """Return the multipliers of another scaling's point in the units of this one, as ``lam_x0`` and ``lam_g0``."""
        of_cost = program._cost_unit / self._cost_unit
        return {
            "lam_x0": of_cost * point.of_bounds * self._unit / program._unit,
            "lam_g0": of_cost * point.of_rows * self._row_unit / program._row_unit,
        }

    def split(self, w: Array) -> tuple[list[Array], list[Array]]:
        """Return states and controls of w̃; controls are put back inside bounds that a solver relaxed by 1e-8."""
        pieces = np.split(self._origin + self._unit * w, self._cuts[1:-1])
        return pieces[0::2], self.problem.clip(pieces[1::2])

    def point(self, trajectory: Trajectory, costates: Sequence[Array], of_controls: Sequence[Array] | None) -> Point:
        """Return a trajectory of a problem without rows as a point, with V_x at 0 … T and y of the bounded controls."""
        problem, n = self.problem, self.problem.state_sizes
        multipliers = [np.zeros(size) for size in problem.control_sizes]
        for y, stage, found in zip(multipliers, problem.stages, of_controls or ()):
            y[stage.bounded_controls] = found
        y = _interleave([np.zeros(size) for size in n], multipliers) * self._unit / self._cost_unit
        along = np.concatenate(list(_by_row(costates, [np.zeros(0)] * len(n))))
        w = self.join(trajectory.states, trajectory.controls)
        return Point(w, y, -along * self._row_unit / self._cost_unit)

    def _of_stages(self, of_rows: Array) -> tuple[list[Array], list[Array]]:
        """Cut what belongs to rows into that of x_0 … x_T and that of the constraints."""
        n, counts = self.problem.state_sizes, self._rows_of
        sizes = list(_by_row(n, counts))
        pieces = np.split(of_rows, np.cumsum(sizes)[:-1])
        places = list(_by_row([*range(len(n))], [-1] * len(counts)))
        states = dict(zip(places, pieces))
        return [states[t] for t in range(len(n))], [piece for place, piece in zip(places, pieces) if place < 0]

    def costates(self, point: Point) -> list[Array]:
        """Return V_x at 0 … T."""
        return self._of_stages(-point.of_rows * self._cost_unit / self._row_unit)[0]

    def multipliers(self, point: Point) -> tuple[Array, ...]:
        """Return y of the constraints and then of the bounded controls of every stage (see `Solution`).

        A barrier leaves y > 0 everywhere; a bound that is farther away than y is large, both in natural units, is none
        that holds, and its y is zero.
        """
        rows = self._evaluate(point.w, self.p, 0)[0].full()[:, 0]
        names = (("lbx", "ubx"), ("lbg", "ubg"))
        y, of_rows = (
            _of_held(*each, *(self.bounds[name] for name in pair)) * self._cost_unit / unit
            for *each, pair, unit in zip(
                (point.of_bounds, point.of_rows), (point.w, rows), names, (self._unit, self._row_unit)
            )
        )
        controls, constraints = np.split(y, self._cuts[1:-1])[1::2], self._of_stages(of_rows)[1]
        of_controls = [u[stage.bounded_controls] for u, stage in zip(controls, self.problem.stages)]
        return tuple(np.concatenate(pair) for pair in zip(constraints, [*of_controls, np.zeros(0)]))

    def violation(self, w: Array) -> float:
        """Largest violation of a row in the user's units: of the dynamics, the initial state or a constraint."""
        return float(self._excess(w).max())

    def _excess(self, w: Array) -> Array:
        rows = self._evaluate(w, self.p, 0)[0].full()[:, 0]
        excess = np.maximum(rows - self.bounds["ubg"], self.bounds["lbg"] - rows)
        return np.asarray(np.maximum(excess, 0.0) * self._row_unit)

    def errors(self, point: Point, gaps: Sequence[Array] | None, units: Scaling | None = None) -> tuple[float, float]:
        """‖∇_w (J + λᵀ g + μᵀ w)‖_∞ and the largest violation of a row, the dynamics among them, in some units.

        Parameters
        ----------
        gaps
            Those of the trajectory, whose controls were put back inside their bounds.
        units
            By default the user's, in which the first is max_t ‖Q_u‖_∞ where there are no constraints.
        """
        units = units or _ones(self.problem, self._limits)
        slope = self._evaluate(point.w, self.p, point.of_rows)[1].full()[:, 0]
        slope = (slope + point.of_bounds) * self._cost_unit / self._unit
        relative = [self._excess(point.w) / np.concatenate(list(_by_row(units.states, units.rows)))]
        relative += [np.abs(gap) / unit for gap, unit in zip(gaps or (), units.states[1:])]
        of_w = np.abs(slope) * _interleave(units.states, units.controls) / units.cost
        return float(of_w.max()), float(np.concatenate(relative).max())

    def losses(self, point: Point) -> Array:
        """|μ_i| · distance to its bound, and |λ_j g_j|: what J loses, to first order, by ending each at zero.

        A barrier stops as far from a bound as that; and no nearer than `RELAXATION`, by which plugins widen bounds.
        """
        w, mu = point.w, point.of_bounds
        bound = np.where(mu > 0, self.bounds["ubx"], self.bounds["lbx"])
        held = (mu != 0) & np.isfinite(bound)
        far = np.maximum(np.abs(w - bound), RELAXATION * np.maximum(1.0, np.abs(bound)))[held]
        rows = self._evaluate(w, self.p, 0)[0].full()[:, 0]
        gaps = np.maximum(rows - self.bounds["ubg"], self.bounds["lbg"] - rows)
        losses = np.concatenate([np.abs(mu[held]) * far, np.abs(point.of_rows) * np.maximum(gaps, 0.0)])
        return np.asarray(losses * self._cost_unit)


def _by_row(states: Sequence[T], rows: Sequence[T]) -> Iterator[T]:
    """Multipliers of x_{t+1} − f_t, of x_0 − x̄_0 and of g_t, in the order of the rows."""
    for t, of_constraints in enumerate(rows):
        yield from states[t + 1 : t + 2]
        yield from states[: t == 0]
        yield of_constraints


def _of_held(y: Array, values: Array, lower: Array, upper: Array) -> Array:
    """Return the multipliers of the bounds that hold, and zero for the others."""
    bound = np.where(y > 0, upper, lower)
    held = (lower == upper) | (np.isfinite(bound) & (np.abs(values - bound) <= np.abs(y)))
    return np.where(held, y, 0.0)


def _ones(problem: Problem, limits: Sequence[TracedConstraints]) -> Scaling:
    """The user's own units."""
    sizes = (problem.control_sizes, problem.state_sizes, [len(each.lower) for each in limits])
    return Scaling(1.0, *(tuple(np.ones(size) for size in series) for series in sizes))


def _trace(problem: Problem) -> tuple[list[TracedStage], TracedTerminal]:
    """Trace every distinct stage once."""
    p_size, traced = problem.parameters.shape[-1], dict[int, TracedStage]()
    for t, stage in enumerate(problem.stages):
        if id(stage) not in traced:
            traced[id(stage)] = trace_stage(stage, p_size, f"stage {t} ({stage.name!r})")
    terminal = trace_terminal(problem.terminal_cost, problem.terminal_constraints, p_size)
    return [traced[id(stage)] for stage in problem.stages], terminal


def _interleave(states: Sequence[Array], controls: Sequence[Array]) -> Array:
    """Return (x_0, u_0, x_1, …, x_T) as one vector."""
    pairs = [piece for pair in zip(states, controls) for piece in pair]
    return np.concatenate([*pairs, states[-1]])
