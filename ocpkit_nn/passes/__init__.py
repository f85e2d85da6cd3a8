"""Backward passes of DDPNOpt, the gains they give, and the curvatures in place of Q_uu."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "backward_pass", "factored", "dense", "rank_one", "separable")
