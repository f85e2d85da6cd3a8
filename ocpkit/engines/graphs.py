"""A stage with all its derivatives as CasADi expressions: what the VM and the C engine are made from.

Functions written with `ocpkit.math` are differentiated by CasADi. Hand-written parts are called once with symbols,
their own derivatives included, so that every engine takes the steps that the user's formulas say; the default
central differences of `Dynamics.hessian_product` become exact.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import casadi as ca

from ocpkit.autodiff.differentiable import Traced
from ocpkit.autodiff.identities import Identities
from ocpkit.autodiff.symbol import symbols, to_casadi
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem.part import Part
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Cost, Dynamics, Stage, TerminalCost
from ocpkit.recursion.expansion import Expansion


@dataclass(frozen=True)
class DynamicsGraph:
    """f and its Jacobian (n', n + m) of (x, u, p), and v ↦ Σ v_i ∇²f_i unless hand-written dynamics lack it.

    Where f is not `curved`, solvers take v·∇²f = 0.
    """

    f: ca.Function
    jacobian: ca.Function
    hessian_product: ca.Function | None
    curved: bool = True

    def hessian(self, z: ca.SX, v: ca.SX, arguments: Sequence[ca.SX]) -> ca.SX:
        """Return v·f_zz (n + m, n + m)."""
        if not self.curved:
            return ca.SX(z.numel(), z.numel())
        if self.hessian_product is not None:
            return self.hessian_product(*arguments, v)
        hessian = ca.jacobian(self.jacobian(*arguments).T @ v, z)
        return (hessian + hessian.T) / 2


@dataclass(frozen=True)
class CostGraph:
    """ℓ, or residuals r of ½‖r‖²; hand-written costs bring their own gradient and two Hessians (in z).

    `rows` belongs to costs that price constraints; see `ocpkit.problem.functions.FunctionCost`.
    """

    g: ca.Function
    least_squares: bool = False
    rows: ca.Function | None = None
    gradient: ca.Function | None = None
    hessian: ca.Function | None = None
    gauss_newton: ca.Function | None = None

    def value(self, arguments: Sequence[ca.SX]) -> ca.SX:
        """Return ℓ (1,)."""
        g = self.g(*arguments)
        return ca.sumsqr(g) / 2 if self.least_squares else g

    def expand(self, z: ca.SX, arguments: Sequence[ca.SX], second_order: bool) -> tuple[ca.SX, ca.SX]:
        """Return the gradient (n + m,) and the Hessian (n + m, n + m), full or by Gauss-Newton."""
        if self.gradient is not None and self.hessian is not None and self.gauss_newton is not None:
            return self.gradient(*arguments), (self.hessian if second_order else self.gauss_newton)(*arguments)
        value = self.value(arguments)
        if second_order or not self.least_squares:
            hessian, gradient = ca.hessian(value, z)
            return gradient, hessian
        jacobian = ca.jacobian(self.g(*arguments), z)
        return jacobian.T @ self.g(*arguments), jacobian.T @ jacobian


class _Keyed:
    """Graphs that are equal where what they are made of is."""

    @cached_property
    def key(self) -> str:
        """Digest of everything that the derivatives follow from."""
        return _digest(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class StageGraph(_Keyed):
    """One kind of stage; equal `key`, equal stage, but for the numbers of the control bounds."""

    dynamics: DynamicsGraph
    cost: CostGraph
    state_size: int
    control_size: int
    next_state_size: int
    parameter_size: int
    bounded: bool = False

    def symbols(self) -> tuple[ca.SX, ca.SX, ca.SX, ca.SX]:
        """Return x, u, p and the vector v that f_xx, f_ux, f_uu are contracted with."""
        sizes = {"x": self.state_size, "u": self.control_size, "p": self.parameter_size, "v": self.next_state_size}
        x, u, p, v = (ca.SX.sym(name, size) for name, size in sizes.items())
        return x, u, p, v

    def step(self, x: ca.SX, u: ca.SX, p: ca.SX) -> tuple[ca.SX, ca.SX]:
        """Return the next state and the running cost."""
        return self.dynamics.f(x, u, p), self.cost.value((x, u, p))

    def expand(self, x: ca.SX, u: ca.SX, p: ca.SX, v: ca.SX, *, second_order: bool) -> Expansion:
        """Return the expansion; to second order ℓ_xx, ℓ_ux, ℓ_uu contain v·f_xx, v·f_ux, v·f_uu already."""
        z, n = ca.vertcat(x, u), self.state_size
        fz = self.dynamics.jacobian(x, u, p)
        lz, lzz = self.cost.expand(z, (x, u, p), second_order)
        hessian = lzz + self.dynamics.hessian(z, v, (x, u, p)) if second_order else lzz
        return Expansion(fz[:, :n], fz[:, n:], lz[:n, :], lz[n:, :], hessian[:n, :n], hessian[n:, :n], hessian[n:, n:])


@dataclass(frozen=True, eq=False)
class TerminalGraph(_Keyed):
    """The terminal cost."""

    cost: CostGraph
    state_size: int
    parameter_size: int

    def expand(self, x: ca.SX, p: ca.SX, *, second_order: bool) -> tuple[ca.SX, ca.SX, ca.SX]:
        """Return φ, φ_x (n,) and φ_xx (n, n)."""
        return self.cost.value((x, p)), *self.cost.expand(x, (x, p), second_order)


@dataclass(frozen=True, eq=False)
class ProblemGraph:
    """The structure of a problem: its kinds of stages, which stage is of which kind, and its end."""

    kinds: tuple[StageGraph, ...]
    kind_of_stage: tuple[int, ...]
    terminal: TerminalGraph
    angles: tuple[int, ...] = ()

    @property
    def horizon(self) -> int:
        """Number of stages T."""
        return len(self.kind_of_stage)

    @property
    def bounded(self) -> bool:
        """Whether any control has bounds."""
        return any(kind.bounded for kind in self.kinds)

    @property
    def augmented(self) -> bool:
        """Whether every cost prices constraints, as in an augmented Lagrangian."""
        costs = [*(kind.cost for kind in self.kinds), self.terminal.cost]
        return all(cost.rows is not None for cost in costs)

    @cached_property
    def operations(self) -> int:
        """Scalar operations of one evaluation of all kinds of stages: how large the model is."""
        return sum(kind.dynamics.f.n_instructions() + kind.cost.g.n_instructions() for kind in self.kinds)

    @cached_property
    def key(self) -> str:
        """Digest of the kinds and the end: what a compiled solver depends on, whatever the horizon."""
        text = "\n".join([*(kind.key for kind in self.kinds), self.terminal.key, *map(str, self.angles)])
        return hashlib.sha256(text.encode()).hexdigest()


def trace_problem(problem: Problem) -> ProblemGraph:
    """Trace a problem; stages seen before, in this problem or another one, are not traced again.

    Raises
    ------
    UnsupportedProblem
        If a stage cannot be traced, or its derivatives are measured by differences; names the stage.
    """
    return _trace(Identities(problem.stages, problem.terminal_cost), problem.parameters.shape[-1], problem.angles)


@lru_cache(maxsize=32)
def _trace(parts: Identities, p_size: int, angles: tuple[int, ...]) -> ProblemGraph:
    stages, cost = parts.parts
    kinds, number, of_stage = list[StageGraph](), dict[str, int](), list[int]()
    known: dict[int, int] = {}
    for t, stage in enumerate(stages):
        if id(stage) not in known:
            graph = _remembered(stage, p_size, partial(_stage, stage, p_size, f"stage {t} ({stage.name!r})"))
            if graph.key not in number:
                number[graph.key] = len(kinds)
                kinds.append(graph)
            known[id(stage)] = number[graph.key]
        of_stage.append(known[id(stage)])
    terminal = _remembered(cost, p_size, lambda: TerminalGraph(_terminal(cost, p_size), cost.state_size, p_size))
    return ProblemGraph(tuple(kinds), tuple(of_stage), terminal, angles)


_memory: dict[tuple[int, int], Any] = {}


def _remembered(part: Any, p_size: int, trace: Callable[[], Any]) -> Any:
    """Trace a stage or terminal cost once for as long as it lives; a failure is remembered as well."""
    key = id(part), p_size
    if key not in _memory:
        try:
            _memory[key] = trace()
        except UnsupportedProblem as error:
            _memory[key] = str(error)  # the error itself would keep the part alive by its traceback
        weakref.finalize(part, _memory.pop, key, None)
    if isinstance(_memory[key], str):
        raise UnsupportedProblem(_memory[key])
    return _memory[key]


def _stage(stage: Stage, p_size: int, where: str) -> StageGraph:
    f, sizes = stage.dynamics, (stage.dynamics.state_size, stage.dynamics.control_size)
    dynamics = _dynamics(f, (*sizes, p_size), f"{where}: dynamics")
    cost = _cost(stage.cost, (*sizes, p_size), f"{where}: cost")
    return StageGraph(dynamics, cost, *sizes, f.next_state_size, p_size, stage.bounded)


def _dynamics(f: Dynamics, sizes: tuple[int, ...], where: str) -> DynamicsGraph:
    traced = _traced(f, where)
    if traced is not None:
        return DynamicsGraph(traced.graph, traced.jacobian_graph, traced.hessian_graph, f.curved)
    own = f.curved and f.brings_curvature
    products = _call(lambda *a: _square(*f.hessian_product(*a)), (*sizes, f.next_state_size), where) if own else None
    return DynamicsGraph(
        _call(f.step, sizes, where), _call(lambda *a: _beside(*f.jacobians(*a)), sizes, where), products, f.curved
    )


def _cost(cost: Cost, sizes: tuple[int, ...], where: str) -> CostGraph:
    traced = _traced(cost, where)
    if traced is not None:
        return CostGraph(traced.graph, cost.least_squares, cost.rows)
    return CostGraph(
        _call(cost.value, sizes, where),
        gradient=_call(lambda *a: _below(*cost.gradient(*a)), sizes, where),
        hessian=_call(lambda *a: _square(*cost.hessian(*a)), sizes, where),
        gauss_newton=_call(lambda *a: _square(*cost.gauss_newton_hessian(*a)), sizes, where),
    )


def _terminal(cost: TerminalCost, p_size: int) -> CostGraph:
    sizes, where = (cost.state_size, p_size), "the terminal cost"
    traced = _traced(cost, where)
    if traced is not None:
        return CostGraph(traced.graph, cost.least_squares, cost.rows)
    methods = (cost.value, cost.gradient, cost.hessian, cost.gauss_newton_hessian)
    value, gradient, hessian, gauss_newton = (_call(method, sizes, where) for method in methods)
    return CostGraph(value, gradient=gradient, hessian=hessian, gauss_newton=gauss_newton)


def _traced(part: Part, where: str) -> Traced | None:
    """Return the graphs of the function that a part is made of; None where its methods are to be called."""
    if part.sole_function is not None and part.traced_function is None:
        raise UnsupportedProblem(f"{where}: the derivatives are measured on a black box, not traced")
    return part.traced_function


def _call(function: Callable[..., Any], sizes: Sequence[int], where: str) -> ca.Function:
    """Call a user's method with symbols."""
    columns, arrays = zip(*(symbols(f"v{i}", size) for i, size in enumerate(sizes)))
    try:
        return ca.Function("graph", columns, [to_casadi(function(*arrays))])
    except Exception as error:  # whatever a user's own code raises when it meets a symbol
        raise UnsupportedProblem(f"{where} cannot be traced: {error}") from error


def _beside(*blocks: Any) -> ca.SX:
    return ca.horzcat(*map(_matrix, blocks))


def _below(*blocks: Any) -> ca.SX:
    return ca.vertcat(*map(to_casadi, blocks))


def _square(xx: Any, ux: Any, uu: Any) -> ca.SX:
    """Assemble the Hessian in z = (x, u)."""
    xx, ux, uu = map(_matrix, (xx, ux, uu))
    return ca.vertcat(ca.horzcat(xx, ux.T), ca.horzcat(ux, uu))


def _matrix(block: Any) -> ca.SX:
    """Keep the shape of matrices without rows or columns, which nested lists lose."""
    shape = getattr(block, "shape", None)
    return ca.SX(*shape) if shape and 0 in shape else to_casadi(block)


def _digest(graph: Any) -> str:
    """Hash the sizes and every graph of a `StageGraph` or a `TerminalGraph`."""
    parts = [graph.cost] if isinstance(graph, TerminalGraph) else [graph.dynamics, graph.cost]
    sizes = [value for value in vars(graph).values() if isinstance(value, int)]
    digest = hashlib.sha256(repr((type(graph).__name__, sizes)).encode())
    for part in parts:
        for name, value in vars(part).items():
            text = value.serialize() if isinstance(value, ca.Function) else repr(value)
            digest.update(f"{name}={text};".encode())
    return digest.hexdigest()
