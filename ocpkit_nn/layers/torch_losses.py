"""The losses of `torch.nn` as terminal costs: one value for each sample, whose mean is what torch would return.

torch's own reduction may weigh samples by their targets: `nn.CrossEntropyLoss(weight=w)` divides by Σ_i w_{y_i}, one
with ignored targets by the number of others, `reduction="sum"` by nothing. Such factors depend on the batch but not on
the outputs, so that φ of each sample has them and everything else follows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocpkit.errors import ProblemError
from ocpkit_nn.layers.losses import CrossEntropy, FunctionLoss, Loss, check_classes

_ELEMENT_WISE = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss, nn.KLDivLoss),
    *(nn.PoissonNLLLoss, nn.SoftMarginLoss, nn.HingeEmbeddingLoss),
)
_SAMPLE_WISE = (nn.MultiMarginLoss, nn.MultiLabelMarginLoss, nn.MultiLabelSoftMarginLoss)
_CLASS_WISE = (nn.CrossEntropyLoss, nn.NLLLoss)


def as_loss(loss: object) -> Loss:
    """Return what an optimizer is given as its loss: a `Loss`, one of `torch.nn`, or None for cross-entropy.

    Raises
    ------
    ProblemError
        For anything else, by name and with the way out.
    """
    if loss is None:
        return CrossEntropy()
    if isinstance(loss, Loss):
        return loss
    name = loss.__name__ if callable(loss) and hasattr(loss, "__name__") else type(loss).__name__
    known = (*_CLASS_WISE, *_ELEMENT_WISE, *_SAMPLE_WISE)
    if type(loss) not in known:
        raise ProblemError(
            f"the loss {name!r} is not known to have a value for each sample: give ocpkit_nn.FunctionLoss("
            "function) with a function from outputs (B, C) and targets to values (B,), reduction='none' in torch, or "
            f"one of {', '.join(kind.__name__ for kind in known)}"
        )
    assert isinstance(loss, nn.Module)
    if loss.reduction == "none":
        raise ProblemError(f"{name}(reduction='none') is no scalar to minimize: give reduction='mean' or 'sum'")
    if isinstance(loss, nn.CrossEntropyLoss):
        return TorchCrossEntropy(loss)
    return TorchLoss(_PerSample(loss), isinstance(loss, _ELEMENT_WISE))


@dataclass(frozen=True)
class TorchCrossEntropy(Loss):
    """φ = −Σ_c a_c log p_c of `nn.CrossEntropyLoss`, p = softmax(x), with a_c ≥ 0 from target, weights and reduction.

    ∇φ = ā p − a and ∇²φ = ā (diag(p) − p pᵀ), ā = Σ_c a_c.

    Parameters
    ----------
    module
        Targets are classes (B,), or probabilities (B, C).
    """

    module: nn.CrossEntropyLoss

    of_whole_batch = True

    def _check(self, outputs: Tensor, targets: Tensor) -> None:
        super()._check(outputs, targets)
        if not targets.is_floating_point():
            check_classes(targets.masked_fill(targets == self.module.ignore_index, 0), outputs.shape[1])
        elif targets.shape != outputs.shape:
            raise ValueError(f"probabilities must be {tuple(outputs.shape)} as outputs, got {tuple(targets.shape)}")
        elif bool((targets < 0).any()):
            raise ValueError(f"probabilities must not be negative, the smallest is {float(targets.min())}")

    def _masses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return a (B, C)."""
        smoothing, classes = self.module.label_smoothing, outputs.shape[1]
        weight = outputs.new_ones(classes) if self.module.weight is None else self.module.weight.to(outputs)
        if targets.is_floating_point():
            shares = targets.to(outputs)
            total: Tensor | int = len(outputs)
        else:
            kept = targets != self.module.ignore_index
            classes_of = targets.long() * kept
            shares = F.one_hot(classes_of, classes).to(outputs)
            total = (weight[classes_of] * kept).sum()
        masses = weight * ((1 - smoothing) * shares + smoothing / classes)
        if not targets.is_floating_point():
            masses = masses * kept[:, None]
        return masses * (len(outputs) / total if self.module.reduction == "mean" else len(outputs))

    def _value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        masses = self._masses(outputs, targets)
        # a class of no mass may have the probability 0
        return -torch.where(masses == 0, 0, masses * outputs.log_softmax(1)).sum(1)

    def _gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        masses = self._masses(outputs, targets)
        return masses.sum(1, keepdim=True) * outputs.softmax(1) - masses

    def _scaled(self, plain: Tensor, outputs: Tensor, targets: Tensor, power: float) -> Tensor:
        """Return ā^power times (B, …)."""
        return self._masses(outputs, targets).sum(1)[:, None, None] ** power * plain

    def _hessian(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._scaled(CrossEntropy()._hessian(outputs, targets), outputs, targets, 1.0)

    def _factors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._scaled(CrossEntropy()._factors(outputs, targets), outputs, targets, 0.5)

    def _draws(self, outputs: Tensor, targets: Tensor, rank: int, generator: torch.Generator | None) -> Tensor:
        draws = CrossEntropy()._draws(outputs, targets, rank, generator)
        return self._scaled(draws, outputs, targets, 0.5)


class _PerSample:
    """A module of torch without its reduction, and that once more, for the values (B,) of the samples."""

    def __init__(self, module: nn.Module) -> None:
        alone: Any = copy.copy(module)
        self.reduction, alone.reduction = alone.reduction, "none"
        self._module = alone

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        values: Tensor = self._module(outputs, targets)
        if isinstance(self._module, nn.NLLLoss) and self.reduction == "mean":
            return values * (len(outputs) / self._weights(outputs, targets))
        rows = values.reshape(len(outputs), -1)
        if self.reduction == "mean":
            return rows.mean(1)
        return rows.sum(1) * (len(outputs) if self.reduction == "sum" else 1)  # else "batchmean"

    def _weights(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Σ_i w_{y_i} over the samples whose targets count."""
        kept = targets != self._module.ignore_index
        weight = self._module.weight
        return kept.sum() if weight is None else (weight.to(outputs)[targets.long() * kept] * kept).sum()


@dataclass(frozen=True)
class TorchLoss(FunctionLoss):
    """One of the other losses of `torch.nn`; derivatives by automatic differentiation.

    Parameters
    ----------
    element_wise
        Whether targets have the shape of outputs.
    """

    element_wise: bool = False

    of_whole_batch = True

    def _check(self, outputs: Tensor, targets: Tensor) -> None:
        super()._check(outputs, targets)
        if self.element_wise and targets.shape != outputs.shape:  # torch would broadcast (B,) against (B, 1)
            raise ValueError(f"targets must be {tuple(outputs.shape)} as outputs, got {tuple(targets.shape)}")
