"""Terminal costs φ(x_T, y) of a network: value, gradient, Hessian and factors of the Hessian, per sample.

Nothing here is averaged: the batch's 1/B belongs to whoever takes the expectation. With `factors` the Hessian
is kept as outer products, Σ_r z_r z_rᵀ (Liu, Chen & Theodorou, "DDPNOpt", ICLR 2021, Prop. 3: r = 1):

| kind         | z_r                                                 | Σ_r z_r z_rᵀ is             |
| ------------ | --------------------------------------------------- | --------------------------- |
| "ggn"        | C factors; cross-entropy: √p_c (e_c − p)            | the Hessian, positive part  |
| "empirical"  | one factor, ∇φ (the paper's)                        | ∇φ ∇φᵀ                      |
| "montecarlo" | `rank` draws; cross-entropy: (p − e_y)/√rank, y ~ p | the Hessian, in expectation |
| "rank"       | `rank` leading eigenpairs, √λ_r v_r                 | the nearest of that rank    |

All four are positive semidefinite; the three losses by name are convex, so theirs is the whole Hessian.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ocpkit.errors import unknown_name

FactorKind = Literal["ggn", "empirical", "montecarlo", "rank"]


class Loss(ABC):
    """A terminal cost: checked public methods over private mathematics.

    A subclass gives `_value`, `_gradient` and `_hessian`, and `_check` where not every (B, C) will do.

    Attributes
    ----------
    of_whole_batch
        Whether φ of a sample depends on which others are in its batch, by a factor without outputs.
    """

    of_whole_batch: ClassVar[bool] = False

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return φ of every sample, (B,), for outputs (B, C) and targets (B,).

        Raises
        ------
        ValueError
            If shapes or types do not fit the loss, the batch is empty, or a target is out of range; so do all methods.
        """
        self._check(outputs, targets)
        return self._value(outputs, targets)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∇φ of every sample, (B, C)."""
        self._check(outputs, targets)
        return self._gradient(outputs, targets)

    def value_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return φ, (B,), and ∇φ, (B, C), checked once."""
        self._check(outputs, targets)
        return self._value(outputs, targets), self._gradient(outputs, targets)

    def hessian(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∇²φ of every sample, exact, (B, C, C)."""
        self._check(outputs, targets)
        return self._hessian(outputs, targets)

    def factors(
        self,
        outputs: Tensor,
        targets: Tensor,
        kind: FactorKind = "ggn",
        generator: torch.Generator | None = None,
        rank: int | None = None,
    ) -> Tensor:
        """Return z of shape (B, r, C) with ∇²φ ≈ Σ_r z_r z_rᵀ in the sense of `kind` (module's table).

        Parameters
        ----------
        outputs, targets : Tensor
            (B, C) and (B,).
        kind : {"ggn", "empirical", "montecarlo", "rank"}
        generator : torch.Generator, optional
            Of "montecarlo", on the outputs' device.
        rank : int, optional
            1 … C for "rank", which needs it; any number of draws for "montecarlo", 1 by default.

        Raises
        ------
        ValueError
            Also for an unknown kind and a rank that is missing, out of range or without meaning.
        """
        self._check(outputs, targets)
        _check_rank(kind, rank, outputs.shape[1])
        if kind == "ggn":
            return self._factors(outputs, targets)
        if kind == "empirical":
            return self._gradient(outputs, targets).unsqueeze(1)
        if kind == "montecarlo":
            return self._draws(outputs, targets, rank or 1, generator)
        return _eigenfactors(self._hessian(outputs, targets), rank)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the class of every sample, int64 (B,): the largest output."""
        return outputs.argmax(1)

    def _check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.ndim != 2 or not outputs.is_floating_point():
            raise ValueError(f"outputs must be floats (B, C), got {outputs.dtype} {tuple(outputs.shape)}")
        if not outputs.shape[0]:
            raise ValueError(f"the batch is empty: outputs have shape {tuple(outputs.shape)}; leave such a batch out")
        if targets.ndim < 1 or targets.shape[0] != outputs.shape[0]:
            raise ValueError(f"{len(outputs)} outputs need as many targets, got {tuple(targets.shape)}")

    @abstractmethod
    def _value(self, outputs: Tensor, targets: Tensor) -> Tensor: ...

    @abstractmethod
    def _gradient(self, outputs: Tensor, targets: Tensor) -> Tensor: ...

    @abstractmethod
    def _hessian(self, outputs: Tensor, targets: Tensor) -> Tensor: ...

    def _factors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return _eigenfactors(self._hessian(outputs, targets), None)

    def _draws(self, outputs: Tensor, targets: Tensor, rank: int, generator: torch.Generator | None) -> Tensor:
        """Mix the factors by random signs: E[(Σ_c s_c z_c)(Σ_c s_c z_c)ᵀ] = Σ_c z_c z_cᵀ."""
        factors = self._factors(outputs, targets)
        shape = (len(outputs), rank, factors.shape[1])
        signs = torch.randint(0, 2, shape, generator=generator, device=outputs.device).to(outputs) * 2 - 1
        return signs @ factors / math.sqrt(rank)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """φ = −Σ_c t_c log p_c, p = softmax(x), t = (1 − s) e_y + s/C: `torch.nn.functional.cross_entropy`.

    ∇φ = p − t and ∇²φ = diag(p) − p pᵀ, which is the Gauss-Newton and the Fisher matrix too.

    Parameters
    ----------
    label_smoothing : float
        s in [0, 1].
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1], got {self.label_smoothing}")

    def _check(self, outputs: Tensor, targets: Tensor) -> None:
        super()._check(outputs, targets)
        check_classes(targets, outputs.shape[1])

    def _value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets.long(), reduction="none", label_smoothing=self.label_smoothing)

    def _gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        smoothing, classes = self.label_smoothing, outputs.shape[1]
        gradient = outputs.softmax(1)
        if smoothing:
            gradient -= smoothing / classes
        return gradient.scatter_(1, targets.long()[:, None], smoothing - 1, reduce="add")

    def _hessian(self, outputs: Tensor, targets: Tensor) -> Tensor:
        p = outputs.softmax(1)
        return torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)

    def _factors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        p = outputs.softmax(1)
        return p.sqrt().unsqueeze(2) * (torch.eye(p.shape[1]).to(p) - p.unsqueeze(1))

    def _draws(self, outputs: Tensor, targets: Tensor, rank: int, generator: torch.Generator | None) -> Tensor:
        """Draw the label from the model: E[z zᵀ] is then the Fisher matrix (Martens & Grosse 2015)."""
        p = outputs.softmax(1)
        labels = torch.multinomial(p, rank, replacement=True, generator=generator)
        return (p.unsqueeze(1) - F.one_hot(labels, p.shape[1]).to(p)) / math.sqrt(rank)


class _HalfSquaredDistance(Loss):
    """φ = ½‖x − c(y)‖², so ∇φ = x − c(y) and ∇²φ = I."""

    @abstractmethod
    def _goals(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return c(y), (B, C)."""

    def _value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (outputs - self._goals(outputs, targets)).square().sum(1)

    def _gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs - self._goals(outputs, targets)

    def _hessian(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.eye(outputs.shape[1]).to(outputs).expand(len(outputs), -1, -1)

    def _factors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._hessian(outputs, targets)


@dataclass(frozen=True)
class MeanSquaredError(_HalfSquaredDistance):
    """φ = ½‖x − y‖², summed over the outputs of a sample, with the ½.

    That is `0.5 * torch.nn.functional.mse_loss(x, y, reduction="none").sum(1)`. Torch's default, a mean over
    samples and outputs without the ½, is 2/C times the mean of φ. Targets are classes (B,), taken as one-hot
    vectors, or floats (B, C).
    """

    def _check(self, outputs: Tensor, targets: Tensor) -> None:
        super()._check(outputs, targets)
        if not targets.is_floating_point():
            check_classes(targets, outputs.shape[1])
        elif targets.shape != outputs.shape:
            raise ValueError(f"real targets must be {tuple(outputs.shape)} as outputs, got {tuple(targets.shape)}")

    def _goals(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return targets.to(outputs) if targets.is_floating_point() else _one_hot(targets, outputs)


@dataclass(frozen=True)
class MaxMahalanobisCenter(_HalfSquaredDistance):
    """φ = ½‖x − μ_y‖² with fixed centers as far from each other as can be (Pang et al. 2019, MMC).

    The L centers have ‖μ_c‖² = `squared_norm` = C_MM and μ_cᵀμ_d = −C_MM/(L − 1): they are the corners of a
    regular simplex. The prediction is the nearest center.

    Parameters
    ----------
    classes : int
        L, at least 2.
    dimension : int
        Of the outputs, at least L − 1.
    squared_norm : float
        C_MM, positive.

    Attributes
    ----------
    centers : Tensor
        float64, (classes, dimension).
    """

    classes: int
    dimension: int
    squared_norm: float = 10.0
    centers: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.classes < 2 or self.dimension < self.classes - 1:
            raise ValueError(f"need classes >= 2 and dimension >= classes - 1, got {self.classes} and {self.dimension}")
        if not self.squared_norm > 0:
            raise ValueError(f"squared_norm must be positive, got {self.squared_norm}")
        centers = simplex(self.classes, self.dimension) * math.sqrt(self.squared_norm)
        object.__setattr__(self, "centers", centers)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the class of every sample, int64 (B,): the nearest center."""
        # Centers have one norm, so the nearest is the one with the largest inner product.
        return (outputs @ self.centers.to(outputs).T).argmax(1)

    def _check(self, outputs: Tensor, targets: Tensor) -> None:
        super()._check(outputs, targets)
        if outputs.shape[1] != self.dimension:
            raise ValueError(f"outputs must be (B, {self.dimension}), got {tuple(outputs.shape)}")
        check_classes(targets, self.classes)

    def _goals(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.centers.to(outputs)[targets.long()]


def simplex(classes: int, dimension: int) -> Tensor:
    """Return unit vectors with inner products −1/(L − 1), float64 (L, dimension): Pang et al. 2018, Alg. 1.

    Vector i lies in the first i + 1 axes: its first i entries settle the inner products, the next its norm.
    """
    vectors = torch.zeros(classes, dimension, dtype=torch.float64)
    vectors[0, 0] = 1.0
    for i in range(1, classes):
        for j in range(i):
            vectors[i, j] = -(1 / (classes - 1) + vectors[i] @ vectors[j]) / vectors[j, j]
        if i < classes - 1:
            vectors[i, i] = (1 - vectors[i].square().sum()).sqrt()
    return vectors


@dataclass(frozen=True)
class FunctionLoss(Loss):
    """A loss of one's own; gradient and Hessian by automatic differentiation.

    Parameters
    ----------
    function : callable
        From outputs (B, C) and targets (B, ...) to values (B,), each of its own sample only, written with
        torch operations that can be differentiated twice.
    """

    function: Callable[[Tensor, Tensor], Tensor]

    def _value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        values = self.function(outputs, targets)
        if values.shape != (len(outputs),):
            raise ValueError(
                f"the loss function must return ({len(outputs)},), got {tuple(values.shape)}: a value for each sample, "
                "reduction='none' in torch"
            )
        return values

    # Samples do not mix, so one derivative of the sum holds those of all samples. vmap would do it too, and
    # would refuse what losses are commonly written with, `one_hot` for one.

    def _gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        gradient: Tensor = torch.func.grad(lambda x: self._value(x, targets).sum())(outputs)
        return gradient

    def _hessian(self, outputs: Tensor, targets: Tensor) -> Tensor:
        pull_back = torch.func.vjp(lambda x: self._gradient(x, targets), outputs)[1]
        units = torch.eye(outputs.shape[1]).to(outputs)
        return torch.stack([pull_back(unit.expand_as(outputs))[0] for unit in units], dim=1)


_BY_NAME: dict[str, Callable[[int], Loss]] = {
    "ce": lambda classes: CrossEntropy(),
    "cross-entropy": lambda classes: CrossEntropy(),
    "mse": lambda classes: MeanSquaredError(),
    "mean-squared-error": lambda classes: MeanSquaredError(),
    "mmc": lambda classes: MaxMahalanobisCenter(classes, classes),
    "max-mahalanobis-center": lambda classes: MaxMahalanobisCenter(classes, classes),
}


def by_name(name: str, classes: int) -> Loss:
    """Return a loss with its default options: "ce", "mse", "mmc" (`classes` dimensions), or by its long name.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if name not in _BY_NAME:
        raise unknown_name("loss", name, _BY_NAME)
    return _BY_NAME[name](classes)


def _one_hot(targets: Tensor, outputs: Tensor) -> Tensor:
    one_hot: Tensor = F.one_hot(targets.long(), outputs.shape[1])
    return one_hot.to(outputs)


def _eigenfactors(hessian: Tensor, rank: int | None) -> Tensor:
    """Return √λ_r v_r of the `rank` largest eigenvalues, (B, rank, C); the negative count as zero."""
    values, vectors = torch.linalg.eigh(hessian)
    scaled = values.clamp(min=0).sqrt().unsqueeze(1) * vectors
    leading: Tensor = scaled.mT.flip(1)[:, :rank]
    return leading


def check_classes(targets: Tensor, classes: int) -> None:
    """Refuse targets (B,) that are no classes 0 … classes − 1."""
    if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"targets must be class indices (B,), got {targets.dtype} {tuple(targets.shape)}")
    least, largest = map(int, targets.aminmax())
    if least < 0 or largest >= classes:
        index = int(((targets < 0) | (targets >= classes)).nonzero()[0])
        raise ValueError(f"target {int(targets[index])} of sample {index} is not in 0 … {classes - 1}")


def _check_rank(kind: str, rank: int | None, classes: int) -> None:
    if kind not in get_args(FactorKind):
        raise unknown_name("kind of factors", kind, get_args(FactorKind))
    if kind == "rank" and (rank is None or not 1 <= rank <= classes):
        raise ValueError(f'kind "rank" needs a rank in 1 … {classes}, got {rank}')
    if kind == "montecarlo" and rank is not None and rank < 1:
        raise ValueError(f'kind "montecarlo" needs at least one draw, got rank {rank}')
    if kind in ("ggn", "empirical") and rank is not None:
        raise ValueError(f'kind "{kind}" has its own number of factors; leave rank out, got {rank}')
