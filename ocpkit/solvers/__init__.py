"""Solvers: each one a choice of parts (expansion, value, curvature, globalisation).

Each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from ocpkit.lazy import lazily

if TYPE_CHECKING:
    from ocpkit.solvers.constrained import AugmentedLagrangian
    from ocpkit.solvers.ddp import DDP, FDDP, ILQR
    from ocpkit.solvers.gradient import GradientDescent
    from ocpkit.solvers.ilqg import ILQG
    from ocpkit.solvers.interior import InteriorPoint
    from ocpkit.solvers.nlp import IPOPT, SQP, Fatrop
    from ocpkit.solvers.pmp import EMSA, MSA

_HOMES = {
    "constrained": ("AugmentedLagrangian",),
    "ddp": ("DDP", "FDDP", "ILQR"),
    "gradient": ("GradientDescent",),
    "ilqg": ("ILQG",),
    "interior": ("InteriorPoint",),
    "nlp": ("IPOPT", "SQP", "Fatrop"),
    "pmp": ("EMSA", "MSA"),
}

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
if not TYPE_CHECKING:  # else every name would pass the type checker
    __getattr__, __dir__ = lazily(__name__, _HOMES)
