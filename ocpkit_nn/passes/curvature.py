"""The curvature in place of Q_uu on a layer: a baseline's shared M/η, alone or with the sample's own f_uᵀ V_xx f_u.

The element-wise rules are those of `ocpkit.recursion.curvature`, with `moments` in place for the size of networks (a
test holds them to each other); Kronecker factors (KFAC, Martens & Grosse 2015; Eq. 15) and EKFAC (George et al. 2018)
need a layer's inputs and exist only here. Their moments are exponential averages from the first value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ocpkit.recursion.linalg import identity_like
from ocpkit_nn.layers.metric import Metric, RootMetric, SampleMetric
from ocpkit_nn.layers.vectors import Combination, ControlBase, OuterBase, small_product
from ocpkit_nn.passes import eigenbases, moments
from ocpkit_nn.passes.moments import Memory
from ocpkit_nn.passes.workspace import Workspace


@dataclass(frozen=True)
class LayerGradients:
    """Gradients from which a curvature is made: E[Q_u] and those of the samples.

    Attributes
    ----------
    mean
        E[Q_u] (o, i).
    base, coefficients
        Per-sample Q_u^i = base_i c_i, c (B, R).
    factors
        Returns E[x̄ x̄ᵀ] (i, i) and E[V_h V_hᵀ] (o, o) of the layer, or None where it has no Kronecker factors.
    columns
        Returns coefficients (B, R, r) of q_u^i, with f_uᵀ V_xx f_u = q_u q_uᵀ; None without feedback.
    workspace
        Memory for results, if there is some to use again.
    """

    mean: Tensor
    base: ControlBase
    coefficients: Tensor
    factors: Callable[[], tuple[Tensor, Tensor]] | None
    columns: Callable[[], Tensor] | None = None
    workspace: Workspace | None = None

    def array(self, name: str) -> Tensor:
        """Return memory of the shape of the mean."""
        if self.workspace is None:
            return torch.empty_like(self.mean)
        return self.workspace.array(name, self.mean.shape, self.mean)


Rule = Callable[[LayerGradients, Memory, dict[str, Any]], tuple[Metric, Tensor]]
"""Maps (gradients, memory of the stage, options of the parameter group) to M/η and the direction g."""


def identity(gradients: LayerGradients, memory: Memory, options: dict[str, Any]) -> tuple[Metric, Tensor]:
    """M = I: SGD, with momentum if asked for."""
    direction = gradients.mean
    if options["momentum"]:
        velocity = moments.matrix(memory, "velocity", direction)
        moments.add_to_velocity([velocity], [direction], options["momentum"])
        direction = velocity.clone()
    return Metric(options["lr"]), direction


def diagonal(gradients: LayerGradients, memory: Memory, options: dict[str, Any]) -> tuple[Metric, Tensor]:
    """M = diag(√E[Q_u ⊙ Q_u] + ε): RMSprop, with momentum if asked for."""
    mean = gradients.mean
    square = moments.matrix(memory, "square", mean)
    moments.average_squares([square], [mean], options["decay"])
    root = torch.sqrt(square, out=gradients.array("root")).add_(options["eps"])
    if options.get("momentum"):  # torch's velocity is that of the steps M⁻¹ E[Q_u]
        velocity = moments.matrix(memory, "velocity", mean)
        moments.add_to_velocity([velocity], [mean], options["momentum"], [root])
        mean = torch.mul(velocity, root, out=gradients.array("direction"))
    return RootMetric(root, options["lr"]), mean


def adam(gradients: LayerGradients, memory: Memory, options: dict[str, Any]) -> tuple[Metric, Tensor]:
    """M = diag(√v̂ + ε) and g = m̂ of Adam."""
    new, (b1, b2) = gradients.mean, options["betas"]
    memory["count"] = count = memory.get("count", 0) + 1
    mean, square = moments.matrix(memory, "mean", new), moments.matrix(memory, "square", new)
    mean.lerp_(new, 1 - b1)
    moments.average_squares([square], [new], b2)
    root = torch.div(square, 1 - b2**count, out=gradients.array("root")).sqrt_().add_(options["eps"])
    return RootMetric(root, options["lr"]), torch.div(mean, 1 - b1**count, out=gradients.array("direction"))


def kronecker(gradients: LayerGradients, memory: Memory, options: dict[str, Any]) -> tuple[Metric, Tensor]:
    """M = E[x xᵀ] ⊗ E[V_h V_hᵀ] + γ I (Eq. 15): KFAC. Layers without factors: the diagonal of E[Q_u ⊙ Q_u] + γ."""
    if gradients.factors is None:
        return _sampled_diagonal(gradients, memory, options)
    (a, A), (s, S) = _kronecker_basis(gradients, memory, options)
    moment = s.clamp_min(0)[:, None] * a.clamp_min(0)
    return Metric(_damped_inverse(moment, options), A, S), gradients.mean


def ekfac(gradients: LayerGradients, memory: Memory, options: dict[str, Any]) -> tuple[Metric, Tensor]:
    """KFAC's eigenbasis with E[(U_Sᵀ Q_u U_A)²] + γ for its eigenvalues: EKFAC."""
    if gradients.factors is None:
        return _sampled_diagonal(gradients, memory, options)
    (_, A), (_, S) = _kronecker_basis(gradients, memory, options)
    moment = moments.average(memory, "scales", _second_moment(gradients, A, S), options["decay"])
    return Metric(_damped_inverse(moment, options), A, S), gradients.mean


def _sampled_diagonal(gradients: LayerGradients, memory: Memory, options: dict[str, Any]) -> tuple[Metric, Tensor]:
    moment = moments.average(memory, "scales", _second_moment(gradients, None, None), options["decay"])
    return Metric(_damped_inverse(moment, options)), gradients.mean


def _damped_inverse(moment: Tensor, options: dict[str, Any]) -> Tensor:
    return (moment + options["damping"]).reciprocal_().mul_(options["lr"])


def _second_moment(gradients: LayerGradients, A: Tensor | None, S: Tensor | None) -> Tensor:
    """E[(U_Sᵀ Q_u^i U_A)²] element-wise, (o, i)."""
    base, coefficients = gradients.base, gradients.coefficients
    if isinstance(base, OuterBase):  # the squares of an outer product are one too
        inputs, cotangents = Metric(1.0, A, S).rotate(base.inputs, base.combined(coefficients))
        squares = OuterBase(inputs.square(), cotangents[None].square(), base.shape[1] > inputs.shape[1])
        return base.average(squares.mean(torch.ones_like(coefficients[:, :1])))
    samples = torch.einsum("rboi,br->boi", gradients.base.dense(), gradients.coefficients)
    if A is not None and S is not None:
        samples = S.T @ samples @ A
    return base.average((samples**2).mean(0))


def _kronecker_basis(
    gradients: LayerGradients, memory: Memory, options: dict[str, Any]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Eigenvalues and eigenvectors of the averaged A = E[x̄ x̄ᵀ] and S = E[V_h V_hᵀ], those of this step by default."""
    assert gradients.factors is not None
    memory["count"] = memory.get("count", 0) + 1
    for name, own in zip("AS", gradients.factors()):
        moments.average(memory, name, gradients.base.average(own), options["decay"])
    if "basis_A" not in memory or options["eigenbasis_interval"] == 1:
        for factor in "AS":
            eigenbases.decompose(memory, factor)
    return (memory["values_A"], memory["basis_A"]), (memory["values_S"], memory["basis_S"])


def exact(gradients: LayerGradients, memory: Memory, options: dict[str, Any]) -> tuple[Metric, Tensor]:
    """M = E[Q_uu] + γ I: vanilla DDP (Table 2); without feedback, of the empirical outer products E[Q_u Q_uᵀ]."""
    columns = gradients.coefficients[..., None] if gradients.columns is None else gradients.columns()
    return SampleMetric(gradients.base, columns, options["damping"], options["lr"]), gradients.mean


RULES: dict[str, Rule] = {
    "identity": identity,
    "diagonal": diagonal,
    "adam": adam,
    "kronecker": kronecker,
    "ekfac": ekfac,
    "exact": exact,
}


@dataclass
class SampleHessian:
    """Q_uu^i in the Bellman step of sample i.

    Attributes
    ----------
    metric
        M/η, shared by the batch.
    columns
        q_u^i (…, r), with f_uᵀ V_xx f_u = q_u q_uᵀ.
    proximal
        True: M/η + q_u q_uᵀ, which keeps the feedback bounded. False: M/η alone, as printed in Alg. 3.
    """

    metric: Metric
    columns: Combination
    proximal: bool

    def solve(self, right: Combination) -> Combination:
        """Solve by Woodbury: (M + q qᵀ)⁻¹ b = M⁻¹ (b − q (I + qᵀM⁻¹q)⁻¹ qᵀM⁻¹ b)."""
        coefficients = right.coefficients
        if self.proximal:
            columns = coefficients.reshape(*coefficients.shape[:2], -1)
            small = small_product(self.columns.coefficients, small_product(self._small, columns))
            coefficients = coefficients - small.reshape(coefficients.shape)
        return Combination(right.base, coefficients, self.metric)

    @cached_property
    def _small(self) -> Tensor:
        """(I + qᵀM⁻¹q)⁻¹ qᵀM⁻¹ times the base vectors, (B, r, R): solved once, for Q_u and Q_ux."""
        gamma = self.columns.coefficients
        left = small_product(gamma.transpose(1, 2), self.columns.base.gram(self.metric))
        core = small_product(left, gamma)
        return left / (1 + core) if core.shape[-1] == 1 else torch.linalg.solve(identity_like(core) + core, left)

    def dense(self) -> Tensor:
        """Return the matrices (B, m, m) (tests and small layers)."""
        base = self.columns.base
        like = base.dense()[0, 0]
        shared = self.metric.dense(like).expand(len(self.columns.coefficients), -1, -1)
        if not self.proximal:
            return shared
        q = torch.einsum("rboi,brs->bois", base.dense(), self.columns.coefficients).flatten(1, 2)
        return shared + q @ q.transpose(1, 2)
