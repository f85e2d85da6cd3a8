"""A stage with all its derivatives as CasADi expressions: what the VM and the C engine are made from."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import casadi as ca

from ocpkit.autodiff.identities import Identities
from ocpkit.boundary.deadline import check_time, in_time
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem.part_graphs import CostGraph, DynamicsGraph
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Stage, TerminalCost
from ocpkit.recursion.expansion import Expansion


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
    """One type of stage; equal `key`, equal stage, but for the numbers of the control bounds."""

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
        check_time()
        lz, lzz = self.cost.expand(z, (x, u, p), second_order)
        check_time()
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
    """The structure of a problem: its types of stages, the type of each stage, its end; and how reports call it."""

    stage_types: tuple[StageGraph, ...]
    type_of_stage: tuple[int, ...]
    terminal: TerminalGraph
    angles: tuple[int, ...] = ()
    name: str = ""

    @property
    def horizon(self) -> int:
        """Number of stages T."""
        return len(self.type_of_stage)

    @property
    def bounded(self) -> bool:
        """Whether any control has bounds."""
        return any(each.bounded for each in self.stage_types)

    @property
    def augmented(self) -> bool:
        """Whether every cost prices constraints, as in an augmented Lagrangian."""
        costs = [*(each.cost for each in self.stage_types), self.terminal.cost]
        return all(cost.rows is not None for cost in costs)

    @cached_property
    def operations(self) -> int:
        """Scalar operations of one evaluation of all types of stages: how large the model is."""
        return sum(each.dynamics.f.n_instructions() + each.cost.g.n_instructions() for each in self.stage_types)

    @cached_property
    def key(self) -> str:
        """Digest of the types and the end: what a compiled solver depends on, whatever the horizon."""
        text = "\n".join([*(each.key for each in self.stage_types), self.terminal.key, *map(str, self.angles)])
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
    stage_types, number, of_stage = list[StageGraph](), dict[str, int](), list[int]()
    known: dict[int, int] = {}
    for t, stage in enumerate(in_time(stages)):
        if id(stage) not in known:
            graph = _remembered(stage, p_size, partial(_stage, stage, p_size, f"stage {t} ({stage.name!r})"))
            if graph.key not in number:
                number[graph.key] = len(stage_types)
                stage_types.append(graph)
            known[id(stage)] = number[graph.key]
        of_stage.append(known[id(stage)])
    terminal = _remembered(cost, p_size, partial(_terminal, cost, p_size))
    return ProblemGraph(tuple(stage_types), tuple(of_stage), terminal, angles, stages[0].name)


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
    f = stage.dynamics
    dynamics = f.derivative_graphs(p_size, f"{where}: dynamics")
    cost = stage.cost.derivative_graphs(p_size, f"{where}: cost")
    return StageGraph(dynamics, cost, f.state_size, f.control_size, f.next_state_size, p_size, stage.bounded)


def _terminal(cost: TerminalCost, p_size: int) -> TerminalGraph:
    return TerminalGraph(cost.derivative_graphs(p_size, "the terminal cost"), cost.state_size, p_size)


def _digest(graph: _Keyed) -> str:
    """Hash the sizes and every graph of a `StageGraph` or a `TerminalGraph`."""
    sizes = [value for value in vars(graph).values() if isinstance(value, int)]
    digest = hashlib.sha256(repr((type(graph).__name__, sizes)).encode())
    for part in vars(graph).values():
        for name, value in () if isinstance(part, int) else vars(part).items():
            digest.update(f"{name}={_text(value)};".encode())
    return digest.hexdigest()


def _text(value: Any) -> str:
    """Write a part of a graph; derivatives by what they follow from, so that a digest does not make them."""
    sources = getattr(value, "sources", None)
    if sources is not None:
        return ",".join(map(_text, sources))
    return value.serialize() if isinstance(value, ca.Function) else repr(value)
