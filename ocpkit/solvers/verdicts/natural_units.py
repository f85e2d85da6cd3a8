"""Natural units of a problem at a trajectory, from one second-order sweep without feedback and two trial rollouts.

Each is measured by what the problem itself says, never by a number of our own, so that it changes with the user's units
(see `ocpkit.solution.scaling`):

* *controls* by their bounds, their guess, by Newton's step, and by the constant change that mends a violated row;
* *cost* by what Newton's step of one control promises, else by |J| as far as controls can change it;
* *states* by x_0 and the guess, and where these are zero by where a trial with u ± one unit gets;
* *rows* by their bounds, else by how far they move with one unit of states and controls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import casadi as ca
import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.boundary.series import gather
from ocpkit.engines.interface import Engine
from ocpkit.engines.mapped import AlongStages
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.problem.constraint_rows import REMEMBERED, ConstraintRows
from ocpkit.problem.problem import Problem
from ocpkit.recursion.curvature import Identity
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.value import Value
from ocpkit.solution.scaling import ROUNDING, Scaling, control_scales, largest, quantile, typical
from ocpkit.solution.trajectory import Trajectory

NOTHING = 1e-9
"""Size of a state, as a share of what a unit of the controls moves it by, that is but rounding."""
EARLY = 0.25
"""The stage, as a share of the horizon, at which a trial that runs away still tells what states are like."""


@dataclass(frozen=True)
class Sweep:
    """Derivatives of J along a trajectory (Prop. 2).

    Attributes
    ----------
    gradients, hessians
        ∇_{u_t} J (m,) and ∇²_{u_t} J (m, m) of stages 0 … T-1.
    values
        V_x and V_xx at x_0 … x_T for fixed controls.
    stages
        Expansions of stages 0 … T-1.
    """

    gradients: list[Array]
    hessians: list[Array]
    values: list[Value]
    stages: list[Expansion]

    @property
    def finite(self) -> bool:
        """Whether every gradient and Hessian of the controls is a number."""
        return all(np.isfinite(block).all() for blocks in (self.gradients, self.hessians) for block in blocks)


def sweep(engine: NumpyEngine, nominal: Trajectory) -> Sweep:
    """Second-order sweep without feedback; what is left of gaps is not looked at."""
    stages, terminal = engine.expand(Trajectory(nominal.states, nominal.controls, nominal.cost), second_order=True)
    policy = engine.backward_pass(stages, terminal, Identity(1.0), feedback=False, tikhonov=0.0)
    steps = policy.steps
    return Sweep(
        [step.Q.u for step in steps], [step.Q.uu for step in steps], [*(step.value for step in steps), terminal], stages
    )


def natural_units(
    engine: Engine, nominal: Trajectory, rows: Sequence[ConstraintRows] = (), found: Sweep | None = None
) -> Scaling:
    """Units of J, controls and states, and of the given rows (of stages 0 … T-1 and of the end)."""
    found = sweep(NumpyEngine(engine.problem), nominal) if found is None else found
    with np.errstate(all="ignore"):
        scaling = control_units(engine, nominal, found, *_of_rows(engine, nominal, rows, found))
        states = _states(engine, nominal, found, scaling)
        of_rows = _rows(engine, nominal, rows, states, scaling.controls)
    return Scaling(scaling.cost, scaling.controls, tuple(states), tuple(of_rows))


def control_units(
    engine: Engine, nominal: Trajectory, found: Sweep, mends: Sequence[Array] = (), rooms: Sequence[Array] = ()
) -> Scaling:
    """Units of J and the controls only; `mends` and `rooms` (m,) of each stage are changes of u that rows suggest."""
    stages, u, cost = engine.problem.stages, nominal.controls, abs(nominal.cost)
    hessian_diagonals = [np.abs(np.diag(hessian)) for hessian in found.hessians]
    lower, upper = [np.asarray(s.control_lower) for s in stages], [np.asarray(s.control_upper) for s in stages]
    sizes = [np.maximum(np.abs(a), b) for a, b in zip(u, mends)] if mends else u
    scales = control_scales(lower, upper, sizes, found.gradients, hessian_diagonals, cost, rooms)
    with np.errstate(all="ignore"):
        g, h, s = np.abs(np.concatenate(found.gradients)), np.concatenate(hessian_diagonals), np.concatenate(scales)
        direct = np.concatenate([np.abs(np.diag(stage.luu)) for stage in found.stages])
        promised = np.nan_to_num(g * np.where(h > 0, np.minimum(s, g / h), s), posinf=0.0).max(initial=0.0)
        own, whole = np.nansum(direct * s * s) / 2, np.nansum(h * s * s) / 2
    known = max(promised, min(max(cost, own), whole) if whole > 0 else 0.0)
    known = known if known > ROUNDING * cost else cost
    return Scaling(float(known) if 0 < known < np.inf else 1.0, tuple(scales))


def _of_rows(
    engine: Engine, nominal: Trajectory, rows: Sequence[ConstraintRows], found: Sweep
) -> tuple[list[Array], list[Array]]:
    """Constant changes of each control that mend a violated row, and that bring a row from one end of its room to it.

    To first order, (m,) for every stage, and for the middle one of these rows; 0 where no row tells.
    """
    problem, width = engine.problem, max(engine.problem.control_sizes)
    mends, rooms = [np.zeros((0, width))], [np.zeros((0, width))]
    if not any(each.count for each in rows):
        return [np.zeros(m) for m in problem.control_sizes], [np.zeros(m) for m in problem.control_sizes]
    arguments = [*zip(nominal.states, nominal.controls), (nominal.states[-1], np.zeros(width))]
    moved = np.zeros((problem.state_sizes[0], width))  # x_t by a unit of each control at all stages before
    values, slopes = _rows_along(problem, rows, nominal.states, nominal.controls), _slopes_along(problem, rows, nominal)
    for t, (each, (x, u)) in enumerate(zip(rows, arguments)):
        final, n, m = t == problem.horizon, len(x), len(u)
        if each.count:
            g, jacobian = values[t], slopes[t]
            reach = jacobian[:, :n] @ moved
            reach[:, :m] += 0.0 if final else jacobian[:, n:]
            missed = each.traced.distance(g)
            room = np.minimum((each.traced.upper - each.traced.lower) / 2, np.abs(g - _nearest(each, g)))
            for kind, length in ((mends, missed), (rooms, np.where(missed > 0, 0.0, room))):
                kind.append(np.where(reach != 0, length[:, None] / np.abs(reach), 0.0))
        if not final:
            moved = found.stages[t].fx @ moved
            moved[:, :m] += found.stages[t].fu
    mend, room = typical(np.concatenate(mends)), typical(np.concatenate(rooms))
    return [mend[:m] for m in problem.control_sizes], [room[:m] for m in problem.control_sizes]


def _nearest(rows: ConstraintRows, g: Array) -> Array:
    """The nearest bound of each row."""
    lower, upper = rows.traced.lower, rows.traced.upper
    return np.where(np.abs(g - lower) < np.abs(g - upper), lower, upper)


def _states(engine: Engine, nominal: Trajectory, found: Sweep, units: Scaling) -> list[Array]:
    """Units of x_0 … x_T; stages with as many states share theirs."""
    problem = engine.problem
    trials = [
        engine.rollout(problem.clip([u + way * s for u, s in zip(nominal.controls, units.controls)]))
        for way in (1.0, -1.0)
    ]
    scales, early = [np.zeros(0)] * (problem.horizon + 1), int(EARLY * problem.horizon)
    reach = [np.zeros(problem.state_sizes[0])]  # of controls that change by a unit each
    for stage, unit in zip(found.stages, units.controls):
        reach.append(np.abs(stage.fx) @ reach[-1] + np.abs(stage.fu) @ unit)
    for size in set(problem.state_sizes):
        alike = [t for t, n in enumerate(problem.state_sizes) if n == size]
        series = [np.stack([np.asarray(each.states[t], dtype=float) for t in alike]) for each in (nominal, *trials)]
        known = [quantile(each, EARLY) for each in series]
        known += [problem.x0] * (0 in alike) + [series[0]] * (nominal.gaps is not None)
        found_here, within = largest(known), reach[min(alike, key=lambda t: abs(t - early))]
        for t in alike:
            scales[t] = np.where(found_here > NOTHING * within, found_here, 0.0)
    for t in range(problem.horizon, -1, -1):
        scales[t] = _from_what_follows(scales, found, units.cost, t)
    return scales


def _from_what_follows(scales: Sequence[Array], found: Sweep, cost: float, t: int) -> Array:
    """Units of x_t where it is zero: what moves x_{t+1} by a unit, or else J."""
    scale, value = scales[t], found.values[t]
    if (scale > 0).all():
        return scale
    steps = [np.full(len(scale), np.inf)]
    if t < len(found.stages):
        steps.append(np.abs(scales[t + 1][:, None] / found.stages[t].fx).min(0, initial=np.inf))
    of_cost = [np.sqrt(cost / np.abs(np.diag(value.xx))), cost / np.abs(value.x)]
    for candidates in (steps, of_cost):
        step = np.min([np.where((s > 0) & np.isfinite(s), s, np.inf) for s in candidates], axis=0)
        scale = np.where(scale > 0, scale, np.where(np.isfinite(step), step, 0.0))
    return np.where(scale > 0, scale, 1.0)


def _rows(
    engine: Engine,
    nominal: Trajectory,
    rows: Sequence[ConstraintRows],
    states: Sequence[Array],
    controls: Sequence[Array],
) -> list[Array]:
    """Units of the rows of every stage and of the end; equal kinds of stages share theirs."""
    moves: dict[int, Array] = {}
    problem, x, u = engine.problem, nominal.states, nominal.controls
    if not any(each.count for each in rows):
        return [np.zeros(0)] * len(rows)
    at, slopes = _rows_along(problem, rows, x, u), _slopes_along(problem, rows, nominal)
    beside = [
        _rows_along(
            problem,
            rows,
            [a + way * b for a, b in zip(x, states)],
            [a + way * b for a, b in zip(u, controls)],
        )
        for way in (1.0, -1.0)
    ]
    for t, each in enumerate(rows):
        if each.count:
            unit = np.concatenate([states[t], *controls[t : t + 1]])
            sides = [side[t] - at[t] for side in beside]
            known = moves.get(id(each), np.zeros(each.count))
            moves[id(each)] = largest([known, np.abs(slopes[t]) @ unit, *sides])
    return [row_unit(each, moves.get(id(each), np.zeros(0))) for each in rows]


def _rows_along(
    problem: Problem, rows: Sequence[ConstraintRows], states: Sequence[Array], controls: Sequence[Array]
) -> Sequence[Array]:
    """Return g of every stage and of the end along a trajectory."""
    found: Sequence[Array] = _evaluations(tuple(rows))[0](gather(states), gather(controls), _every_parameter(problem))
    return found


def _slopes_along(problem: Problem, rows: Sequence[ConstraintRows], at: Trajectory) -> Sequence[Array]:
    """Return their derivatives by (x, u), at the end by x."""
    found: Sequence[Array] = _evaluations(tuple(rows))[1](
        gather(at.states), gather(at.controls), _every_parameter(problem)
    )
    return found


@lru_cache(maxsize=32)
def _evaluations(rows: tuple[ConstraintRows, ...]) -> tuple[AlongStages, AlongStages]:
    """g and its derivatives for all stages and the end at once."""
    values, slopes = [each.traced.function for each in rows], [_jacobian(each) for each in rows]
    return AlongStages(values, 1), AlongStages(slopes, 2)


def _every_parameter(problem: Problem) -> Array:
    """Return p of stages 0 … T."""
    p = problem.parameters
    return np.broadcast_to(p, (problem.horizon + 1, len(p))) if p.ndim == 1 else p


def row_unit(rows: ConstraintRows, move: Array) -> Array:
    """Half the range of two bounds, the bound that is not zero, or how far the row moves."""
    lower, upper = rows.traced.lower, rows.traced.upper
    span = (upper - lower) / 2
    scale = np.where(np.isfinite(span) & (span > 0), span, largest([lower, upper]))
    return np.where(scale > 0, scale, np.where(move > 0, move, 1.0))


@lru_cache(maxsize=REMEMBERED)
def _jacobian(rows: ConstraintRows) -> ca.Function:
    """(x, u, p), or (x, p), → the rows' derivative by (x, u), or by x."""
    function = rows.traced.function
    z = function.sx_in()
    return ca.Function("jacobian", z, [ca.densify(ca.jacobian(function(*z), ca.vertcat(*z[:-1])))])
