"""Robots from description files: URDF becomes dynamics that every engine runs, MJCF a simulated model.

>>> robot = from_urdf("arm.urdf")                                                         # doctest: +SKIP
>>> problem = Problem.from_functions(dynamics=robot.dynamics(0.01), cost=..., ...)        # doctest: +SKIP
>>> problem = Problem.from_functions(dynamics=from_mujoco("hopper.xml"), cost=..., ...)   # doctest: +SKIP

Needs ``pip install 'ocpkit[robots]'``.
"""

from ocpkit.robots.mujoco import MujocoDynamics, from_mujoco
from ocpkit.robots.robot import Robot, from_urdf

__all__ = ["MujocoDynamics", "Robot", "from_mujoco", "from_urdf"]
