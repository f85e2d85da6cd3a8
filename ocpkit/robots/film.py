"""A film of a simulated robot by MuJoCo's renderer, without a display."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ocpkit.boundary.arrays import Array
from ocpkit.errors import ProblemError
from ocpkit.robots.extra import load_mujoco, needs_extra
from ocpkit.robots.mujoco import MujocoDynamics

SIZE = (360, 480)
"""Height and width in pixels."""
FRAMES = 120
"""Most frames of a film."""


def film(dynamics: MujocoDynamics, states: Sequence[Array] | Array, path: str | os.PathLike[str]) -> None:
    """Render states, seen by the model's first camera, as an animated GIF in real time.

    Parameters
    ----------
    dynamics
        Whose states they are.
    states
        One per step (N, n).
    path
        A ``.gif`` file.

    Raises
    ------
    ProblemError
        If the file is no GIF, or there is nothing that draws without a display.
    """
    if Path(path).suffix.lower() != ".gif":
        raise ProblemError(f"cannot write {path}: a film ends in .gif")
    mujoco = load_mujoco()
    with needs_extra():
        from PIL import Image
    every = -(-len(states) // FRAMES)
    camera = 0 if dynamics.model.ncam else -1
    try:
        with mujoco.Renderer(dynamics.model, *SIZE) as renderer:
            frames = []
            for x in states[::every]:
                renderer.update_scene(dynamics.place(x), camera)
                frames.append(Image.fromarray(renderer.render()))
    except (RuntimeError, AttributeError, ImportError, mujoco.FatalError) as error:
        raise ProblemError(
            f"MuJoCo cannot draw without a display here ({error}); install EGL or OSMesa and set MUJOCO_GL to egl or "
            "osmesa, or animate the task's own drawing"
        ) from error
    milliseconds = round(1000 * every * dynamics.time_step)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=max(milliseconds, 20), loop=0)
