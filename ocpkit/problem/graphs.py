"""Stages as CasADi graphs, which NLP solvers and generated code are built from.

Functions written with `ocpkit.math` carry their graph already. Hand-written dynamics, costs and black
boxes are called once with symbols; most of them never notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from ocpkit.autodiff.differentiable import with_parameters
from ocpkit.autodiff.symbol import symbols, to_casadi
from ocpkit.boundary.arrays import Array
from ocpkit.errors import ProblemError, UnsupportedProblem
from ocpkit.problem.stage import Constraint, Cost, Dynamics, Stage, TerminalCost


@dataclass(frozen=True)
class TracedConstraints:
    """All constraints of one stage, stacked: lower ≤ g ≤ upper.

    Attributes
    ----------
    function
        (x, u, p) → g (k,); at the end (x, p) → g.
    lower, upper
        Bounds (k,), possibly infinite.
    counts
        How many of the rows each constraint has.
    """

    function: ca.Function
    lower: Array
    upper: Array
    counts: tuple[int, ...]

    def project(self, g: Array) -> Array:
        """Return the nearest point of the set, Π(g) (k,)."""
        return np.clip(g, self.lower, self.upper)


@dataclass(frozen=True)
class TracedStage:
    """One stage as graphs of (x, u, p): the next state f (n',), the cost l (1,), the constraints."""

    f: ca.Function
    l: ca.Function  # noqa: E741 - the paper's ℓ
    constraints: TracedConstraints


@dataclass(frozen=True)
class TracedTerminal:
    """The end as graphs of (x, p): the cost phi (1,) and the constraints."""

    phi: ca.Function
    constraints: TracedConstraints


def trace_stage(stage: Stage, p_size: int, where: str = "") -> TracedStage:
    """Trace a stage.

    Parameters
    ----------
    stage
        Any stage.
    p_size
        Length of p.
    where
        How messages call the stage; by default its name.

    Raises
    ------
    UnsupportedProblem
        If a part cannot be called with symbols; names the stage and what to do.
    """
    where = where or f"stage {stage.name!r}"
    sizes = (stage.dynamics.state_size, stage.dynamics.control_size, p_size)
    f = _graph(_dynamics(stage.dynamics), sizes, f"{where}: dynamics")
    if f.numel_out(0) != stage.dynamics.next_state_size:
        raise ProblemError(
            f"{where}: dynamics: traced to {f.numel_out(0)} entries, expected {stage.dynamics.next_state_size}"
        )
    cost = trace_cost(stage.cost, sizes, f"{where}: cost")
    return TracedStage(f, cost, trace_constraints(stage.constraints, sizes, where))


def trace_terminal(cost: TerminalCost, constraints: Sequence[Constraint], p_size: int) -> TracedTerminal:
    """Trace the terminal cost and the terminal constraints; raises like `trace_stage`."""
    sizes = (cost.state_size, p_size)
    return TracedTerminal(
        trace_cost(cost, sizes, "the terminal cost"),
        trace_constraints(constraints, sizes, "the terminal constraints"),
    )


def trace_cost(cost: Cost | TerminalCost, sizes: Sequence[int], where: str) -> ca.Function:
    """Trace a running cost of (x, u, p) or a terminal cost of (x, p), one number; raises like `trace_stage`."""
    return _graph(_cost(cost), sizes, where)


def _dynamics(dynamics: Dynamics) -> Any:
    """Return the graph of the dynamics, or else the method to trace."""
    return dynamics.step if dynamics.traced_function is None else dynamics.traced_function.graph


def _cost(cost: Cost | TerminalCost) -> Any:
    """Return the graph of a cost, or else the method to trace."""
    if cost.traced_function is None:
        return cost.value
    graph = cost.traced_function.graph
    return _half_squares(graph) if cost.least_squares else graph


def _half_squares(residual: ca.Function) -> ca.Function:
    """Turn residuals r into ½‖r‖²."""
    arguments = residual.sx_in()
    return ca.Function("value", arguments, [ca.sumsqr(residual(*arguments)) / 2])


def _graph(function: Any, sizes: Sequence[int], where: str) -> ca.Function:
    if isinstance(function, ca.Function):
        _check_sizes(function, sizes, where)
        return function
    columns, arrays = zip(*(symbols(f"v{i}", size) for i, size in enumerate(sizes)))
    try:
        graph = to_casadi(function(*arrays))
    except Exception as error:  # whatever a user's own code raises when it meets a symbol
        called = getattr(function, "__qualname__", type(function).__name__)
        raise UnsupportedProblem(
            f"{where} cannot be traced ({called}: {error}); write it with ocpkit.math, without float(), branches and "
            "assignments into NumPy arrays, or choose a solver that only evaluates it: 'ddp', 'ilqr', 'fddp'"
        ) from error
    return ca.Function("value", columns, [graph])


def _check_sizes(graph: ca.Function, sizes: Sequence[int], where: str) -> None:
    traced = tuple(graph.numel_in(i) for i in range(graph.n_in()))
    if traced != tuple(sizes):
        raise ProblemError(f"{where}: traced for arguments of sizes {traced}, but the problem has {tuple(sizes)}")


def trace_constraints(constraints: Sequence[Constraint], sizes: Sequence[int], where: str) -> TracedConstraints:
    """Stack constraints of (x, u, p), or of (x, p), and spread their bounds over the rows."""
    columns = [ca.SX.sym(f"v{i}", size) for i, size in enumerate(sizes)]
    rows, lower, upper, counts = [ca.SX(0, 1)], [np.zeros(0)], [np.zeros(0)], list[int]()
    for constraint in constraints:
        name = f"{where}: {constraint.name}"
        g = _graph(with_parameters(constraint.function, len(sizes), name), sizes, name)
        rows.append(g(*columns))
        counts.append(g.numel_out(0))
        lower.append(_spread(constraint.lower, counts[-1], name))
        upper.append(_spread(constraint.upper, counts[-1], name))
    function = ca.Function("constraints", columns, [ca.densify(ca.vertcat(*rows))])
    return TracedConstraints(function, np.concatenate(lower), np.concatenate(upper), tuple(counts))


def _spread(bound: Any, size: int, name: str) -> Array:
    try:
        return np.broadcast_to(np.asarray(bound, dtype=float), (size,))
    except ValueError as error:
        raise ProblemError(f"{name}: a bound of shape {np.shape(bound)} does not fit {size} entries") from error
