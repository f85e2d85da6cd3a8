"""DDP with the whole iteration in C: Python hands over memory and looks at the result.

The loop is that of `ocpkit.solvers.ddp`, line by line, in engines/kernel/ddp.c. It returns after every iteration
where a callback is given, else at the end, and every few milliseconds so that Ctrl-C is heard.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ocpkit.engines.casadi import SweepPolicy
from ocpkit.engines.graphs import ProblemGraph
from ocpkit.engines.library import FIELD_NAMES, Library, State
from ocpkit.problem import Array, Problem
from ocpkit.solution import History, Iteration, Status
from ocpkit.solvers.driver import Clock, Guess, Run
from ocpkit.trajectory import Trajectory

if TYPE_CHECKING:
    from ocpkit.solvers.ddp import DDP, DDPRun

SLICE = 0.05  # seconds between two looks at the keyboard
ROWS = 64  # iterations that the history has room for at first
ALIGNMENT = 64  # bytes of a cache line
STATUSES = (None, Status.CONVERGED, Status.STALLED, Status.INFEASIBLE, Status.DIVERGED, Status.INVALID_INPUT)
REASONS = ("", "derivatives are not finite at stage {}", "Q_uu is not positive definite at stage {}")

Shapes = list[tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """Where the arrays of a solve lie in one block of memory.

    Attributes
    ----------
    shapes
        Of each array, one shape per stage.
    offsets
        Of each array and of the C code's own memory (``scratch``), in doubles.
    lengths
        Of each array over all stages, in doubles.
    size
        Of the block, in doubles.
    """

    shapes: dict[str, Shapes]
    offsets: dict[str, int]
    lengths: dict[str, int]
    size: int
    kinds: Any
    totals: dict[str, int]

    @cached_property
    def uniform(self) -> dict[str, bool]:
        """Whether all stages have arrays of one shape, by name."""
        return {name: len(set(shapes)) == 1 for name, shapes in self.shapes.items()}

    def view(self, block: Array, name: str, offset: int) -> Any:
        """Return an array of the block: (T, …) where the sizes agree, else one for each stage."""
        shapes = self.shapes[name]
        if self.uniform[name]:
            return block[offset : offset + self.lengths[name]].reshape(len(shapes), *shapes[0])
        ends = np.cumsum([offset, *(int(np.prod(shape)) for shape in shapes)]).tolist()
        return [block[a:b].reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes)]


@lru_cache(maxsize=32)
def layout(graph: ProblemGraph, scratch_size: int) -> Layout:
    """Lay out the arrays for the solves of one structure."""
    stages = [graph.kinds[kind] for kind in graph.kind_of_stage]
    n = [*(stage.state_size for stage in stages), graph.terminal.state_size]
    m = [stage.control_size for stage in stages]
    states: Shapes = [(i,) for i in n]
    controls: Shapes = [(j,) for j in m]
    shapes = {"x": states, "u": controls, "x_new": states, "u_new": controls}
    shapes |= {"gap": states, "k": controls, "K": list(zip(m, n)), "Vx": states, "Vxx": [(i, i) for i in n]}
    sizes = {name: sum(int(np.prod(shape)) for shape in of_stages) for name, of_stages in shapes.items()}
    totals = {"states": sizes["x"], "controls": sizes["u"], "gains": sizes["K"], "hessians": sizes["Vxx"]}
    offsets, end = dict[str, int](), 0
    for name, size in {**sizes, "scratch": scratch_size}.items():
        offsets[name] = end
        end += -(-size * 8 // ALIGNMENT) * ALIGNMENT // 8
    return Layout(shapes, offsets, sizes, end, np.array(graph.kind_of_stage, dtype=ctypes.c_long), totals)


class CompiledRun(Run):
    """One DDP solve in progress, in C."""

    def __init__(self, options: DDP, problem: Problem, graph: ProblemGraph, library: Library) -> None:
        self.library, self.layout = library, layout(graph, library.scratch_size)
        memory = np.empty(self.layout.size + ALIGNMENT // 8)
        address = memory.__array_interface__["data"][0]
        shift = -address % ALIGNMENT // 8
        self.block, self.address = memory[shift:], address + 8 * shift
        self.state = _options(options)
        for name, value in self.layout.totals.items():
            setattr(self.state, name, value)
        for name, offset in self.layout.offsets.items():
            setattr(self.state, name, self.address + 8 * offset)
        self.parameters = np.ascontiguousarray(problem.parameters)
        self.state.horizon, self.state.kind_of_stage = problem.horizon, _address(self.layout.kinds)
        self.state.p = _address(self.parameters)
        self.state.stride = 0 if self.parameters.ndim == 1 else self.parameters.shape[1]
        self.state.regularization, self.state.growth = options.initial_regularization, 1.0
        self.details = {}

    @classmethod
    def begin(cls, options: DDP, problem: Problem, graph: ProblemGraph, library: Library, guess: Guess) -> CompiledRun:
        """Set up a solve."""
        run = cls(options, problem, graph, library)
        run._write("u", guess.controls)
        if guess.states is not None:
            run._write("x", guess.states)
            run.state.has_gaps = 1
            run._flat("gap")[: len(problem.x0)] = 0
        run._flat("x")[: len(problem.x0)] = problem.x0
        return run

    @classmethod
    def resume(cls, other: DDPRun, problem: Problem, graph: ProblemGraph, library: Library) -> CompiledRun:
        """Take up a solve that another engine has begun."""
        run, trajectory, n = cls(other.options, problem, graph, library), other.trajectory, len(problem.x0)
        run._write("u", trajectory.controls)
        run._write("x", trajectory.states)
        if trajectory.gaps is not None:
            run._flat("gap")[:n] = 0
            run._flat("gap")[n:] = np.concatenate(trajectory.gaps)
            run.state.has_gaps = 1
        run.state.cost, run.state.gap_weight, run.state.idle = trajectory.cost, other.gap_weight, other.idle
        run.state.regularization, run.state.growth = other.regularization.value, other.regularization.growth
        run.details |= other.details
        library.handle.ocpkit_resume(ctypes.byref(run.state))
        return run

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        rows = history.reserve(min(most, ROWS))
        self.state.history, self.state.rows = _address(rows), 0
        try:
            self.library.handle.ocpkit_advance(
                ctypes.byref(self.state), min(most, len(rows)), clock(), time_limit, SLICE
            )
        finally:  # also where Ctrl-C was pressed meanwhile
            history.grow(self.state.rows)
            self._conclude()

    def start(self) -> Iteration:
        return self._one()

    def step(self) -> Iteration:
        return self._one()

    def _one(self) -> Iteration:
        history = History()
        self.advance(history, 1, Clock(), float("inf"))
        return history[0]

    def _conclude(self) -> None:
        self.status = STATUSES[self.state.status]
        if self.state.reason:
            self.details["reason"] = REASONS[self.state.reason].format(self.state.reason_stage)

    @property
    def trajectory(self) -> Trajectory:  # type: ignore[override]
        """Best iterate so far, as views of the solve's memory."""
        x, u = self._view("x"), self._view("u")
        return Trajectory(x, u, self.state.cost)

    @property
    def policy(self) -> SweepPolicy | None:  # type: ignore[override]
        """Backward pass at that iterate, as views of the solve's memory."""
        if not self.state.has_policy:
            return None
        k, K, Vx, Vxx = (self._view(name) for name in ("k", "K", "Vx", "Vxx"))
        gains = K if self.state.feedback else None
        return SweepPolicy(k, gains, Vx, Vxx, self.state.gradient_norm, self.state.expected_change)

    def _view(self, name: str) -> Any:
        """Return an array of the current iterate; x and u change places with x_new and u_new."""
        return self.layout.view(self.block, name, (getattr(self.state, name) - self.address) // 8)

    def _flat(self, name: str) -> Array:
        offset = self.layout.offsets[name]
        return self.block[offset : offset + self.layout.lengths[name]]

    def _write(self, name: str, series: Sequence[Array]) -> None:
        self._flat(name)[:] = np.concatenate(series)


def _options(options: DDP) -> State:
    state = State()
    for option in fields(options):
        if option.name in FIELD_NAMES:  # the struct calls them as Python does
            setattr(state, option.name, getattr(options, option.name))
    state.on_state, state.step_sizes = options.regularize == "state", len(options.step_sizes)
    return state


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
