"""Solvers for constraints beyond control bounds, around DDP: augmented Lagrangian and interior point."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "augmented_lagrangian")
