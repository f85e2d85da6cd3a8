"""Prop. 3: outer products pass through the Bellman recursion of problems with ℓ_t(u_t).

    ∇²φ = Z Zᵀ  ⇒  Q_ux = q_u q_xᵀ,  Q_xx = q_x q_xᵀ,  V_xx = z zᵀ,
    q_u = f_uᵀ z',  q_x = f_xᵀ z',  z = q_x (I − q_uᵀ Q_uu⁻¹ q_u)^{1/2}                (Eq. 16, 17; r columns)

for any positive definite stand-in for Q_uu. The square root is real only while q_uᵀ Q_uu⁻¹ q_u ≤ 1; beyond,
the library keeps the nearest positive semidefinite matrix.
"""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ocpkit.engines.numpy import NumpyEngine
from ocpkit.recursion.bellman import backward_pass
from ocpkit.recursion.curvature import Exact, Proximal
from ocpkit.recursion.linalg import Cholesky
from ocpkit.recursion.value import OuterProduct, Value, outer_value
from properties.oracle import assert_close
from properties.strategies import positive_definite, problems, seeds

ranks = st.integers(1, 4)
problems_of_the_proposition = problems(control_cost_only=True, max_horizon=5)


class Standin:
    """A random positive definite M_t, scaled so that the largest eigenvalue of q_uᵀ M_t⁻¹ q_u is `share`."""

    def __init__(self, seed, share):
        self.rng, self.share, self.matrices = np.random.default_rng(seed), share, {}

    def __call__(self, t, Q):
        if t not in self.matrices:
            M, q = positive_definite(self.rng, len(Q.u), 100.0), Q.ux.left
            largest = np.linalg.norm(q.T @ np.linalg.solve(M, q), 2)
            self.matrices[t] = M * (largest / self.share if largest > 0 else 1.0)
        return Cholesky(self.matrices[t]), Q.u


def expansions(problem, seed, rank):
    """First-order expansions without state cost, the terminal gradient, and a random Z (n, r)."""
    engine = NumpyEngine(problem)
    stages, terminal = engine.expand(engine.rollout(problem.controls), second_order=False)
    for stage in stages:
        assert not np.any(stage.lx)
        assert not np.any(stage.lxx)
        assert not np.any(stage.lux)
    Z = np.random.default_rng(seed).normal(size=(problem.state_sizes[-1], rank))
    return [replace(stage, lxx=0.0, lux=0.0) for stage in stages], terminal.x, Z


def matrix(hessian):
    return hessian.dense() if isinstance(hessian, OuterProduct) else hessian


def assert_same_steps(factored, dense):
    for f, d in zip(factored, dense, strict=True):
        assert isinstance(f.value.xx, OuterProduct)
        for name in ("x", "u", "xx", "ux", "uu"):
            assert_close(matrix(getattr(f.Q, name)), getattr(d.Q, name))
        assert_close(f.k, d.k)
        assert_close(matrix(f.K), d.K)
        assert_close(f.value.x, d.value.x)
        assert_close(matrix(f.value.xx), d.value.xx)
        assert_close(f.expected_change, d.expected_change)


@given(problems_of_the_proposition, seeds, ranks, st.floats(0.05, 0.9))
def test_factored_equals_dense_for_any_standin(problem, seed, rank, share):
    """V_xx = z zᵀ at every stage while q_uᵀ Q_uu⁻¹ q_u ≤ 1 (near 1 the difference 1 − c itself loses digits)."""
    stages, gradient, Z = expansions(problem, seed, rank)
    standin = Standin(seed, share)
    factored = backward_pass(stages, outer_value(gradient, Z), standin)
    assert_same_steps(factored, backward_pass(stages, Value(gradient, Z @ Z.T), standin))


@given(problems_of_the_proposition, seeds, ranks, st.sampled_from(["exact", "proximal"]), st.floats(0.1, 10.0))
def test_factored_equals_dense_with_the_exact_quu(problem, seed, rank, kind, mu):
    """Q_uu ⪰ q_u q_uᵀ keeps q_uᵀ Q_uu⁻¹ q_u below one without any condition."""
    stages, gradient, Z = expansions(problem, seed, rank)
    shift = max(0.0, *(-np.linalg.eigvalsh(stage.luu)[0] for stage in stages)) + mu
    curvature = Exact(shift) if kind == "exact" else Proximal(lambda t, Q: (Cholesky(shift * np.eye(len(Q.u))), Q.u))
    factored = backward_pass(stages, outer_value(gradient, Z), curvature)
    assert_same_steps(factored, backward_pass(stages, Value(gradient, Z @ Z.T), curvature))


@given(problems_of_the_proposition, seeds)
def test_a_vector_is_a_factor_of_rank_one(problem, seed):
    """The paper's form, z (n,), written out: Eq. 17 with a scalar root."""
    stages, gradient, Z = expansions(problem, seed, 1)
    z, standin = Z[:, 0], Standin(seed, 0.7)
    steps = backward_pass(stages, outer_value(gradient, z), standin)
    for t in reversed(range(problem.horizon)):
        q_u, q_x = stages[t].fu.T @ z, stages[t].fx.T @ z
        z = np.sqrt(1 - q_u @ np.linalg.solve(standin.matrices[t], q_u)) * q_x
        assert_close(steps[t].Q.ux.dense(), np.outer(q_u, q_x))
        assert_close(steps[t].value.xx.dense(), np.outer(z, z))


@given(problems_of_the_proposition, seeds, ranks, st.floats(1.5, 20.0))
def test_beyond_one_the_factor_is_that_of_the_nearest_semidefinite_matrix(problem, seed, rank, share):
    """V_xx = q_x P₊(I − q_uᵀ Q_uu⁻¹ q_u) q_xᵀ: real, semidefinite, and above the dense V_xx, which is not."""
    stages, gradient, Z = expansions(problem, seed, rank)
    standin = Standin(seed, share)
    following, steps = Z, backward_pass(stages, outer_value(gradient, Z), standin)
    for t in reversed(range(problem.horizon)):
        q_u, q_x = stages[t].fu.T @ following, stages[t].fx.T @ following
        core = np.eye(rank) - q_u.T @ np.linalg.solve(standin.matrices[t], q_u)
        lowest = np.linalg.eigvalsh(core)[0]
        assert lowest < 0 or not q_u.any()
        assert np.isfinite(steps[t].value.xx.left).all()
        assert_close(steps[t].value.xx.dense(), q_x @ positive_part(core) @ q_x.T, 1e-8)
        following = steps[t].value.xx.left


@given(problems(control_cost_only=True, max_horizon=1), seeds, ranks)
def test_at_one_the_direction_carries_nothing_upstream(problem, seed, rank):
    """q_uᵀ Q_uu⁻¹ q_u = 1, the last real z: the feedback cancels all of it, and factored still equals dense."""
    stages, gradient, Z = expansions(problem, seed, rank)
    standin = Standin(seed, 1.0)
    factored = backward_pass(stages, outer_value(gradient, Z), standin)
    assert_same_steps(factored, backward_pass(stages, Value(gradient, Z @ Z.T), standin))
    if rank == 1 and factored[0].Q.ux.left.any():
        assert_close(factored[0].value.xx.dense(), np.zeros((len(factored[0].Q.x),) * 2))


def positive_part(matrix):
    """The nearest positive semidefinite matrix, by the matrix absolute value: (A + |A|)/2, |A| from A's SVD."""
    _, singular, right = np.linalg.svd(matrix)
    return (matrix + right.T * singular @ right) / 2


@given(problems_of_the_proposition, seeds, st.floats(1e-3, 5.0))
def test_tikhonov_keeps_the_factors(problem, seed, epsilon):
    """Z Zᵀ + ε I, projected on the columns of Z: each column grows by ε in squared length and keeps its direction."""
    stages, gradient, Z = expansions(problem, seed, 2)
    Z = np.linalg.qr(np.vstack([Z, np.eye(2)]))[0][: len(Z)] * 3 if len(Z) < 2 else np.linalg.qr(Z)[0] * [3.0, 0.5]
    steps = backward_pass(stages, outer_value(gradient, Z), Exact(1e3), tikhonov=epsilon)
    lengths = np.linalg.norm(Z, axis=0)
    longer = Z * np.sqrt(1 + epsilon / np.maximum(lengths**2, epsilon))
    assert_close(steps[-1].Q.xx.dense(), stages[-1].fx.T @ longer @ longer.T @ stages[-1].fx)


@given(problems(), seeds, ranks, st.sampled_from([("lxx",), ("lux",), ()]))
def test_a_state_cost_makes_the_value_dense(problem, seed, rank, absent):
    """Without the premise Q_xx = q_x q_xᵀ + ℓ_xx is no outer product; the numbers stay those of the dense recursion."""
    engine = NumpyEngine(problem)
    stages, terminal = engine.expand(engine.rollout(problem.controls), second_order=False)
    stages = [replace(stage, **dict.fromkeys(absent, 0.0)) for stage in stages]
    Z = np.random.default_rng(seed).normal(size=(problem.state_sizes[-1], rank))
    factored = backward_pass(stages, outer_value(terminal.x, Z), standin_of(stages))
    dense = backward_pass(stages, Value(terminal.x, Z @ Z.T), standin_of(stages))
    for f, d in zip(factored, dense, strict=True):
        assert_close(matrix(f.K), d.K)
        assert_close(f.value.x, d.value.x)
        if absent != ("lxx",):
            assert isinstance(f.value.xx, np.ndarray)
        assert_close(matrix(f.value.xx), d.value.xx)


def standin_of(stages):
    """ℓ_uu shifted until it dominates: positive definite, the same for both representations."""
    return lambda t, Q: (Cholesky(stages[t].luu + (1 + 2 * np.abs(stages[t].luu).sum()) * np.eye(len(Q.u))), Q.u)
