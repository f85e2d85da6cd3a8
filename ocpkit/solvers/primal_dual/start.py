"""Start of the primal-dual interior point: units, a point inside all bounds, and multipliers."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.engines.graphs import trace_problem
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.engines.vm import VMEngine
from ocpkit.problem.constraint_rows import problem_rows
from ocpkit.problem.problem import Problem
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.value import Value
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.primal_dual.blocks import Blocks
from ocpkit.solvers.primal_dual.bounded import Bounded
from ocpkit.solvers.primal_dual.interior import Interior
from ocpkit.solvers.primal_dual.newton import Iterate, least_squares_duals
from ocpkit.solvers.primal_dual.program import Program
from ocpkit.solvers.primal_dual.slacks import Slacks
from ocpkit.solvers.verdicts.natural_units import Sweep, natural_units

FIRST_BARRIER = 0.1
PUSH = 1e-2
"""κ_1 = κ_2 (Wächter & Biegler 2006, section 3.6): room to a bound that a start is given, in units and as a share."""
WARM_PUSH, WARM_BARRIER = 1e-8, 1e-6
"""The same for a warm start, and its least barrier: with a smaller one, rows that become active are found late."""
RELAXATION = 1e-8
"""By how much inequality rows are widened, in their units, so that what they leave has an interior."""


class Begun(NamedTuple):
    """An interior point, or the stage whose functions are not finite at the start (None where a value is not)."""

    interior: Interior | None
    stage: int | None = None


def start_of(problem: Problem, guess: Guess) -> Trajectory:
    """Return the guess's trajectory, its controls inside their bounds."""
    return replace(guess, controls=tuple(problem.clip(guess.controls))).trajectory(NumpyEngine(problem))


def units_of(problem: Problem, trajectory: Trajectory, *, scaling: bool) -> Scaling:
    """Return natural units at a trajectory, or the user's."""
    rows = problem_rows(problem, bounds=False)
    sizes = problem.control_sizes, problem.state_sizes, [each.count for each in rows]
    ones = Scaling(1.0, *(tuple(np.ones(size) for size in series) for series in sizes))
    if not scaling:
        return ones
    engine = VMEngine(problem, trace_problem(problem))
    return natural_units(engine, trajectory, rows, _sweep(Program(problem, ones), trajectory))


def _sweep(program: Program, trajectory: Trajectory) -> Sweep:
    """Second-order sweep without feedback, from the derivatives that the program has anyway."""
    w, layout = program.join(trajectory.states, trajectory.controls), program.layout
    none = np.zeros(layout.gap[-1].stop), np.zeros(layout.row[-1].stop)
    first = program.derivatives(w, *none)
    costates = first.costates(none[1], np.zeros_like(w))
    found = program.derivatives(w, costates, none[1])
    V, values, hessians, slopes = found.hessians_of[-1], list[Value](), list[Array](), list[Array]()
    along = found.along(np.where(np.isfinite(costates), costates, 0.0), none[1])
    ends = [along[layout.x[0]], *(costates[gap] for gap in layout.gap)]
    values.append(Value(ends[-1], V))
    stages = list[Expansion]()
    for t in reversed(range(layout.horizon)):
        n, F, H = layout.states[t], found.dynamics_of[t], found.hessians_of[t]
        Q = H + F.T @ V @ F
        V = Q[:n, :n]
        slopes.append(along[layout.u[t]])
        hessians.append(Q[n:, n:])
        values.append(Value(ends[t], V))
        gradient = found.gradient[layout.z[t]]
        direct = first.hessians_of[t]  # of the cost alone
        stages.append(Expansion(F[:, :n], F[:, n:], gradient[:n], gradient[n:], luu=direct[n:, n:]))
    return Sweep(slopes[::-1], hessians[::-1], values[::-1], stages[::-1])


def begin(program: Program, trajectory: Trajectory, guess: Guess, tolerance: float) -> Begun:
    """Set up an interior point at a trajectory; the guess may bring multipliers and a barrier."""
    warm = _warm_multipliers(program, guess)
    push, mu = (PUSH, FIRST_BARRIER) if warm is None else (WARM_PUSH, _warm_barrier(guess))
    w = program.join(trajectory.states, trajectory.controls) / program.unit
    inside = Bounded.inside(w, program.lower, program.upper, push=push, multiplier=1.0)
    values = program.values(inside.value)
    if not values.finite:
        return Begun(None)
    lower, upper, gaps = program.row_lower, program.row_upper, len(values.gaps)
    equal = lower == upper
    wide = RELAXATION * ~equal
    slacks = Slacks.of_rows(lower - wide, upper + wide, gaps)
    v = Bounded.inside(values.rows[slacks.place - gaps], slacks.lower, slacks.upper, push=push, multiplier=1.0)
    at = Iterate(inside, v, np.zeros(gaps + len(values.rows)), values)
    blocks = program.derivatives(inside.value, at.duals[:gaps], at.duals[gaps:])
    if not blocks.finite:
        return Begun(None, blocks.first_not_finite)
    if warm is None:
        at = replace(at, duals=least_squares_duals(slacks, blocks, at))
    else:
        at = _warm(at, slacks, blocks, *warm, mu)
    targets = np.concatenate([np.zeros(gaps), np.where(equal, lower, 0.0)])
    return Begun(Interior(program, slacks, targets, at, mu, tolerance))


def _warm_barrier(guess: Guess) -> float:
    known = FIRST_BARRIER if guess.warm_start is None else guess.warm_start.barrier
    return float(np.clip(known, WARM_BARRIER, FIRST_BARRIER))


def _warm_multipliers(program: Program, guess: Guess) -> tuple[Array, Array] | None:
    """Return y of the rows, and y of the bounds like w, that a warm start brings; None if it brings none that fit."""
    layout, stages = program.layout, program.problem.stages
    bounded = [*(stage.bounded_controls for stage in stages), np.zeros(0, dtype=int)]
    sizes = [k + len(places) for k, places in zip(layout.rows, bounded)]
    if guess.multipliers is None or [len(y) for y in guess.multipliers] != sizes:
        return None
    of_rows = np.concatenate([y[:k] for y, k in zip(guess.multipliers, layout.rows)])
    of_w = np.zeros(layout.starts[-1])
    for u, places, y, k in zip(layout.u, bounded, guess.multipliers, layout.rows):
        of_w[u.start + places] = y[k:]
    fine = np.isfinite(of_rows).all() and np.isfinite(of_w).all()
    return (of_rows * program.row_unit / program.cost_unit, of_w * program.unit / program.cost_unit) if fine else None


def _warm(at: Iterate, slacks: Slacks, blocks: Blocks, of_rows: Array, of_w: Array, mu: float) -> Iterate:
    """Return the iterate with these multipliers, and the co-states that belong to them."""
    gaps = len(at.values.gaps)
    costates = blocks.costates(of_rows, of_w)
    y = of_rows[slacks.place - gaps]
    w, v = (
        each.with_multipliers(np.maximum(-found, 0.0), np.maximum(found, 0.0), mu)
        for each, found in ((at.w, of_w), (at.v, y))
    )
    return replace(at, w=w, v=v, duals=np.concatenate([costates, of_rows]))
