"""Test whether a point where the gradient vanishes is a minimum: a probe along the stage-wise Newton step of Prop. 2.

The gradient also vanishes at a saddle, on a ridge, and where controls have saturated: the share 1/(1 + e^{−u}) hardly
moves any more at u = −20, however much would be gained by u = 0. There the curvature vanishes with the gradient,
so that the Newton step is long where the gradient step is short. The probe follows

    δu_t = −|∇²_{u_t} J|⁻¹ ∇_{u_t} J                                          (Dauphin et al. 2014)

and compares what J loses with what the gradient admits. Where J is convex along the way, it loses at most −∇Jᵀδu.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ocpkit.boundary.arrays import Array
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.problem.stage import Stage
from ocpkit.recursion.linalg import dot, eigh
from ocpkit.solution.scaling import ROUNDING
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.verdicts.natural_units import control_units, sweep

LENGTHS = 2.0 ** np.arange(-6, 7)
"""Multiples of the Newton step that are tried, until J rises."""
NUDGE = 1e-3
"""Least step along negative curvature, as a share of 1 + ‖u_t‖_∞ in natural units: the gradient may be zero there."""


def hidden_decrease(engine: NumpyEngine, nominal: Trajectory) -> float:
    """Decrease of J along the probe, beyond what its gradient admits; 0 at a minimum of a smooth J."""
    return max([0.0, *(nominal.cost - found.cost - admitted for found, admitted in _probe(engine, nominal))])


def descent(engine: NumpyEngine, nominal: Trajectory) -> Trajectory:
    """Return the lowest J along the probe; at a minimum, the nominal trajectory."""
    return min([nominal, *(found for found, _ in _probe(engine, nominal))], key=lambda each: each.cost)


def _probe(engine: NumpyEngine, nominal: Trajectory) -> Iterator[tuple[Trajectory, float]]:
    """Trajectory, and |∇Jᵀδu|, after each length of a step, as long as J falls.

    Controls that rest on a bound, held there by the gradient, do not move. The step is tried without nudges, which
    are leaps where controls are small numbers, and with them.
    """
    found = sweep(engine, nominal)
    if not found.finite:
        return
    units = control_units(engine, nominal, found)
    parts = list(zip(engine.problem.stages, nominal.controls, found.gradients, found.hessians, units.controls))
    plain, nudged = ([_direction(*part, nudge) for part in parts] for nudge in (0.0, NUDGE))
    yield from _along(engine, nominal, found.gradients, plain)
    if not all(map(np.array_equal, plain, nudged)):
        yield from _along(engine, nominal, found.gradients, nudged)


def _along(
    engine: NumpyEngine, nominal: Trajectory, gradients: Sequence[Array], directions: Sequence[Array]
) -> Iterator[tuple[Trajectory, float]]:
    lowest = nominal.cost
    for length in LENGTHS:
        moved = [u + length * d for u, d in zip(nominal.controls, directions)]
        found = engine.rollout(engine.problem.clip(moved))
        if not found.cost <= lowest + ROUNDING * max(abs(lowest), abs(nominal.cost)):
            return
        admitted = sum(abs(dot(g, v - u)) for g, u, v in zip(gradients, nominal.controls, found.controls))
        lowest = found.cost
        yield found, float(admitted)


def held(stage: Stage, u: Array, gradient: Array, negligible: float = 0.0) -> NDArray[np.bool_]:
    """Say of every control (m,) whether the gradient presses it on a bound, at most `negligible` of J away."""
    lower, upper = np.asarray(stage.control_lower), np.asarray(stage.control_upper)
    way, fall = np.where(gradient > 0, u - lower, upper - u), np.full_like(u, np.inf)
    np.multiply(np.abs(gradient), way, out=fall, where=gradient != 0)
    return fall <= negligible


def _direction(stage: Stage, u: Array, gradient: Array, hessian: Array, unit: Array, nudge: float) -> Array:
    """−|∇²_{u_t} J|⁻¹ ∇_{u_t} J of the controls that are free to move, in their units at most 1 + ‖u_t‖_∞ long."""
    free, direction = np.flatnonzero(~held(stage, u, gradient)), np.zeros_like(u)
    s = unit[free]
    with np.errstate(all="ignore"):
        scaled = hessian[np.ix_(free, free)] * np.outer(s, s)
    if free.size and np.isfinite(scaled).all():  # of numbers near the largest, units may make infinite ones
        eigenvalues, vectors = eigh(scaled)
        slopes, curvatures, reach = vectors.T @ (s * gradient[free]), np.abs(eigenvalues), 1 + np.abs(u / unit).max()
        lengths = np.divide(np.abs(slopes), curvatures, out=np.zeros_like(slopes), where=curvatures > 0)
        lengths = np.clip(lengths, np.where(eigenvalues < 0, nudge * reach, 0.0), reach)
        direction[free] = s * (vectors @ (np.where(slopes > 0, -lengths, lengths)))
    return direction
