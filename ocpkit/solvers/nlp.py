"""CasADi's solvers of nonlinear programs on the same Problem: IPOPT, fatrop and SQP.

They treat everything that a Problem can declare (control bounds, constraints at stages and at the end) in
the form that `multiple_shooting` writes down, and return co-states but no feedback gains. What a plugin
claims is checked: success is believed only where the Problem itself finds the point feasible, and where neither
a probe nor DDP lowers J by more than what a barrier leaves. (Where Jacobians are huge a plugin may call a point
optimal that is not: some co-states solve their equations to a tolerance there, and are far from those that the end
determines.)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike

from ocpkit.engines.numpy import NumpyEngine
from ocpkit.errors import ProblemError, unknown_name
from ocpkit.problem import Array, Problem
from ocpkit.rows import broken_at_start, largest_violation, problem_rows, row_values, say_start, say_violation
from ocpkit.solution import Iteration, Solution, Status, as_series
from ocpkit.solvers.ddp import DDP
from ocpkit.solvers.driver import Callback, Clock, Guess, Run, Solver, check_call, positive
from ocpkit.solvers.multiple_shooting import Program
from ocpkit.solvers.stationarity import decrease
from ocpkit.trajectory import Trajectory

NEGLIGIBLE = 1e-8
"""A decrease of J, relative to 1 + |J|, that a point called optimal may leave."""

DOUBTING_STEPS = 3
"""Iterations of DDP that try to lower J further."""


@dataclass(frozen=True, kw_only=True)
class NLPSolver(Solver):
    """What IPOPT, fatrop and SQP share.

    Parameters
    ----------
    tolerance
        Of the optimality conditions, as the plugin scales them.
    feasibility_tolerance
        Largest gap of the dynamics or violation of a constraint with which a claim of success is believed.
    """

    tolerance: float = 1e-8
    feasibility_tolerance: float = 1e-6

    plugin: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tolerance", "feasibility_tolerance")

    @abstractmethod
    def options(self, program: Program) -> dict[str, Any]:
        """Return the plugin's options."""

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
        start = Guess.choose(problem, guess, controls, states).trajectory(NumpyEngine(problem))
        if not start.finite:
            return self._solution(problem, _Iterate(start), [], Status.INVALID_INPUT, {}, clock)
        watch = _Watch(Program(problem), start, callback, clock, self.time_limit)
        status, details = self._run(watch)
        if watch.error is not None:
            raise watch.error
        if status is Status.INFEASIBLE:
            details |= self._worst(problem, watch.iterate.trajectory)
        return self._solution(problem, watch.iterate, watch.history, watch.stop or status, details, clock)

    def _worst(self, problem: Problem, best: Trajectory) -> dict[str, str]:
        """Return the row that fails most, and the one that x0 breaks for good."""
        rows = problem_rows(problem)
        violation, where = largest_violation(rows, row_values(problem, rows, best.states, best.controls))
        excess, row = broken_at_start(problem, rows[0])
        reason = {"reason": say_start(excess, row)} if excess > self.feasibility_tolerance else {}
        return {"violation": say_violation(violation, where)} | reason

    def _run(self, watch: _Watch) -> tuple[Status, dict[str, str]]:
        """Call the plugin and translate its answer."""
        program, start = watch.program, watch.iterate.trajectory
        try:
            solver = ca.nlpsol("solver", self.plugin, program.nlp, self.options(program) | self._watched_by(watch))
            answer = solver(x0=program.join(start.states, start.controls), p=program.p, **program.bounds)
            stats = solver.stats()
        except KeyboardInterrupt:
            return Status.INTERRUPTED, {}
        except RuntimeError as error:
            return self._no_progress(watch), {"reason": _reason(error)}
        w, bound_multipliers, multipliers = (answer[name].full()[:, 0] for name in ("x", "lam_x", "lam_g"))
        watch.record(w, bound_multipliers, multipliers, int(stats["iter_count"]))
        status = self._status(stats, watch)
        if status is Status.CONVERGED:
            return self._doubted(watch, program.leftover(w, bound_multipliers, multipliers))
        return status, {} if stats["success"] else {"reason": f"{self.plugin} says {stats['return_status']}"}

    def _watched_by(self, watch: _Watch) -> dict[str, Any]:
        return {"iteration_callback": watch}

    def _status(self, stats: dict[str, Any], watch: _Watch) -> Status:
        if not watch.finite:
            return Status.DIVERGED
        if stats["success"] and stats["return_status"] != "Solved_To_Acceptable_Level":
            feasible = watch.iterate.violation <= self.feasibility_tolerance
            return Status.CONVERGED if feasible else Status.INFEASIBLE
        if stats["return_status"] in _STATUS:
            return _STATUS[stats["return_status"]]
        return Status.ITERATION_LIMIT if stats["iter_count"] >= self.max_iterations else self._no_progress(watch)

    def _doubted(self, watch: _Watch, leftover: float) -> tuple[Status, dict[str, str]]:
        """Believe a claim of success, unless J falls from there."""
        try:
            falls = self._falls(watch, leftover)
        except KeyboardInterrupt:
            return Status.INTERRUPTED, {}
        if falls:
            return Status.STALLED, {"reason": f"{self.plugin} calls this point optimal, but J can fall from there"}
        return Status.CONVERGED, {}

    def _falls(self, watch: _Watch, leftover: float) -> bool:
        """Whether J falls by more than a barrier leaves; not asked where more than bounds constrains the problem."""
        problem, nominal = watch.program.problem, watch.iterate.trajectory
        if any(rows.count for rows in problem_rows(problem, bounds=False)):
            return False
        least = 2 * leftover + NEGLIGIBLE * (1 + abs(nominal.cost))
        if decrease(NumpyEngine(problem), nominal) > least:
            return True
        doubt = DDP(max_iterations=DOUBTING_STEPS, engine="numpy").solve(problem, controls=nominal.controls)
        if doubt.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return doubt.status is not Status.INVALID_INPUT and nominal.cost - doubt.cost > least

    def _no_progress(self, watch: _Watch) -> Status:
        return Status.STALLED if watch.iterate.violation <= self.feasibility_tolerance else Status.INFEASIBLE

    def _solution(
        self,
        problem: Problem,
        best: _Iterate,
        history: Sequence[Iteration],
        status: Status,
        details: dict[str, str],
        clock: Clock,
    ) -> Solution:
        return Solution(
            problem_name=problem.name,
            angles=problem.angles,
            solver=type(self).__name__,
            states=as_series(best.trajectory.states),
            controls=as_series(best.trajectory.controls),
            cost=best.trajectory.cost,
            status=status,
            history=tuple(history),
            value_gradients=as_series(best.costates),
            seconds=clock(),
            details={"engine": f"casadi {self.plugin}"} | details,
        )


@dataclass(frozen=True, kw_only=True)
class IPOPT(NLPSolver):
    """Interior point with a filter line search (Wächter & Biegler 2006)."""

    plugin = "ipopt"

    def options(self, program: Program) -> dict[str, Any]:
        silent = {"print_level": 0, "sb": "yes"}
        limits = {"max_iter": self.max_iterations, "tol": self.tolerance, "constr_viol_tol": self.tolerance}
        return {"print_time": False, "ipopt": silent | limits}


@dataclass(frozen=True, kw_only=True)
class Fatrop(NLPSolver):
    """Interior point whose linear algebra is a Riccati recursion over the stages (Vanroye et al. 2023).

    The plugin reports no single iterations: the history holds the guess and the result, a callback cannot
    stop it, and there is no time limit.
    """

    plugin = "fatrop"

    def __post_init__(self) -> None:
        super().__post_init__()
        if np.isfinite(self.time_limit):
            raise ProblemError("Fatrop cannot watch the clock; give max_iterations, or use the solver 'ipopt'")

    def options(self, program: Program) -> dict[str, Any]:
        return {
            "print_time": False,
            "structure_detection": "manual",
            "N": program.problem.horizon,
            "nx": list(program.problem.state_sizes),
            "nu": [*program.problem.control_sizes, 0],
            "ng": program.row_counts,
            "fatrop": {"print_level": 0, "max_iter": self.max_iterations, "tolerance": self.tolerance},
        }

    def _watched_by(self, watch: _Watch) -> dict[str, Any]:
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

    def options(self, program: Program) -> dict[str, Any]:
        silent = {"print_time": False, "print_header": False, "print_iteration": False, "print_status": False}
        return silent | {
            "max_iter": self.max_iterations,
            "tol_pr": self.tolerance,
            "tol_du": self.tolerance,
            "convexify_strategy": self.convexify,
            "max_iter_eig": 1000,
            "qpsol": self.qp_solver,
            "qpsol_options": {"error_on_fail": False, "print_iter": False, "print_header": False},
        }


def _reason(error: RuntimeError) -> str:
    """Say why the plugin broke off; its answer has no status when a step of its own failed."""
    if "construction from null" in str(error):
        return "a step inside the plugin failed; for sqp try convexify='none' or 'regularize'"
    return str(error).strip().splitlines()[-1]


_CONVEXIFY = ("eigen-clip", "eigen-reflect", "regularize", "none")
_STATUS = {
    "Solved_To_Acceptable_Level": Status.STALLED,
    "Maximum_Iterations_Exceeded": Status.ITERATION_LIMIT,
    "Infeasible_Problem_Detected": Status.INFEASIBLE,
    "Not_Enough_Degrees_Of_Freedom": Status.INFEASIBLE,
    "Diverging_Iterates": Status.DIVERGED,
    "Invalid_Number_Detected": Status.DIVERGED,
}


@dataclass(frozen=True)
class _Iterate:
    """A trajectory with what the program says about it."""

    trajectory: Trajectory
    costates: list[Array] | None = None
    violation: float = float("inf")
    gradient_norm: float = float("nan")


class _Watch(ca.Callback):  # type: ignore[misc]
    """Called by the plugin in every iteration: keeps the last finite iterate and the history, and may stop it."""

    def __init__(
        self, program: Program, start: Trajectory, callback: Callback | None, clock: Clock, time_limit: float
    ) -> None:
        ca.Callback.__init__(self)
        self.program, self.callback, self.clock, self.time_limit = program, callback, clock, time_limit
        self.iterate, self.finite, self.calls = _Iterate(start), True, 0
        self.history = list[Iteration]()
        self.stop: Status | None = None
        self.error: Exception | None = None
        self.construct("watch", {})

    def record(self, w: Array, bound_multipliers: Array, multipliers: Array, index: int) -> None:
        """Keep an iterate and tell the user's callback; an index that is there already is replaced silently."""
        program = self.program
        trajectory = NumpyEngine(program.problem).with_gaps(*program.split(w))
        self.finite = trajectory.finite
        if not self.finite:
            return
        violation = max(trajectory.gap, program.violation(w))
        slope = program.gradient_norm(w, bound_multipliers, multipliers)
        self.iterate = _Iterate(trajectory, program.costates(multipliers), violation, slope)
        known = bool(self.history) and self.history[-1].index == index
        before = self.history[-1].cost if self.history else trajectory.cost
        line = Iteration(
            index=index,
            cost=trajectory.cost,
            actual_decrease=self.history[-1].actual_decrease if known else before - trajectory.cost,
            gradient_norm=slope,
            gap=violation,
            seconds=self.clock(),
        )
        self.history[-1 if known else len(self.history) :] = [line]
        if not known and self.callback is not None and self.callback(line) is False:
            self.stop = Status.STOPPED

    def record_guess(self) -> None:
        """Write the first line of the history for a plugin that does not call from inside."""
        start, program = self.iterate.trajectory, self.program
        w = program.join(start.states, start.controls)
        self.record(w, 0 * w, np.zeros(sum(program.row_counts) + sum(program.problem.state_sizes[1:])), 0)

    def eval(self, arguments: Sequence[ca.DM]) -> list[float]:
        """Receive (w, J, rows, multipliers of w, of the rows, of p); return 1 to stop."""
        w, bound_multipliers, multipliers = (arguments[i].full()[:, 0] for i in (0, 3, 4))
        try:
            self.record(w, bound_multipliers, multipliers, self.calls)
        except KeyboardInterrupt:
            self.stop = Status.INTERRUPTED
        except Exception as error:  # from the user's callback; raised again once the plugin has returned
            self.error = error
        self.calls += 1
        if self.stop is None and self.clock() >= self.time_limit:
            self.stop = Status.TIME_LIMIT
        return [float(self.stop is not None or self.error is not None)]

    def get_n_in(self) -> int:
        return int(ca.nlpsol_n_out())

    def get_n_out(self) -> int:
        return 1

    def get_name_in(self, i: int) -> str:
        return str(ca.nlpsol_out(i))

    def get_name_out(self, i: int) -> str:
        return "stop"

    def get_sparsity_in(self, i: int) -> ca.Sparsity:
        nlp = self.program.nlp
        symbol = {"x": nlp["x"], "lam_x": nlp["x"], "g": nlp["g"], "lam_g": nlp["g"], "lam_p": nlp["p"]}
        name = ca.nlpsol_out(i)
        return ca.Sparsity.dense(*symbol[name].shape) if name in symbol else ca.Sparsity.scalar()
