"""Classic control task: how to build it, read it and draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Dynamics


@dataclass(frozen=True, kw_only=True)
class Task:
    """A named problem with its units, its source and a drawing.

    Attributes
    ----------
    name
        How the command line calls it.
    summary
        One line: what is to be done.
    source
        Where the model or the task comes from.
    build
        Makes the `Problem`; keyword arguments with defaults, ``horizon`` among them.
    time_step
        Seconds (or the unit in `time_unit`) per stage with the default arguments.
    state_labels, control_labels
        One label with its unit for each entry, such as ``"angle [rad]"``.
    draw
        ``draw(axes, x, u)`` puts one frame on cleared matplotlib axes.
    view
        Limits (left, right, bottom, top) of the drawing, or six numbers for a 3-D view.
    time_unit
        Unit of `time_step`.
    solver
        Name of the solver to take where nobody chooses another one.
    plant
        ``plant(mass, friction)`` makes a simulated plant, whose masses and frictions are the model's times a factor;
        None: the model itself is the plant.
    """

    name: str
    summary: str
    source: str
    build: Callable[..., Problem]
    time_step: float
    state_labels: tuple[str, ...]
    control_labels: tuple[str, ...]
    draw: Callable[[Any, Any, Any], None]
    view: tuple[float, ...]
    time_unit: str = "s"
    solver: str = "ddp"
    plant: Callable[[float, float], Dynamics] | None = None
