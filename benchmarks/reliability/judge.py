"""What no solver shares: claims held against the problem itself, in the units in which it was drawn.

Units, `Draw.units`, are known because they were drawn; J counts in Σ |ℓ_t| + |φ| and `FLOOR` of its drawn unit. A
claimed optimum must keep bounds, dynamics and rows, state its own J, and leave nothing to gain:

* first order: with A the rows and bounds that are active and y ≥ 0 on them, r = ∇J + Aᵀy is small, or ½ rᵀ|H|⁻¹r is;
* second order, without rows: J does not fall along the eigenvector of H with the smallest eigenvalue, or along
  −|H|⁻¹∇J, both among the controls that no bound holds. Rollouts decide; they go on only as long as J falls, so that
  a lower J behind a hill is no objection.
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
ACTIVE = 1e-5  # of the unit of a row; an interior point keeps a distance
CONSISTENT = 1e-6  # of states, and of J
FLOOR = 1e-8
ROUNDING = 1e-13
DIFFERENCES = 1e-4  # error of central differences, relative to the largest slope
LENGTHS = 2.0 ** np.arange(-16, 4)  # of a step of the unit of the controls


def objection(drawn: Draw, solution: Solution) -> str:
    """Say why what an answer claims is false, or nothing."""
    if solution.status is Status.INFEASIBLE and drawn.feasible:
        return "INFEASIBLE, but a trajectory that keeps every row is known"
    if not solution.success:
        return ""
    problem = drawn.clean
    stage, unit = problem.stages[0], cost_unit(drawn, solution)
    if not ((solution.controls >= stage.control_lower) & (solution.controls <= stage.control_upper)).all():
        return "a control is outside its bounds"
    if not (gap := condensed.gap(problem, solution, drawn.units.states)) <= CONSISTENT:
        return f"the dynamics are violated by {gap:.1e}"
    if not (apart := abs(condensed.cost(problem, solution) - solution.cost) / unit) <= CONSISTENT:
        return f"J is wrong by {apart:.1e}"
    if not (excess := rows_excess(drawn, solution)) <= ROWS_HOLD:
        return f"a row is violated by {excess:.1e}"
    if not drawn.regular:
        return ""  # there need be no multipliers
    if problem.stages[0].constraints or problem.terminal_constraints:
        return _say_slope(*kkt_residual(drawn, solution, unit))
    slopes, inside = steepest(drawn, solution, unit)
    promise = condensed.newton_decrease(problem, solution, inside)
    return _say_slope(slopes, promise / unit) or second_order(drawn, solution, unit, inside)


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


def kkt_residual(drawn: Draw, solution: Solution, unit: float) -> tuple[float, float]:
    """‖r‖_∞ in units of J and of the controls, and ½ rᵀ|diag H|⁻¹r in the unit of J, r = ∇J + Aᵀy with the y that makes |r| least."""
    problem, v = drawn.clean, np.concatenate(solution.controls)
    H, gradient = condensed.hessian(problem, v)
    g, lower, upper, jacobian = condensed.rows(problem, v)
    stage, size = problem.stages[0], drawn.units.controls
    bounds = (np.tile(side, problem.horizon) for side in (stage.control_lower, stage.control_upper))
    sides = [(g, lower, upper, jacobian * size / drawn.units.rows, drawn.units.rows), (v, *bounds, np.eye(len(v)), size)]
    columns, least, most = [], [], []
    for value, low, high, slopes, of_row in sides:
        at_low, at_high = value - low <= ACTIVE * of_row, high - value <= ACTIVE * of_row
        for i in np.flatnonzero(at_low | at_high):
            columns.append(slopes[i])
            least.append(-np.inf if at_low[i] else 0.0)
            most.append(np.inf if at_high[i] else 0.0)
    r = gradient * size / unit
    if columns:
        A = np.stack(columns, axis=1)
        r = r + A @ lsq_linear(A, -r, (least, most)).x
    bends = np.maximum(np.abs(np.diag(H)) * size**2 / unit, np.finfo(float).tiny)
    return float(np.abs(r).max()), float(0.5 * np.sum(r**2 / bends))


def second_order(drawn: Draw, solution: Solution, unit: float, free: Array) -> str:
    """Say by how much J falls from a claimed optimum along a direction of negative curvature, or nothing."""
    problem, v, size = drawn.clean, np.concatenate(solution.controls), drawn.units.controls
    H, gradient = condensed.hessian(problem, v)
    H, gradient = H[np.ix_(free, free)] * size**2, gradient[free] * size
    if not free.any() or not (np.isfinite(H).all() and np.isfinite(gradient).all()):
        return ""
    values, vectors = np.linalg.eigh(H)
    slopes = vectors.T @ gradient
    newton = -vectors @ (slopes / np.maximum(np.abs(values), np.finfo(float).eps * np.abs(values).max() + 1e-300))
    newton /= max(1.0, np.abs(newton).max())
    for direction in (vectors[:, 0], -vectors[:, 0], newton):
        move = np.zeros_like(v)
        move[free] = direction * size
        if (fall := _fall(problem, v, move, unit)) > NEGLIGIBLE * unit:
            return f"J falls by {fall / unit:.1e} of its unit along curvature {values[0] / unit:.1e}"
    return ""


def _fall(problem: Problem, v: Array, move: Array, unit: float) -> float:
    """By how much J falls on the way along a move, until it rises."""
    stage, m = problem.stages[0], problem.control_sizes[0]
    first = lowest = _cost(problem, v.reshape(-1, m))
    for length in LENGTHS:
        controls = np.clip((v + length * move).reshape(-1, m), stage.control_lower, stage.control_upper)
        J = _cost(problem, controls)
        if not lowest + ROUNDING * unit >= J:
            break
        lowest = J
    return first - lowest


def _cost(problem: Problem, controls: Array) -> float:
    with np.errstate(all="ignore"):
        return float(problem.rollout(controls)[1])
