"""One solve by the primal-dual interior point: its iterations and restorations, and what the driver asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.problem.constraint_rows import broken_at_start, worst_row
from ocpkit.problem.problem import Problem
from ocpkit.solution.details import Details, Failure, Reason, WorstRow
from ocpkit.solution.history import InteriorIteration, Iteration
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.solution import Status, WarmStart
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.constrained.augmented import Augmented
from ocpkit.solvers.driver import AnyRun
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.phases import Phases
from ocpkit.solvers.primal_dual import restoration
from ocpkit.solvers.primal_dual.interior import Interior, Move
from ocpkit.solvers.primal_dual.kkt import KERNEL
from ocpkit.solvers.primal_dual.start import begin, in_units, program_at, start_of, units_at

BOTTOMLESS = 1e20  # of J in natural units, or of a variable: there is no minimum within reach
FAR_OFF, MEASUREMENTS = 10.0, 3  # factor by which units have shrunk that matters; how often they are measured at most
NOTICED = 1e-4  # least violation, in natural units, that a converged restoration calls infeasible
UNFELT = 1e-6  # multiplier, in natural units, of an inequality that does not hold as an equality
ACCEPTABLE, FAR_BEYOND = 1e-4, 10.0
"""Errors of a restoration whose rounding blocks it that are good enough, where what is left is so much larger."""
STIFF = 1e4  # penalty of the rows, in natural units, with which a saddle of the Lagrangian is looked for


@dataclass(frozen=True)
class ValueAlong:
    """The policy and the value models of the last sweep, stage by stage, in the user's units."""

    feedforward: Sequence[Array]
    feedback_gains: Sequence[Array]
    value_gradients: Sequence[Array]
    value_hessians: Sequence[Array]


class PrimalDualRun(AnyRun):
    """One solve in progress."""

    main: Interior
    restoring: Interior | None = None
    status: Status | None = None
    policy: ValueAlong | None = None
    slope: Array | None = None  # of the Lagrangian without bounds, at the end

    def __init__(self, problem: Problem, guess: Guess, tolerance: float, *, scaling: bool) -> None:
        self.problem, self.guess, self.tolerance, self.scaled = problem, guess, tolerance, scaling
        KERNEL.look()  # what it takes is there when the first step asks for it, or soon after
        self.phases, self.minimum = Phases(), False
        self.reason: Reason | None = None
        self.measurements = 0
        self.first = start_of(problem, guess)
        self.units: Scaling | None = None

    def start(self) -> Iteration:
        if not self.first.finite:
            return self._refuse(None)
        self.program, self.units = program_at(self.problem, self.first, scaling=self.scaled)
        self.first_cost_unit = self.program.cost_unit
        excess, row = broken_at_start(self.problem, self.program.rows[0])
        if excess > 0 and excess > FEASIBLE * self._unit_at_start(row):
            self.status = Status.INFEASIBLE
            self.reason = Reason(failure=Failure.START_BREAKS_ROW, stage=0, row=row, amount=excess)
            return InteriorIteration(index=0, cost=self.first.cost, violation=excess / self._unit_at_start(row))
        begun = begin(self.program, self.first, self.guess, self.tolerance)
        if begun.interior is None:
            return self._refuse(begun.stage)
        self.main = begun.interior
        if self.first.gaps is not None:
            self._measured_anew(of_cost=False)
        if self.main.settled(self.phases):
            self._finish()
        return self._record(np.nan)

    def _refuse(self, stage: int | None) -> Iteration:
        self.status = Status.INVALID_INPUT
        self.reason = None if stage is None else Reason(failure=Failure.NOT_FINITE, stage=stage)
        return InteriorIteration(index=0, cost=self.first.cost)

    def _unit_at_start(self, row: str) -> float:
        rows = self.program.rows[0]
        return float(self.program.row_unit[rows.names.index(row)])

    def step(self) -> Iteration:
        before = self.main.at.values.cost * self.program.cost_unit
        if self.restoring is not None:
            self._restore(self.restoring)
        else:
            self._advance()
        return self._record(before)

    def _advance(self) -> None:
        """Do one iteration on the problem itself."""
        move = self.main.step(self.phases)
        if move is Move.OPTIMAL or (move is Move.TAKEN and self.main.settled(self.phases)):
            if not self._measured_anew(of_cost=True) or self.main.settled(self.phases):
                self._finish()
        elif move is Move.NOT_FINITE:
            self.status = Status.DIVERGED
        elif move is Move.BLOCKED and self.main.errors.primal <= self.tolerance:
            self.status = Status.STALLED
        elif move is Move.BLOCKED:
            self.restoring = restoration.begin(self.main)
        elif self._bottomless():
            self.status = Status.DIVERGED

    def _measured_anew(self, *, of_cost: bool) -> bool:
        """Whether the units at the iterate are others than those that its errors were measured in; then take these.

        A start may be far away: what is small beside it need not be beside a solution.
        """
        if not self.scaled or self.measurements >= MEASUREMENTS:
            return False
        self.measurements += 1
        assert self.units is not None
        blocks = self.main.look(self.phases)
        units = units_at(self.main.at, blocks, self.program, self.units, of_cost=of_cost)
        program = self.program.in_units(units)
        sizes = [(each.cost_unit, each.unit, each.gap_unit, each.row_unit) for each in (self.program, program)]
        ratios = np.concatenate([np.atleast_1d(a / b) for a, b in zip(*sizes)])
        if not np.isfinite(ratios).all() or ratios.max() <= FAR_OFF:
            return False
        there = in_units(self.main, self.program, program)
        if there is None:
            return False
        self.main, self.program, self.units = there, program, units
        return True

    def _bottomless(self) -> bool:
        at = self.main.at
        return at.values.cost < -BOTTOMLESS or float(np.abs(at.w.value).max()) > BOTTOMLESS

    def _restore(self, restoring: Interior) -> None:
        """Do one iteration of the restoration."""
        main, move = self.main, restoring.step(self.phases)
        if move is Move.TAKEN:
            found = restoration.original(main, restoring)
            if found.values.finite and restoration.succeeded(main, found):
                restoration.resume(main, found)
                self.restoring = None
        elif move is Move.OPTIMAL or (move is Move.BLOCKED and restoring.errors.largest <= ACCEPTABLE):
            main.at = restoration.original(main, restoring)
            left = float(np.abs(main.residual(main.at)).max(initial=0.0))
            sure = NOTICED if move is Move.OPTIMAL else FAR_BEYOND * ACCEPTABLE
            self.status = Status.INFEASIBLE if left > sure else Status.GAVE_UP
        else:
            self.status = Status.GAVE_UP

    def _finish(self) -> None:
        """Converged: a last sweep tells whether it is a minimum, and gives the policy."""
        self.status, main, program = Status.CONVERGED, self.main, self.program
        system = main.system_at(self.phases)
        if system is None:
            self.minimum = False
            return
        self.minimum = main.damping.used == 0
        layout, at, unit, S = program.layout, main.at, program.unit, program.cost_unit
        gains = [K * unit[u][:, None] / unit[x] for K, u, x in zip(system.factors.gains, layout.u, layout.x)]
        hessians = [V * (S / unit[x][:, None] / unit[x]) for V, x in zip(system.factors.values, layout.x)]
        costates = at.duals[: len(at.values.gaps)] * S / program.gap_unit
        self.slope = system.blocks.along(*np.split(at.duals, [len(at.values.gaps)]))
        first = self.slope[layout.x[0]] * S / unit[layout.x[0]]
        along = [first, *(costates[gap] for gap in layout.gap)]
        self.policy = ValueAlong([np.zeros(m) for m in layout.controls], gains, along, hessians)

    def certified(self) -> bool:
        return self.minimum

    def objective(self, problem: Problem) -> Problem:
        augmented = Augmented(problem)
        penalty = np.zeros((problem.horizon + 1, augmented.widest))
        of_rows = self.main.at.duals[len(self.main.at.values.gaps) :]
        y = [of_rows[row] * self.program.cost_unit / self.program.row_unit[row] for row in self.program.layout.row]
        for place, row in zip(penalty, self.program.layout.row):
            unit = self.program.row_unit[row]
            place[: len(unit)] = STIFF * self.program.cost_unit / unit**2
        return augmented.lagrangian(augmented.extended(y, penalty))

    def leave(self, controls: Sequence[Array]) -> None:
        guess = replace(self.guess, controls=tuple(controls), states=None, multipliers=None, warm_start=None)
        begun = begin(self.program, start_of(self.problem, guess), guess, self.tolerance)
        if begun.interior is not None:
            self.main, self.status, self.policy = begun.interior, None, None

    def _record(self, before: float) -> Iteration:
        main, program = self.main, self.program
        active = self.restoring or main
        cost = main.at.values.cost * program.cost_unit
        return InteriorIteration(
            index=0,
            cost=cost,
            actual_decrease=before - cost if np.isfinite(before) else 0.0,
            gradient_norm=active.errors.dual,
            step_size=active.step_size,
            damping=active.damping.used,
            barrier=active.mu * self.program.cost_unit / self.first_cost_unit,
            violation=float(np.abs(main.residual(main.at)).max(initial=0.0)),
            restoring=float(self.restoring is not None),
        )

    @property
    def trajectory(self) -> Trajectory:
        """The iterate, with what is left of its gaps."""
        if not hasattr(self, "main"):
            return self.first
        at, program = self.main.at, self.program
        states, controls = program.split(at.w.value)
        gaps = [at.values.gaps[gap] * program.gap_unit[gap] for gap in program.layout.gap]
        return Trajectory(states, controls, at.values.cost * program.cost_unit, gaps)

    @property
    def details(self) -> Details:
        violation = None if self.units is None or not hasattr(self, "main") else self._worst()
        engine = "vm" if KERNEL.look() is None else "vm, sweeps in c"
        return Details(engine=engine, reason=self.reason, violation=violation, seconds=self.phases.times)

    def _worst(self) -> WorstRow:
        """The row that is farthest from holding, or the largest gap of the dynamics, in natural units."""
        program, values = self.program, self.main.at.values
        rows = values.rows * program.row_unit
        distances = [each.traced.distance(rows[row]) for each, row in zip(program.rows, program.layout.row)]
        units = np.ones((len(distances), max(map(len, distances))))
        for place, row in zip(units, program.layout.row):
            place[: row.stop - row.start] = program.row_unit[row]
        largest, amount, t, i = worst_row(distances, units)
        gaps = np.abs(values.gaps)
        at = int(gaps.argmax())
        if gaps[at] <= max(largest, FEASIBLE):
            return WorstRow.of(program.rows, amount, t, i)
        stage = next(t for t, gap in enumerate(program.layout.gap) if at < gap.stop)
        state = at - program.layout.gap[stage].start
        return WorstRow(amount=float(gaps[at] * program.gap_unit[at]), stage=stage, state=state)

    @property
    def scaling(self) -> Scaling | None:
        return self.units if self.scaled else None

    @property
    def multipliers(self) -> Sequence[Array] | None:
        if not hasattr(self, "main"):
            return None
        program, at = self.program, self.main.at
        layout, gaps = program.layout, len(at.values.gaps)
        y = at.duals[gaps:] * program.cost_unit / program.row_unit
        (below, above), (low, high) = (each.felt(UNFELT) for each in (at.w, at.v))
        y[(self.main.slacks.place - gaps)[(low == 0) & (high == 0)]] = 0.0
        of_w = above - below
        if self.slope is not None:
            of_w[at.w.fixed] = -self.slope[at.w.fixed]
        of_w *= program.cost_unit / program.unit
        of_controls = [of_w[u][stage.bounded_controls] for u, stage in zip(layout.u, self.problem.stages)]
        return [np.concatenate(pair) for pair in zip([y[row] for row in layout.row], [*of_controls, np.zeros(0)])]

    @property
    def warm_start(self) -> WarmStart | None:
        if not hasattr(self, "main"):
            return None
        return WarmStart(penalty=1.0, barrier=self.main.mu, tolerance=self.tolerance)


FEASIBLE = 1e-8
"""Violation, in natural units, that is none."""
