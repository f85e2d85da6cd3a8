"""The closed loop of a controller and a plant, simulated: what happened, as a log and as a picture."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ocpkit.arrays import checked_vector, whole_number
from ocpkit.errors import ProblemError
from ocpkit.estimator import KalmanFilter
from ocpkit.mpc import Command, Health
from ocpkit.problem import Array, Problem

if TYPE_CHECKING:
    from ocpkit.models.task import Task

INTERRUPTED = "interrupted"
"""Why a simulation was broken off by Ctrl-C."""


class Controller(Protocol):
    """What closes a loop: `MPC`, or the feedback of one plan (`PlanFeedback`).

    Attributes
    ----------
    problem
        Its model.
    pending
        Controls that are already on their way to the plant.
    """

    problem: Problem
    pending: list[Array]

    def step(self, x: ArrayLike, parameters: ArrayLike | None = None) -> Command:
        """Return the control for the state just measured."""


@dataclass(frozen=True, eq=False)
class ClosedLoop:
    """What happened in a simulation.

    Attributes
    ----------
    states, controls
        Of the plant, (N + 1, n) and (N, m).
    commands
        One per tick, N of them; a last one that moved the plant nowhere any more is one more.
    time_step
        Seconds per tick.
    broken_off
        Why it ended before its last tick: a lost controller, a plant whose state is not finite, or Ctrl-C; else "".
    """

    states: Array
    controls: Array
    commands: tuple[Command, ...]
    time_step: float = 1.0
    broken_off: str = ""

    @property
    def known(self) -> Array:
        """States as the controller was given them at every command, measured or estimated (N, n)."""
        return np.array([command.state for command in self.commands]).reshape(-1, self.states.shape[1])

    @property
    def lost_at(self) -> int | None:
        """Tick at which the controller was lost (the simulation ends there), or None."""
        return len(self.commands) - 1 if self.count(Health.LOST) else None

    @property
    def seconds(self) -> Array:
        """Time of each command's solve (N,)."""
        return np.array([command.seconds for command in self.commands])

    def count(self, health: Health) -> int:
        """Return how many ticks had this health."""
        return sum(command.health is health for command in self.commands)

    def log(self) -> list[dict[str, Any]]:
        """Return one record per tick: time, states, controls applied, J, iterations, status, health, solve time [ms].

        A last command that moved the plant nowhere any more has no controls.
        """
        return [
            {"time": self.time_step * tick}
            | {f"x[{i}]": float(x) for i, x in enumerate(self.states[tick])}
            | {f"u[{j}]": float(u) for j, u in enumerate(self.controls[tick] if tick < len(self.controls) else ())}
            | {"cost": command.cost, "iterations": command.iterations, "status": command.status.name.lower()}
            | {"health": command.health.name.lower(), "solve_ms": 1e3 * command.seconds, "reason": command.reason}
            for tick, command in enumerate(self.commands)
        ]

    def write_log(self, path: str | os.PathLike[str]) -> None:
        """Write `log` as a CSV file with one line per tick.

        Raises
        ------
        ProblemError
            If there was no tick.
        """
        records = self.log()
        if not records:
            raise ProblemError("there is nothing to log: the simulation has no tick")
        with open(path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, max(records, key=len).keys(), restval="")
            writer.writeheader()
            writer.writerows(records)

    def plot(
        self,
        task: Task | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        problem: Problem | None = None,
    ) -> Any:
        """Draw states, controls, cost, health and solve times; see `ocpkit.plot.plot_closed_loop`."""
        from ocpkit.plot import plot_closed_loop

        return plot_closed_loop(self, task, path, problem=problem)

    def cost(self, problem: Problem) -> float:
        """Return what was paid: ℓ of the problem's first stage at every tick, and φ of the last state."""
        stage, p = problem.stages[0], problem.parameter(0)
        running = sum(stage.cost.value(x, u, p) for x, u in zip(self.states, self.controls))
        return float(running + problem.terminal_cost.value(self.states[-1], problem.parameter(problem.horizon)))

    def __str__(self) -> str:
        tally = ", ".join(f"{h.name.lower()} {self.count(h)}" for h in Health if self.count(h))
        if not self.commands:
            return "0 ticks"
        worst, median = self.seconds.max() * 1e3, float(np.median(self.seconds)) * 1e3
        ending = f"; broken off: {self.broken_off}" if self.broken_off else ""
        return f"{len(self.controls)} ticks ({tally}); solve: median {median:.3f} ms, worst {worst:.3f} ms{ending}"


def simulate(
    controller: Controller,
    ticks: int,
    *,
    x0: ArrayLike | None = None,
    plant: Callable[[Array, Array], Array] | None = None,
    measurement_noise: float = 0.0,
    process_noise: float = 0.0,
    parameters: Callable[[int], ArrayLike] | None = None,
    seed: int = 0,
    time_step: float = 1.0,
    estimator: KalmanFilter | None = None,
) -> ClosedLoop:
    """Close the loop around a plant.

    Parameters
    ----------
    controller
        The controller; its own model, without its noise, is the plant by default.
    ticks
        Length N.
    x0
        Start of the plant; by default the problem's.
    plant
        (x, u) → next state, where it differs from the model.
    measurement_noise, process_noise
        Standard deviations [state units] of what is added to the measured and to the true state.
    parameters
        Tick → p for the controller.
    seed
        Of the noise.
    time_step
        Seconds per tick, for the log and the picture.
    estimator
        Where given, it measures the plant with its own noise, and the controller gets its estimates; each tick is the
        first stage of its problem. It goes on from where it is.

    Returns
    -------
    ClosedLoop
        All that happened, also where it was broken off by Ctrl-C or a plant whose state is not finite.

    Raises
    ------
    ProblemError
        If there is an estimator and `measurement_noise` as well, `ticks` is below 0, or sizes change along the horizon.
    """
    ticks = whole_number(ticks, "ticks", 0)
    if estimator is not None and measurement_noise:
        raise ProblemError("an estimator has a measurement_noise of its own: leave out that of simulate")
    if not hasattr(controller, "step"):
        raise ProblemError(f"simulate takes a controller such as MPC(problem), got {type(controller).__name__}")
    problem, rng, delay = controller.problem, np.random.default_rng(seed), list(controller.pending)
    if not problem.uniform:
        raise ProblemError(
            f"a plant has states and controls of one size, those of {problem.name!r} change along the horizon; choose "
            "free parameters first, and simulate the problem with these"
        )
    if plant is None:
        first = problem.stages[0].dynamics

        def plant(x: Array, u: Array) -> Array:
            return first.step(x, u, problem.parameter(0))

    states = [checked_vector(problem.x0 if x0 is None else x0, problem.state_sizes[0], "x0")]
    controls, commands, broken_off = list[Array](), list[Command](), ""
    try:
        for tick in range(ticks):
            if estimator is None:
                known = states[-1] + measurement_noise * rng.normal(size=states[-1].shape)
            else:
                known = estimator.update(estimator.measure(states[-1], rng))
            command = controller.step(known, None if parameters is None else parameters(tick))
            commands.append(command)
            if command.health is Health.LOST:
                broken_off = f"the controller was lost at tick {tick}"
                break
            delay.append(command.control)
            control = delay.pop(0)
            if estimator is not None:
                estimator.predict(control)
            following = plant(states[-1], control) + process_noise * rng.normal(size=states[-1].shape)
            if not np.isfinite(following).all():
                broken_off = f"the plant's state is not finite after tick {tick}"
                break
            controls.append(control)
            states.append(following)
    except KeyboardInterrupt:
        broken_off = INTERRUPTED
    return ClosedLoop(
        states=np.stack(states),
        controls=np.stack(controls[: len(states) - 1]) if len(states) > 1 else np.zeros((0, problem.control_sizes[0])),
        commands=tuple(commands),
        time_step=time_step,
        broken_off=broken_off,
    )
