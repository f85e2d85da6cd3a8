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
from ocpkit.solvers.verdicts.natural_units import Sweep, natural_units, row_unit

FIRST_BARRIER = 0.1
PUSH = 1e-2
"""κ_1 = κ_2 (Wächter & Biegler 2006, section 3.6): room to a bound that a start is given, in units and as a share."""
WARM_PUSH, WARM_BARRIER = 1e-8, 1e-6
"""The same for a warm start, and its least barrier: with a smaller one, rows that become active are found late."""
LEAST_SHARE = 1e-6
"""Share of a unit that is still a size: what is smaller at a solution may as well be rounding."""
RELAXATION = 1e-10
"""By how much inequality rows are widened, in their units, so that what they leave has an interior."""


class Begun(NamedTuple):
    """An interior point, or the stage whose functions are not finite at the start (None where a value is not)."""

    interior: Interior | None
    stage: int | None = None


def start_of(problem: Problem, guess: Guess) -> Trajectory:
    """Return the guess's trajectory, its controls inside their bounds."""
    return replace(guess, controls=tuple(problem.clip(guess.controls))).trajectory(NumpyEngine(problem))


def program_at(problem: Problem, trajectory: Trajectory, *, scaling: bool) -> tuple[Program, Scaling]:
    """Return the program in natural units at a trajectory, or in the user's; and the units."""
    rows = problem_rows(problem, bounds=False)
    sizes = problem.control_sizes, problem.state_sizes, [each.count for each in rows]
    ones = Scaling(1.0, *(tuple(np.ones(size) for size in series) for series in sizes))
    program = Program(problem, ones)
    if not scaling:
        return program, ones
    engine = VMEngine(problem, trace_problem(problem))
    units = natural_units(engine, trajectory, rows, _sweep(program, trajectory))
    return program.in_units(units), units


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
    gaps = len(values.gaps)
    slacks, targets = _slacks(program, gaps)
    v = Bounded.inside(values.rows[slacks.place - gaps], slacks.lower, slacks.upper, push=push, multiplier=1.0)
    at = Iterate(inside, v, np.zeros(gaps + len(values.rows)), values)
    blocks = program.derivatives(inside.value, at.duals[:gaps], at.duals[gaps:])
    if not blocks.finite:
        return Begun(None, blocks.first_not_finite)
    if warm is None:
        at = replace(at, duals=least_squares_duals(slacks, blocks, at))
    else:
        at = _warm(at, slacks, blocks, *warm, mu)
    return Begun(Interior(program, slacks, targets, at, mu, tolerance))


def units_at(at: Iterate, blocks: Blocks, program: Program, known: Scaling, *, of_cost: bool) -> Scaling:
    """Return units no larger than the known ones, by what the iterate says of its states, its rows and perhaps J.

    The known ones may come from a rollout that ran far away, beside which everything at a solution is small.
    """
    states, _ = program.split(at.w.value)
    largest = dict[int, Array]()
    for x in states:
        largest[len(x)] = np.maximum(largest.get(len(x), np.zeros(len(x))), np.abs(x))
    of_x = [
        np.where(largest[len(unit)] > LEAST_SHARE * unit, np.minimum(unit, largest[len(unit)]), unit)
        for unit in known.states
    ]
    moves = dict[int, Array]()
    for t, (each, G) in enumerate(zip(program.rows, blocks.rows_of)):
        layout, k = program.layout, id(each)
        z = np.concatenate([of_x[t], *known.controls[t : t + 1]])
        slope = np.abs(G) * program.row_unit[layout.row[t]][:, None] / program.unit[layout.z[t]]
        moves[k] = np.maximum(moves.get(k, np.zeros(each.count)), slope @ z)
    of_rows = [
        np.minimum(unit, row_unit(each, moves[id(each)])) if each.count else unit
        for each, unit in zip(program.rows, known.rows)
    ]
    share = float(np.clip(abs(at.values.cost), LEAST_SHARE, 1.0)) if of_cost else 1.0
    return Scaling(share * known.cost, known.controls, tuple(of_x), tuple(of_rows))


def in_units(main: Interior, before: Program, program: Program) -> Interior | None:
    """Return the same iterate in the units of another program; None where a slack finds no room there."""
    at, cost = main.at, before.cost_unit / program.cost_unit
    gaps, of_w = len(at.values.gaps), program.unit / before.unit
    of_rows = np.concatenate([program.gap_unit / before.gap_unit, program.row_unit / before.row_unit])
    values = program.values(at.w.value / of_w)
    if not values.finite:
        return None
    slacks, targets = _slacks(program, gaps)
    w, v = (
        replace(
            Bounded.inside(each.value / unit, lower, upper, push=WARM_PUSH, multiplier=0.0),
            below=each.below * cost * unit,
            above=each.above * cost * unit,
        )
        for each, unit, lower, upper in (
            (at.w, of_w, program.lower, program.upper),
            (at.v, of_rows[slacks.place], slacks.lower, slacks.upper),
        )
    )
    there = Iterate(w, v, at.duals * cost * of_rows, values)
    return Interior(program, slacks, targets, there, min(main.mu * cost, FIRST_BARRIER), main.tolerance)


def _slacks(program: Program, gaps: int) -> tuple[Slacks, Array]:
    """Return the slacks of the rows that are no equalities, and the targets of those that are."""
    lower, upper = program.row_lower, program.row_upper
    equal = lower == upper
    wide = RELAXATION * ~equal
    targets = np.concatenate([np.zeros(gaps), np.where(equal, lower, 0.0)])
    return Slacks.of_rows(lower - wide, upper + wide, gaps), targets


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
