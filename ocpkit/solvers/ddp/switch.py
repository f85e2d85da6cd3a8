"""The ``"auto"`` engine before its solver in C is there: begin without, have it built beside, and go over to it.

A solve never waits for a compiler. What is built goes on as the iteration before it ended, and serves the next solves.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ocpkit.boundary.arrays import Array
from ocpkit.engines.c.build import Build, begin_build
from ocpkit.engines.c.library import Library
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

WORTH = 0.02  # seconds of solving a structure, in this process, from which on a compiler is started for it
REMEMBERED = 256  # structures
BEING_COMPILED = "C is being compiled beside"

_log = logging.getLogger("ocpkit")
_spent = OrderedDict[str, float]()


def _spend(key: str, seconds: float) -> float:
    """Add to the seconds of a structure, and return them; the least recently solved ones are forgotten."""
    _spent[key] = _spent.pop(key, 0.0) + seconds
    while len(_spent) > REMEMBERED:
        _spent.popitem(last=False)
    return _spent[key]


class SwitchingRun(AnyRun):
    """A solve that begins on the virtual machine, on NumPy or in C without optimization, and may end in C with it."""

    def __init__(self, run: DDPRun | CompiledRun, problem: Problem, graph: ProblemGraph) -> None:
        self.run = run
        self.problem, self.graph, self.why = problem, graph, run.why
        self.build: Build | None = None
        self.settled, self.last = False, 0.0

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        self.run.advance(history, most, clock, time_limit)
        if not self.settled:
            now = clock()
            worth = _spend(self.graph.structure_key, now - self.last) >= WORTH and now < time_limit
            self.last = now
            if worth:
                self._look(len(history))

    def _look(self, iterations: int) -> None:
        """Begin the build, or go over to the best that it has built."""
        try:
            self.build = self.build or begin_build(self.graph)
            library = self.build.look()
        except UnsupportedProblem as error:  # no compiler, or an operation that C's library lacks
            self.settled = True
            self._say(str(error))
            return
        self.settled = self.build.library is not None
        if library is None:
            self._say(BEING_COMPILED)
        elif self.status is None:
            self._go_over(library, iterations)

    def _go_over(self, library: Library, iterations: int) -> None:
        """Go on in C; both of its solvers take up each other's memory as it is."""
        if isinstance(self.run, DDPRun):
            self.run = CompiledRun.resume(self.run, self.problem, self.graph, library)
        elif self.run.library is library:
            return
        self.run.library = library
        self._say(f"{library.origin}, from iteration {iterations} on")

    def _say(self, why: str) -> None:
        if self.why != why:
            self.why = why
            _log.info("engine %s: %s", self.run.details.engine, why)

    @property
    def details(self) -> Details:
        """Those of the run, and why it is this engine."""
        return replace(self.run.details, why=self.why)

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
