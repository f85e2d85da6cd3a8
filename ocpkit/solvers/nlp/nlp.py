"""CasADi's solvers of nonlinear programs on the same Problem: IPOPT, fatrop and SQP.

They treat everything that a Problem can declare (control bounds, constraints at stages and at the end) in
the form that `multiple_shooting` writes down, and return co-states but no feedback gains. What a plugin
claims is checked: success is believed only where the Problem itself finds the point feasible, and, without rows, where
DDP converges from there in a few steps, which then are the answer (`finishing`); under rows, where the optimality
conditions hold in the natural units that J has there, and a probe does not lower the augmented Lagrangian by more than
what a barrier leaves; else the plugin is called again from there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike

from ocpkit.engines.numpy import NumpyEngine, first_not_finite
from ocpkit.errors import ProblemError, unknown_name
from ocpkit.problem.constraint_rows import broken_at_start, has_rows, largest_violation, problem_rows, row_values
from ocpkit.problem.problem import Problem
from ocpkit.solution.details import Details, Failure, Reason, WorstRow
from ocpkit.solution.history import Iteration
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.solution import Solution, Status
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.constrained.augmented import Augmented
from ocpkit.solvers.driver import (
    MOST_DEPARTURES,
    Callback,
    Clock,
    Run,
    Solver,
    as_solution,
    check_call,
    positive,
)
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.nlp import finishing
from ocpkit.solvers.nlp.finishing import finish
from ocpkit.solvers.nlp.multiple_shooting import Point, Program
from ocpkit.solvers.nlp.watch import Iterate, Watch
from ocpkit.solvers.verdicts.natural_units import Sweep, natural_units, sweep
from ocpkit.solvers.verdicts.second_order import leave_saddle
from ocpkit.solvers.verdicts.stationarity import descent, hidden_decrease

NEGLIGIBLE = 1e-8
"""A decrease of J, in its natural unit, that a point called optimal may leave."""

LEAST_UNIT = 1e-6
"""The unit of J at a solution as a share of that at the guess, at least: J may end at zero."""

STIFF = 1e4
"""Penalty of rows in natural units, beside which the curvature of a Lagrangian along them is small."""

SLIGHT = 1e-6
"""Decrease of the augmented Lagrangian, in its natural unit, that a barrier's distance from its rows may leave."""

ATTEMPTS = 1 + MOST_DEPARTURES
"""Calls of the plugin, each from where the one before stopped too early."""

COARSE = 10.0
"""Largest residual of the optimality conditions in the units at the solution, as a multiple of the tolerance."""


@dataclass(frozen=True, kw_only=True)
class NLPSolver(Solver):
    """Options common to IPOPT, fatrop and SQP.

    Parameters
    ----------
    tolerance
        Of the optimality conditions, in natural units and as the plugin scales them beside.
    feasibility_tolerance
        Largest gap of the dynamics or violation of a constraint, in natural units, with which a claim of success is
        believed.
    """

    tolerance: float = 1e-8
    feasibility_tolerance: float = 1e-6

    plugin: ClassVar[str]
    can_be_stopped: ClassVar[bool] = True  # else a call from far away may never return

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tolerance", "feasibility_tolerance")

    @abstractmethod
    def options(self, program: Program, most: int) -> dict[str, Any]:
        """Return the plugin's options for at most so many iterations."""

    def begin(self, problem: Problem, guess: Guess) -> Run:
        """Refuse: the iterations happen inside the plugin."""
        raise NotImplementedError(f"{type(self).__name__} iterates inside CasADi; call solve")

    def check(self, problem: Problem) -> None:
        """Accept every problem; `solve` raises UnsupportedProblem where a stage cannot be traced."""

    def solve(
        self,
        problem: Problem,
        guess: Solution | None = None,
        *,
        controls: ArrayLike | Sequence[ArrayLike] | None = None,
        states: ArrayLike | Sequence[ArrayLike] | None = None,
        callback: Callback | None = None,
    ) -> Solution:
        """Solve a problem; see `Solver.solve`. A warm start brings its states along."""
        check_call(problem, guess, callback)
        self.check_noise(problem)
        clock = Clock()
        if guess is not None and controls is None and states is None:
            states = guess.states
        engine = NumpyEngine(problem)
        start = Guess.choose(problem, guess, controls, states).trajectory(engine)
        found = sweep(engine, start) if start.finite else None
        bad = None if found is None else first_not_finite(found.stages, found.values[-1])
        if found is None or bad is not None:  # fatrop would not return
            reason = None if bad is None else Reason(failure=Failure.NOT_FINITE, stage=bad)
            details = self._details(reason)
            return self._solution(problem, Iterate(start), [], Status.INVALID_INPUT, details, clock, None)
        units = self._units(problem, start, found)
        program = Program(problem, None if units is None or units.ordinary else units)
        watch = Watch(program, start, callback, clock, self.time_limit, units)
        status, reason = self._run(watch)
        if watch.error is not None:
            raise watch.error
        details = self._details(reason)
        if status in (Status.INFEASIBLE, Status.GAVE_UP):
            details = self._worst(watch, details)
        status = watch.stop or status
        return self._solution(problem, watch.iterate, watch.history, status, details, clock, watch.units)

    def _units(self, problem: Problem, at: Trajectory, found: Sweep | None = None) -> Scaling | None:
        """Return the natural units at a trajectory; None: the user's are asked for."""
        if not self.scaling:
            return None
        return natural_units(NumpyEngine(problem), at, problem_rows(problem, bounds=False), found)

    def _details(self, reason: Reason | None) -> Details:
        return Details(engine=f"casadi {self.plugin}", reason=reason)

    def _worst(self, watch: Watch, details: Details) -> Details:
        """Add the row or the dynamics that fail most, and the row that x0 breaks for good."""
        problem, best = watch.program.problem, watch.iterate.trajectory
        rows = problem_rows(problem)
        largest, (gap, stage, state) = (
            largest_violation(rows, row_values(problem, rows, best.states, best.controls)),
            best.widest,
        )
        worst = WorstRow.of(rows, *largest)
        if gap > worst.amount:
            worst = WorstRow(amount=gap, stage=stage, state=state)
        excess, row = broken_at_start(problem, rows[0])
        if self._broken(watch):
            details = replace(details, reason=Reason(failure=Failure.START_BREAKS_ROW, stage=0, row=row, amount=excess))
        return replace(details, violation=worst)

    def _broken(self, watch: Watch) -> bool:
        """Whether x0 violates a row of stage 0 that no control can change."""
        rows = problem_rows(watch.program.problem)[0]
        excess, row = broken_at_start(watch.program.problem, rows)
        if excess == 0:
            return False
        unit = 1.0 if watch.units is None else float(watch.units.rows[0][rows.names.index(row)])
        return not excess <= self.feasibility_tolerance * unit

    def _run(self, watch: Watch) -> tuple[Status, Reason | None]:
        """Call the plugin, and again from where a point that it calls optimal can be left."""
        start, in_one = watch.iterate.trajectory, watch.units is not None and watch.stop is None
        onward: _Onward | None = None
        for _ in range(ATTEMPTS):
            status, reason = self._call(watch)
            if status in _FAILED and in_one and watch.stop is None and self._left(watch) > 0:
                in_one = False  # the units may be what it fails by: once more in the others, natural or the user's
                start = start if onward is None else onward.start
                watch.begin(Program(watch.program.problem, None if watch.program.scaling else watch.units), start)
                continue
            if status is not Status.CONVERGED:
                break
            try:
                onward = self._onward(watch)
            except KeyboardInterrupt:
                return Status.INTERRUPTED, None
            if onward is None:
                return Status.CONVERGED, None
            if onward.last or self._left(watch) <= 0:
                break
            watch.begin(Program(watch.program.problem, onward.units), onward.start)
        if onward is None or (status is not Status.CONVERGED and not self._lost(watch, status, onward.start)):
            return status, reason
        if status is not Status.CONVERGED:
            watch.go_back(onward.start)
        return onward.otherwise, Reason(failure=onward.failure, plugin=self.plugin)

    def _lost(self, watch: Watch, status: Status, start: Trajectory) -> bool:
        """Whether a plugin that went on has failed, at a point worse than where it went on from."""
        if status not in _FAILED or watch.stop is not None or start.gaps is not None:
            return False
        worse = not self._feasible(watch) or not watch.iterate.trajectory.cost <= start.cost
        return worse and not has_rows(watch.program.problem)  # else the start may break rows

    def _left(self, watch: Watch) -> int:
        """Iterations that are left for the next call of the plugin."""
        return int(self.max_iterations) - (watch.history[-1].index + 1 if watch.history else 0)

    def _call(self, watch: Watch) -> tuple[Status, Reason | None]:
        """Call the plugin and translate its answer."""
        program, start = watch.program, watch.iterate.trajectory
        most = int(self.max_iterations) - watch.first
        try:
            solver = ca.nlpsol(
                "solver", self.plugin, program.nlp, self.options(program, most) | self._watched_by(watch)
            )
            answer = solver(x0=program.join(start.states, start.controls), p=program.p, **program.bounds, **watch.warm)
            stats = solver.stats()
        except KeyboardInterrupt:
            return Status.INTERRUPTED, None
        except RuntimeError as error:
            return self._no_progress(watch), _reason(error)
        point = Point(*(answer[name].full()[:, 0] for name in ("x", "lam_x", "lam_g")))
        count = int(stats["iter_count"])  # any number where IPOPT refuses a program before its first iteration
        watch.record(point, count if 0 <= count <= most else max(watch.calls - 1, 0))
        status = self._status(stats, watch, most)
        if stats["success"]:
            return status, None
        return status, Reason(failure=Failure.PLUGIN_STATUS, plugin=self.plugin, answer=stats["return_status"])

    def _watched_by(self, watch: Watch) -> dict[str, Any]:
        return {"iteration_callback": watch}

    def _status(self, stats: dict[str, Any], watch: Watch, most: int) -> Status:
        if not watch.finite:
            return Status.DIVERGED
        feasible, answer = self._feasible(watch), stats["return_status"]
        if stats["success"] and answer != "Solved_To_Acceptable_Level":
            return Status.CONVERGED if feasible else self._not_feasible(watch)
        if answer == "Invalid_Number_Detected" and not stats["iter_count"]:
            return Status.INVALID_INPUT
        if answer == "Infeasible_Problem_Detected":
            return Status.STALLED if feasible else Status.INFEASIBLE
        if answer in _STATUS:
            return _STATUS[answer]
        limit = stats["iter_count"] >= most and answer != "Not_Enough_Degrees_Of_Freedom"  # whose count is any number
        return Status.ITERATION_LIMIT if limit else self._no_progress(watch)

    def _no_progress(self, watch: Watch) -> Status:
        return Status.STALLED if self._feasible(watch) else self._not_feasible(watch)

    def _feasible(self, watch: Watch) -> bool:
        return watch.iterate.errors(watch.units)[1] <= self.feasibility_tolerance

    def _not_feasible(self, watch: Watch) -> Status:
        return Status.INFEASIBLE if self._broken(watch) else Status.GAVE_UP

    def _onward(self, watch: Watch) -> _Onward | None:
        """Return from where to go on although the plugin calls a point optimal; None where its claim is believed."""
        problem, nominal = watch.program.problem, watch.iterate.trajectory
        if not has_rows(problem):
            return self._onward_without_rows(watch)
        units = self._units(problem, nominal)
        if units is not None and watch.units is not None:
            units = replace(units, cost=max(units.cost, LEAST_UNIT * watch.units.cost))
        if self._loose(watch, units):
            return _Onward(nominal, units, Status.STALLED, Failure.TOO_COARSE)
        unit = 1.0 if units is None else units.cost
        lower = self._lower_lagrangian(watch, 2 * float(watch.iterate.losses.sum()) + NEGLIGIBLE * unit)
        return None if lower is None else _Onward(lower, self._units(problem, lower), Status.SADDLE, Failure.CAN_FALL)

    def _onward_without_rows(self, watch: Watch) -> _Onward | None:
        """Let the exact recursion finish a point; where it can neither confirm nor lower it, a probe decides."""
        problem, nominal, engine = watch.program.problem, watch.iterate.trajectory, NumpyEngine(watch.program.problem)
        found = finish(problem, nominal, self._left(watch), self.time_limit - watch.clock())
        if found.confirmed:  # also where J is the same, the co-states are known better
            watch.finish(found.trajectory, found.solution, another=found.differs)
            return None
        if found.differs and found.trajectory.finite:
            saddle = hidden_decrease(engine, nominal) > finishing.NEGLIGIBLE * nominal.magnitude
            otherwise = Status.SADDLE if saddle else Status.STALLED
            units, last = self._units(problem, found.trajectory), not self.can_be_stopped
            return _Onward(found.trajectory, units, otherwise, Failure.CAN_FALL, last)
        if found.solution.status is Status.SADDLE:
            return _Onward(nominal, self._units(problem, nominal), Status.SADDLE, Failure.NEGATIVE_CURVATURE, True)
        units = self._units(problem, nominal)
        if found.cut_short:
            return _Onward(nominal, units, found.solution.status, Failure.NOT_CONFIRMED, True)
        if found.differs or self._loose(watch, units):
            return _Onward(nominal, units, Status.STALLED, Failure.TOO_COARSE)
        left = leave_saddle(engine, replace(nominal, gaps=None))
        lowest = min([descent(engine, nominal), *([] if left is None else [left])], key=lambda each: each.cost)
        if nominal.cost - lowest.cost <= finishing.NEGLIGIBLE * nominal.magnitude:
            return None
        if not lowest.finite:
            return _Onward(nominal, units, Status.DIVERGED, Failure.BOTTOMLESS, True)
        return _Onward(lowest, self._units(problem, lowest), Status.STALLED, Failure.CAN_FALL)

    def _loose(self, watch: Watch, units: Scaling | None) -> bool:
        """Whether the optimality conditions do not hold in units measured at the point itself."""
        if units is None:
            return False
        slope, violation = watch.iterate.errors(units)
        off = max(slope, watch.iterate.losses.max(initial=0.0) / units.cost)
        return off > COARSE * self.tolerance or violation > self.feasibility_tolerance

    def _lower_lagrangian(self, watch: Watch, least: float) -> Trajectory | None:
        """Return where the augmented Lagrangian at the plugin's multipliers, with a stiff penalty, is lower."""
        problem, nominal, y = watch.program.problem, watch.iterate.trajectory, watch.iterate.multipliers
        augmented, units = Augmented(problem), self._units(problem, nominal)
        if units is None or y is None:
            return None
        penalty = np.zeros((problem.horizon + 1, augmented.widest))
        for row, unit in zip(penalty, units.rows):
            row[: len(unit)] = STIFF * units.cost / unit**2
        of_rows = [each[: rows.count] for each, rows in zip(y, augmented.rows)]
        engine = NumpyEngine(augmented.lagrangian(augmented.extended(of_rows, penalty)))
        start = engine.rollout(list(nominal.controls))
        left = leave_saddle(engine, start)
        if left is None or not start.cost - left.cost > least + SLIGHT * units.cost:
            return None
        return NumpyEngine(problem).rollout(list(left.controls))

    def _solution(
        self,
        problem: Problem,
        best: Iterate,
        history: Sequence[Iteration],
        status: Status,
        details: Details,
        clock: Clock,
        scaling: Scaling | None,
    ) -> Solution:
        return as_solution(
            self,
            problem,
            best.trajectory,
            status=status,
            history=tuple(history),
            seconds=clock(),
            details=details,
            costates=best.costates,
            multipliers=best.multipliers,
            scaling=scaling,
        )


@dataclass(frozen=True)
class _Onward:
    """A start from which a plugin goes on, in which units, and what is said where it no longer may (or need not)."""

    start: Trajectory
    units: Scaling | None
    otherwise: Status
    failure: Failure
    last: bool = False


@dataclass(frozen=True, kw_only=True)
class IPOPT(NLPSolver):
    """Interior point with a filter line search (Wächter & Biegler 2006)."""

    plugin = "ipopt"

    def options(self, program: Program, most: int) -> dict[str, Any]:
        silent = {"print_level": 0, "sb": "yes"}
        limits = {"max_iter": most, "tol": self.tolerance, "constr_viol_tol": self.tolerance}
        return {"print_time": False, "ipopt": silent | limits}


@dataclass(frozen=True, kw_only=True)
class Fatrop(NLPSolver):
    """Interior point whose linear algebra is a Riccati recursion over the stages (Vanroye et al. 2023).

    The plugin reports no single iterations: the history holds the guess and the result, a callback cannot
    stop it, and there is no time limit.
    """

    plugin = "fatrop"
    can_be_stopped = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if np.isfinite(self.time_limit):
            raise ProblemError("Fatrop cannot watch the clock; give max_iterations, or use the solver 'ipopt'")

    def options(self, program: Program, most: int) -> dict[str, Any]:
        return {
            "print_time": False,
            "structure_detection": "manual",
            "N": program.problem.horizon,
            "nx": list(program.problem.state_sizes),
            "nu": [*program.problem.control_sizes, 0],
            "ng": program.row_counts,
            "fatrop": {"print_level": 0, "max_iter": most, "tolerance": self.tolerance},
        }

    def _watched_by(self, watch: Watch) -> dict[str, Any]:
        watch.record_guess()  # there are no calls from inside
        return {}


@dataclass(frozen=True, kw_only=True)
class SQP(NLPSolver):
    """Sequential quadratic programming with exact Hessians, convexified stage by stage.

    Parameters
    ----------
    qp_solver
        CasADi's name of the solver of the quadratic programs.
    convexify
        How an indefinite Hessian is made convex: ``"eigen-clip"``, ``"eigen-reflect"``, ``"regularize"``, or
        ``"none"``, which converges quadratically, but to any stationary point, a maximum included.
    """

    qp_solver: str = "qrqp"
    convexify: str = "eigen-clip"
    plugin = "sqpmethod"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not ca.has_conic(self.qp_solver):
            raise unknown_name("QP solver", self.qp_solver, ("qrqp", "hpipm", "osqp", "piqp", "qpoases"))
        if self.convexify not in _CONVEXIFY:
            raise unknown_name("way to convexify", self.convexify, _CONVEXIFY)

    def options(self, program: Program, most: int) -> dict[str, Any]:
        silent = {"print_time": False, "print_header": False, "print_iteration": False, "print_status": False}
        return silent | {
            "max_iter": most,
            "tol_pr": self.tolerance,
            "tol_du": self.tolerance,
            "convexify_strategy": self.convexify,
            "max_iter_eig": 1000,
            "qpsol": self.qp_solver,
            "qpsol_options": {"error_on_fail": False, "print_iter": False, "print_header": False},
        }


def _reason(error: RuntimeError) -> Reason:
    """Say why the plugin broke off; its answer has no status when a step of its own failed."""
    if "construction from null" in str(error):
        return Reason(failure=Failure.PLUGIN_STEP)
    return Reason(failure=Failure.OTHER, answer=str(error).strip().splitlines()[-1])


_CONVEXIFY = ("eigen-clip", "eigen-reflect", "regularize", "none")
_FAILED = (Status.STALLED, Status.INFEASIBLE, Status.GAVE_UP, Status.DIVERGED)
_STATUS = {
    "Solved_To_Acceptable_Level": Status.STALLED,
    "Maximum_Iterations_Exceeded": Status.ITERATION_LIMIT,
    "Diverging_Iterates": Status.DIVERGED,
    "Invalid_Number_Detected": Status.DIVERGED,
}
