"""The augmented Lagrangian with the outer iteration in C as well, around that of `CompiledRun`.

The loop is that of `ocpkit.solvers.constrained.augmented_lagrangian`, line by line, in engines/c/kernel/augmented.c.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.engines.c.library import AugmentedState, Library
from ocpkit.engines.graphs import ProblemGraph
from ocpkit.problem.problem import Problem
from ocpkit.solution.details import Details, Reason, WorstRow
from ocpkit.solution.history import DDPIteration, History, OuterIteration, columns
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.solution import Status, WarmStart
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.constrained.augmented import Augmented
from ocpkit.solvers.constrained.barrier import Barrier
from ocpkit.solvers.constrained.options import ConstrainedOptions
from ocpkit.solvers.constrained.units import Units, first_units
from ocpkit.solvers.ddp.compiled import ROWS, SLICE, CompiledRun, RunInC, address_of, verdict
from ocpkit.solvers.driver import Clock
from ocpkit.solvers.guess import Guess

if TYPE_CHECKING:
    from ocpkit.engines.vm import SweepPolicy


class CompiledAugmentedRun(RunInC):
    """One constrained solve in progress, in C; its iterations are the outer ones."""

    def __init__(
        self,
        options: ConstrainedOptions,
        augmented: Augmented,
        graph: ProblemGraph,
        library: Library,
        guess: Guess,
        barrier: Barrier | None,
    ) -> None:
        self.augmented, self.library = augmented, library
        problem = augmented.template.replace(x0=augmented.problem.x0)
        minimizer = options.minimizer(penalized=augmented.widest > 0)
        self.inner = CompiledRun.begin(minimizer, problem, graph, library, guess)
        y, sides = augmented.first_multipliers(guess.multipliers), augmented.sides
        self.first = first = options.first(guess.warm_start if y else None, barrier)
        self.p = self.inner.parameters = augmented.extended(y, first.penalty, first.barrier)
        inner = self.inner.state
        inner.p = address_of(self.p)
        known = first_units(augmented, guess, scaling=options.scaling)
        self.units, self.scaled = known or Units.of_user(augmented), options.scaling
        self.memory = dict[str, Any]()
        states, controls = max(problem.state_sizes), max(problem.control_sizes)
        self.state = AugmentedState(
            constraint_tolerance=options.constraint_tolerance,
            gradient_tolerance=options.gradient_tolerance,
            penalty_factor=options.penalty.factor,
            max_penalty=options.penalty.maximum,
            required_decrease=options.penalty.required_decrease,
            first_damping=minimizer.schedule.initial,
            damping=minimizer.schedule.initial,
            most=int(options.inner.max_iterations) + 1,
            parameter_size=augmented.parameter_size,
            widest=augmented.widest,
            largest_n=states,
            largest_m=controls,
            scaled=options.scaling,
            has_units=known is not None,
            cost_unit=self.units.cost,
            barrier_unit=1.0,
            group_count=len(sides.first),
            inner=ctypes.addressof(inner),
            p=inner.p,
            penalty=first.penalty,
            barrier=first.barrier,
            barrier_factor=1.0 if barrier is None else barrier.factor,
            last_barrier=0.0 if barrier is None else barrier.last,
            tolerance=first.tolerance,
            residual=np.inf,
            gradient_norm=np.nan,
            has_gaps=inner.has_gaps,
        )
        sizes = {"updated": self.p.size, "distance": self.p.shape[1], "line": len(columns(DDPIteration))}
        sizes |= dict.fromkeys(("here", "factors"), sides.weights.size)
        sizes["group_sizes"] = len(sides.first) * augmented.widest
        sizes["work"] = self.p.shape[1] + (augmented.widest + 6) * (1 + states + controls) + 4 * controls
        for name, memory in {name: np.empty(size) for name, size in sizes.items()}.items():
            self._own(name, memory)
        if augmented.problem.bounded:
            bounds = augmented.problem.control_bounds
            np.clip(self.inner.flat("u"), *bounds, out=self.inner.flat("u"))
            for name, side in zip(("lower", "upper"), bounds):
                self._own(name, side)
        for name in ("x", "u"):
            self._own(name, self.inner.flat(name).copy())
        for name in ("span", "lower_size", "upper_size", "weights", "groups"):
            self._own(name, getattr(sides, name))
        self._own("units", self.units.rows)
        self.reason: Reason | None = None

    def refuse(self, reason: Reason) -> None:
        """End with the guess, which no control can mend."""
        self.status, self.reason = Status.INFEASIBLE, reason

    def _own(self, name: str, memory: Any) -> None:
        """Keep memory for as long as C uses it."""
        self.memory[name] = memory
        setattr(self.state, name, address_of(memory))

    def advance(self, history: History, most: int, clock: Clock, time_limit: float) -> None:
        most = most if self.status is None else 1  # an x0 that breaks a row ends the solve with its guess
        rows = history.reserve(min(most, ROWS), OuterIteration)
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

    def certified(self) -> bool:
        return self.inner.certified()

    def objective(self, problem: Problem) -> Problem:
        return self.augmented.lagrangian(self.p)

    def leave(self, controls: Sequence[Array]) -> None:
        self.memory["u"][:] = np.concatenate(controls)
        self.state.has_gaps = self.state.status = 0
        self.status = None

    def _conclude(self) -> None:
        state = self.state
        self.status = self.status or verdict(state.status, state.cost)

    @property
    def details(self) -> Details:
        """Those of the inner run, the worst row, and how many inner iterations there were."""
        state = self.state
        worst = WorstRow.of(self.augmented.rows, state.amount, state.worst_stage, state.worst_row)
        inner = self.inner.details
        return Details(
            engine=inner.engine,
            why=inner.why,
            reason=self.reason,
            violation=worst,
            inner_iterations=state.inner_iterations,
            seconds=inner.seconds,
        )

    @property
    def trajectory(self) -> Trajectory:
        """Best iterate so far, as views of the solve's memory."""
        inner = self.inner.trajectory
        return Trajectory(inner.states, inner.controls, self.state.inside_cost)

    @property
    def scaling(self) -> Scaling | None:
        """Units of the priced rows and of J."""
        return Units(self.units.rows, self.state.cost_unit).scaling(self.augmented) if self.scaled else None

    @property
    def policy(self) -> SweepPolicy | None:
        """Backward pass at that iterate, as views of the solve's memory."""
        return self.inner.policy

    @property
    def warm_start(self) -> WarmStart:
        """Warm start of the next solve."""
        state = self.state
        return self.first.after(self.status, penalty=state.penalty, barrier=state.barrier, tolerance=state.tolerance)

    @property
    def multipliers(self) -> Sequence[Array]:
        """Of the constraints, then of the control bounds."""
        return self.augmented.multipliers(self.p, self.inner.flat("y") if self.inner.state.y else np.zeros(0))
