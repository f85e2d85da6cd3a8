"""The ``"auto"`` engine's wager: start without a compiler, compile once that has cost as much as compiling.

Whoever rents skis until the rent has reached their price, and then buys them, never pays more than twice the least
(the ski-rental problem). So one short solve never waits for a compiler, and long or repeated ones run in C. A solve
waits that long for another process that compiles the same solver, and then goes on without it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ocpkit.boundary.arrays import Array
from ocpkit.engines.c.library import CompilerBusy, load_library
from ocpkit.engines.graphs import ProblemGraph
from ocpkit.engines.interface import AnyPolicy
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem.problem import Problem
from ocpkit.solution.details import Details
from ocpkit.solution.history import History, Iteration
from ocpkit.solution.solution import Status
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.ddp.compiled import CompiledRun
from ocpkit.solvers.ddp.run import DDPRun
from ocpkit.solvers.driver import AnyRun, Clock

PRICE, PRICE_OF_OPERATION = 1.5, 1e-4  # seconds that compiling takes: a small model, and each operation of a large one
INTERVAL = 0.1  # seconds between two looks for what another process compiles

_spent: defaultdict[str, float] = defaultdict(float)  # seconds of iterations before, in this process, by structure
_failed: dict[str, str] = {}
_waited = set[str]()  # structures that somebody else was waited for to compile


class SwitchingRun(AnyRun):
    """A solve that begins on the virtual machine or on NumPy and may end in C."""

    def __init__(self, run: DDPRun, problem: Problem, graph: ProblemGraph) -> None:
        self.run: DDPRun | CompiledRun = run
        self.problem, self.graph = problem, graph
        self.price = PRICE + PRICE_OF_OPERATION * graph.operations
        self.next_look = 0.0

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        began = clock()
        self.run.advance(history, most, clock, time_limit)
        if isinstance(self.run, CompiledRun):
            return
        _spent[self.graph.key] += clock() - began
        affordable = time_limit - clock() > self.price
        worth = _spent[self.graph.key] > self.price and self.graph.key not in _failed and clock() >= self.next_look
        if worth and affordable and self.status is None:
            self.next_look = clock() + INTERVAL
            self._compile(self.run)

    def _compile(self, run: DDPRun) -> None:
        try:
            library = load_library(self.graph, 0 if self.graph.key in _waited else self.price)
        except CompilerBusy:
            _waited.add(self.graph.key)
            return
        except UnsupportedProblem as error:  # no compiler, or an operation that C's library lacks
            _failed[self.graph.key] = str(error)
            return
        self.run = CompiledRun.resume(run, self.problem, self.graph, library)
        self.run.why = f"{library.origin}, after {_spent[self.graph.key]:.1f} s without"

    @property
    def details(self) -> Details:
        """Those of the run, and why it is not in C."""
        if isinstance(self.run, CompiledRun):
            return self.run.details
        failure = _failed.get(self.graph.key)
        spent = f"compiles after {self.price:.1f} s of solving this model, {_spent[self.graph.key]:.2f} s so far"
        return replace(self.run.details, why=failure or spent)

    def certified(self) -> bool:
        return self.run.certified()

    def leave(self, controls: Sequence[Array]) -> None:
        self.run.leave(controls)

    def start(self) -> Iteration:
        return self.run.start()

    def step(self) -> Iteration:
        return self.run.step()

    @property
    def trajectory(self) -> Trajectory:
        """Best iterate so far."""
        return self.run.trajectory

    @property
    def policy(self) -> AnyPolicy | None:
        """Backward pass at that iterate."""
        return self.run.policy

    @property
    def multipliers(self) -> Sequence[Array] | None:
        """Those of the control bounds."""
        return self.run.multipliers

    @property
    def status(self) -> Status | None:
        """None while there is more to do."""
        return self.run.status

    @status.setter
    def status(self, status: Status | None) -> None:
        self.run.status = status
