"""Functions of one stage that the program is made of, mapped over stages of one kind on CasADi's virtual machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from threading import get_ident
from typing import Any, NamedTuple

import casadi as ca

from ocpkit.boundary.deadline import check_time
from ocpkit.engines.graphs import ProblemGraph, StageGraph, TerminalGraph
from ocpkit.engines.mapped import Sweep
from ocpkit.problem.constraint_rows import ConstraintRows


class StageKind(NamedTuple):
    """Common parts of stages that are evaluated together."""

    graph: StageGraph
    rows: ConstraintRows


class EndKind(NamedTuple):
    """The same of the end."""

    graph: TerminalGraph
    rows: ConstraintRows


Built = tuple[list[ca.SX], list[ca.SX], tuple[int, ...]]


def _values(kind: StageKind) -> Built:
    """(x, u, p) → f, ℓ, g."""
    x, u, p, _ = kind.graph.symbols()
    return [x, u, p], [*kind.graph.step(x, u, p), kind.rows.traced.function(x, u, p)], (1, 1, 1)


def _rollout(kind: StageKind) -> Built:
    """(x̂; x, u, x + α δx, u + α δu, x', p, α, K, lower, upper) → x̂', û."""
    x, u, p, following = kind.graph.symbols()
    n, m = x.numel(), u.numel()
    new, x_to, K, alpha = ca.SX.sym("x", n), ca.SX.sym("x", n), ca.SX.sym("K", m, n), ca.SX.sym("a")
    u_to, low, high = (ca.SX.sym(name, m) for name in ("u", "low", "high"))
    control = ca.fmin(ca.fmax(u_to + K @ (new - x_to), low), high)
    gap = kind.graph.step(x, u, p)[0] - following
    arguments = [new, x, u, x_to, u_to, following, p, alpha, K, low, high]
    return arguments, [kind.graph.step(new, control, p)[0] - (1 - alpha) * gap, control], (1, 1)


def _derivatives(kind: StageKind) -> Built:
    """(x, u, p, λ, y, σ) → ∇ℓ, [f_x, f_u], [g_x, g_u], ∇²(σ ℓ + λᵀ f + yᵀ g)."""
    x, u, p, v = kind.graph.symbols()
    y, weight, z = ca.SX.sym("y", kind.rows.count), ca.SX.sym("sigma"), ca.vertcat(x, u)
    gz, of_rows = _of_rows(kind.rows, z, (x, u, p), y)
    lz, lzz = kind.graph.cost.expand(z, (x, u, p), True)
    hessian = weight * lzz + kind.graph.dynamics.hessian(z, v, (x, u, p)) + of_rows
    return [x, u, p, v, y, weight], [lz, kind.graph.dynamics.jacobian(x, u, p), gz, hessian], (1, 2, 2, 2)


def _values_at_end(kind: EndKind) -> Built:
    """(x, p) → φ, g."""
    x, p = ca.SX.sym("x", kind.graph.state_size), ca.SX.sym("p", kind.graph.parameter_size)
    return [x, p], [kind.graph.cost.value((x, p)), kind.rows.traced.function(x, p)], (1, 1)


def _derivatives_at_end(kind: EndKind) -> Built:
    """(x, p, y, σ) → ∇φ, g_x, ∇²(σ φ + yᵀ g)."""
    x, p = ca.SX.sym("x", kind.graph.state_size), ca.SX.sym("p", kind.graph.parameter_size)
    y, weight = ca.SX.sym("y", kind.rows.count), ca.SX.sym("sigma")
    gx, of_rows = _of_rows(kind.rows, x, (x, p), y)
    slope, hessian = kind.graph.cost.expand(x, (x, p), True)
    return [x, p, y, weight], [slope, gx, weight * hessian + of_rows], (1, 2, 2)


def _of_rows(rows: ConstraintRows, z: ca.SX, arguments: Sequence[ca.SX], y: ca.SX) -> tuple[ca.SX, ca.SX]:
    """Return ∂g/∂z and ∇²(yᵀ g)."""
    g = rows.traced.function(*arguments)
    if not rows.count:
        return ca.SX(0, z.numel()), ca.SX(z.numel(), z.numel())
    return ca.jacobian(g, z), ca.hessian(ca.dot(y, g), z)[0]


BUILDERS: dict[tuple[type, str], Callable[[Any], Built]] = {
    (StageKind, "values"): _values,
    (StageKind, "derivatives"): _derivatives,
    (StageKind, "rollout"): _rollout,
    (EndKind, "values"): _values_at_end,
    (EndKind, "derivatives"): _derivatives_at_end,
}


@dataclass(frozen=True)
class StageRun:
    """Stages first … last - 1, all of one kind; the end is a run of its own."""

    kind: StageKind | EndKind
    first: int
    last: int

    def sweep(self, what: str) -> Sweep:
        """Return the function of all its stages."""
        return _build(what, self.kind, self.last - self.first, get_ident())


def stage_runs(graph: ProblemGraph, rows: Sequence[ConstraintRows]) -> list[StageRun]:
    """Return the runs of all stages and of the end."""
    kinds: list[StageKind | EndKind] = [
        StageKind(graph.stage_types[kind], each) for kind, each in zip(graph.type_of_stage, rows)
    ]
    kinds.append(EndKind(graph.terminal, rows[-1]))
    runs, first = list[StageRun](), 0
    for kind, group in groupby(kinds):
        length = len(list(group))
        runs.append(StageRun(kind, first, first + length))
        first += length
    return runs


@lru_cache(maxsize=256)
def _build(what: str, kind: StageKind | EndKind, length: int, thread: int) -> Sweep:
    """Map a function of one stage; kept, one for each thread, since it owns memory."""
    check_time()
    arguments, results, ranks = BUILDERS[type(kind), what](kind)
    function = ca.Function("stage", arguments, ca.cse([ca.densify(ca.SX(each)) for each in results]))
    if length > 1:
        function = function.mapaccum("sweep", length) if what == "rollout" else function.map(length)
    return Sweep(function, length, ranks)
