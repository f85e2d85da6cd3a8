"""The control tasks by name; each lives in its own module, which is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ocpkit.errors import unknown_name

if TYPE_CHECKING:
    from ocpkit.models.task import Task

_TASKS = {
    "double-integrator": "double_integrator",
    "pendulum": "pendulum",
    "cartpole": "cartpole",
    "acrobot": "acrobot",
    "car-parking": "car_parking",
    "unicycle": "unicycle",
    "planar-quadrotor": "planar_quadrotor",
    "quadrotor": "quadrotor",
    "two-link-arm": "two_link_arm",
    "rocket-landing": "rocket_landing",
    "growth": "growth",
    "cartpole-bounded": "cartpole:BOUNDED",
    "acrobot-bounded": "acrobot:BOUNDED",
    "car-parking-bounded": "car_parking:BOUNDED",
    "unicycle-obstacles": "unicycle:OBSTACLES",
    "bryson-denham": "bryson_denham",
    "hager": "hager",
    "van-der-pol": "van_der_pol",
    "rayleigh": "rayleigh",
    "minimum-time": "minimum_time",
    "goddard": "goddard",
    "quadrotor-gate": "quadrotor_gate",
    "aircraft-climb": "aircraft_climb",
    "life-cycle": "life_cycle",
}
_ROBOTS = {
    "panda": "panda",
    "ur5": "ur5",
    "quadruped": "quadruped",
    "hopper": "hopper",
    "finger": "finger",
}


def names() -> tuple[str, ...]:
    """Names of the classic tasks."""
    return tuple(_TASKS)


def robots() -> tuple[str, ...]:
    """Names of the tasks of robots from description files, which need the extra ``robots``."""
    return tuple(_ROBOTS)


def get(name: str) -> Task:
    """Return a task.

    Raises
    ------
    ProblemError
        If there is no task of this name; says which ones are near.
    """
    known = _TASKS | _ROBOTS
    if name not in known:
        raise unknown_name("task", name, known)
    module, _, attribute = known[name].partition(":")
    package = "models" if name in _TASKS else "robots"
    task: Task = getattr(import_module(f"ocpkit.{package}.{module}"), attribute or "TASK")
    return task
