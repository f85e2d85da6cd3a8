"""Declaration of a problem: stages of dynamics, costs, constraints and bounds."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "stage", "problem")
