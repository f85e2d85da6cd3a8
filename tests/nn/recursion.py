"""A network at a batch in two forms, implicit and dense, and random metrics for both.

The dense route is the core's `ocpkit.recursion.bellman.backward_pass` on per-sample Jacobians, with V_xx and Q_uu as
plain matrices; `implicit` runs `FactoredPass`, the same function on implicit arrays, and `by_outputs` `DensePass`, the
same on the outputs' changes as controls.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from nn.dense import DenseStage, assert_near, control_of, kronecker, layer_function
from nn.strategies import Case, randn
from ocpkit.recursion.bellman import ActionValue, BellmanStep, backward_pass
from ocpkit.recursion.linalg import Cholesky
from ocpkit.recursion.value import Value
from ocpkit_nn.layers.losses import CrossEntropy
from ocpkit_nn.layers.metric import Metric, SampleMetric
from ocpkit_nn.layers.stages import Linearization, as_stages
from ocpkit_nn.layers.vectors import UnitBase
from ocpkit_nn.passes.backward_pass import LayerPolicy, TerminalValue, Trajectory
from ocpkit_nn.passes.curvature import LayerGradients
from ocpkit_nn.passes.dense import DensePass
from ocpkit_nn.passes.factored import FactoredPass
from ocpkit_nn.passes.gains import FeedbackGain

TERMINALS: dict[str, dict[str, Any]] = {
    "empirical": {},
    "ggn": {},
    "montecarlo": {},
    "rank": {"rank": 1},
}
METRICS = ["identity", "diagonal", "rotated", "adaptive", "samples"]


class Net:
    """A network at a batch: linearized by the library, and by the dense oracle."""

    @torch.no_grad()
    def __init__(self, case: Case, terminal: str) -> None:
        torch.manual_seed(3)  # of dropout
        self.is_rank_one = terminal == "empirical"
        self.preparation, self.stages = as_stages(case.model)
        self.linearizations: list[Linearization] = []
        self.dense: list[DenseStage] = []
        x = case.inputs
        for module in self.preparation:
            x = module(x)
        for stage in self.stages:
            y, linearization = stage.linearize(x)
            self.linearizations.append(linearization)
            self.dense.append(DenseStage(stage, x))
            x = y
        loss, generator = CrossEntropy(), torch.Generator().manual_seed(0)
        self.gradient = loss.gradient(x, case.targets)
        factors = loss.factors(x, case.targets, terminal, generator, **TERMINALS[terminal])  # type: ignore[arg-type]
        self.columns = factors.transpose(0, 1) / len(x) ** 0.5
        self.trajectory = Trajectory(self.stages, self.linearizations, [each.x for each in self.linearizations], x)
        self.value = TerminalValue(self.gradient, 1 / len(x), lambda: factors)
        self.expansions = [stage.expansion() for stage in self.dense]

    @property
    def terminal(self) -> Value:
        """V_T with V_xx dense, (B, n, n)."""
        return Value(self.gradient, torch.einsum("rbi,rbj->bij", self.columns, self.columns))

    def through_batch(self, t: int, V: Value) -> Value:
        """V with V_x of the batch's total cost at the input of stage t: by autograd, through the statistics too."""
        return Value(self._through_batch(t, V.x), V.xx)

    def through_batch_in_parallel(self, t: int, V: Value) -> Value:
        """The same for z ∥ V_x: V_xx is then the old multiple of V_x V_xᵀ.

        Where a sample's V_x is zero (dropout of all that it goes through) the multiple is that of the stage behind,
        whose c was zero.
        """
        if t == len(self.stages) - 1:
            self.multiple = V.x.new_full((len(V.x),), 1 / len(V.x))
        length = V.x.square().sum(1)
        self.multiple = torch.where(length > 0, V.xx.diagonal(dim1=1, dim2=2).sum(1) / length, self.multiple)
        if not self.linearizations[t].couples_samples:
            return V
        Vx = self._through_batch(t, V.x)
        return Value(Vx, self.multiple[:, None, None] * Vx[:, :, None] * Vx[:, None, :])

    def _through_batch(self, t: int, Vx: Tensor) -> Tensor:
        module, x = self.stages[t].layer.module, self.linearizations[t].x
        if not self.stages[t].layer.couples_samples:
            return Vx
        inner = copy.deepcopy(module).train()
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            alone = layer_function(module, x.detach())
            u = control_of(module)
            direct = torch.stack([alone(each, u) for each in x])
            # Of the layer's own V_h only V_x = f_xᵀ V_h is known; γ/σ is not zero, so V_h follows from it.
            scale = torch.autograd.grad(direct.sum(), x, retain_graph=True)[0]
            Vh = Vx.reshape(x.shape) / scale
            return torch.autograd.grad(inner(x), x, Vh)[0].flatten(1)


class DenseOperator:
    """Q_uu^i as matrices (B, m, m)."""

    def __init__(self, matrices: Tensor) -> None:
        self.matrices, self.cholesky = matrices, Cholesky(matrices)

    def solve(self, right: Tensor) -> Tensor:
        return self.cholesky.solve(right)


class RandomMetrics:
    """One M/η for each stage, for the library as a `Metric` and for the oracle as a matrix.

    With `share` the metric is scaled so that the largest eigenvalue of q_uᵀ M⁻¹ q_u over the batch is `share`.
    """

    def __init__(self, kind: str, seed: int, *, proximal: bool, share: float | None = None) -> None:
        self.kind, self.seed, self.proximal, self.share = kind, seed, proximal, share
        self.scales: dict[int, float] = {}
        self.seen: dict[int, LayerGradients] = {}

    def _parts(self, t: int, o: int, i: int, mean: Tensor) -> tuple[Any, Tensor | None, Tensor | None]:
        """(w, U_A, U_S) with M⁻¹ = (U_S ⊗ U_A) diag(w) (U_S ⊗ U_A)ᵀ, before scaling."""
        generator = torch.Generator().manual_seed(self.seed % 2**31 + t)
        if self.kind == "identity":
            return 0.4, None, None
        if self.kind == "adaptive":
            return 0.1 / (mean.reshape(o, i).abs() + 0.05), None, None
        inverse = torch.exp(randn(generator, o, i))
        if self.kind == "diagonal":
            return inverse, None, None
        A, S = (torch.linalg.qr(randn(generator, size, size))[0] for size in (i, o))
        return inverse, A, S

    def dense(self, t: int, shape: tuple[int, int], mean: Tensor, Quu: Tensor) -> Tensor:
        """M/η (m, m) of the oracle."""
        m = shape[0] * shape[1]
        unit = torch.eye(m, dtype=torch.float64)
        if self.kind == "samples":
            return (Quu.mean(0) + 0.5 * unit) / 0.7
        w, A, S = self._parts(t, *shape, mean)
        M = unit / w if isinstance(w, float) else torch.diag(1 / w.flatten())
        if A is not None and S is not None:
            basis = kronecker(S, A)
            M = basis @ M @ basis.T
        if self.share is not None:
            largest = float(torch.linalg.eigvals(torch.linalg.solve(M, Quu)).real.max())
            self.scales[t] = max(largest / self.share, 1e-3)
            M = M * self.scales[t]
        return M

    def curvature(self, net: Net) -> Callable[[int, ActionValue], tuple[DenseOperator, Tensor]]:
        def rule(t: int, Q: ActionValue) -> tuple[DenseOperator, Tensor]:
            shape = net.stages[t].layer.matrix().shape
            M = self.dense(t, (shape[0], shape[1]), Q.u.mean(0), Q.uu)
            return DenseOperator(M + Q.uu if self.proximal else M.expand_as(Q.uu)), Q.u

        return rule

    def rule(self, t: int, gradients: LayerGradients) -> tuple[Metric, Tensor]:
        """The library's form of the same."""
        self.seen[t] = gradients
        if self.kind == "samples":
            assert gradients.columns is not None
            return SampleMetric(gradients.base, gradients.columns(), 0.5, 0.7), gradients.mean
        w, A, S = self._parts(t, *gradients.base.shape, gradients.mean)
        return Metric(w / self.scales.get(t, 1.0), A, S), gradients.mean


@dataclass
class Recorder:
    """Runs the core's backward pass and keeps its steps."""

    steps: list[BellmanStep] = field(default_factory=list)

    def __call__(self, *args: Any, **kwargs: Any) -> list[BellmanStep]:
        self.steps = backward_pass(*args, **kwargs)
        return self.steps


def implicit(net: Net, metrics: RandomMetrics) -> tuple[list[LayerPolicy], list[BellmanStep]]:
    """`FactoredPass`, and the steps of the core inside it."""
    recorder = Recorder()
    with torch.no_grad(), patch("ocpkit_nn.passes.factored.backward_pass", recorder):
        policies = FactoredPass(metrics.proximal)(net.trajectory, net.value, metrics.rule)
    return policies, recorder.steps


def by_outputs(net: Net, metrics: RandomMetrics, tikhonov: float) -> tuple[list[LayerPolicy], list[BellmanStep]]:
    """`DensePass`, and the steps of the core inside it."""
    recorder = Recorder()
    with torch.no_grad(), patch("ocpkit_nn.passes.dense.backward_pass", recorder):
        policies = DensePass(metrics.proximal, tikhonov)(net.trajectory, net.value, metrics.rule)
    return policies, recorder.steps


def dense_gain(gain: FeedbackGain, M: Tensor) -> Tensor:
    """K_i (B, m, n) from its factors and the dense M/η."""
    q, right = gain.control.dense().flatten(2), gain.core
    if not isinstance(gain.state, UnitBase):
        right = torch.einsum("brs,sbn->brn", right, gain.state.vectors.flatten(2))
    return torch.linalg.solve(M, torch.einsum("rbm,brn->bmn", q, right))


def assert_policies_equal(
    net: Net, policies: list[LayerPolicy], steps: list[BellmanStep], metrics: RandomMetrics
) -> None:
    """k = −M⁻¹η E[Q_u], K_i, and the Q_u^i that the rule saw, against the dense steps."""
    for t, (policy, step) in enumerate(zip(policies, steps, strict=True)):
        gradients = metrics.seen[t]
        mean = step.Q.u.mean(0)
        scales, metrics.scales = metrics.scales, {}
        M = metrics.dense(t, gradients.base.shape, mean, step.Q.uu)
        metrics.scales = scales
        assert_near(torch.einsum("rbm,br->bm", gradients.base.dense().flatten(2), gradients.coefficients), step.Q.u)
        assert_near(gradients.mean.flatten(), mean)
        assert_near(policy.feedforward.flatten(), -torch.linalg.solve(M, mean))
        assert (policy.gain is None) == (t == 0)
        if policy.gain is not None:
            assert_near(dense_gain(policy.gain, M), step.K.reshape(len(step.K), len(M), -1))
