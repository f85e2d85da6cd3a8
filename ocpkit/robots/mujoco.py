"""A MuJoCo model as dynamics: one or more of its steps, with finite differences as Jacobians.

The differences are `mjd_transitionFD`'s, or, where that refuses (Runge-Kutta, sensors with a history), of whole steps.

The state is x = (positions, velocities, activations), the controls are those of the actuators. Contact forces follow
from a convex problem that MuJoCo solves at each step (Todorov 2014); the model's solref and solimp say how soft it is.
The Jacobian of a hard contact tells nothing of the force that is about to come, that of a soft one does.
"""

from __future__ import annotations

import copy
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array, whole_number
from ocpkit.errors import ProblemError, UnsupportedProblem
from ocpkit.problem.stage import Dynamics
from ocpkit.robots.extra import load_mujoco
from ocpkit.robots.mujoco_memory import refuse_memory

DIFFERENCE = 1e-6
"""Step of the central differences [units of the state and of the controls]."""
LARGEST = 1e10
"""Largest state and control, MuJoCo's mjMAXVAL."""
RUNNING = 1.0
"""MuJoCo's clock at the start of every step [s]; at zero, controllers with a slew rate take any control at once."""


def from_mujoco(model: Any, *, steps: int = 1) -> MujocoDynamics:
    """Make dynamics of a MuJoCo model.

    Parameters
    ----------
    model
        An MjModel, or the path of an MJCF or URDF file.
    steps
        Of MuJoCo's, of the model's own time step each, for one of the problem's.

    Raises
    ------
    ProblemError
        If the file cannot be read, the model has ball or free joints, `steps` is below 1, or without mujoco.
    UnsupportedProblem
        If a step depends on more than the state and the controls: see `ocpkit.robots.mujoco_memory`.
    """
    mujoco = load_mujoco()
    if isinstance(model, (str, os.PathLike)):
        try:
            model = mujoco.MjModel.from_xml_path(str(Path(model)))
        except ValueError as error:
            raise ProblemError(f"MuJoCo cannot read {model}: {error}") from error
    return MujocoDynamics(model, steps)


class MujocoDynamics(Dynamics):
    """Steps of a MuJoCo model; NaN where it cannot compute one, for it would go on from another state.

    Attributes
    ----------
    model
        The MjModel; it is not copied.
    time_step
        Seconds over all `steps`.
    """

    curved = False

    def __init__(self, model: Any, steps: int = 1) -> None:
        if model.nq != model.nv:
            raise ProblemError(
                f"the model has {model.nq} position coordinates for {model.nv} degrees of freedom: ball and free "
                "joints have no vector space of positions; use hinges and slides"
            )
        mujoco = load_mujoco()
        refuse_memory(mujoco, model)
        self.model, self.steps, self._mujoco = model, whole_number(steps, "steps"), mujoco
        self.time_step = float(self.steps * model.opt.timestep)
        self.state_size = self.next_state_size = 2 * model.nv + model.na
        self.control_size = model.nu
        self._of_thread = threading.local()
        try:
            self.jacobians(
                np.concatenate([model.qpos0, np.zeros(model.nv + model.na)]), np.zeros(model.nu), np.zeros(0)
            )
        except mujoco.FatalError as error:
            raise UnsupportedProblem(f"MuJoCo cannot step or differentiate this model: {error}") from error

    @property
    def _data(self) -> Any:
        """MuJoCo's memory, one for each thread."""
        if not hasattr(self._of_thread, "data"):
            self._of_thread.data = self._mujoco.MjData(self.model)
        return self._of_thread.data

    def step(self, x: Array, u: Array, p: Array) -> Array:
        if not _sane(x, u):
            return np.full(self.state_size, np.nan)
        _put(self._data, x, u)
        for _ in range(self.steps):
            self._forget()
            self._mujoco.mj_step(self.model, self._data)
        if self._was_reset():
            return np.full(self.state_size, np.nan)
        return np.concatenate([self._data.qpos, self._data.qvel, self._data.act])

    def jacobians(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        n = self.state_size
        fx, fu = np.eye(n), np.zeros((n, self.control_size))
        A, B = np.empty((n, n)), np.empty((n, self.control_size))
        if not _sane(x, u):
            return np.full_like(fx, np.nan), np.full_like(fu, np.nan)
        if self._differences_whole_steps:
            return self._differences(x, u, p)
        _put(self._data, x, u)
        for _ in range(self.steps):
            self._forget()
            self._mujoco.mjd_transitionFD(self.model, self._data, DIFFERENCE, 1, A, B, None, None)
            fx, fu = A @ fx, A @ fu + B
            self._mujoco.mj_step(self.model, self._data)
        return (np.full_like(fx, np.nan), np.full_like(fu, np.nan)) if self._was_reset() else (fx, fu)

    @property
    def _differences_whole_steps(self) -> bool:
        return bool(
            self.model.opt.integrator == self._mujoco.mjtIntegrator.mjINT_RK4 or getattr(self.model, "nhistory", 0)
        )

    def _differences(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        """Central differences; one-sided where a control is at the end of its range, beyond which MuJoCo clips it."""
        fx, fu = np.empty((self.state_size, len(x))), np.empty((self.state_size, len(u)))
        for i, shift in enumerate(DIFFERENCE * np.eye(len(x))):
            fx[:, i] = (self.step(x + shift, u, p) - self.step(x - shift, u, p)) / (2 * DIFFERENCE)
        bounds = self.control_bounds
        for i, shift in enumerate(DIFFERENCE * np.eye(len(u))):
            ahead, behind = np.clip(u + shift, *bounds), np.clip(u - shift, *bounds)
            width = ahead[i] - behind[i]
            fu[:, i] = (self.step(x, ahead, p) - self.step(x, behind, p)) / width if width else 0.0
        return fx, fu

    @property
    def control_bounds(self) -> tuple[Array, Array]:
        """Ranges of the actuators (m,) each; infinite where they have none."""
        limited = self.model.actuator_ctrllimited.astype(bool)
        lower, upper = self.model.actuator_ctrlrange.T
        return np.where(limited, lower, -np.inf), np.where(limited, upper, np.inf)

    def changed(self, *, mass: float = 1.0, friction: float = 1.0) -> MujocoDynamics:
        """Return the same model with masses and inertias, and frictions of contacts and joints, times a factor each."""
        model = copy.copy(self.model)
        model.body_mass *= mass
        model.body_inertia *= mass
        model.geom_friction *= friction
        model.dof_damping *= friction
        self._mujoco.mj_setConst(model, self._mujoco.MjData(model))
        return MujocoDynamics(model, self.steps)

    def place(self, x: Array) -> Any:
        """Return MjData of the caller's own, with the positions of a state, and all that follows from these."""
        data = self._mujoco.MjData(self.model)
        _put(data, x, np.zeros(self.control_size))
        self._mujoco.mj_forward(self.model, data)
        return data

    def _was_reset(self) -> bool:
        """Whether the state left what MuJoCo computes with, upon which it goes on from the model's own; forget that."""
        kinds, warnings = self._mujoco.mjtWarning, self._data.warning
        raised = [warnings[kind] for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)]
        reset = any(warning.number for warning in raised)
        for warning in raised:
            warning.number = 0
        return reset

    def _forget(self) -> None:
        """Let the contact solver start anew, so that a step depends on nothing but x and u."""
        self._data.qacc_warmstart[:] = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "steps": self.steps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _put(data: Any, x: Array, u: Array) -> None:
    nv, data.time = data.qvel.size, RUNNING
    data.qpos[:], data.qvel[:], data.act[:], data.ctrl[:] = x[:nv], x[nv : 2 * nv], x[2 * nv :], u


def _sane(x: Array, u: Array) -> bool:
    """Whether MuJoCo computes with these numbers: else it begins from the model's own state, or without controls."""
    if x.dtype == object or u.dtype == object:
        raise TypeError("MuJoCo takes numbers, not symbols")
    return bool(np.abs(x).max(initial=0.0) <= LARGEST and np.abs(u).max(initial=0.0) <= LARGEST)


def spring_torques(dynamics: MujocoDynamics, x0: Array, horizon: int, *, stiffness: float, damping: float) -> Array:
    """Return controls (T, m) of springs and dampers that hold the actuated joints where x0 has them, within the bounds.

    Parameters
    ----------
    dynamics
        A model whose actuators are motors on joints.
    x0
        State to start from.
    horizon
        T.
    stiffness, damping
        Of every joint [N m/rad, N m s/rad].
    """
    model, x, controls = dynamics.model, x0, list[Array]()
    at, gears = model.jnt_dofadr[model.actuator_trnid[:, 0]], model.actuator_gear[:, 0]
    for _ in range(horizon):
        torques = stiffness * (x0[at] - x[at]) - damping * x[model.nv + at]
        controls.append(np.clip(torques / gears, *dynamics.control_bounds))
        x = dynamics.step(x, controls[-1], np.zeros(0))
    return np.array(controls)
