"""What no solver shares: claims held against the problem itself, in the units in which it was drawn.

Units, `Draw.units`, are known because they were drawn; J counts in Σ |ℓ_t| + |φ| and `FLOOR` of its drawn unit. A
claimed optimum must keep bounds, dynamics and rows, state its own J, and leave nothing to gain:

* with rows: with A those nearby and the bounds, y ≥ 0 on them, r = ∇J + Aᵀy is small, or ½ rᵀ|H|⁻¹r is;
* without rows: ∇J is small, or ½ ∇Jᵀ|H|⁻¹∇J; and J does not fall along the eigenvector of H with the smallest
  eigenvalue, −|H|⁻¹∇J or −∇J, all among the controls that no bound holds. Rollouts decide; they go on only as long as
  J falls, so that a lower J behind a hill is no objection.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import lsq_linear

from benchmarks.reliability import condensed
from benchmarks.reliability.problems import Draw
from ocpkit import Problem, Solution, Status

Array = Any

NEGLIGIBLE = 1e-8  # a decrease of J, in its unit, that nobody misses
STEEP = 1e-5  # ‖r‖_∞, in units of J and of the controls
ROWS_HOLD = 1e-6  # of the unit of a row
NEARBY = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # of the unit of a row
COMPLEMENTARY = 1e-6  # of J's unit
CONSISTENT = 1e-6  # of states, and of J
FLOOR = 1e-8
ROUNDING = 1e-13
DIFFERENCES = 1e-4  # error of central differences, relative to the largest slope
LENGTHS = 2.0 ** np.arange(-16, 4)  # of a step of the unit of the controls
SHORTEST = 2.0 ** np.arange(-48, -16)  # where curvature is so large that the steps above begin behind a hill


WRONG, NOT_INFEASIBLE, UNDECIDED = "WRONG", "NOT INFEASIBLE", "UNDECIDED"


def objection(drawn: Draw, solution: Solution) -> tuple[str, str]:
    """Return `WRONG`, `NOT_INFEASIBLE` or `UNDECIDED`, and why; two empty words where nothing speaks against a claim.

    Undecided is a slope that is not small where no rollout shows a lower J: open-loop rollouts and slopes of unstable
    systems are made of rounding.
    """
    if solution.status is Status.INFEASIBLE and drawn.feasible:
        return NOT_INFEASIBLE, "a trajectory that keeps every row is known"
    if not solution.success:
        return "", ""
    unit = cost_unit(drawn, solution)
    if note := _broken(drawn, solution, unit):
        return WRONG, note
    if not drawn.regular:
        return "", ""  # there need be no multipliers
    if drawn.clean.stages[0].constraints or drawn.clean.terminal_constraints:
        note = stationary_under_rows(drawn, solution, unit)
        return (WRONG, note) if note else ("", "")
    steep, inside = steepest(drawn, solution, unit)
    note = _say_slope(steep, condensed.newton_decrease(drawn.clean, solution, inside) / unit)
    if fall := lower(drawn, solution, unit, inside):
        return WRONG, fall
    return (UNDECIDED, note) if note else ("", "")


def _broken(drawn: Draw, solution: Solution, unit: float) -> str:
    """Say what does not hold of bounds, dynamics, rows and J, or nothing."""
    problem = drawn.clean
    stage = problem.stages[0]
    if not ((solution.controls >= stage.control_lower) & (solution.controls <= stage.control_upper)).all():
        return "a control is outside its bounds"
    if not (gap := condensed.gap(problem, solution, drawn.units.states)) <= CONSISTENT:
        return f"the dynamics are violated by {gap:.1e}"
    if not (apart := abs(condensed.cost(problem, solution) - solution.cost) / unit) <= CONSISTENT:
        return f"J is wrong by {apart:.1e}"
    if not (excess := rows_excess(drawn, solution)) <= ROWS_HOLD:
        return f"a row is violated by {excess:.1e}"
    return ""


def _say_slope(steep: float, promise: float) -> str:
    fine = steep <= STEEP or promise <= NEGLIGIBLE
    return "" if fine else f"slope {steep:.1e}, J could fall by {promise:.1e} of its unit"


def cost_unit(drawn: Draw, solution: Solution) -> float:
    """Σ |ℓ_t| + |φ| of an answer, and `FLOOR` of the unit in which J was drawn."""
    return condensed.magnitude(drawn.clean, solution) + FLOOR * drawn.units.cost


def rows_excess(drawn: Draw, solution: Solution) -> float:
    """Largest violation of a row, in its unit; 0 without rows."""
    g, lower, upper, _ = condensed.rows(drawn.clean, np.concatenate(solution.controls))
    return float(np.maximum(lower - g, g - upper).max(initial=0.0)) / drawn.units.rows


def steepest(drawn: Draw, solution: Solution, unit: float) -> tuple[float, Array]:
    """Largest slope of J in its unit, and which controls (T m,) are not pressed on a bound.

    With the gains of a solution's policy the slopes are those by what is added to it: zero at the same points, and not
    blown up where the system alone is unstable. A black box is forgiven the error of its differences.
    """
    found = []
    for K in [None] if solution.feedback_gains is None else [None, solution.feedback_gains]:
        g = condensed.gradient(drawn.clean, solution, K)
        inside = ~condensed.blocked(drawn.clean, solution, g, NEGLIGIBLE * unit)
        slope = np.abs(np.where(inside, g, 0.0)).max()
        measured = drawn.given is not drawn.clean and slope <= DIFFERENCES * np.abs(g).max()
        found.append((0.0 if measured else float(slope) * drawn.units.controls / unit, inside.ravel()))
    return min(found, key=lambda each: each[0])


def stationary_under_rows(drawn: Draw, solution: Solution, unit: float) -> str:
    """Say that r = ∇J + Aᵀy is not small for any y ≥ 0 on the rows and bounds nearby, or nothing.

    What counts as nearby grows until it is small, but Σ y · distance, which is what J could fall by in the convex case,
    may be `COMPLEMENTARY` at most: an interior point keeps a distance.
    """
    problem, v, size = drawn.clean, np.concatenate(solution.controls), drawn.units.controls
    H, gradient = condensed.hessian(problem, v)
    g, lower, upper, jacobian = condensed.rows(problem, v)
    stage = problem.stages[0]
    bounds = [np.tile(side, problem.horizon) for side in (stage.control_lower, stage.control_upper)]
    A = np.concatenate([jacobian * size / drawn.units.rows, np.eye(len(v))])
    below = np.concatenate([(g - lower) / drawn.units.rows, (v - bounds[0]) / size])
    above = np.concatenate([(upper - g) / drawn.units.rows, (bounds[1] - v) / size])
    slopes, bends = gradient * size / unit, np.maximum(np.abs(np.diag(H)) * size**2 / unit, np.finfo(float).tiny)
    for near in NEARBY:
        some = (below <= near) | (above <= near)
        y, r = np.zeros(0), slopes
        if some.any():
            y = lsq_linear(
                A[some].T,
                -slopes,
                (np.where(below <= near, -np.inf, 0.0)[some], np.where(above <= near, np.inf, 0.0)[some]),
            ).x
            r = slopes + A[some].T @ y
        left = float(np.sum(np.abs(y) * np.maximum(np.where(y > 0, above[some], below[some]), 0.0)))
        steep, promise = float(np.abs(r).max()), float(0.5 * np.sum(r**2 / bends))
        note = _say_slope(steep, promise)
        if left <= COMPLEMENTARY and not note:
            return ""
    return note or f"rows leave {left:.1e} of J's unit"


def lower(drawn: Draw, solution: Solution, unit: float, free: Array) -> str:
    """Say by how much J falls from a claimed optimum along a direction of Newton or negative curvature, or nothing."""
    problem, v, size = drawn.clean, np.concatenate(solution.controls), drawn.units.controls
    H, gradient = condensed.hessian(problem, v)
    H, gradient = H[np.ix_(free, free)] * size**2, gradient[free] * size
    if not free.any() or not (np.isfinite(H).all() and np.isfinite(gradient).all()):
        return ""
    values, vectors = np.linalg.eigh(H)
    slopes = vectors.T @ gradient
    newton = -vectors @ (slopes / np.maximum(np.abs(values), np.finfo(float).eps * np.abs(values).max() + 1e-300))
    newton /= max(1.0, np.abs(newton).max())
    steep = -gradient / max(np.abs(gradient).max(), 1e-300)
    for direction in (vectors[:, 0], -vectors[:, 0], newton, steep):
        move = np.zeros_like(v)
        move[free] = direction * size
        if (fall := _fall(problem, v, move, unit, solution.cost)) > NEGLIGIBLE * unit:
            return f"J falls by {fall / unit:.1e} of its unit along curvature {values[0] / unit:.1e}"
    return ""


def _fall(problem: Problem, v: Array, move: Array, unit: float, claimed: float) -> float:
    """By how much J falls below what is claimed on the way along a move, until it rises."""
    lowest = _cost(problem, v.reshape(-1, problem.control_sizes[0]))
    for length in LENGTHS:
        J = _cost_along(problem, v, length * move)
        if not lowest + ROUNDING * unit >= J:
            break
        lowest = J
    fall = claimed - lowest
    if fall > NEGLIGIBLE * unit and any(
        _cost_along(problem, v, length * move) > claimed + NEGLIGIBLE * unit for length in SHORTEST
    ):
        return 0.0
    return fall


def _cost_along(problem: Problem, v: Array, move: Array) -> float:
    stage = problem.stages[0]
    controls = (v + move).reshape(-1, problem.control_sizes[0])
    return _cost(problem, np.clip(controls, stage.control_lower, stage.control_upper))


def _cost(problem: Problem, controls: Array) -> float:
    with np.errstate(all="ignore"):
        return float(problem.rollout(controls)[1])
