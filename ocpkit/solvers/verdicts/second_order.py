"""Test whether a stationary point is a minimum: by the undamped recursion, and where that cannot tell, by a probe.

The exact recursion factors ∇²J(u_0 … u_{T-1}) by blocks: J has a strict minimum there where Q_uu is positive definite
at every stage, among the controls that no bound holds. Where Q_uu has an eigenvalue λ < 0 with eigenvector v,

    δu_t = ± s v,   δu_τ = K_τ δx_τ  for τ > t         changes J by ½ λ s² + O(s³),

so that this is the way out of a saddle or a maximum. Eigenvalues that are zero up to rounding say nothing: along those
directions, and along the stage-wise Newton step, J itself is asked. Eigenvalues are those of S Q_uu S, S the natural
units of the controls, so that they do not depend on the user's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import in_time
from ocpkit.engines.numpy import NumpyEngine, first_not_finite
from ocpkit.recursion.bellman import ActionValue, q_expansion
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.linalg import eigh
from ocpkit.recursion.value import Value
from ocpkit.solution.scaling import control_scales
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.verdicts.optimality import ROUNDING
from ocpkit.solvers.verdicts.stationarity import held

LENGTHS = 4.0 ** np.arange(2, -13, -1)
"""Steps tried along a direction, in natural units of the controls."""
TRIED = 3
"""Directions of negative curvature that are tried beside the one nearest to the end."""
FLAT = 1e-9
"""Eigenvalues of at most this, relative to the largest of all stages, have no sign."""
SLIGHT = 1e-9
"""Decrease of J, relative to Σ |ℓ_t| + |φ|, below which a point counts as a minimum along a flat direction."""


@dataclass(frozen=True)
class Direction:
    """A way for the controls, which the other stages follow by their feedback.

    Attributes
    ----------
    eigenvalue
        λ of S Q_uu S.
    moves
        δu (m,) by stage.
    """

    eigenvalue: float
    moves: dict[int, Array]


@dataclass(frozen=True)
class Curvatures:
    """Findings of the undamped recursion along a trajectory.

    Attributes
    ----------
    negative, flat
        Directions whose eigenvalue is below zero, or zero up to rounding.
    newton, gains
        k (m,) and K (m, n) of every stage, in the space of the positive eigenvalues.
    """

    negative: list[Direction]
    flat: list[Direction]
    newton: list[Array]
    gains: list[Array]


@dataclass(frozen=True)
class Finding:
    """Whether nothing speaks against a minimum, and a trajectory with lower J if one was found."""

    minimum: bool
    lower: Trajectory | None = None


def examine(engine: NumpyEngine, nominal: Trajectory) -> Finding:
    """Find out whether a stationary trajectory, rolled out, is a minimum of J.

    Where second derivatives of the dynamics are left out (`Dynamics.curved`), negative curvature proves nothing.
    """
    if not nominal.finite:
        return Finding(minimum=True)
    stages, terminal = engine.expand(nominal, second_order=True)
    if first_not_finite(stages, terminal) is not None:
        return Finding(minimum=True)  # nothing is known that speaks against it
    found = curvatures(engine, nominal, stages, terminal)
    steepest = [*found.negative[:1], *sorted(found.negative[1:], key=lambda d: d.eigenvalue)[:TRIED]]
    newton = Direction(0.0, dict(enumerate(found.newton)))
    slight = SLIGHT * nominal.magnitude
    for directions, least in ((steepest, ROUNDING * nominal.magnitude), ((newton, *_together(found.flat)), slight)):
        lowest = [_lowest(engine, nominal, found, direction, least) for direction in directions]
        lower = min((trial for trial in lowest if trial is not None), key=lambda trial: trial.cost, default=None)
        if lower is not None:
            return Finding(minimum=False, lower=lower)
    return Finding(minimum=not found.negative or not all(stage.dynamics.curved for stage in engine.problem.stages))


def leave_saddle(engine: NumpyEngine, nominal: Trajectory) -> Trajectory | None:
    """Return a trajectory with lower J, reached along negative curvature, a flat direction or Newton's, or None."""
    return examine(engine, nominal).lower


def curvatures(engine: NumpyEngine, nominal: Trajectory, stages: Sequence[Expansion], terminal: Value) -> Curvatures:
    """Undamped recursion along a trajectory, without a step and feedback where an eigenvalue is not positive."""
    problem, T = engine.problem, engine.problem.horizon
    scales = _scales(engine, nominal, stages, terminal)
    V, largest = terminal, 0.0
    negative, flat = list[Direction](), list[Direction]()
    newton, gains = [np.zeros(0)] * T, [np.zeros((0, 0))] * T
    for t in in_time(reversed(range(T))):
        Q, s = q_expansion(stages[t], V), scales[t]
        free = np.flatnonzero(~held(problem.stages[t], nominal.controls[t], Q.u))
        values, vectors = eigh((s[:, None] * Q.uu * s)[np.ix_(free, free)])
        largest = max(largest, float(np.abs(values).max(initial=0.0)))
        basis = np.zeros((len(s), len(free)))
        basis[free] = s[free, None] * vectors
        flatness = np.abs(values) <= FLAT * largest
        for value, column, is_flat in zip(values.tolist(), basis.T, flatness.tolist()):
            if is_flat or value < 0:
                (flat if is_flat else negative).append(Direction(value, {t: column}))
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=(values > 0) & ~flatness)
        newton[t] = -basis @ (inverse * (basis.T @ Q.u))
        gains[t] = -basis @ (inverse[:, None] * (basis.T @ Q.ux))
        V = _value(Q, newton[t], gains[t])
    return Curvatures(negative, flat, newton, gains)


def _value(Q: ActionValue, k: Array, K: Array) -> Value:
    """V of a policy k, K that need not minimize Q."""
    hessian = Q.xx + K.T @ Q.uu @ K + K.T @ Q.ux + Q.ux.T @ K
    return Value(Q.x + K.T @ Q.u + (Q.ux + Q.uu @ K).T @ k, (hessian + hessian.T) / 2)


def _scales(engine: NumpyEngine, nominal: Trajectory, stages: Sequence[Expansion], terminal: Value) -> list[Array]:
    """Natural units of the controls at every stage, from ∇_{u_t} J and ∇²_{u_t} J (Prop. 2)."""
    problem, V = engine.problem, terminal
    gradients, hessian_diagonals = list[Array](), list[Array]()
    for stage in reversed(stages):
        Q = q_expansion(stage, V)
        gradients.insert(0, Q.u)
        hessian_diagonals.insert(0, np.diagonal(Q.uu))
        V = Value(Q.x, Q.xx)
    lower, upper = ([np.asarray(getattr(s, f"control_{side}")) for s in problem.stages] for side in ("lower", "upper"))
    return control_scales(lower, upper, nominal.controls, gradients, hessian_diagonals, nominal.cost)


def _together(flat: Sequence[Direction]) -> Iterator[Direction]:
    """Combine many flat directions to few: all at once, with alternating signs, and the last one alone."""
    for signs in ((1.0, 1.0), (1.0, -1.0)):
        moves = dict[int, Array]()
        for i, direction in enumerate(flat):
            for t, move in direction.moves.items():
                moves[t] = moves.get(t, 0.0) + signs[i % 2] * move
        if moves:
            yield Direction(0.0, moves)
    yield from flat[:1]


def _lowest(
    engine: NumpyEngine, nominal: Trajectory, found: Curvatures, direction: Direction, least: float
) -> Trajectory | None:
    """Return the trajectory of lowest J along ± a direction; None where J does not fall by more than `least`."""
    if not any(move.any() for move in direction.moves.values()):
        return None
    trials = [_moved(engine, nominal, found, direction, way * length) for way in (1, -1) for length in LENGTHS]
    finite = [trial for trial in trials if trial is not None and trial.cost < nominal.cost - least]
    return min(finite, key=lambda trial: trial.cost, default=None)


def _moved(
    engine: NumpyEngine, nominal: Trajectory, found: Curvatures, direction: Direction, length: float
) -> Trajectory | None:
    """Roll out u + s δu, with the feedback of the recursion on what this makes of the states."""
    problem, states, controls = engine.problem, [nominal.states[0]], list[Array]()
    with np.errstate(all="ignore"):
        for t, stage in enumerate(problem.stages):
            u = nominal.controls[t] + found.gains[t] @ problem.difference(states[t], nominal.states[t])
            if t in direction.moves:
                u = u + length * direction.moves[t]
            u = stage.clip(u)
            controls.append(u)
            states.append(stage.dynamics.step(states[t], u, problem.parameter(t)))
            if not np.isfinite(states[-1]).all():
                return None
    trajectory = engine.rollout(controls)
    return trajectory if trajectory.finite else None
