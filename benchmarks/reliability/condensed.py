"""The check that no solver shares: co-states along a solution, by CasADi's derivatives of each stage as a whole.

    p_T = φ_x,   g_t = ℓ_u + f_uᵀ p_{t+1},   p_t = ℓ_x + f_xᵀ p_{t+1} + K_tᵀ g_t

With K = 0 the g_t are ∇J. With the gains of a solution's policy they are the derivatives by what is added to it,
u_t = ū_t + K_t (x_t − x̄_t) + δ_t: zero at the same points, and not blown up where the system alone is unstable.

Where the gradient is above a solver's tolerance the second check is Newton's: the decrease ½ gᵀ|H|⁻¹g that the Hessian
of J as one function of all controls leaves room for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import casadi as ca
import numpy as np

from ocpkit import Problem, Solution
from ocpkit.problem.graphs import trace_constraints, trace_stage, trace_terminal
from ocpkit.problem.stage import Stage

Array = Any

NEAR = 1e-6


def gap(problem: Problem, solution: Solution, unit: float = 1.0) -> float:
    """Largest |f(x_t, u_t) − x_{t+1}| and |x_0 − x̄_0|, relative to the unit of x and the largest |x| on the way."""
    stage, p, size = problem.stages[0], problem.parameters, np.maximum(unit, np.abs(np.stack(solution.states)).max())
    following = [problem.x0, *(stage.dynamics.step(x, u, p) for x, u in zip(solution.states, solution.controls))]
    return max(float(np.max(np.abs(f - x)) / size) for f, x in zip(following, solution.states, strict=True))


def cost(problem: Problem, solution: Solution) -> float:
    """J of the states and controls, summed anew."""
    return sum(_parts(problem, solution))


def magnitude(problem: Problem, solution: Solution) -> float:
    """Σ |ℓ_t| + |φ|."""
    return sum(map(abs, _parts(problem, solution)))


def _parts(problem: Problem, solution: Solution) -> list[float]:
    p, pairs = problem.parameters, zip(solution.states, solution.controls)
    running = [float(problem.stages[0].cost.value(x, u, p)) for x, u in pairs]
    return [*running, float(problem.terminal_cost.value(solution.states[-1], p))]


def gradient(problem: Problem, solution: Solution, gains: Any = None) -> Array:
    """g (T, m) along the solution's own states."""
    along, end = _derivatives(problem)
    p, K = problem.parameters, np.zeros((problem.horizon, 1, 1)) if gains is None else gains
    costate, slopes = end(solution.states[-1], p).full()[:, 0], []
    for x, u, of_stage in zip(solution.states[-2::-1], solution.controls[::-1], K[::-1]):
        slope, before = (value.full()[:, 0] for value in along(x, u, p, costate))
        slopes.insert(0, slope)
        costate = before if gains is None else before + of_stage.T @ slope
    return np.stack(slopes)


def blocked(problem: Problem, solution: Solution, g: Array, negligible: float) -> Array:
    """Which controls (T, m) g presses on a bound that they are at, or from which it gains at most `negligible` of J."""
    stage, u = problem.stages[0], np.stack(solution.controls)
    way = np.where(g > 0, u - stage.control_lower, stage.control_upper - u)
    span = np.minimum(np.asarray(stage.control_upper) - stage.control_lower, np.abs(u).max(initial=0.0))
    gain = np.multiply(way, np.abs(g), out=np.full_like(g, np.inf), where=(g != 0) & (way < np.inf))
    return (gain < np.inf) & ((way <= NEAR * span) | (gain <= negligible))


def newton_decrease(problem: Problem, solution: Solution, inside: Array) -> float:
    """Return ½ gᵀ|H|⁻¹g over the controls (T m,) that are inside their bounds, in coordinates with |H_ii| = 1."""
    H, g = hessian(problem, np.concatenate(solution.controls))
    H, g = H[np.ix_(inside, inside)], g[inside]
    if not (np.isfinite(H).all() and np.isfinite(g).all()):
        return float("nan")
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(H)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(scale[:, None] * H * scale)
    slopes = vectors.T @ (scale * g)
    return float(0.5 * np.sum(slopes**2 / np.maximum(np.abs(values), np.finfo(float).eps)))


def hessian(problem: Problem, v: Array) -> tuple[Array, Array]:
    """H (T m, T m) and ∇J (T m,) of J as one function of all controls v."""
    H, g = _whole(problem)(v, problem.x0, problem.parameters)
    return H.full(), g.full()[:, 0]


def rows(problem: Problem, v: Array) -> tuple[Array, Array, Array, Array]:
    """All rows (k,) as functions of all controls v, their bounds, and their Jacobian (k, T m)."""
    stage, p = problem.stages[0], problem.parameters
    sizes = (stage.dynamics.state_size, stage.dynamics.control_size, p.size)
    if not stage.constraints and not problem.terminal_constraints:
        return np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, v.size))
    along = trace_constraints(stage.constraints, sizes, "rows")
    end = trace_constraints(problem.terminal_constraints, sizes[::2], "end")
    x, V, found = ca.MX(problem.x0), ca.MX.sym("V", v.size), []
    step = trace_stage(Stage(stage.dynamics, stage.cost), p.size).f
    for u in ca.vertsplit(V, sizes[1]):
        found.append(along.function(x, u, p))
        x = step(x, u, p)
    g = ca.vertcat(*found, end.function(x, p))
    value, jacobian = ca.Function("rows", [V], [g, ca.jacobian(g, V)])(v)
    lower, upper = (
        np.concatenate([*[getattr(along, s)] * problem.horizon, getattr(end, s)]) for s in ("lower", "upper")
    )
    return value.full()[:, 0], lower, upper, jacobian.full()


def _derivatives(problem: Problem) -> tuple[ca.Function, ca.Function]:
    stage = problem.stages[0]
    return _adjoint(stage.dynamics, stage.cost, problem.terminal_cost, problem.parameters.size)


@lru_cache(maxsize=256)
def _adjoint(dynamics: Any, running: Any, terminal: Any, size: int) -> tuple[ca.Function, ca.Function]:
    stage, end = trace_stage(Stage(dynamics, running), size), trace_terminal(terminal, (), size)
    x, u = ca.SX.sym("x", dynamics.state_size), ca.SX.sym("u", dynamics.control_size)
    p, costate = ca.SX.sym("p", size), ca.SX.sym("costate", dynamics.state_size)
    H = stage.l(x, u, p) + ca.dot(costate, stage.f(x, u, p))
    slopes = ca.Function("slopes", [x, u, p, costate], [ca.gradient(H, u), ca.gradient(H, x)])
    return slopes, ca.Function("end", [x, p], [ca.gradient(end.phi(x, p), x)])


def _whole(problem: Problem) -> ca.Function:
    stage = problem.stages[0]
    return _hessian(stage.dynamics, stage.cost, problem.terminal_cost, problem.horizon, problem.parameters.size)


@lru_cache(maxsize=256)
def _hessian(dynamics: Any, running: Any, terminal: Any, horizon: int, size: int) -> ca.Function:
    stage, end = trace_stage(Stage(dynamics, running), size), trace_terminal(terminal, (), size)
    n, m = dynamics.state_size, dynamics.control_size
    U, x0, p = ca.MX.sym("U", horizon * m), ca.MX.sym("x0", n), ca.MX.sym("p", size)
    x, J = x0, ca.MX(0)
    for u in ca.vertsplit(U, m):
        x, J = stage.f(x, u, p), J + stage.l(x, u, p)
    return ca.Function("hessian", [U, x0, p], list(ca.hessian(J + end.phi(x, p), U)))
