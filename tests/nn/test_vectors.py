"""Implicit batch vectors, metrics and per-sample Hessians against the dense matrices that they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near, flat, kronecker
from nn.strategies import few_examples, randn, randomize, seeds
from ocpkit_nn.layers.convolution import ConvLayer
from ocpkit_nn.layers.metric import Metric, SampleMetric
from ocpkit_nn.layers.vectors import Combination, ControlBase, DenseBase, OuterBase, StateBase
from ocpkit_nn.passes.curvature import SampleHessian

METRICS = ["identity", "diagonal", "kronecker"]


@dataclass(frozen=True)
class BaseCase:
    """A base of a control's vectors, and where more random numbers come from."""

    base: ControlBase
    batch: int
    columns: int
    generator: torch.Generator

    def random(self, *shape: int) -> Tensor:
        return randn(self.generator, *shape)


@st.composite
def bases(draw: st.DrawFn) -> BaseCase:
    """R vectors of each of B samples: of a Linear layer, of a convolution, or of anything."""
    batch, columns, generator = draw(st.integers(1, 4)), draw(st.integers(1, 3)), None
    outputs, inputs = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(seeds))
    kind = draw(st.sampled_from(["outer", "dense", "convolution"]))
    if kind == "outer":
        base: ControlBase = OuterBase(randn(generator, batch, inputs), randn(generator, columns, batch, outputs))
    elif kind == "dense":
        base = DenseBase(randn(generator, columns, batch, outputs, inputs))
    else:
        module = nn.Conv1d(inputs, outputs, 2)
        generator = randomize(module, draw(seeds))
        x, v = randn(generator, batch, inputs, 3), randn(generator, columns, batch, outputs, 2)
        base = ConvLayer(module, "conv").control_vjp(x, v)
    return BaseCase(base, batch, columns, generator)


def metric_of(kind: str, case: BaseCase) -> tuple[Metric, Tensor]:
    """A metric and its dense matrix (m, m), formed in another way."""
    o, i = case.base.shape
    if kind == "identity":
        return Metric(0.3), torch.eye(o * i, dtype=torch.float64) / 0.3
    inverse = torch.exp(case.random(o, i))
    if kind == "diagonal":
        return Metric(inverse), torch.diag(1 / inverse.flatten())
    A, S = (torch.linalg.qr(case.random(size, size))[0] for size in (i, o))
    basis = kronecker(S, A)
    return Metric(inverse, A, S), basis @ torch.diag(1 / inverse.flatten()) @ basis.T


@few_examples
@given(case=bases())
def test_sums_over_base_vectors(case: BaseCase) -> None:
    base, vectors = case.base, case.base.dense()
    assert vectors.shape == (case.columns, case.batch, *base.shape)
    c, u = case.random(case.batch, case.columns), case.random(*base.shape)
    assert_near(base.mean(c), torch.einsum("rboi,br->oi", vectors, c) / case.batch, 1e-12)
    assert_near(base.inner(u), torch.einsum("rboi,oi->br", vectors, u), 1e-12)
    rows = vectors.transpose(0, 1).reshape(case.batch * case.columns, -1)
    assert_near(base.cross_gram(), rows @ rows.T, 1e-12)
    assert_near(base.gram(None), torch.einsum("rboi,sboi->brs", vectors, vectors), 1e-12)


@few_examples
@given(case=bases(), batch=st.integers(1, 4), columns=st.integers(1, 3), image=st.booleans())
def test_sums_over_state_vectors(case: BaseCase, batch: int, columns: int, image: bool) -> None:
    shape = (2, 3) if image else (5,)
    vectors = case.random(columns, batch, *shape)
    base, deviation = StateBase(lambda: vectors), case.random(batch, *shape)
    c = case.random(batch, columns)
    assert_near(base.inner(deviation), torch.einsum("rb...,b...->br", vectors, deviation), 1e-12)
    assert_near(base.combine(c), torch.einsum("rb...,br->b...", vectors, c), 1e-12)
    flattened = vectors.flatten(2)
    assert_near(base.gram(None), torch.einsum("rbm,sbm->brs", flattened, flattened), 1e-12)


@pytest.mark.parametrize("kind", METRICS)
@few_examples
@given(case=bases())
def test_metric_is_its_dense_matrix(kind: str, case: BaseCase) -> None:
    metric, dense = metric_of(kind, case)
    u = case.random(*case.base.shape)
    assert_near(metric.dense(u), dense, 1e-10)
    assert_near(metric.matvec(u).flatten(), dense @ u.flatten(), 1e-10)
    assert_near(metric.solve(u).flatten(), torch.linalg.solve(dense, u.flatten()), 1e-10)
    rows = case.base.dense().flatten(2)
    expected = torch.einsum("rbm,mn,sbn->brs", rows, torch.linalg.inv(dense), rows)
    assert_near(case.base.gram(metric), expected, 1e-10)
    assert_near(case.base.gram(Metric(1.0)), case.base.gram(None), 1e-10)  # and none is remembered for another


@few_examples
@given(case=bases(), columns=st.integers(1, 3), damping=st.floats(0.01, 10), rate=st.floats(0.01, 10))
def test_metric_of_the_samples_is_the_dense_mean(case: BaseCase, columns: int, damping: float, rate: float) -> None:
    """Vanilla DDP's M = E[Q_uu] + γ I (Table 2), against its dense inverse."""
    gamma = case.random(case.batch, case.columns, columns)
    metric = SampleMetric(case.base, gamma, damping, rate)
    q = torch.einsum("rboi,brs->bois", case.base.dense(), gamma).flatten(1, 2)
    mean = (q @ q.transpose(1, 2)).mean(0)
    dense = (mean + damping * torch.eye(len(mean), dtype=torch.float64)) / rate
    u = case.random(*case.base.shape)
    assert_near(metric.matvec(u).flatten(), dense @ u.flatten())
    assert_near(metric.solve(u).flatten() / rate, torch.linalg.solve(dense, u.flatten()) / rate)
    assert_near(metric.dense(u), dense)
    rows = case.base.dense().flatten(2)
    expected = torch.einsum("rbm,mn,sbn->brs", rows, torch.linalg.inv(dense), rows)
    assert_near(case.base.gram(metric) / rate, expected / rate)


@pytest.mark.parametrize("proximal", [True, False])
@pytest.mark.parametrize("kind", [*METRICS, "samples"])
@few_examples
@given(case=bases(), columns=st.integers(1, 3), right=st.integers(0, 3))
def test_hessian_of_a_sample_is_solved_by_woodbury(
    kind: str, proximal: bool, case: BaseCase, columns: int, right: int
) -> None:
    """(M/η + q qᵀ)⁻¹ times a vector (right = 0) or several columns of the same base."""
    gamma = case.random(case.batch, case.columns, columns)
    q = torch.einsum("rboi,brs->bois", case.base.dense(), gamma).flatten(1, 2)
    if kind == "samples":
        metric: Metric = SampleMetric(case.base, gamma, 0.5, 0.7)
        M = ((q @ q.transpose(1, 2)).mean(0) + 0.5 * torch.eye(q.shape[1], dtype=torch.float64)) / 0.7
    else:
        metric, M = metric_of(kind, case)
    hessian = SampleHessian(metric, Combination(case.base, gamma), proximal)
    dense = M + q @ q.transpose(1, 2) if proximal else M.expand(case.batch, -1, -1)
    assert_near(hessian.dense(), dense)
    c = case.random(case.batch, case.columns, *([right] if right else []))
    b = flat(Combination(case.base, c))
    solution = hessian.solve(Combination(case.base, c))
    assert solution.metric is metric
    columns_of = flat(solution).reshape(case.batch, len(M), -1)  # the combination stands for M⁻¹ times its sum
    expected = torch.linalg.solve(dense, b.reshape(columns_of.shape))
    assert_near(torch.linalg.solve(M, columns_of), expected)


@few_examples
@given(case=bases(), r=st.integers(1, 3), s=st.integers(1, 3))
def test_combinations_are_arrays(case: BaseCase, r: int, s: int) -> None:
    """The operations that the core's Bellman step asks of an array."""
    B, R, base = case.batch, case.columns, case.base
    a, b = Combination(base, case.random(B, R)), Combination(base, case.random(B, R))
    Z, W = Combination(base, case.random(B, R, r)), Combination(base, case.random(B, R, s))
    small, matrix = case.random(B, r), case.random(B, r, s)
    assert_near(flat(a + b), flat(a) + flat(b), 1e-12)
    assert (0.0 + a) is a
    assert_near(flat(-Z), -flat(Z), 1e-12)
    assert_near(flat(Z @ matrix), flat(Z) @ matrix, 1e-12)
    assert_near(flat(Z.matvec(small)), torch.einsum("bmr,br->bm", flat(Z), small), 1e-12)
    assert_near(Z.swapaxes(-1, -2) @ W, flat(Z).transpose(1, 2) @ flat(W), 1e-11)
    assert_near(Z.swapaxes(-1, -2) @ a, torch.einsum("bmr,bm->br", flat(Z), flat(a)), 1e-11)
    assert_near(a.inner_product(b), (flat(a) * flat(b)).sum(1), 1e-11)
