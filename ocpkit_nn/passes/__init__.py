"""Backward passes of DDPNOpt, the gains they give, and the curvatures that stand for Q_uu."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "factored")
