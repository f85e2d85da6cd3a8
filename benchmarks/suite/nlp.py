"""The same discretization as a nonlinear program for IPOPT, as users of CasADi write direct multiple shooting well.

One function per kind of stage is mapped over its stages (`Function.map`), states and controls are ordered stage by
stage, bounds of states and controls are bounds of variables, T and p are single variables. A problem of ocpkit's own
becomes one in the same way (`nlp_of`), from the functions that it was declared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import casadi as ca
import numpy as np

from benchmarks.suite.continuous import ContinuousProblem, spread
from benchmarks.suite.discretized import Interval, Theta
from ocpkit import Problem
from ocpkit.autodiff.symbol import symbols, to_casadi
from ocpkit.boundary.arrays import Array
from ocpkit.problem.graphs import trace_stage, trace_terminal

OPTIONS = {"print_time": False, "show_eval_warnings": False}
IPOPT = {"print_level": 0, "sb": "yes", "tol": 1e-8, "max_iter": 3000}


@dataclass(frozen=True)
class Nlp:
    """A nonlinear program: CasADi's dictionary of x, f and g, a start, and ``lbx``, ``ubx``, ``lbg``, ``ubg``."""

    program: dict[str, ca.MX]
    start: Array
    bounds: dict[str, Array]

    def solver(self, *, expand: bool = False, **ipopt: Any) -> ca.Function:
        """Build IPOPT for it, by the options `OPTIONS` and `IPOPT` and those given.

        Expanded to scalar graphs the functions run about twice as fast, and building takes up to 20 times as long.
        """
        return ca.nlpsol("nlp", "ipopt", self.program, OPTIONS | {"expand": expand, "ipopt": IPOPT | ipopt})

    def cost(self, w: Array) -> float:
        """Return J of the variables."""
        return float(ca.Function("J", [self.program["x"]], [self.program["f"]])(w))


class _Writer:
    """Variables, rows and their bounds, one after the other."""

    def __init__(self) -> None:
        self.variables, self.rows = list[ca.MX](), list[ca.MX]()
        self.sides: dict[str, list[Array]] = {name: [] for name in ("lbx", "ubx", "lbg", "ubg")}
        self.start = list[Array]()

    def variable(self, guess: Array, lower: Array, upper: Array) -> ca.MX:
        """Add a matrix of variables, column by column; arguments are (columns, rows)."""
        symbol = ca.MX.sym("w", *guess.T.shape)
        self.variables.append(ca.vec(symbol))
        for series, value in ((self.start, guess), (self.sides["lbx"], lower), (self.sides["ubx"], upper)):
            series.append(np.broadcast_to(value, guess.shape).ravel())
        return symbol

    def constrain(self, rows: ca.MX, lower: Any, upper: Any) -> None:
        """Add rows (k, columns) with bounds (k,)."""
        if rows.numel():
            self.rows.append(ca.vec(rows))
            self.sides["lbg"].append(np.tile(np.broadcast_to(lower, rows.shape[0]), rows.shape[1]))
            self.sides["ubg"].append(np.tile(np.broadcast_to(upper, rows.shape[0]), rows.shape[1]))

    def nlp(self, cost: ca.MX) -> Nlp:
        """Return the program."""
        program = {"x": ca.vertcat(*self.variables), "f": cost, "g": ca.vertcat(*self.rows)}
        sides = {name: np.concatenate([np.zeros(0), *pieces]) for name, pieces in self.sides.items()}
        return Nlp(program, np.concatenate(self.start), sides)


def as_nlp(problem: ContinuousProblem, intervals: int | None = None) -> Nlp:
    """Return the program of `discretized(problem, intervals)`."""
    N, n = intervals or problem.intervals, problem.states
    interval, theta, write = Interval(problem, N), Theta(problem), _Writer()
    sides = [np.column_stack([x, u]) for x, u in zip(_state_sides(problem, N), _control_sides(problem, N))]
    x_guess, u_guess = problem.guessed_states(N), problem.guessed_controls(N)
    W = write.variable(np.column_stack([x_guess[:-1], u_guess]), *sides)
    end = write.variable(x_guess[-1:], *(side[-1:] for side in _state_sides(problem, N + 1, ends=True)))
    limits = theta.limits[: len(problem.parameters) + problem.free_time]
    q = write.variable(limits[None, :, 2], limits[None, :, 0], limits[None, :, 1])
    X, U, Q = W[:n, :], W[n:, :], ca.repmat(q, 1, N)
    if problem.time_dependent:
        Q = ca.vertcat(Q, ca.DM(np.arange(N) / N).T)
    following, costs, path = _step(interval, Q.shape[0]).map(N)(X, U, Q)
    write.constrain(following - ca.horzcat(X[:, 1:], end), 0.0, 0.0)
    write.constrain(path, *problem.path_bounds)
    last = ca.vertcat(q, 1.0) if problem.time_dependent else q
    final, rows = _ends(interval)(X[:, 0], end, last)
    if problem.boundary is not None:
        write.constrain(rows, problem.boundary.lower, problem.boundary.upper)
    return write.nlp(ca.sum2(costs) + final)


def _state_sides(problem: ContinuousProblem, count: int, *, ends: bool = False) -> list[Array]:
    """Lower and upper bounds (count, n) of x; x(0) as given, the last as given with `ends`."""
    sides = [np.tile(side, (count, 1)) for side in spread(problem.state_bounds, problem.states)]
    for row, fixed in ((0, problem.initial), *([(-1, problem.ends)] if ends else [])):
        for side in sides:
            side[row] = [bound if x is None else x for bound, x in zip(side[row], fixed)]
    return sides


def _control_sides(problem: ContinuousProblem, count: int) -> list[Array]:
    return [np.tile(side, (count, 1)) for side in spread(problem.control_bounds, problem.controls)]


def _step(interval: Interval, q_size: int) -> ca.Function:
    """(x, u, q) → the next x, the cost, the path rows."""
    (xs, x), (us, u), (qs, q) = (
        symbols("x", interval.problem.states),
        symbols("u", interval.problem.controls),
        symbols("q", q_size),
    )
    rows = to_casadi(interval.path(x, u, q)) if len(np.atleast_1d(interval.problem.path_bounds[0])) else ca.SX(0, 1)
    outputs = [to_casadi(interval.step(x, u, q)), to_casadi(interval.cost(x, u, q)), rows]
    return ca.Function("step", [xs, us, qs], outputs, {"cse": True})


def _ends(interval: Interval) -> ca.Function:
    """(x(0), x(T), q) → φ and the boundary rows."""
    problem = interval.problem
    q_size = len(problem.parameters) + problem.free_time + problem.time_dependent
    (a_s, a), (b_s, b), (qs, q) = symbols("a", problem.states), symbols("b", problem.states), symbols("q", q_size)
    p, T = interval.p(q), interval.duration(q)
    rows = [] if problem.boundary is None else problem.boundary.function(a, b, p, T)
    return ca.Function(
        "ends", [a_s, b_s, qs], [to_casadi(problem.terminal_cost(b, p, T)), to_casadi(rows) if rows else ca.SX(0, 1)]
    )


def nlp_of(problem: Problem) -> Nlp:
    """Return the program of a problem of ocpkit's own, from its guess of states, or those that its controls lead to."""
    write, p = _Writer(), problem.parameters
    states = problem.simulate(problem.controls) if problem.states is None else problem.states
    runs = [list(run) for _, run in groupby(range(problem.horizon), lambda t: id(problem.stages[t]))]
    blocks = [_variables(write, problem, states, run) for run in runs]
    final = np.full((1, len(states[-1])), np.inf)
    end = write.variable(np.asarray(states[-1])[None], -final, final)
    cost: Any = 0.0
    for run, (X, U), following in zip(runs, blocks, [*(X[:, 0] for X, _ in blocks[1:]), end]):
        stage = problem.stages[run[0]]
        traced = trace_stage(stage, p.shape[-1])
        arguments = [ca.SX.sym(name, size) for name, size in zip("xup", (X.shape[0], U.shape[0], p.shape[-1]))]
        outputs = [traced.f(*arguments), traced.l(*arguments), traced.constraints.function(*arguments)]
        P = ca.DM(np.array([problem.parameter(t) for t in run]).reshape(len(run), -1).T)
        after, costs, rows = ca.Function("step", arguments, outputs, {"cse": True}).map(len(run))(X, U, P)
        write.constrain(after - (ca.horzcat(X[:, 1:], following) if len(run) > 1 else following), 0.0, 0.0)
        write.constrain(rows, traced.constraints.lower, traced.constraints.upper)
        cost += ca.sum2(costs)
    terminal, last = (
        trace_terminal(problem.terminal_cost, problem.terminal_constraints, p.shape[-1]),
        problem.parameter(problem.horizon),
    )
    write.constrain(terminal.constraints.function(end, last), terminal.constraints.lower, terminal.constraints.upper)
    return write.nlp(cost + terminal.phi(end, last))


def _variables(write: _Writer, problem: Problem, states: Sequence[Array], run: Sequence[int]) -> tuple[ca.MX, ca.MX]:
    """Add x and u of equal stages, x0 fixed."""
    stage = problem.stages[run[0]]
    x, u = np.array([states[t] for t in run]), np.array([problem.controls[t] for t in run])
    free = np.full_like(x, np.inf)
    lower, upper = (
        np.column_stack([sign * free, np.tile(side, (len(run), 1))])
        for sign, side in ((-1, stage.control_lower), (1, stage.control_upper))
    )
    if run[0] == 0:
        lower[0, : x.shape[1]] = upper[0, : x.shape[1]] = problem.x0
    W = write.variable(np.column_stack([x, u]), lower, upper)
    return W[: x.shape[1], :], W[x.shape[1] :, :]
