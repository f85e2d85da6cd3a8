"""Iterations of a CasADi plugin: kept, counted, and told to the user's callback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import casadi as ca
import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.solution.history import NLPIteration
from ocpkit.solution.scaling import Scaling
from ocpkit.solution.solution import Solution, Status
from ocpkit.solution.trajectory import Trajectory
from ocpkit.solvers.driver import Callback, Clock
from ocpkit.solvers.nlp.multiple_shooting import Point, Program


@dataclass(frozen=True)
class Iterate:
    """A trajectory, and the point of a program that it comes from (none: the guess)."""

    trajectory: Trajectory
    program: Program | None = None
    point: Point | None = None

    @property
    def costates(self) -> list[Array] | None:
        """V_x at x_0 … x_T."""
        return None if self.program is None or self.point is None else self.program.costates(self.point)

    @property
    def multipliers(self) -> tuple[Array, ...] | None:
        """Those of `Solution`."""
        return None if self.program is None or self.point is None else self.program.multipliers(self.point)

    @property
    def losses(self) -> Array:
        """See `Program.losses`."""
        return np.zeros(0) if self.program is None or self.point is None else self.program.losses(self.point)

    def errors(self, units: Scaling | None) -> tuple[float, float]:
        """See `Program.errors`."""
        if self.program is None or self.point is None:
            return float("inf"), float("inf")
        return self.program.errors(self.point, self.trajectory.gaps, units)


class Watch(ca.Callback):  # type: ignore[misc]
    """Called by the plugin in every iteration: keeps the last finite iterate and the history, and may stop it."""

    def __init__(
        self,
        program: Program,
        start: Trajectory,
        callback: Callback | None,
        clock: Clock,
        time_limit: float,
        units: Scaling | None,
    ) -> None:
        ca.Callback.__init__(self)
        self.callback, self.clock, self.time_limit, self.units = callback, clock, time_limit, units
        self.history = list[NLPIteration]()
        self.stop: Status | None = None
        self.error: Exception | None = None
        self.begin(program, start)
        self.construct("watch", {})

    def begin(self, program: Program, start: Trajectory) -> None:
        """Begin, or begin again, from elsewhere or in other units; what has been iterated so far counts."""
        last = getattr(self, "iterate", Iterate(start))
        self.warm: dict[str, Array] = {}
        if last.trajectory is start and last.program is not None and last.point is not None:
            self.warm = program.carry(last.point, last.program)
        self.program, self.iterate, self.finite, self.calls = program, Iterate(start), True, 0
        self.first = self.history[-1].index + 1 if self.history else 0

    def record(self, point: Point, index: int, trajectory: Trajectory | None = None) -> None:
        """Keep an iterate and tell the user's callback; an index that is there already is replaced silently.

        The trajectory is that of the point, or what it was written down from.
        """
        program, index = self.program, self.first + index
        trajectory = trajectory or NumpyEngine(program.problem).with_gaps(*program.split(point.w))
        self.finite = trajectory.finite
        if not self.finite:
            return
        slope, violation = program.errors(point, trajectory.gaps, self.units)
        self.iterate = Iterate(trajectory, program, point)
        known = bool(self.history) and self.history[-1].index == index
        before = self.history[-1].cost if self.history else trajectory.cost
        line = NLPIteration(
            index=index,
            cost=trajectory.cost,
            actual_decrease=self.history[-1].actual_decrease if known else before - trajectory.cost,
            gradient_norm=slope,
            violation=violation,
            seconds=self.clock(),
        )
        self.history[-1 if known else len(self.history) :] = [line]
        if not known and self.callback is not None and self.callback(line) is False:
            self.stop = Status.STOPPED

    def finish(self, trajectory: Trajectory, solution: Solution, *, another: bool) -> None:
        """Keep a solution of the same problem, which counts as one iteration if it is another one."""
        assert solution.value_gradients is not None
        point = self.program.point(trajectory, solution.value_gradients, solution.multipliers)
        self.record(point, self.history[-1].index + int(another) - self.first, trajectory)

    def go_back(self, start: Trajectory) -> None:
        """Keep a trajectory again, of which no multipliers are known."""
        self.begin(self.program, start)
        self.record_guess()
        self.iterate = Iterate(start)

    def record_guess(self) -> None:
        """Write the first line of the history for a plugin that does not call from inside."""
        start, program = self.iterate.trajectory, self.program
        w = program.join(start.states, start.controls)
        self.record(Point(w, 0 * w, np.zeros(program.nlp["g"].numel())), 0)

    def eval(self, arguments: Sequence[ca.DM]) -> list[float]:
        """Receive (w, J, rows, multipliers of w, of the rows, of p); return 1 to stop."""
        try:
            self.record(Point(*(arguments[i].full()[:, 0] for i in (0, 3, 4))), self.calls)
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
