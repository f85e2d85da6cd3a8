"""The nonlinear program of a `Problem` that IPOPT and fatrop are given: direct multiple shooting, stage by stage.

    variables   x_0, u_0, x_1, u_1, …, x_T
    rows        x_{t+1} − f_t(x_t, u_t, p_t) = 0 and then the rows of stage t, for t = 0 … T − 1; the rows of the end

which is the order that fatrop recognizes. One function for each run of equal stages is mapped over it, p is a parameter
of the program, and rows that are a single variable become bounds of variables (`detect_simple_bounds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import casadi as ca
import numpy as np

from ocpkit import Problem
from ocpkit.boundary.arrays import Array
from ocpkit.problem.graphs import TracedConstraints, trace_stage, trace_terminal

QUIET = {"print_time": False, "show_eval_warnings": False}
COMPILED = {"jit": True, "compiler": "shell", "jit_options": {"flags": ["-O1", "-march=native"]}}


@dataclass(frozen=True)
class Program:
    """A program for every problem with the graphs of one; numbers are read from the problem at each call."""

    nlp: dict[str, ca.MX]

    @classmethod
    def of(cls, problem: Problem) -> Program:
        """Write the program of a problem."""
        p = ca.MX.sym("p", problem.parameters.shape[-1], problem.horizon + 1)
        runs = list(_runs(problem))
        blocks = [_variables(problem, run) for run in runs]
        end = ca.MX.sym("x", problem.state_sizes[-1])
        cost, rows = ca.MX(0), list[ca.MX]()
        for run, (X, U, _), following in zip(runs, blocks, [*(X[:, 0] for X, _, _ in blocks[1:]), end]):
            after, costs, limits = _mapped(problem, run)(X, U, p[:, run[0] : run[-1] + 1])
            gaps = (ca.horzcat(X[:, 1:], following) if len(run) > 1 else following) - after
            rows.append(ca.vec(ca.vertcat(gaps, limits)))
            cost += ca.sum2(costs)
        terminal = trace_terminal(problem.terminal_cost, problem.terminal_constraints, p.shape[0])
        rows.append(terminal.constraints.function(end, p[:, -1]))
        return cls(
            {
                "x": ca.vertcat(*(ca.vec(W) for _, _, W in blocks), end),
                "f": cost + terminal.phi(end, p[:, -1]),
                "g": ca.vertcat(*rows),
                "p": ca.vec(p),
            }
        )

    def solver(self, plugin: str, options: dict[str, Any], *, compiled: bool) -> ca.Function:
        """Build a plugin: with functions in C, or expanded to scalar graphs, the faster form of CasADi's machine."""
        form = COMPILED if compiled else {"expand": True}
        return ca.nlpsol("nlp", plugin, self.nlp, QUIET | form | options)


def arguments(problem: Problem, states: Sequence[Array], controls: Sequence[Array]) -> dict[str, Array]:
    """Return what a call of the solver takes: start, p, and bounds of variables and rows."""
    p_size = problem.parameters.shape[-1]
    limits = [traced_rows(stage, p_size) for stage in problem.stages]
    end = trace_terminal(problem.terminal_cost, problem.terminal_constraints, p_size).constraints
    free = [np.full(n, np.inf) for n in problem.state_sizes]
    zeros = [np.zeros(n) for n in problem.state_sizes[1:]]
    found = {"x0": join(states, controls), "p": p_of(problem)}
    for way, short, side in ((-1, "lb", "lower"), (1, "ub", "upper")):
        of_controls = [np.asarray(getattr(stage, f"control_{side}")) for stage in problem.stages]
        found[f"{short}x"] = join([problem.x0, *(way * x for x in free[1:])], of_controls)
        of_rows = [piece for zero, rows in zip(zeros, limits) for piece in (zero, getattr(rows, side))]
        found[f"{short}g"] = np.concatenate([*of_rows, getattr(end, side)])
    return found


def p_of(problem: Problem) -> Array:
    """p of the stages 0 … T, one after the other."""
    return np.concatenate([problem.parameter(t) for t in range(problem.horizon + 1)])


def join(states: Sequence[Array], controls: Sequence[Array]) -> Array:
    """(x_0, u_0, x_1, …, x_T) as one vector."""
    return np.concatenate([*(piece for pair in zip(states, controls) for piece in pair), states[-1]])


def split(problem: Problem, w: Array) -> tuple[list[Array], list[Array]]:
    """Return states and controls of the variables."""
    sizes = [size for pair in zip(problem.state_sizes, (*problem.control_sizes, 0)) for size in pair]
    pieces = np.split(w, np.cumsum(sizes)[:-1])
    return pieces[0::2], pieces[1::2][: problem.horizon]


def traced_rows(stage: Any, p_size: int) -> TracedConstraints:
    """The rows of a stage."""
    return trace_stage(stage, p_size).constraints


def _runs(problem: Problem) -> Iterator[list[int]]:
    """Yield the stages that are one object, in runs."""
    for _, run in groupby(range(problem.horizon), lambda t: id(problem.stages[t])):
        yield list(run)


def _variables(problem: Problem, run: Sequence[int]) -> tuple[ca.MX, ca.MX, ca.MX]:
    """x (n, stages), u (m, stages), and both below each other."""
    n, m = problem.state_sizes[run[0]], problem.control_sizes[run[0]]
    W = ca.MX.sym("w", n + m, len(run))
    return W[:n, :], W[n:, :], W


def _mapped(problem: Problem, run: Sequence[int]) -> ca.Function:
    """(x, u, p) → the next x, the cost and the rows of equal stages."""
    stage, p_size = problem.stages[run[0]], problem.parameters.shape[-1]
    traced = trace_stage(stage, p_size)
    sizes = (stage.dynamics.state_size, stage.dynamics.control_size, p_size)
    z = [ca.SX.sym(name, size) for name, size in zip("xup", sizes)]
    outputs = [traced.f(*z), traced.l(*z), traced.constraints.function(*z)]
    return ca.Function("step", z, outputs, {"cse": True}).map(len(run))
