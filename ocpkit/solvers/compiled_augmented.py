"""The augmented Lagrangian with the outer iteration in C as well, around that of `CompiledRun`.

The loop is that of `ocpkit.solvers.constrained`, line by line, in engines/kernel/augmented.c.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ocpkit.augmented import NEGLIGIBLE, Augmented
from ocpkit.engines.graphs import ProblemGraph
from ocpkit.engines.library import AugmentedState, Library
from ocpkit.problem import Array
from ocpkit.rows import say_row, say_violation
from ocpkit.solution import History
from ocpkit.solvers.compiled import ROWS, SLICE, CompiledRun, RunInC, address_of, verdict
from ocpkit.solvers.driver import Clock, Guess
from ocpkit.trajectory import Trajectory

if TYPE_CHECKING:
    from ocpkit.engines.casadi import SweepPolicy
    from ocpkit.solvers.constrained import AugmentedLagrangian

SHARED_OPTIONS = ("constraint_tolerance", "gradient_tolerance", "penalty_factor", "max_penalty", "enough")


class CompiledAugmentedRun(RunInC):
    """One constrained solve in progress, in C; its iterations are the outer ones."""

    def __init__(
        self, options: AugmentedLagrangian, augmented: Augmented, graph: ProblemGraph, library: Library, guess: Guess
    ) -> None:
        self.augmented, self.library = augmented, library
        problem = augmented.template.replace(x0=augmented.problem.x0)
        self.inner = CompiledRun.begin(options.inner, problem, graph, library, guess)
        first, barrier = augmented.first_multipliers(guess.multipliers), options.barrier
        self.p = self.inner.parameters = augmented.extended(first, options.initial_penalty, barrier.first)
        inner = self.inner.state
        inner.p, inner.cost_tolerance = address_of(self.p), NEGLIGIBLE
        self.memory = dict[str, Array]()
        self.state = AugmentedState(
            **{name: getattr(options, name) for name in SHARED_OPTIONS},
            first_damping=options.inner.initial_regularization,
            most=int(options.inner.max_iterations) + 1,
            own=augmented.own,
            inner=ctypes.addressof(inner),
            p=inner.p,
            penalty=options.initial_penalty,
            barrier=barrier.first,
            barrier_factor=barrier.factor,
            last_barrier=barrier.last,
            tolerance=options.first_tolerance,
            residual=np.inf,
            gradient_norm=np.nan,
            has_gaps=inner.has_gaps,
        )
        sizes = {"updated": self.p.size, "distance": self.p.shape[1], "line": len(History.columns)}
        for name, memory in {name: np.empty(size) for name, size in sizes.items()}.items():
            self._own(name, memory)
        for name in ("x", "u"):
            self._own(name, self.inner.flat(name).copy())
        self.details = {}

    def _own(self, name: str, memory: Array) -> None:
        """Keep memory for as long as C uses it."""
        self.memory[name] = memory
        setattr(self.state, name, address_of(memory))

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        most = most if self.status is None else 1  # an x0 that breaks a row ends the solve with its guess
        rows = history.reserve(min(most, ROWS))
        self.state.history, count = address_of(rows), 0
        try:
            while not count:  # an inner solve may take longer than a slice
                self.library.handle.ocpkit_augmented_advance(
                    ctypes.byref(self.state), min(most, len(rows)), clock(), time_limit, SLICE
                )
                count = self.state.rows
        finally:  # also where Ctrl-C was pressed meanwhile
            history.grow(count)
            self.library.handle.ocpkit_augmented_settle(ctypes.byref(self.state))
            self._conclude()

    def _conclude(self) -> None:
        state = self.state
        self.status = self.status or verdict(state.status, state.cost)
        where = say_row(self.augmented.rows, state.worst_stage, state.worst_row) if state.violation > 0 else ""
        self.details["violation"] = say_violation(state.violation, where)
        self.details["inner iterations"] = str(state.inner_iterations)

    @property
    def trajectory(self) -> Trajectory:  # type: ignore[override]
        """Best iterate so far, as views of the solve's memory."""
        inner = self.inner.trajectory
        return Trajectory(inner.states, inner.controls, self.state.cost)

    @property
    def policy(self) -> SweepPolicy | None:  # type: ignore[override]
        """Backward pass at that iterate, as views of the solve's memory."""
        return self.inner.policy

    @property
    def multipliers(self) -> Sequence[Array]:  # type: ignore[override]
        """Of the constraints, then of the control bounds."""
        return self.augmented.multipliers(self.p, self.inner.flat("y") if self.inner.state.y else np.zeros(0))
