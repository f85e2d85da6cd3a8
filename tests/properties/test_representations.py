"""One recursion for NumPy and torch, single and batched, dense and factored: the same numbers from all of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocpkit.errors import NotPositiveDefinite
from ocpkit.recursion.bellman import bellman_step
from ocpkit.recursion.curvature import (
    Adam,
    AdaptiveDiagonal,
    DiagonalOperator,
    Exact,
    Identity,
    Proximal,
    ScaledIdentity,
)
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.linalg import Cholesky, eigh, psd_root
from ocpkit.recursion.value import OuterProduct, Value, outer_value
from properties.oracle import assert_close
from properties.strategies import positive_definite, seeds, sizes

CURVATURES = {
    "exact": lambda: Exact(0.3),
    "identity": lambda: Identity(0.1),
    "rmsprop": lambda: AdaptiveDiagonal(0.1),
    "adam": lambda: Adam(0.1),
    "proximal": lambda: Proximal(Identity(0.5)),
    "proximal adam": lambda: Proximal(Adam(0.1)),
}
LIBRARIES = {"numpy": np.asarray, "torch": torch.as_tensor}


def random_stage(rng, n, m, n_next, rank):
    """Blocks of one stage and of V', as a dictionary of arrays."""
    return {
        "fx": rng.normal(size=(n_next, n)),
        "fu": rng.normal(size=(n_next, m)),
        "lx": rng.normal(size=n),
        "lu": rng.normal(size=m),
        "lxx": positive_definite(rng, n),
        "lux": rng.normal(size=(m, n)),
        "luu": positive_definite(rng, m),
        "gap": rng.normal(size=n_next),
        "Vx": rng.normal(size=n_next),
        "Z": rng.normal(size=(n_next, rank)),
    }


def step_of(blocks, curvature, factored):
    """The Bellman step of these blocks, with V_xx' = Z Zᵀ dense (and a gap) or factored (without state cost)."""
    blocks = dict(blocks)
    Vx, Z, gap = blocks.pop("Vx"), blocks.pop("Z"), blocks.pop("gap")
    if factored:
        blocks |= {"lxx": 0.0, "lux": 0.0}
        return bellman_step(0, Expansion(**blocks), outer_value(Vx, Z), curvature)
    return bellman_step(0, Expansion(**blocks, gap=gap), Value(Vx, Z @ Z.swapaxes(-1, -2)), curvature)


def numbers(step):
    """Everything a step holds, as arrays."""
    parts = [*step.Q, step.k, step.K, step.value.x, step.value.xx, step.expected_change]
    return [np.asarray(part.dense() if isinstance(part, OuterProduct) else part) for part in parts]


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", CURVATURES)
@given(seed=seeds, n=sizes, m=sizes, n_next=sizes, rank=st.integers(1, 3), factored=st.booleans())
def test_a_batch_is_its_samples_one_by_one(library, name, seed, n, m, n_next, rank, factored):
    """A leading batch dimension, or another array library, changes no number; three steps, so that averages run."""
    rng, convert, count = np.random.default_rng(seed), LIBRARIES[library], 2
    together, alone = CURVATURES[name](), [CURVATURES[name]() for _ in range(count)]
    for _ in range(3):
        samples = [random_stage(rng, n, m, n_next, rank) for _ in range(count)]
        single = [numbers(step_of(blocks, alone[i], factored)) for i, blocks in enumerate(samples)]
        batch = {key: convert(np.stack([blocks[key] for blocks in samples])) for key in samples[0]}
        for part, expected in zip(
            numbers(step_of(batch, together, factored)), map(np.stack, zip(*single)), strict=True
        ):
            assert_close(part, expected)
        one = CURVATURES[name]()
        converted = {key: convert(value) for key, value in samples[0].items()}
        fresh = numbers(step_of(samples[0], CURVATURES[name](), factored))
        for part, expected in zip(numbers(step_of(converted, one, factored)), fresh, strict=True):
            assert_close(part, expected)


@given(seed=seeds, n=sizes, m=sizes, rate=st.floats(0.01, 10.0))
def test_a_proximal_identity_is_levenberg_damping(seed, n, m, rate):
    """Q_uu + I/η is Q_uu + μ I with μ = 1/η."""
    blocks = random_stage(np.random.default_rng(seed), n, m, n, 1)
    pairs = zip(
        numbers(step_of(blocks, Proximal(Identity(rate)), False)), numbers(step_of(blocks, Exact(1 / rate), False))
    )
    for proximal, damped in pairs:
        assert_close(proximal, damped)


@pytest.mark.parametrize("library", LIBRARIES)
@given(seed=seeds, size=sizes, batch=st.sampled_from([(), (2,)]))
def test_operators_solve_multiply_and_show_one_matrix(library, seed, size, batch):
    """For every operator: H⁻¹ (H v) = v for vectors and matrices, and H v = dense(H) v."""
    rng, convert = np.random.default_rng(seed), LIBRARIES[library]
    spd = (
        np.stack([positive_definite(rng, size) for _ in range(2)])[: batch[0]]
        if batch
        else positive_definite(rng, size)
    )
    diagonal = rng.uniform(0.5, 2.0, size=(*batch, size))
    vector, columns = rng.normal(size=(*batch, size)), rng.normal(size=(*batch, size, 3))
    scale, like = rng.uniform(0.5, 2.0), convert(np.zeros(size))
    cases = (
        (Cholesky(convert(spd)), spd),
        (DiagonalOperator(convert(diagonal)), diagonal[..., None] * np.eye(size)),
        (ScaledIdentity(scale, like), scale * np.eye(size)),
    )
    for operator, dense in cases:
        assert_close(operator.dense(), dense)
        product = (dense @ vector[..., None])[..., 0]
        assert_close(operator.matvec(convert(vector)), product)
        assert_close(operator.solve(convert(product)), vector)
        assert_close(operator.solve(convert(dense @ columns)), columns)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("batch", [(), (2,)])
@given(seed=seeds, size=st.integers(1, 4))
def test_no_factor_is_reported(library, batch, seed, size):
    """A matrix with a negative eigenvalue, or one that is not finite, has no Cholesky factor."""
    rng, convert = np.random.default_rng(seed), LIBRARIES[library]
    indefinite = positive_definite(rng, size) - 20 * np.eye(size)
    unfinished = np.where(np.eye(size) > 0, np.nan, positive_definite(rng, size))
    for bad in (indefinite, unfinished):
        matrix = np.stack([positive_definite(rng, size), bad]) if batch else bad
        with pytest.raises(NotPositiveDefinite):
            Cholesky(convert(matrix))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("batch", [(), (2,)])
@given(seed=seeds, size=st.integers(1, 4))
def test_psd_root_squares_to_the_positive_part(library, batch, seed, size):
    """R Rᵀ = Σ max(λ_i, 0) v_i v_iᵀ, for semidefinite matrices the matrix itself."""
    rng, convert = np.random.default_rng(seed), LIBRARIES[library]
    basis, _ = np.linalg.qr(rng.normal(size=(*batch, size, size)))
    eigenvalues = rng.normal(size=(*batch, 1, size))
    symmetric = basis * eigenvalues @ basis.swapaxes(-1, -2)
    positive = basis * np.maximum(eigenvalues, 0) @ basis.swapaxes(-1, -2)
    root = np.asarray(psd_root(convert(symmetric)))
    assert_close(root @ root.swapaxes(-1, -2), positive)
    values, vectors = (np.asarray(part) for part in eigh(convert(symmetric)))
    assert_close(vectors * values[..., None, :] @ vectors.swapaxes(-1, -2), symmetric)


def test_a_stage_without_controls_has_an_empty_policy():
    """m = 0: nothing to choose, V is Q."""
    rng = np.random.default_rng(0)
    fx, Vx, Vxx = rng.normal(size=(3, 2)), rng.normal(size=3), positive_definite(rng, 3)
    empty = Expansion(fx, np.zeros((3, 0)), np.zeros(2), np.zeros(0), np.eye(2), np.zeros((0, 2)), np.zeros((0, 0)))
    step = bellman_step(0, empty, Value(Vx, Vxx), Exact())
    assert step.k.shape == (0,)
    assert step.K.shape == (0, 2)
    assert_close(step.value.x, fx.T @ Vx)
    assert_close(step.value.xx, np.eye(2) + fx.T @ Vxx @ fx)
    assert step.expected_change == 0


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_a_value_without_hessian_stays_without_one(epsilon):
    """Gradient-only methods: there is no V_xx to add ε I to."""
    value = Value(np.ones(2)).regularized(epsilon)
    assert value.xx is None
    assert_close(value.x, np.ones(2))
