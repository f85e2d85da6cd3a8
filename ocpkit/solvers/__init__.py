"""Solvers: each one a choice of parts (expansion, value, curvature, globalisation)."""

from ocpkit.solvers.ddp import DDP, FDDP, ILQR

__all__ = ["DDP", "FDDP", "ILQR"]
