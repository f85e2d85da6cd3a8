"""Training runs: options, data, epochs, records, checkpoints."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "training")
