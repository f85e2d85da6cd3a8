"""The derivative of a solution with respect to x0 and p, by one more Bellman pass.

At a local optimum the conditions of Karush, Kuhn and Tucker define z* = (x*, u*) as a function of θ = (x0, p).
Differentiating them (implicit function theorem) gives a linear-quadratic problem along the trajectory,

    minimize   Σ_t ½ δzᵀ H δz + (H_zp δp)ᵀ δz          H = ∇²(ℓ + V_x'·f + y·g) at stage t
    subject to δx' = f_x δx + f_u δu + f_p δp,          g_z δz + g_p δp = 0 for the active rows,

whose solution is dz*·(δx0, δp). The same problem with a linear cost ḡᵀ δz instead has the multipliers that make up
the gradient of ḡᵀ z* with respect to θ (adjoint mode): the matrix of the conditions is symmetric.

Active rows are kept by the method of multipliers, which on this problem converges linearly with a ratio of order 1/ρ.
A row counts as active when it is an equality or its multiplier is not zero (strict complementarity); where a row is
active with a zero multiplier, z* has a kink and this is the derivative from one side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike

from ocpkit.autodiff.differentiable import BufferedFunction
from ocpkit.autodiff.identities import Identities
from ocpkit.boundary.arrays import Array, real_array
from ocpkit.errors import NotPositiveDefinite, ProblemError
from ocpkit.problem.constraint_rows import REMEMBERED, ConstraintRows, problem_rows
from ocpkit.problem.graphs import trace_stage
from ocpkit.problem.problem import Problem
from ocpkit.recursion.bellman import backward_pass
from ocpkit.recursion.curvature import Exact
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.value import Value
from ocpkit.solution.solution import Solution, as_series

PENALTY = 1e5  # ρ of the linear problem's rows, relative to its largest curvature
ROUNDS = 50
PRECISION = 1e-13
KEPT = 1e-6  # a row that is missed by more, relative to the data, cannot be kept
_Derivatives = tuple[BufferedFunction, BufferedFunction]


@dataclass(frozen=True)
class _Linear:
    """One stage (or the end) of the linear-quadratic problem, in z = (x, u) and p; rows hold the active ones only."""

    hessian: Array
    f: Array
    g: Array
    split: tuple[int, int]  # n, and n + m

    def of_z(self, matrix: Array) -> Array:
        return matrix[:, : self.split[1]]

    def of_p(self, matrix: Array) -> Array:
        return matrix[:, self.split[1] :]


@dataclass(frozen=True)
class _Response:
    """δx, δu, the co-states λ_0 … λ_T and the multipliers of the active rows."""

    states: list[Array]
    controls: list[Array]
    costates: list[Array]
    rows: list[Array]


class Sensitivity:
    """d(x*, u*)/d(x0, p) at a converged solution.

    Parameters
    ----------
    problem
        The problem that was solved, written with `ocpkit.math`.
    solution
        Its solution, with co-states (and multipliers if there are constraints). The derivative is as accurate as the
        solution is: ask the solver for a small ``gradient_tolerance``.

    Raises
    ------
    ProblemError
        If the solution has not converged, has no co-states, or is no strict local minimum.
    UnsupportedProblem
        If a stage cannot be traced.
    """

    def __init__(self, problem: Problem, solution: Solution) -> None:
        if not solution.success:
            raise ProblemError(f"only a converged solution has a derivative; this one is {solution.status.value}")
        if any(stage.noise is not None for _, stage in problem.distinct_stages):
            raise ProblemError("the derivative of an expected cost's optimum is not there; use without_noise(problem)")
        if solution.value_gradients is None:
            raise ProblemError(f"the solution of {solution.solver} has no co-states; solve by DDP")
        rows = problem_rows(problem)
        if solution.multipliers is None and any(part.count for part in rows):
            raise ProblemError("the problem has constraints but the solution has no multipliers; solve by 'al'")
        self.problem = problem
        self._stages = _linearize(problem, solution, rows)
        largest = max(float(np.abs(stage.hessian).max()) for stage in self._stages)
        self._penalty = PENALTY * max(largest, 1e-8)

    def forward(
        self, x0: Sequence[float] | Array | None = None, parameters: Array | None = None
    ) -> tuple[Array, Array]:
        """Return the change of states (T + 1, n) and controls (T, m) along a direction.

        Parameters
        ----------
        x0
            δx0 (n,); zero by default.
        parameters
            δp of the shape of the problem's parameters; zero by default.

        Raises
        ------
        ProblemError
            If a shape does not fit, or no controls keep the active constraints in this direction.
        """
        problem = self.problem
        start = _direction(x0, problem.x0, "x0")
        p = np.broadcast_to(_direction(parameters, problem.parameters, "parameters"), self._parameter_rows)
        linear, gaps, offsets = [], [], []
        for stage, dp in zip(self._stages, p):
            k = stage.split[1]
            linear.append(stage.hessian[:k, k:] @ dp)
            gaps.append(stage.of_p(stage.f) @ dp)
            offsets.append(stage.of_p(stage.g) @ dp)
        response = self._solve(start, linear, gaps[:-1], offsets)
        return as_series(response.states), as_series(response.controls)

    def adjoint(self, states: Sequence[Array] | Array, controls: Sequence[Array] | Array) -> tuple[Array, Array]:
        """Return the gradients of a scalar S(x*, u*) with respect to x0 (n,) and the parameters (their shape).

        Parameters
        ----------
        states, controls
            ∂S/∂x_t (T + 1, n) and ∂S/∂u_t (T, m).
        """
        problem, T = self.problem, self.problem.horizon
        if len(states) != T + 1 or len(controls) != T:
            raise ProblemError(
                f"expected gradients of {T + 1} states and {T} controls, got {len(states)}, {len(controls)}"
            )
        linear = [np.concatenate([np.asarray(x), np.asarray(u)]) for x, u in zip(states, controls)]
        gaps = [np.zeros(len(stage.f)) for stage in self._stages[:-1]]
        offsets = [np.zeros(len(stage.g)) for stage in self._stages]
        response = self._solve(np.zeros(len(problem.x0)), [*linear, np.asarray(states[-1])], gaps, offsets)
        gradient = np.zeros(self._parameter_rows)
        for t, stage in enumerate(self._stages):
            k, final = stage.split[1], t == T
            z = response.states[t] if final else np.concatenate([response.states[t], response.controls[t]])
            gradient[t] = stage.hessian[k:, :k] @ z + stage.of_p(stage.g).T @ response.rows[t]
            if not final:
                gradient[t] += stage.of_p(stage.f).T @ response.costates[t + 1]
        shared = problem.parameters.ndim == 1
        return response.costates[0], gradient.sum(0) if shared else gradient

    @property
    def _parameter_rows(self) -> tuple[int, int]:
        return self.problem.horizon + 1, self.problem.parameters.shape[-1]

    def _solve(self, start: Array, linear: list[Array], gaps: list[Array], offsets: list[Array]) -> _Response:
        """Solve the linear-quadratic problem; the active rows g_z δz + d = 0 by the method of multipliers."""
        multipliers = [np.zeros(len(d)) for d in offsets]
        scale = max(float(np.abs(v).max(initial=0.0)) for v in (start, *linear, *gaps, *offsets))
        for _ in range(ROUNDS):
            response = self._minimize(start, linear, gaps, offsets, multipliers)
            multipliers, worst = response.rows, self._worst_row(response, offsets)
            if worst <= PRECISION * scale:
                break
        if worst > KEPT * scale:
            raise ProblemError(
                f"no controls keep the active constraints in this direction (they miss by {worst:.2g}): "
                "the solution has no derivative there"
            )
        return response

    def _minimize(
        self, start: Array, linear: list[Array], gaps: list[Array], offsets: list[Array], multipliers: list[Array]
    ) -> _Response:
        """One Bellman pass and the linear rollout of its policy; rows come back as y + ρ (g_z δz + d)."""
        rho = self._penalty
        expansions = [self._expansion(*each) for each in zip(self._stages[:-1], linear, gaps, offsets, multipliers)]
        end = self._expansion(self._stages[-1], linear[-1], None, offsets[-1], multipliers[-1])
        try:
            steps = backward_pass(expansions, Value(end.lx, end.lxx), Exact())
        except NotPositiveDefinite as error:
            raise ProblemError(f"the solution is no strict local minimum ({error}): it has no derivative") from error
        states, controls = [start], list[Array]()
        for step, expansion, gap in zip(steps, expansions, gaps):
            controls.append(step.k + step.K @ states[-1])
            states.append(expansion.fx @ states[-1] + expansion.fu @ controls[-1] + gap)
        values = [*(step.value for step in steps), Value(end.lx, end.lxx)]
        costates = [value.x + value.xx @ x for value, x in zip(values, states)]
        violations = self._violations(states, controls, offsets)
        return _Response(states, controls, costates, [y + rho * v for y, v in zip(multipliers, violations)])

    def _expansion(self, stage: _Linear, linear: Array, gap: Array | None, offset: Array, y: Array) -> Expansion:
        n, k = stage.split
        g = stage.of_z(stage.g)
        gradient = linear + g.T @ (y + self._penalty * offset)
        hessian = stage.hessian[:k, :k] + self._penalty * g.T @ g
        blocks = hessian[:n, :n], hessian[n:, :n], hessian[n:, n:]
        return Expansion(stage.f[:, :n], stage.f[:, n:k], gradient[:n], gradient[n:], *blocks, gap=gap)

    def _violations(self, states: list[Array], controls: list[Array], offsets: list[Array]) -> list[Array]:
        z = [*(np.concatenate(pair) for pair in zip(states, controls)), states[-1]]
        return [stage.of_z(stage.g) @ dz + d for stage, dz, d in zip(self._stages, z, offsets)]

    def _worst_row(self, response: _Response, offsets: list[Array]) -> float:
        violations = self._violations(response.states, response.controls, offsets)
        return max(float(np.abs(v).max(initial=0.0)) for v in violations)


def _linearize(problem: Problem, solution: Solution, rows: Sequence[ConstraintRows]) -> list[_Linear]:
    """Second derivatives of the Lagrangian and the Jacobians of dynamics and active rows, stage by stage."""
    p_size, stages = problem.parameters.shape[-1], list[_Linear]()
    derivatives = [_of_stage(Identities(*pair), p_size) for pair in zip(problem.stages, rows)]
    derivatives.append(_of_end(Identities(problem.terminal_cost, rows[-1]), p_size))
    for t, (hessian, jacobian) in enumerate(derivatives):
        final = t == problem.horizon
        x, u = solution.states[t], np.zeros(0) if final else solution.controls[t]
        costate = np.zeros(0) if final else solution.value_gradients[t + 1]
        y = np.zeros(0) if solution.multipliers is None else solution.multipliers[t]
        lower, upper = rows[t].traced.lower, rows[t].traced.upper
        active = (y != 0) | (lower == upper)
        J = jacobian(x, u, problem.parameter(t))
        f, g = J[: len(costate)], J[len(costate) :][active]
        split = (len(x), len(x) + len(u))
        stages.append(_Linear(hessian(x, u, problem.parameter(t), costate, y), f, g, split))
    return stages


@lru_cache(maxsize=REMEMBERED)
def _of_stage(parts: Identities, p_size: int) -> _Derivatives:
    stage, rows = parts.parts
    x, u, p = (ca.SX.sym("z", size) for size in stage.dynamics.argument_sizes(p_size))
    traced = trace_stage(stage, p_size)
    return _derivatives(traced.l(x, u, p), traced.f(x, u, p), rows.traced.function(x, u, p), (x, u, p))


@lru_cache(maxsize=REMEMBERED)
def _of_end(parts: Identities, p_size: int) -> _Derivatives:
    cost, rows = parts.parts
    x, p = (ca.SX.sym("z", size) for size in cost.argument_sizes(p_size))
    phi = cost.value_graph(p_size, "the terminal cost")
    return _derivatives(phi(x, p), ca.SX(0, 1), rows.traced.function(x, p), (x, ca.SX(0, 1), p))


def _derivatives(cost: ca.SX, f: ca.SX, g: ca.SX, arguments: tuple[ca.SX, ca.SX, ca.SX]) -> _Derivatives:
    """∇²(ℓ + v·f + y·g) of (x, u, p, v, y) and the Jacobian of (f, g) of (x, u, p), in w = (x, u, p)."""
    v, y, w = ca.SX.sym("v", f.numel()), ca.SX.sym("y", g.numel()), ca.vertcat(*arguments)
    lagrangian = cost + (ca.dot(v, f) if f.numel() else 0) + (ca.dot(y, g) if g.numel() else 0)
    hessian = ca.Function("hessian", [*arguments, v, y], [ca.densify(ca.hessian(lagrangian, w)[0])])
    jacobian = ca.Function("jacobian", list(arguments), [ca.densify(ca.jacobian(ca.vertcat(f, g), w))])
    return BufferedFunction(hessian), BufferedFunction(jacobian)


def _direction(value: ArrayLike | None, like: Array, name: str) -> Array:
    if value is None:
        return np.zeros_like(like)
    direction = real_array(value, f"the direction of {name}")
    if direction.shape != like.shape:
        raise ProblemError(f"the direction of {name} has shape {direction.shape}, expected {like.shape}")
    return direction
