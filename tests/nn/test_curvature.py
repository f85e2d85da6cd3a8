"""The curvatures of layers over several steps: the core's element-wise rules, and averaged Kronecker factors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ocpkit.recursion.curvature as core
from nn.dense import assert_near, kronecker
from nn.strategies import few_examples, randn, seeds
from ocpkit.recursion.bellman import ActionValue
from ocpkit_nn.distributed import ALONE
from ocpkit_nn.layers.vectors import DenseBase, OuterBase
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes import eigenbases
from ocpkit_nn.passes.curvature import RULES, LayerGradients
from ocpkit_nn.training.networks import fcn

ETA = 0.1


def options(**changes: Any) -> dict[str, Any]:
    defaults = {"lr": ETA, "momentum": 0.9, "decay": 0.8, "betas": (0.7, 0.95), "eps": 1e-3}
    return {**defaults, "damping": 0.05, "eigenbasis_interval": 1, **changes}


CORES = {
    "identity": lambda: core.Identity(ETA, momentum=0.9),
    "diagonal": lambda: core.AdaptiveDiagonal(ETA, decay=0.8, epsilon=1e-3),
    "adam": lambda: core.Adam(ETA, decays=(0.7, 0.95), epsilon=1e-3),
}


@pytest.mark.parametrize("name", CORES)
@few_examples
@given(seed=seeds)
def test_element_wise_rules_are_the_cores(name: str, seed: int) -> None:
    """M/η and the direction of five steps, from the same E[Q_u]."""
    generator, memory, rule = torch.Generator().manual_seed(seed), {}, CORES[name]()
    for _ in range(5):
        base = DenseBase(randn(generator, 1, 3, 2, 4))
        ones = torch.ones(3, 1, dtype=torch.float64)
        mean = base.mean(ones)
        chosen = options(momentum=0.9 if name == "identity" else 0.0)
        metric, direction = RULES[name](LayerGradients(mean.clone(), base, ones, None), memory, chosen)
        operator, expected = rule(0, ActionValue(None, mean.flatten()))
        assert_near(direction.flatten(), expected, 1e-12)
        assert_near(metric.dense(mean), operator.dense(), 1e-10)
        assert_near(metric.solve(mean).flatten(), operator.solve(mean.flatten()), 1e-12)


class Batches:
    """Batches of a Linear layer with a bias whose V_h are of so many columns, and their exact factors."""

    def __init__(self, seed: int, batch: int = 7, columns: int = 1) -> None:
        self.generator, self.batch, self.columns = torch.Generator().manual_seed(seed), batch, columns

    def draw(self) -> tuple[LayerGradients, Tensor, Tensor, Tensor]:
        """Gradients, rows x̄ (B, i), V_h (B, o), and every sample's Q_u (B, o·i)."""
        x, V = randn(self.generator, self.batch, 3), randn(self.generator, self.columns, self.batch, 2)
        bar, c = torch.cat([x, x.new_ones(self.batch, 1)], dim=1), randn(self.generator, self.batch, self.columns)
        base, v = OuterBase(x, V, True), torch.einsum("rbo,br->bo", V, c)
        gradients = LayerGradients(base.mean(c), base, c, lambda: (bar.T @ bar / len(bar), v.T @ v / len(v)))
        return gradients, bar, v, (v[:, :, None] * bar[:, None]).flatten(1)


@few_examples
@given(seed=seeds, decay=st.sampled_from([0.0, 0.5, 0.95]))
def test_kronecker_factors_are_averaged_from_the_first_value(seed: int, decay: float) -> None:
    """M/η = (A ⊗ S + γ I)/η with A ← β A + (1 − β) E[x̄ x̄ᵀ], S alike, starting at the first batch's."""
    batches, memory = Batches(seed), {}
    A = S = None
    for _ in range(4):
        gradients, bar, v, _ = batches.draw()
        own = bar.T @ bar / len(bar), v.T @ v / len(v)
        A, S = own if A is None or S is None else (decay * A + (1 - decay) * own[0], decay * S + (1 - decay) * own[1])
        metric, direction = RULES["kronecker"](gradients, memory, options(decay=decay))
        expected = (kronecker(S, A) + 0.05 * torch.eye(8, dtype=torch.float64)) / ETA
        assert_near(metric.dense(gradients.mean), expected)
        assert torch.equal(direction, gradients.mean)


@pytest.mark.parametrize("name", ["kronecker", "ekfac"])
def test_the_basis_is_renewed_every_so_many_steps(name: str) -> None:
    """Between renewals the eigenvectors stay; EKFAC's scales go on averaging in them."""
    batches, memory, bases, scales = Batches(0), {}, [], []
    for _ in range(6):
        metric, _ = RULES[name](batches.draw()[0], memory, options(eigenbasis_interval=3))
        assert metric.input_basis is not None
        bases.append(metric.input_basis.clone())
        scales.append(torch.as_tensor(metric.inverse).clone())
        eigenbases.renew([memory], [options(eigenbasis_interval=3)], ALONE)
        A = memory["basis_A"] @ torch.diag(memory["values_A"]) @ memory["basis_A"].T
        assert torch.allclose(A, memory["A"]) == (len(bases) in (1, 3, 6))
    assert torch.equal(bases[0], bases[2])
    assert not torch.equal(bases[2], bases[3])
    assert torch.equal(bases[3], bases[5])
    assert torch.equal(scales[0], scales[1]) == (name == "kronecker")


@few_examples
@given(seed=seeds, batch=st.integers(2, 10), columns=st.integers(1, 3))
def test_ekfac_is_nearer_to_the_fisher_than_kfac(seed: int, batch: int, columns: int) -> None:
    """In KFAC's eigenbasis the second moments are the best scales in the Frobenius norm (George et al. 2018)."""
    gradients, *_, samples = Batches(seed, batch, columns).draw()
    fisher, unit = samples.T @ samples / batch, torch.eye(8, dtype=torch.float64)
    distances, bases = {}, {}
    for name in ("kronecker", "ekfac"):
        metric, _ = RULES[name](gradients, {}, options())
        curvature = metric.dense(gradients.mean) * ETA - 0.05 * unit
        distances[name], bases[name] = float((curvature - fisher).norm()), metric
    assert distances["ekfac"] <= distances["kronecker"] * (1 + 1e-9)
    basis = kronecker(bases["ekfac"].output_basis, bases["ekfac"].input_basis)
    best = basis @ torch.diag((basis.T @ fisher @ basis).diagonal()) @ basis.T
    assert distances["ekfac"] == pytest.approx(float((best - fisher).norm()), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("name", ["kronecker", "ekfac"])
def test_layers_without_factors_use_the_diagonal_of_the_fisher(name: str) -> None:
    generator, memory, moment = torch.Generator().manual_seed(0), {}, None
    for _ in range(3):
        base, c = DenseBase(randn(generator, 2, 5, 1, 4)), randn(generator, 5, 2)
        samples = torch.einsum("rbm,br->bm", base.dense().flatten(2), c)
        own = (samples**2).mean(0)
        moment = own if moment is None else 0.8 * moment + 0.2 * own
        metric, _ = RULES[name](LayerGradients(base.mean(c), base, c, None), memory, options())
        assert_near(metric.dense(base.mean(c)), torch.diag(moment + 0.05) / ETA)


@pytest.mark.parametrize("curvature", ["kronecker", "ekfac"])
def test_kronecker_factors_survive_a_vanishing_gradient(curvature: str) -> None:
    """In single precision LAPACK returns nan, without an error, for factors whose entries reach the denormal range."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(32, 32), torch.randint(10, (32,))
    model = fcn(32, 10, width=32, depth=24)
    optimizer = DDPNOpt(model, lr=1e-3, curvature=curvature, feedback="none")
    for _ in range(8):
        optimizer.step(inputs, targets)
    assert all(p.isfinite().all() for p in model.parameters())
