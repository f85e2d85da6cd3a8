"""DDP with the whole iteration in C: Python hands over memory and looks at the result.

The loop is that of `ocpkit.solvers.ddp.ddp`, line by line, in engines/c/kernel/ddp.c. It returns after every iteration
where a callback is given, else at the end, and every few milliseconds so that Ctrl-C is heard.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.engines.c.library import BuildTimes, Library, State
from ocpkit.engines.graphs import ProblemGraph
from ocpkit.engines.vm import SweepPolicy
from ocpkit.errors import ProblemError
from ocpkit.problem.problem import Problem
from ocpkit.solution.details import Details, Failure, PhaseTimes, Reason
from ocpkit.solution.history import DDPIteration, History, Iteration
from ocpkit.solution.solution import Status
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.ddp.options import DDPOptions
from ocpkit.solvers.ddp.run import DDPRun
from ocpkit.solvers.driver import AnyRun, Clock, bound_multipliers
from ocpkit.solvers.guess import Guess

WHOLE = frozenset(name for name, kind in State._fields_ if kind is ctypes.c_long)
SLICE = 0.05  # seconds between two looks at the keyboard
ROWS = 64  # iterations that the history has room for at first
ALIGNMENT = 64  # bytes of a cache line
STATUSES = (
    None,
    Status.CONVERGED,
    Status.STALLED,
    Status.INFEASIBLE,
    Status.DIVERGED,
    Status.INVALID_INPUT,
    Status.GAVE_UP,
    Status.SADDLE,
)
FAILURES = (None, Failure.NOT_FINITE, Failure.NOT_POSITIVE_DEFINITE)

Shapes = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Series:
    """One vector or matrix per stage, one after the other from `offset` [doubles] on.

    Attributes
    ----------
    common
        Their shape where it is one and the same, else None.
    """

    offset: int
    size: int
    shapes: Shapes
    common: tuple[int, ...] | None

    def view(self, block: Array, offset: int) -> Any:
        """Return an array (T, …) where the shapes agree, else a list of arrays."""
        if self.common is not None:
            return block[offset : offset + self.size].reshape(len(self.shapes), *self.common)
        own = block[offset : offset + self.size]
        return [own[a:b].reshape(shape) for a, b, shape in zip(self._cuts, self._cuts[1:], self.shapes)]

    @cached_property
    def _cuts(self) -> list[int]:
        """Offsets of each of them, and the end of the last one."""
        cuts: list[int] = np.cumsum([0, *(math.prod(shape) for shape in self.shapes)]).tolist()
        return cuts


@dataclass(frozen=True)
class Layout:
    """Layout of the arrays of a solve in one block of memory, by the names that the C struct gives them.

    Attributes
    ----------
    scratch, size
        Where the C code's own memory begins, and the length of the block, in doubles.
    """

    series: dict[str, Series]
    scratch: int
    size: int
    kinds: Any


@lru_cache(maxsize=32)
def layout(graph: ProblemGraph, library: Library) -> Layout:
    """Lay out the arrays for the solves of one structure."""
    stages = [graph.stage_types[kind] for kind in graph.type_of_stage]
    n = [*(stage.state_size for stage in stages), graph.terminal.state_size]
    m = [stage.control_size for stage in stages]
    states, controls = [(i,) for i in n], [(j,) for j in m]
    shapes: dict[str, Shapes] = {"x": states, "u": controls, "x_new": states, "u_new": controls}
    shapes |= {"gap": states, "k": controls, "K": list(zip(m, n)), "Vx": states, "Vxx": [(i, i) for i in n]}
    if graph.bounded:
        shapes |= {"lower": controls, "upper": controls, "y": controls}
    series, end = dict[str, Series](), 0
    for name, of_stages in shapes.items():
        size = sum(map(math.prod, of_stages))
        series[name] = Series(end, size, of_stages, of_stages[0] if len({*of_stages}) == 1 else None)
        end += -(-size * 8 // ALIGNMENT) * ALIGNMENT // 8
    kinds = np.array(graph.type_of_stage, dtype=ctypes.c_long)
    return Layout(series, end, end + library.scratch_size(kinds), kinds)


class RunInC(AnyRun):
    """A solve whose iterations run in C; one at a time is as many as are asked for."""

    status: Status | None = None

    def __reduce__(self) -> str:
        """Refuse copies, whose addresses would be those of this run's memory."""
        raise ProblemError("a solve in progress in C cannot be copied or pickled; take its Solution as a warm start")

    def start(self) -> Iteration:
        return self._one()

    def step(self) -> Iteration:
        return self._one()

    def _one(self) -> Iteration:
        history = History()
        self.advance(history, 1, Clock(), float("inf"))
        return history[0]


class CompiledRun(RunInC):
    """One DDP solve in progress, in C."""

    def __init__(self, options: DDPOptions, problem: Problem, graph: ProblemGraph, library: Library) -> None:
        self.problem, self.library, self.layout = problem, library, layout(graph, library)
        self.options = options
        memory = np.empty(self.layout.size + ALIGNMENT // 8)
        address = memory.__array_interface__["data"][0]
        shift = -address % ALIGNMENT // 8
        self.block, self.address = memory[shift:], address + 8 * shift
        self.state = State.from_buffer_copy(_options(options))
        for name, series in self.layout.series.items():
            setattr(self.state, name, self.address + 8 * series.offset)
        self.state.scratch = self.address + 8 * self.layout.scratch
        for name, total in (("states", "x"), ("controls", "u"), ("gains", "K"), ("hessians", "Vxx")):
            setattr(self.state, name, self.layout.series[total].size)
        self.parameters = np.ascontiguousarray(problem.parameters)
        self.state.horizon, self.state.kind_of_stage = problem.horizon, address_of(self.layout.kinds)
        self.numbers = graph.numbers
        self.state.p, self.state.numbers = address_of(self.parameters), address_of(self.numbers)
        self.state.stride = 0 if self.parameters.ndim == 1 else self.parameters.shape[1]
        self.why = library.origin
        if graph.bounded:
            self.flat("lower")[:], self.flat("upper")[:] = problem.control_bounds
            self.flat("y")[:] = 0

    @classmethod
    def begin(
        cls, options: DDPOptions, problem: Problem, graph: ProblemGraph, library: Library, guess: Guess
    ) -> CompiledRun:
        """Set up a solve."""
        run = cls(options, problem, graph, library)
        run._write("u", guess.controls)
        if graph.bounded:
            np.clip(run.flat("u"), *problem.control_bounds, out=run.flat("u"))
        if guess.states is not None:
            run._write("x", guess.states)
            run.state.has_gaps = 1
            run.flat("gap")[: len(problem.x0)] = 0
        run.flat("x")[: len(problem.x0)] = problem.x0
        return run

    @classmethod
    def resume(cls, other: DDPRun, problem: Problem, graph: ProblemGraph, library: Library) -> CompiledRun:
        """Take up a solve that another engine has begun."""
        run, trajectory = cls(other.options, problem, graph, library), other.trajectory
        run._write("u", trajectory.controls)
        run._write("x", trajectory.states)
        if trajectory.gaps is not None:
            run.flat("gap")[: len(problem.x0)] = 0
            run.state.has_gaps = 1
        run.state.gap_weight, run.state.idle = other.gap_weight, other.idle
        run.state.open = trajectory.open
        run.state.highest, run.state.first = other.spread.highest, other.spread.first
        run.state.regularization, run.state.growth = other.damping.value, other.damping.growth
        sizes = [stage.control_size for stage in graph.stage_types]
        metric = np.concatenate([other.metric.get(m, np.zeros(m)) for m in sizes])
        run.state.known_metric = address_of(metric) if other.options.scaling else None
        library.handle.ocpkit_resume(ctypes.byref(run.state))
        run.state.known_metric = None
        return run

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        rows = history.reserve(min(most, ROWS), DDPIteration)
        self.state.history, self.state.rows = address_of(rows), 0
        try:
            self.library.handle.ocpkit_advance(
                ctypes.byref(self.state), min(most, len(rows)), clock(), time_limit, SLICE
            )
        finally:  # also where Ctrl-C was pressed meanwhile
            history.grow(self.state.rows)
            self._conclude()

    def certified(self) -> bool:
        return bool(self.library.handle.ocpkit_certify(ctypes.byref(self.state)))

    def leave(self, controls: Sequence[Array]) -> None:
        for name in ("x", "u", "x_new", "u_new"):
            setattr(self.state, name, self.address + 8 * self.layout.series[name].offset)
        self._write("u", controls)
        self.flat("x")[: len(self.problem.x0)] = self.problem.x0
        start = self.options.schedule.start()
        self.state.regularization, self.state.growth = start.value, start.growth
        self.state.has_gaps = self.state.idle = self.state.status = 0
        self.library.handle.ocpkit_resume(ctypes.byref(self.state))
        self._conclude()

    def _conclude(self) -> None:
        self.status = verdict(self.state.status, self.state.cost)

    @property
    def details(self) -> Details:
        """Engine, seconds of compiling it, and what failed."""
        return _details(self.why, self.library.seconds, self.state.reason, self.state.reason_stage)

    @property
    def trajectory(self) -> Trajectory:
        """Best iterate so far, as views of the solve's memory."""
        x, u = self._view("x"), self._view("u")
        return Trajectory(x, u, self.state.cost)

    @property
    def policy(self) -> SweepPolicy | None:
        """Backward pass at that iterate, as views of the solve's memory."""
        if not self.state.has_policy:
            return None
        k, K, Vx, Vxx = (self._view(name) for name in ("k", "K", "Vx", "Vxx"))
        gains, y = K if self.state.feedback else None, self._view("y") if self.state.y else None
        return SweepPolicy(k, gains, Vx, Vxx, self.state.gradient_norm, self.state.expected_change, y)

    @property
    def multipliers(self) -> Sequence[Array] | None:
        """Those of the control bounds."""
        return bound_multipliers(self.problem, self.policy) if self.state.y else None

    def _view(self, name: str) -> Any:
        """Return an array of the current iterate; x and u change places with x_new and u_new."""
        return self.layout.series[name].view(self.block, (getattr(self.state, name) - self.address) // 8)

    def flat(self, name: str) -> Array:
        """Return the memory of a series as one vector."""
        series = self.layout.series[name]
        return self.block[series.offset : series.offset + series.size]

    def _write(self, name: str, series: Sequence[Array]) -> None:
        self.flat(name)[:] = series.ravel() if isinstance(series, np.ndarray) else np.concatenate(series)


@lru_cache(maxsize=256)
def _details(why: str, built: BuildTimes | None, reason: int, stage: int) -> Details:
    """Details of a solve in C; a short one takes as long as making a few of them."""
    failure = FAILURES[reason]
    found = None if failure is None else Reason(failure=failure, stage=stage)
    seconds = PhaseTimes() if built is None else PhaseTimes(**built.as_record())
    return Details(engine="c", why=why, reason=found, seconds=seconds)


@lru_cache(maxsize=32)
def _options(options: DDPOptions) -> State:
    """The struct with these options, to be copied for a solve."""
    state = State()
    for name, number in options.numbers().items():
        setattr(state, name, int(number) if name in WHOLE else number)
    return state


def verdict(number: int, cost: float) -> Status | None:
    """Status of a solve in C; none but failure without a finite J, whatever a compiler made of the checks."""
    status = STATUSES[number]
    failed = status in (Status.DIVERGED, Status.INVALID_INPUT)
    return status if failed or math.isfinite(cost) else Status.DIVERGED


def address_of(array: Array) -> int:
    """Return where the numbers of an array begin."""
    address: int = array.__array_interface__["data"][0]
    return address
