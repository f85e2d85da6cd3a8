"""What a user declares: stages of dynamics, costs, constraints and bounds, and the problem that they make up."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "stage", "problem")
