"""Options of DDPNOpt's parts: the terminal Hessian, the policy, and the averages of the curvature.

Each record checks itself. `PolicyOptions.backward_pass` is the one place where a backward pass is chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocpkit_nn.layers.losses import Loss
from ocpkit_nn.optim.groups import check_name, check_options
from ocpkit_nn.passes import fused
from ocpkit_nn.passes.backward_pass import BackwardPass, TerminalValue
from ocpkit_nn.passes.curvature import RULES
from ocpkit_nn.passes.dense import DensePass
from ocpkit_nn.passes.factored import FactoredPass
from ocpkit_nn.passes.rank_one import RankOnePass
from ocpkit_nn.passes.second_order import SecondOrderPass
from ocpkit_nn.passes.separable import SeparablePass

FEEDBACK = ("full", "value", "none")
DYNAMICS = ("first", "second")
CONTROL_HESSIAN = ("proximal", "literal")
GAINS = ("exact", "separable")
TERMINAL = ("empirical", "ggn", "montecarlo", "rank")
FACTORED = ("kronecker", "ekfac")
"""Curvatures with Kronecker factors."""
DECAYS = {"diagonal": 0.99}
"""Default decay of second moments, where it is not that of Kronecker factors."""
CYCLED = {"momentum": ("identity", "diagonal"), "betas": ("adam",)}
"""Options that only some curvatures have, because torch's schedulers change those that they find in a group."""


@dataclass(frozen=True)
class TerminalHessian:
    """V_xx at the network's output.

    Attributes
    ----------
    kind
        One of `TERMINAL`.
    rank
        Columns for ``"rank"``, draws for ``"montecarlo"``.
    scale
        Factor of the Hessian of each sample; None is 1/B.
    generator
        Source of randomness for ``"montecarlo"``.
    """

    kind: str = "empirical"
    rank: int | None = None
    scale: float | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        check_name("terminal curvature", self.kind, TERMINAL)
        if self.kind == "rank" and self.rank is None:
            raise ValueError("terminal='rank' needs a rank, the number of columns")
        if self.rank is not None and (self.kind not in ("rank", "montecarlo") or self.rank < 1):
            raise ValueError(
                f"rank is a number of columns for terminal='rank' or 'montecarlo', got {self.rank} for {self.kind!r}"
            )
        if self.scale is not None and not 0 <= self.scale < math.inf:
            raise ValueError(f"curvature_scale must be finite and not negative, got {self.scale!r}")

    def value(
        self, loss: Loss, outputs: Tensor, targets: Tensor, gradient: Tensor, samples: int, clip: float | None
    ) -> TerminalValue:
        """Return V of a batch at its outputs (B, …), with ∇φ (B, …) of that cost.

        Parameters
        ----------
        samples
            Of the batch in all processes.
        clip
            Factor of the whole cost, None for 1. Of the cost c φ the empirical Hessian c ∇φ∇φᵀ is (c ∇φ)(c ∇φ)ᵀ/c.
        """
        layer_scale = 1 / samples if self.scale is None else self.scale
        scale = layer_scale
        if clip is not None:
            gradient = gradient * clip
            scale = scale / clip if self.kind == "empirical" and clip > 0 else scale * clip

        def factors() -> Tensor:
            if self.kind == "empirical":
                return gradient[:, None]
            return loss.factors(outputs, targets, self.kind, self.generator, self.rank)  # type: ignore[arg-type]

        return TerminalValue(gradient, scale, factors, layer_scale)


@dataclass(frozen=True)
class PolicyOptions:
    """Options by which Q_ux, Q_uu and V_xx of the layers become a policy.

    Attributes
    ----------
    feedback, control_hessian, dynamics, gains
        Names of `FEEDBACK`, `CONTROL_HESSIAN`, `DYNAMICS`, `GAINS`.
    tikhonov
        ε added to V_xx at every layer.
    line_search
        Whether the step size is halved until the loss does not rise.
    """

    feedback: str = "full"
    control_hessian: str = "proximal"
    dynamics: str = "first"
    tikhonov: float = 0.0
    gains: str = "exact"
    line_search: bool = False

    def __post_init__(self) -> None:
        check_name("feedback", self.feedback, FEEDBACK)
        check_name("control Hessian", self.control_hessian, CONTROL_HESSIAN)
        check_name("order of the dynamics", self.dynamics, DYNAMICS)
        check_name("kind of gains", self.gains, GAINS)
        if not 0 <= self.tikhonov < math.inf:
            raise ValueError(f"tikhonov must be finite and not negative, got {self.tikhonov!r}")

    @property
    def proximal(self) -> bool:
        """Whether Q_uu^i = M/η + f_uᵀ V_xx f_u."""
        return self.control_hessian == "proximal"

    def backward_pass(self, curvature: str, terminal: TerminalHessian) -> BackwardPass:
        """Choose the backward pass."""
        empirical = terminal.kind == "empirical"
        if self.gains == "separable":
            self._check_separable(curvature, empirical)
            return SeparablePass(self.feedback != "none")
        if self.feedback == "none":
            return RankOnePass(feedback=False)
        if self.dynamics == "second":
            return SecondOrderPass(self.proximal, self.tikhonov)
        if self.tikhonov:
            return DensePass(self.proximal, self.tikhonov)
        if empirical and self.proximal and curvature != "exact":
            return RankOnePass()
        return FactoredPass(self.proximal)

    def _check_separable(self, curvature: str, empirical: bool) -> None:
        if curvature not in fused.CURVATURES:
            raise ValueError(f"separable gains are for the curvatures {', '.join(fused.CURVATURES)}, not {curvature}")
        plain = empirical and self.proximal and not self.tikhonov and not self.line_search
        if not plain or self.dynamics == "second":
            raise ValueError(
                "separable gains need terminal='empirical', control_hessian='proximal', dynamics='first', tikhonov=0 "
                "and no line search"
            )


@dataclass(frozen=True)
class CurvatureOptions:
    """A baseline's rule, and the defaults of its parameter groups.

    Attributes
    ----------
    name
        A name of `curvature.RULES`.
    momentum, decay, betas, eps, damping, eigenbasis_interval
        As in `DDPNOpt`; None is the curvature's own decay.
    """

    name: str = "diagonal"
    momentum: float = 0.0
    decay: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    damping: float = 0.03
    eigenbasis_interval: int = 1

    def __post_init__(self) -> None:
        check_name("curvature", self.name, RULES)

    def group(self, lr: float, weight_decay: float) -> dict[str, Any]:
        """Return the options of a parameter group.

        Raises
        ------
        ValueError
            For one that is out of range.
        """
        group: dict[str, Any] = {
            "lr": lr,
            "momentum": self.momentum,
            "decay": DECAYS.get(self.name, 0.95) if self.decay is None else self.decay,
            "betas": self.betas,
            "eps": self.eps,
            "damping": self.damping,
            "eigenbasis_interval": self.eigenbasis_interval,
            "weight_decay": weight_decay,
        }
        check_options(group)
        return {key: value for key, value in group.items() if self.name in CYCLED.get(key, RULES)}
