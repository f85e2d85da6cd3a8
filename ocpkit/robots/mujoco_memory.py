"""MuJoCo models whose step is no function of positions, velocities, activations and controls, and their refusal.

Besides `qpos`, `qvel` and `act`, MuJoCo carries from step to step: histories of delayed actuators, springs and flexes
that have yielded, states of plugins, which bodies sleep, multipliers of IPC contact (`mjtState`, and two flags
"whose bookkeeping is not part of the state"), and whatever a callback keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ocpkit.errors import UnsupportedProblem

CALLBACKS = ("control", "passive", "contactfilter")
"""Callbacks that change a step of any model; those of actuators belong to actuators of the type "user"."""


def refuse_memory(mujoco: Any, model: Any) -> None:
    """Refuse a model that remembers more than its state.

    Raises
    ------
    UnsupportedProblem
        With what remembers, by name, and the way out.
    """
    found = [f"{owner}: {way_out}" for owner, way_out in _with_memory(mujoco, model)]
    if found:
        raise UnsupportedProblem(
            "a step of this MuJoCo model depends on more than positions, velocities, activations and controls; "
            + "; ".join(found)
        )


def _with_memory(mujoco: Any, model: Any) -> Iterator[tuple[str, str]]:
    """Stateful features, and ways to do without; fields that this version of MuJoCo does not have count as unused."""

    def named(kind: str, remembers: ArrayLike) -> Iterator[str]:
        for i in map(int, np.flatnonzero(remembers)):
            yield f"{kind} {mujoco.mj_id2name(model, getattr(mujoco.mjtObj, f'mjOBJ_{kind.upper()}'), i) or i!r}"

    for owner in named("actuator", getattr(model, "actuator_delay", 0)):
        yield f"{owner} has a delay", "set delay=0, and model the delay by states of the problem's own"
    for kind in ("jnt", "tendon", "flex"):
        for owner in named("joint" if kind == "jnt" else kind, np.add(getattr(model, f"{kind}_plasticadr", -1), 1)):
            yield f"{owner} yields for good", "set springyield (stressyield of a flex) to 0"
    for owner in named("plugin", model.plugin_statenum):
        yield f"{owner} has a state of its own", "take it out of the model"
    actuators = (
        (model.actuator_dyntype, mujoco.mjtDyn.mjDYN_USER),
        (model.actuator_gaintype, mujoco.mjtGain.mjGAIN_USER),
        (model.actuator_biastype, mujoco.mjtBias.mjBIAS_USER),
    )
    for owner in named("actuator", np.any([types == user for types, user in actuators], axis=0)):
        yield f"{owner} is computed by a callback", 'set no dyntype, gaintype or biastype to "user"'
    for flag in ("SLEEP", "IPC"):
        if model.opt.enableflags & getattr(mujoco.mjtEnableBit, f"mjENBL_{flag}", 0):
            yield f"the flag {flag.lower()} is set", f'set {flag.lower()}="disable"'
    for name in CALLBACKS:
        if getattr(mujoco, f"get_mjcb_{name}")() is not None:
            yield f"the callback mjcb_{name} is set", f"call mujoco.set_mjcb_{name}(None)"
