"""Solvers: each one a choice of parts (expansion, value, curvature, globalisation)."""

from ocpkit.solvers.constrained import AugmentedLagrangian
from ocpkit.solvers.ddp import DDP, FDDP, ILQR
from ocpkit.solvers.gradient import GradientDescent
from ocpkit.solvers.ilqg import ILQG
from ocpkit.solvers.interior import InteriorPoint
from ocpkit.solvers.nlp import IPOPT, SQP, Fatrop
from ocpkit.solvers.pmp import EMSA, MSA

__all__ = [
    "DDP",
    "EMSA",
    "FDDP",
    "ILQG",
    "ILQR",
    "IPOPT",
    "MSA",
    "SQP",
    "AugmentedLagrangian",
    "Fatrop",
    "GradientDescent",
    "InteriorPoint",
]
