"""Networks as stages: layers with their Jacobian products, losses, and vectors of a batch kept implicit."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "layers")
