"""Is a point where the gradient vanishes a minimum? A probe along the stage-wise Newton step of Prop. 2.

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

from ocpkit.curvature import Identity
from ocpkit.engines.numpy import NumpyEngine, first_not_finite
from ocpkit.linalg import dot, eigh
from ocpkit.problem import Array, Stage
from ocpkit.trajectory import Trajectory

LENGTHS = 2.0 ** np.arange(-6, 7)
"""Multiples of the Newton step that are tried, until J rises."""
NUDGE = 1e-3
"""Least step along a direction of negative curvature, as a fraction of 1 + ‖u_t‖_∞: the gradient may be zero there."""
ROUNDING = 1e-14


def hidden_decrease(engine: NumpyEngine, nominal: Trajectory) -> float:
    """How much J falls along the probe, beyond what its gradient admits; 0 at a minimum of a smooth J."""
    return max([0.0, *(fall - admitted for fall, admitted in _probe(engine, nominal))])


def decrease(engine: NumpyEngine, nominal: Trajectory) -> float:
    """How much J falls along the probe; 0 at a minimum."""
    return max([0.0, *(fall for fall, _ in _probe(engine, nominal))])


def _probe(engine: NumpyEngine, nominal: Trajectory) -> Iterator[tuple[float, float]]:
    """By how much J has fallen, and |∇Jᵀδu|, after each length of a step, as long as J falls.

    Controls that rest on a bound, held there by the gradient, do not move. The step is tried without nudges, which
    are leaps where controls are small numbers, and with them.
    """
    stages, terminal = engine.expand(nominal, second_order=True)
    if first_not_finite(stages, terminal) is not None:
        return
    policy = engine.backward_pass(stages, terminal, Identity(1.0), feedback=False, tikhonov=0.0)
    gradients = [step.Q.u for step in policy.steps]  # ∇_{u_t} J, and Q.uu is ∇²_{u_t} J (Prop. 2)
    parts = list(zip(engine.problem.stages, nominal.controls, gradients, (step.Q.uu for step in policy.steps)))
    plain, nudged = ([_direction(*part, nudge) for part in parts] for nudge in (0.0, NUDGE))
    yield from _along(engine, nominal, gradients, plain)
    if not all(map(np.array_equal, plain, nudged)):
        yield from _along(engine, nominal, gradients, nudged)


def _along(
    engine: NumpyEngine, nominal: Trajectory, gradients: Sequence[Array], directions: Sequence[Array]
) -> Iterator[tuple[float, float]]:
    lowest = nominal.cost
    for length in LENGTHS:
        moved = [u + length * d for u, d in zip(nominal.controls, directions)]
        controls = engine.problem.clip(moved)
        cost = engine.rollout(controls).cost
        if not cost <= lowest + ROUNDING * (1 + abs(lowest)):
            return
        admitted = sum(abs(dot(g, v - u)) for g, u, v in zip(gradients, nominal.controls, controls))
        lowest = cost
        yield float(nominal.cost - cost), float(admitted)


def held(stage: Stage, u: Array, gradient: Array, negligible: float = 0.0) -> NDArray[np.bool_]:
    """Say of every control (m,) whether the gradient presses it on a bound, at most `negligible` of J away."""
    lower, upper = np.asarray(stage.control_lower), np.asarray(stage.control_upper)
    way, fall = np.where(gradient > 0, u - lower, upper - u), np.full_like(u, np.inf)
    np.multiply(np.abs(gradient), way, out=fall, where=gradient != 0)
    return fall <= negligible


def _direction(stage: Stage, u: Array, gradient: Array, hessian: Array, nudge: float) -> Array:
    """−|∇²_{u_t} J|⁻¹ ∇_{u_t} J among the controls that are free to move, at most 1 + ‖u_t‖_∞ long."""
    free, direction = np.flatnonzero(~held(stage, u, gradient)), np.zeros_like(u)
    if free.size:
        eigenvalues, vectors = eigh(hessian[np.ix_(free, free)])
        slopes, bends, reach = vectors.T @ gradient[free], np.abs(eigenvalues), 1 + np.abs(u).max()
        lengths = np.divide(np.abs(slopes), bends, out=np.zeros_like(slopes), where=bends > 0)
        lengths = np.clip(lengths, np.where(eigenvalues < 0, nudge * reach, 0.0), reach)
        direction[free] = vectors @ (np.where(slopes > 0, -lengths, lengths))
    return direction
