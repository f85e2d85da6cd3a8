"""Feedback gains as linear operators against the matrices that they stand for."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nn.dense import assert_near
from nn.recursion import TERMINALS, dense_gain
from nn.strategies import Case, few_examples, networks, randn, seeds
from ocpkit_nn.optim.ddpnopt import DDPNOpt
from ocpkit_nn.passes.gains import FeedbackGain


def gains_of(case: Case, terminal: str) -> list[FeedbackGain]:
    optimizer = DDPNOpt(case.model, lr=0.1, curvature="identity", terminal=terminal, **TERMINALS[terminal])
    optimizer.step(case.inputs, case.targets)
    first, *rest = optimizer.policies()
    assert first is None
    return [gain for gain in rest if gain is not None]


def batch_matrix(gain: FeedbackGain) -> Tensor:
    """K_i (B, m, n)."""
    like = gain.control.dense()[0, 0]
    return dense_gain(gain, gain.metric.dense(like))


@few_examples
@given(case=networks(), terminal=st.sampled_from(["empirical", "ggn"]), seed=seeds)
def test_gains_and_their_adjoints_are_the_dense_matrices(case: Case, terminal: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for gain in gains_of(case, terminal):
        K = batch_matrix(gain)
        shape = gain.state.vectors.shape[1:]
        x, u = randn(generator, *shape), randn(generator, *gain.control.shape)
        forward, adjoint = gain.matvec(x), gain.rmatvec(u)
        assert_near(forward.flatten(), torch.einsum("bmn,bn->m", K, x.flatten(1)) / len(x))
        assert_near(adjoint.flatten(1), torch.einsum("bmn,m->bn", K, u.flatten()) / len(x))
        assert_near((forward * u).sum(), (x * adjoint).sum())
        mean = K.mean(0)
        assert_near(gain.mean_matvec(x[0]).flatten(), mean @ x[0].flatten())
        assert_near(gain.mean_rmatvec(u).flatten(), mean.T @ u.flatten())


@few_examples
@given(case=networks(), terminal=st.sampled_from(["empirical", "ggn"]), k=st.integers(1, 4))
def test_leading_singular_triplets_are_the_dense_svds(case: Case, terminal: str, k: int) -> None:
    for gain in gains_of(case, terminal):
        mean = batch_matrix(gain).mean(0)
        U, values, Vt = gain.svd(k)
        expected = torch.linalg.svdvals(mean)[:k]
        count = min(k, *mean.shape)
        assert values.shape == (count,)
        scale = max(float(expected[0]), 1e-12)
        assert_near(values / scale, expected / scale, 1e-7)
        kept = values > 1e-4 * scale  # singular vectors are unique up to sign only where values are apart from zero
        assert_near((mean @ Vt.T)[:, kept] / scale, (U * values)[:, kept] / scale, 1e-7)
        assert_near((mean.T @ U)[:, kept] / scale, (Vt.T * values)[:, kept] / scale, 1e-7)
        unit = torch.eye(int(kept.sum()), dtype=torch.float64)
        assert_near(Vt[kept] @ Vt[kept].T, unit, 1e-7)
        assert_near(U[:, kept].T @ U[:, kept], unit, 1e-7)


def test_a_gain_of_zero_has_zero_singular_values() -> None:
    """A dead ReLU passes nothing back, and Lanczos has nothing to start from."""
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    nn.init.zeros_(model[2].weight)
    nn.init.constant_(model[2].bias, -1.0)
    (gain, _) = gains_of(Case(model, torch.ones(3, 5, dtype=torch.float64), torch.tensor([0, 1, 1])), "empirical")
    U, values, Vt = gain.svd(2)
    assert torch.equal(values, torch.zeros(2, dtype=torch.float64))
    assert_near(U.T @ U, torch.eye(2, dtype=torch.float64), 1e-12)
    assert_near(Vt @ Vt.T, torch.eye(2, dtype=torch.float64), 1e-12)
