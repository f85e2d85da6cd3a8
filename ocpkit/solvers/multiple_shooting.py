"""The nonlinear program of a Problem by direct multiple shooting (Bock & Plitt 1984).

    minimise over w = (x_0, u_0, x_1, u_1, …, x_T)   φ(x_T) + Σ ℓ_t(x_t, u_t)
    subject to   x_{t+1} − f_t(x_t, u_t) = 0,   x_0 − x̄_0 = 0,   lower ≤ g_t(x_t, u_t) ≤ upper,   u bounds.

The rows are ordered stage by stage, the dynamics first, as fatrop's block structure wants them. The
multiplier of x_{t+1} − f_t in the Lagrangian J + λᵀ(…) is −V_x at t + 1, and that of x_0 − x̄_0 is −V_x at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import casadi as ca
import numpy as np

from ocpkit.problem import Array, Problem
from ocpkit.trace import TracedStage, TracedTerminal, trace_stage, trace_terminal

RELAXATION = 1e-8
"""By how much IPOPT and fatrop widen bounds, relative to max(1, |bound|)."""


class Program:
    """Graphs and bounds of the nonlinear program, and the way from w to trajectories and back.

    Parameters
    ----------
    problem
        Any problem whose stages can be traced.

    Attributes
    ----------
    nlp
        CasADi's dictionary of x (here w), f (J), g (the rows) and p (x̄_0 and the parameters).
    p
        Numbers for p.
    bounds
        ``lbx``, ``ubx`` of w and ``lbg``, ``ubg`` of the rows.
    row_counts
        Rows of each stage 0 … T that are not dynamics.

    Raises
    ------
    UnsupportedProblem
        If a part of a stage cannot be traced.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        n, m = problem.state_sizes, problem.control_sizes
        self._cuts = np.cumsum([0, *(size for pair in zip(n, (*m, 0)) for size in pair)]).tolist()
        w, p = ca.MX.sym("w", self._cuts[-1]), ca.MX.sym("p", n[0] + problem.parameters.size)
        pieces, x0 = ca.vertsplit(w, self._cuts), p[: n[0]]
        x, u, stage_p = pieces[0::2], pieces[1::2], self._parameters(p[n[0] :])
        stages, terminal = _trace(problem)
        cost = terminal.phi(x[-1], stage_p[-1])
        rows, limits, self.row_counts = list[ca.MX](), list[tuple[Array, Array]](), list[int]()
        for t, stage in enumerate(stages):
            arguments = (x[t], u[t], stage_p[t])
            cost += stage.l(*arguments)
            start = [x[0] - x0] if t == 0 else []
            rows += [x[t + 1] - stage.f(*arguments), *start, stage.constraints.function(*arguments)]
            equalities = np.zeros(n[t + 1] + (n[0] if t == 0 else 0))
            limits += [(equalities, equalities), (stage.constraints.lower, stage.constraints.upper)]
            self.row_counts.append(len(equalities) - n[t + 1] + len(stage.constraints.lower))
        rows.append(terminal.constraints.function(x[-1], stage_p[-1]))
        limits.append((terminal.constraints.lower, terminal.constraints.upper))
        self.row_counts.append(len(terminal.constraints.lower))
        self._finish(w, cost, ca.vertcat(*rows), p, limits)

    def _parameters(self, p: ca.MX) -> list[ca.MX]:
        """Return p of the stages 0 … T; a shared p is the same symbol everywhere."""
        count = self.problem.horizon + 1
        if self.problem.parameters.ndim == 1:
            return [p] * count
        return list(ca.vertsplit(p, self.problem.parameters.shape[1])) if p.numel() else [p] * count

    def _finish(self, w: ca.MX, cost: ca.MX, rows: ca.MX, p: ca.MX, limits: list[tuple[Array, Array]]) -> None:
        problem = self.problem
        self.nlp = {"x": w, "f": cost, "g": rows, "p": p}
        self.p = np.concatenate([problem.x0, problem.parameters.ravel()])
        free = [np.full(size, np.inf) for size in problem.state_sizes]
        self.bounds = {
            "lbx": _interleave([-side for side in free], [np.asarray(s.control_lower) for s in problem.stages]),
            "ubx": _interleave(free, [np.asarray(s.control_upper) for s in problem.stages]),
            "lbg": np.concatenate([lower for lower, _ in limits]),
            "ubg": np.concatenate([upper for _, upper in limits]),
        }
        multipliers = ca.MX.sym("lam", rows.numel())
        slope = ca.gradient(cost + ca.dot(multipliers, rows), w)
        self._evaluate = ca.Function("check", [w, p, multipliers], [rows, slope])

    def join(self, states: Sequence[Array], controls: Sequence[Array]) -> Array:
        """Return w of a trajectory."""
        return _interleave(states, controls)

    def split(self, w: Array) -> tuple[list[Array], list[Array]]:
        """Return states and controls of w; controls are put back inside bounds that a solver relaxed by 1e-8."""
        pieces = np.split(w, self._cuts[1:-1])
        return pieces[0::2], self.problem.clip(pieces[1::2])

    def costates(self, multipliers: Array) -> list[Array]:
        """Return V_x at 0 … T from the multipliers of the rows."""
        sizes, dynamics, row = self.problem.state_sizes, list[Array](), 0
        for size, others in zip(sizes[1:], self.row_counts):
            dynamics.append(-multipliers[row : row + size])
            row += size + others
        return [-multipliers[sizes[1] : sizes[1] + sizes[0]], *dynamics]

    def violation(self, w: Array) -> float:
        """Largest violation of a row: of the dynamics, the initial state or a constraint."""
        rows = self._evaluate(w, self.p, 0)[0].full()[:, 0]
        excess = np.maximum(rows - self.bounds["ubg"], self.bounds["lbg"] - rows)
        return float(np.maximum(excess, 0.0).max())

    def gradient_norm(self, w: Array, bound_multipliers: Array, multipliers: Array) -> float:
        """‖∇_w (J + λᵀ g + μᵀ w)‖_∞, which is max_t ‖Q_u‖_∞ where there are no constraints."""
        slope = self._evaluate(w, self.p, multipliers)[1].full()[:, 0]
        return float(np.abs(slope + bound_multipliers).max())

    def leftover(self, w: Array, bound_multipliers: Array, multipliers: Array) -> float:
        """Σ |μ_i| · distance to the bound + Σ |λ_j g_j|: what J loses, to first order, by ending both at zero.

        A barrier stops as far from a bound as that; and no nearer than `RELAXATION`, by which plugins widen bounds.
        """
        lower, upper = self.bounds["lbx"], self.bounds["ubx"]
        bound = np.where(bound_multipliers > 0, upper, lower)
        held = (bound_multipliers != 0) & np.isfinite(bound)
        far = np.maximum(np.abs(w - bound), RELAXATION * np.maximum(1.0, np.abs(bound)))[held]
        rows = self._evaluate(w, self.p, 0)[0].full()[:, 0]
        gaps = np.maximum(rows - self.bounds["ubg"], self.bounds["lbg"] - rows)
        return float(np.abs(bound_multipliers[held]) @ far + np.abs(multipliers) @ np.maximum(gaps, 0.0))


def _trace(problem: Problem) -> tuple[list[TracedStage], TracedTerminal]:
    """Trace every distinct stage once."""
    p_size, traced = problem.parameters.shape[-1], dict[int, TracedStage]()
    for t, stage in enumerate(problem.stages):
        if id(stage) not in traced:
            traced[id(stage)] = trace_stage(stage, p_size, f"stage {t} ({stage.name!r})")
    terminal = trace_terminal(problem.terminal_cost, problem.terminal_constraints, p_size)
    return [traced[id(stage)] for stage in problem.stages], terminal


def _interleave(states: Sequence[Array], controls: Sequence[Array]) -> Array:
    """Return (x_0, u_0, x_1, …, x_T) as one vector."""
    pairs = [piece for pair in zip(states, controls) for piece in pair]
    return np.concatenate([*pairs, states[-1]])
