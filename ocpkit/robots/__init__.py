"""Robots from description files: a URDF becomes dynamics with exact derivatives, which every engine runs.

>>> robot = from_urdf("arm.urdf")                                                         # doctest: +SKIP
>>> problem = Problem.from_functions(dynamics=robot.dynamics(0.01), cost=..., ...)        # doctest: +SKIP

Needs ``pip install 'ocpkit[robots]'``.
"""

from ocpkit.robots.robot import Robot, from_urdf

__all__ = ["Robot", "from_urdf"]
