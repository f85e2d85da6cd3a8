"""Results of solvers: trajectory, policy, status, and questions answered without solving anew."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "solution")
