"""What a solver returns: trajectory, policy, status; what can be asked of it without solving anew."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "solution")
