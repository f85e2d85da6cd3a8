"""The closed loop of a controller and a plant, simulated: what happened, as a log and as a picture."""

from __future__ import annotations

import csv
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ocpkit import moved
from ocpkit.boundary.arrays import Array, checked_vector, real_array, whole_number
from ocpkit.control.estimator import KalmanFilter
from ocpkit.control.mpc import Command, Health
from ocpkit.errors import ProblemError
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Dynamics

INTERRUPTED = "interrupted"
"""Why a simulation was broken off by Ctrl-C."""

Plant = Callable[..., Any]
"""(x, u) → next state, or (x, u, tick) → next state."""


class Controller(Protocol):
    """Controller of a closed loop: `MPC`, or the feedback of one plan (`PlanFeedback`).

    Attributes
    ----------
    problem
        Its model.
    pending
        Controls that are already on their way to the plant.

    A controller whose next tick is another stage of its problem than the first says which by an attribute ``stage``.
    """

    problem: Problem
    pending: list[Array]

    def step(self, x: ArrayLike, parameters: ArrayLike | None = None) -> Command:
        """Return the control for the state just measured."""


@dataclass(frozen=True, eq=False)
class ClosedLoop:
    """Record of a simulation.

    Attributes
    ----------
    states, controls
        Of the plant, (N + 1, n) and (N, m).
    commands
        One per tick, N of them; a last one that moved the plant nowhere any more is one more.
    stages
        Stage of the controller's problem at each of the N ticks: 0 for a receding horizon, t for a plan's feedback.
        Empty: 0 at all.
    parameters
        p of each tick and of the last state (N + 1, n_p), where `simulate` was given them; else None.
    time_step
        Seconds per tick.
    broken_off
        Why it ended before its last tick: a lost controller, a plant whose state is not finite, or Ctrl-C; else "".
    """

    states: Array
    controls: Array
    commands: tuple[Command, ...]
    stages: tuple[int, ...] = ()
    parameters: Array | None = None
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

        Beside the health: its cause where it is HELD or LOST, the reason in words, and how far the measured state
        breaks a row that no control can change.

        A last command that moved the plant nowhere any more has no controls.
        """
        return [
            {"time": self.time_step * tick}
            | {f"x[{i}]": float(x) for i, x in enumerate(self.states[tick])}
            | {f"u[{j}]": float(u) for j, u in enumerate(self.controls[tick] if tick < len(self.controls) else ())}
            | {"cost": command.cost, "iterations": command.iterations, "status": command.status.name.lower()}
            | {"health": command.health.name.lower(), "solve_ms": 1e3 * command.seconds, "reason": command.reason}
            | {"cause": "" if command.cause is None else command.cause.name.lower()}
            | {"start_violation": 0.0 if command.start_violation is None else command.start_violation.amount}
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

    plot = moved.method("ocpkit.plotting.plot", "plot_closed_loop")

    def cost(self, problem: Problem) -> float:
        """Cost paid: ℓ at every tick, with the stage and the p of that tick, and φ of the last state.

        Raises
        ------
        ProblemError
            If the problem takes another number of parameters than the ticks had.
        """
        states, controls, p = self.states, self.controls, self.parameters
        stages = [min(t, problem.horizon - 1) for t in self.stages or (0,) * len(controls)]
        if p is None or not problem.parameters.size:
            p = np.stack([problem.parameter(t) for t in [*stages, problem.horizon]])
        elif p.shape[1] != problem.parameters.shape[-1]:
            raise ProblemError(
                f"the ticks had {p.shape[1]} parameters, {problem.name!r} takes {problem.parameters.shape[-1]}: give a "
                "problem of as many, or replace(loop, parameters=None) for those of the problem"
            )
        running = sum(problem.stages[t].cost.value(*z) for t, z in zip(stages, zip(states, controls, p)))
        return float(running + problem.terminal_cost.value(states[-1], p[len(controls)]))

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
    plant: Plant | Dynamics | None = None,
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
        (x, u) → next state or (x, u, tick) → next state, where it differs from the model; `Dynamics` get p of the tick.
    measurement_noise, process_noise
        Standard deviations [state units] of what is added to the measured and to the true state.
    parameters
        Tick → p (n_p,), or rows for this tick and those after it (T + 1, n_p): for controller, plant, estimator and
        costs. By default those of the problem's stages.
    seed
        Of the noise.
    time_step
        Seconds per tick, for the log and the picture.
    estimator
        Where given, it measures the plant with its own noise, and the controller gets its estimates; each tick is the
        stage of its problem that it is of the controller's. It goes on from where it is.

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
    move = _mover(problem, plant)
    sensor = None if estimator is None else _Sensor(estimator, rng)
    states = [checked_vector(problem.x0 if x0 is None else x0, problem.state_sizes[0], "x0")]
    controls, commands, stages, p_of = list[Array](), list[Command](), list[int](), list[Array]()
    broken_off = ""
    try:
        for tick in range(ticks):
            t: int = getattr(controller, "stage", 0)
            given = None if parameters is None else parameters(tick)
            told = None if given is None else problem.replace(parameters=given)
            now = problem.parameter(t) if told is None else told.parameter(0)
            if sensor is None:
                known = states[-1] + measurement_noise * rng.normal(size=states[-1].shape)
            else:
                known = sensor.look(states[-1], t, None if told is None else now)
            command = controller.step(known, given)
            commands.append(command)
            if command.health is Health.LOST:
                broken_off = f"the controller was lost at tick {tick}"
                break
            delay.append(command.control)
            control = delay.pop(0)
            if sensor is not None:
                sensor.predict(control)
            following = _moved(move, states[-1], control, tick, t, now)
            following += process_noise * rng.normal(size=following.shape)
            if not np.isfinite(following).all():
                broken_off = f"the plant's state is not finite after tick {tick}"
                break
            if told is not None:  # p of the next tick, to which the next state belongs, as this one foresees it
                p_of[-1:] = [now, told.parameter(1)]
            stages.append(t)
            controls.append(control)
            states.append(following)
    except KeyboardInterrupt:
        broken_off = INTERRUPTED
    return ClosedLoop(
        states=np.stack(states),
        controls=np.stack(controls[: len(states) - 1]) if len(states) > 1 else np.zeros((0, problem.control_sizes[0])),
        commands=tuple(commands),
        stages=tuple(stages[: len(states) - 1]),
        parameters=np.stack(p_of[: len(states)]) if p_of else None,
        time_step=time_step,
        broken_off=broken_off,
    )


Mover = Callable[[Array, Array, int, int, Array], Array]


def _moved(move: Mover, x: Array, u: Array, tick: int, t: int, p: Array) -> Array:
    """Return a copy of the plant's next state, which NumPy would spread where it has one entry for all."""
    following = real_array(move(x, u, tick, t, p), "the plant's next state")
    if following.size != x.size:
        raise ProblemError(f"the plant's next state has shape {following.shape}, expected {x.shape}")
    return following.reshape(x.shape)


def _mover(problem: Problem, plant: Plant | Dynamics | None) -> Mover:
    """Return (x, u, tick, stage, p) → next state of a plant, by default of the problem's own model."""
    if plant is None:
        return lambda x, u, tick, t, p: problem.stages[t].dynamics.step(x, u, p)
    if isinstance(plant, Dynamics):
        return lambda x, u, tick, t, p: plant.step(x, u, p)
    if not callable(plant):
        raise ProblemError(f"plant must be a function of (x, u) or (x, u, tick), got {type(plant).__name__}")
    function = plant
    if _takes_tick(function):
        return lambda x, u, tick, t, p: function(x, u, tick)
    return lambda x, u, tick, t, p: function(x, u)


def _takes_tick(plant: Plant) -> bool:
    """Whether a plant has a third argument without a default."""
    try:
        arguments = inspect.signature(plant).parameters.values()
    except (TypeError, ValueError):  # code that is not Python's
        return False
    positional = [a for a in arguments if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
    starred = any(a.kind is a.VAR_POSITIONAL for a in arguments)
    needed = sum(a.default is a.empty for a in positional)
    if needed > 3 or (len(positional) < 2 and not starred):
        names = ", ".join(a.name for a in arguments)
        raise ProblemError(f"plant must be a function of (x, u) or (x, u, tick), got one of ({names})")
    return needed == 3


class _Sensor:
    """The estimator in the loop: each tick is a stage of its problem, with the tick's p where its model takes any."""

    def __init__(self, estimator: KalmanFilter, rng: np.random.Generator) -> None:
        self.estimator, self.rng, self.given = estimator, rng, dict[str, Array]()

    def look(self, x: Array, t: int, p: Array | None) -> Array:
        """Measure the plant; return the estimate."""
        model = self.estimator.problem
        self.stage = min(t, model.horizon - 1)
        if p is not None and model.parameters.size:
            self.given = {"parameters": p}
        return self.estimator.update(self.estimator.measure(x, self.rng, t, **self.given), t, **self.given)

    def predict(self, control: Array) -> None:
        """Move the estimate over the tick."""
        self.estimator.predict(control, self.stage, **self.given)
