"""Stages as CasADi graphs, which NLP solvers and generated code are built from; their parts trace themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import casadi as ca
import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.errors import ProblemError
from ocpkit.problem.stage import Constraint, Stage, TerminalCost


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

    def distance(self, g: Array) -> Array:
        """Return |g − Π(g)|, how far the rows are outside of their bounds; g and the result are (k,) or (k, …)."""
        lower, upper = (side.reshape(-1, *(1,) * (g.ndim - 1)) for side in (self.lower, self.upper))
        return np.maximum(np.fmax(lower - g, g - upper), 0.0)


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
    where, dynamics = where or f"stage {stage.name!r}", stage.dynamics
    f = dynamics.value_graph(p_size, f"{where}: dynamics")
    if f.numel_out(0) != dynamics.next_state_size:
        raise ProblemError(
            f"{where}: dynamics: traced to {f.numel_out(0)} entries, expected {dynamics.next_state_size}"
        )
    constraints = trace_constraints(stage.constraints, dynamics.argument_sizes(p_size), where)
    return TracedStage(f, stage.cost.value_graph(p_size, f"{where}: cost"), constraints)


def trace_terminal(cost: TerminalCost, constraints: Sequence[Constraint], p_size: int) -> TracedTerminal:
    """Trace the terminal cost and the terminal constraints; raises like `trace_stage`."""
    return TracedTerminal(
        cost.value_graph(p_size, "the terminal cost"),
        trace_constraints(constraints, cost.argument_sizes(p_size), "the terminal constraints"),
    )


def trace_constraints(constraints: Sequence[Constraint], sizes: Sequence[int], where: str) -> TracedConstraints:
    """Stack constraints of (x, u, p), or of (x, p), and spread their bounds over the rows."""
    columns = [ca.SX.sym(f"v{i}", size) for i, size in enumerate(sizes)]
    rows, lower, upper, counts = [ca.SX(0, 1)], [np.zeros(0)], [np.zeros(0)], list[int]()
    for constraint in constraints:
        name = f"{where}: {constraint.name}"
        g = constraint.graph(sizes, name)
        rows.append(g(*columns))
        counts.append(g.numel_out(0))
        for side, bound in zip((lower, upper), constraint.bounds(counts[-1], name)):
            side.append(bound)
    function = ca.Function("constraints", columns, [ca.densify(ca.vertcat(*rows))])
    return TracedConstraints(function, np.concatenate(lower), np.concatenate(upper), tuple(counts))
