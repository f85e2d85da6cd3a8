"""A stage with all its derivatives as CasADi expressions: what the VM and the C engine are made from."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import casadi as ca
import numpy as np

from ocpkit.autodiff.identities import Identities
from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import check_time, in_time
from ocpkit.engines.numbers import MOST, Numbers
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem.part_graphs import CostGraph, DynamicsGraph
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Stage, TerminalCost
from ocpkit.recursion.expansion import Expansion


class _Keyed:
    """Graphs that are equal where what they are made of is."""

    if TYPE_CHECKING:
        parameter_size: int
        number_count: int

    place: ClassVar[int]
    """Of the parameters, among the arguments of their functions."""

    @cached_property
    def key(self) -> str:
        """Digest of everything that the derivatives follow from."""
        return _digest(self, dict.fromkeys(self.parts, ca.Function.serialize))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def parts(self) -> dict[str, Any]:
        """Graphs of dynamics and costs, by name."""
        return {name: value for name, value in self._values.items() if not isinstance(value, int)}

    @property
    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @cached_property
    def _noted(self) -> tuple[dict[str, Numbers], str]:
        """The numbers of each part, and a digest of all else."""
        numbers = {name: Numbers(self.place) for name in self.parts}
        return numbers, _digest(self, {name: each.take for name, each in numbers.items()})

    @cached_property
    def numbers(self) -> Array:
        """Numbers c of the model that its structure lacks; none where they belong to it."""
        noted = self._noted[0].values()
        values = np.concatenate([each.values for each in noted])
        return values if len(values) <= MOST and all(each.scalar for each in noted) else np.zeros(0)

    @property
    def structure_key(self) -> str:
        """Digest of the structure."""
        return self._noted[1] if len(self.numbers) else self.key

    def structure(self) -> Any:
        """Return the same of a longer p' = (p, c)."""
        count, first, parts = len(self.numbers), 0, dict[str, Any]()
        if not count:
            return self
        for name, numbers in self._noted[0].items():
            parts[name] = self.parts[name].rewritten(partial(numbers.lifted, first=first, count=count))
            first += len(numbers.values)
        longer = self.parameter_size + count
        return replace(self, parameter_size=longer, number_count=count, **parts)  # type: ignore[type-var]

    def named(self, p: ca.SX) -> list[tuple[str, ca.SX]]:
        """Name the two pieces of p' = (p, c)."""
        own = self.parameter_size - self.number_count
        return [("p", p[:own]), ("c", p[own:])]


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
    number_count: int = 0
    place = 2

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
    number_count: int = 0
    place = 1

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
        return self._digest(*(each.key for each in self._all))

    @cached_property
    def structure_key(self) -> str:
        """Digest of the same but for the numbers of the model."""
        return self._digest(*(each.structure_key for each in self._all))

    @cached_property
    def numbers(self) -> Array:
        """Numbers that the structure lacks: those of each type of stage, then those of the end."""
        return np.concatenate([each.numbers for each in self._all])

    def structure(self) -> ProblemGraph:
        """Return the same without the numbers, which are further parameters of its types: what is compiled."""
        types = tuple(each.structure() for each in self.stage_types)
        return replace(self, stage_types=types, terminal=self.terminal.structure())

    @property
    def _all(self) -> tuple[_Keyed, ...]:
        return *self.stage_types, self.terminal

    def _digest(self, *parts: str) -> str:
        return hashlib.sha256("\n".join([*parts, *map(str, self.angles)]).encode()).hexdigest()


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


Write = Callable[[ca.Function], str]


def _digest(graph: _Keyed, write: Mapping[str, Write]) -> str:
    """Hash the sizes and every graph of a `StageGraph` or a `TerminalGraph`, as each part's are written."""
    sizes = [value for value in graph._values.values() if isinstance(value, int)]
    digest = hashlib.sha256(repr((type(graph).__name__, sizes)).encode())
    for part_name, part in graph.parts.items():
        for name, value in vars(part).items():
            digest.update(f"{name}={_text(value, write[part_name])};".encode())
    return digest.hexdigest()


def _text(value: Any, write: Write) -> str:
    """Write a part of a graph; derivatives by what they follow from, so that a digest does not make them."""
    sources = getattr(value, "sources", None)
    if sources is not None:
        return ",".join(_text(source, write) for source in sources)
    return write(value) if isinstance(value, ca.Function) else repr(value)
