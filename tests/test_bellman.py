"""The Bellman step against a dense solve of the whole LQ problem: an oracle that knows no recursion."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocpkit.errors import NotPositiveDefinite
from ocpkit.recursion.bellman import backward_pass, bellman_step
from ocpkit.recursion.curvature import Exact, Identity
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.value import OuterProduct, Value, outer_value


def random_lq(seed: int, horizon: int, sizes: list[int], controls: list[int], gaps: bool) -> tuple[Any, Value]:
    """Expansions of a random convex LQ problem whose sizes change, and V_T."""
    rng, stages = np.random.default_rng(seed), []
    for t in range(horizon):
        n, m, after = sizes[t], controls[t], sizes[t + 1]
        root = rng.normal(size=(n + m, n + m))
        H = root @ root.T / (n + m) + 0.2 * np.eye(n + m)
        stages.append(
            Expansion(
                fx=rng.normal(size=(after, n)) / np.sqrt(n),
                fu=rng.normal(size=(after, m)),
                lx=rng.normal(size=n),
                lu=rng.normal(size=m),
                lxx=H[:n, :n],
                lux=H[n:, :n],
                luu=H[n:, n:],
                gap=rng.normal(size=after) if gaps else None,
            )
        )
    root = rng.normal(size=(sizes[-1],) * 2)
    return stages, Value(rng.normal(size=sizes[-1]), root @ root.T)


def solve_kkt(stages: list[Expansion], terminal: Value, start: np.ndarray) -> tuple[Any, Any, Any, float]:
    """Minimize the quadratic model subject to δx' = f_x δx + f_u δu + gap, δx_0 = start, as one linear system.

    Returns the states, the controls, the multiplier of δx_0 = start (that is V_x there) and the objective.
    """
    n, m = [len(s.lx) for s in stages] + [len(terminal.x)], [len(s.lu) for s in stages]
    cuts = np.cumsum([0, *(size for pair in zip(n, [*m, 0]) for size in pair)])
    at = [slice(a, b) for a, b in pairwise(cuts)]
    x, u, size, rows = at[0::2], at[1::2], cuts[-1], sum(n)
    H, g = np.zeros((size, size)), np.zeros(size)
    A, b, row = np.zeros((rows, size)), np.zeros(rows), n[0]
    A[: n[0], x[0]], b[: n[0]] = np.eye(n[0]), start
    for t, s in enumerate(stages):
        H[x[t], x[t]], H[u[t], x[t]], H[x[t], u[t]], H[u[t], u[t]] = s.lxx, s.lux, s.lux.T, s.luu
        g[x[t]], g[u[t]], these = s.lx, s.lu, slice(row, row + n[t + 1])
        A[these, x[t]], A[these, u[t]], A[these, x[t + 1]] = -s.fx, -s.fu, np.eye(n[t + 1])
        b[these] = 0 if s.gap is None else s.gap
        row += n[t + 1]
    H[x[-1], x[-1]], g[x[-1]] = terminal.xx, terminal.x
    solution = np.linalg.solve(np.block([[H, A.T], [A, np.zeros((rows, rows))]]), np.concatenate([-g, b]))
    z = solution[:size]
    return [z[s] for s in x], [z[s] for s in u], -solution[size : size + n[0]], float(0.5 * z @ H @ z + g @ z)


@st.composite
def lq_problems(draw: st.DrawFn) -> tuple[list[Expansion], Value]:
    horizon = draw(st.integers(1, 6))
    sizes = draw(st.lists(st.integers(1, 5), min_size=horizon + 1, max_size=horizon + 1))
    controls = draw(st.lists(st.integers(1, 3), min_size=horizon, max_size=horizon))
    return random_lq(draw(st.integers(0, 10**6)), horizon, sizes, controls, draw(st.booleans()))


@given(lq_problems())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_policy_and_value_equal_the_dense_solve(problem: tuple[list[Expansion], Value]) -> None:
    stages, terminal = problem
    steps = backward_pass(stages, terminal, Exact())
    n = len(stages[0].lx)
    states, controls, gradient, objective = solve_kkt(stages, terminal, np.zeros(n))
    x = np.zeros(n)
    for t, (stage, step) in enumerate(zip(stages, steps)):
        u = step.k + step.K @ x
        np.testing.assert_allclose(x, states[t], atol=1e-9)
        np.testing.assert_allclose(u, controls[t], atol=1e-9)
        x = stage.fx @ x + stage.fu @ u + (0 if stage.gap is None else stage.gap)
    np.testing.assert_allclose(steps[0].value.x, gradient, atol=1e-9)
    assert sum(step.expected_change for step in steps) == pytest.approx(objective, abs=1e-9)
    columns = [solve_kkt(stages, terminal, unit)[2] - gradient for unit in np.eye(n)]
    np.testing.assert_allclose(steps[0].value.xx, np.stack(columns, axis=1), atol=1e-8)


@given(lq_problems(), st.integers(0, 10**6))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_contraction_enters_as_curvature(problem: tuple[list[Expansion], Value], seed: int) -> None:
    """V_x·f_zz is added to the Hessian of the stage cost: the same step as with that cost."""
    stages, V = problem
    stage, rng = stages[-1], np.random.default_rng(seed)
    n, m = len(stage.lx), len(stage.lu)
    tensor = 0.1 * rng.normal(size=(len(V.x), n + m, n + m))
    tensor = tensor + tensor.transpose(0, 2, 1)

    def contract(v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        block = np.tensordot(v, tensor, 1)
        return block[:n, :n], block[n:, :n], block[n:, n:]

    moved = V.x if stage.gap is None else V.x + V.xx @ stage.gap
    xx, ux, uu = contract(moved)
    fields = {**stage.__dict__, "contract": contract}
    bent = Expansion(**fields)
    fields = {**stage.__dict__, "lxx": stage.lxx + xx, "lux": stage.lux + ux, "luu": stage.luu + uu}
    costly = Expansion(**fields)
    curvature = Exact(50.0)
    a, b = bellman_step(0, bent, V, curvature), bellman_step(0, costly, V, curvature)
    np.testing.assert_allclose(a.K, b.K, atol=1e-12)
    np.testing.assert_allclose(a.value.xx, b.value.xx, atol=1e-10)


def stack(entries: list[Any]) -> Expansion:
    names = ("fx", "fu", "lx", "lu", "lxx", "lux", "luu", "gap")
    return Expansion(**{name: np.stack([getattr(e, name) for e in entries]) for name in names})


def to_torch(stage: Expansion) -> Expansion:
    return Expansion(**{k: None if v is None else torch.tensor(v) for k, v in stage.__dict__.items()})


def test_batch_equals_loop() -> None:
    problems = [random_lq(seed, 3, [4, 2, 3, 4], [2, 1, 3], gaps=True) for seed in range(5)]
    batched = [stack([stages[t] for stages, _ in problems]) for t in range(3)]
    terminal = Value(np.stack([V.x for _, V in problems]), np.stack([V.xx for _, V in problems]))
    together = backward_pass(batched, terminal, Exact(0.1))
    for i, (stages, V) in enumerate(problems):
        for one, all_ in zip(backward_pass(stages, V, Exact(0.1)), together):
            for a, b in ((one.k, all_.k), (one.K, all_.K), (one.value.x, all_.value.x), (one.value.xx, all_.value.xx)):
                np.testing.assert_allclose(b[i], a, rtol=1e-10, atol=1e-11)
            assert all_.expected_change[i] == pytest.approx(one.expected_change, rel=1e-10)


@pytest.mark.parametrize("gaps", [False, True])
def test_torch_equals_numpy(gaps: bool) -> None:
    stages, V = random_lq(7, 4, [3, 3, 2, 4, 3], [1, 2, 2, 1], gaps)
    on_torch = backward_pass([to_torch(s) for s in stages], Value(torch.tensor(V.x), torch.tensor(V.xx)), Exact(0.1))
    for a, b in zip(backward_pass(stages, V, Exact(0.1)), on_torch):
        np.testing.assert_allclose(b.k.numpy(), a.k, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(b.value.xx.numpy(), a.value.xx, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2])
def test_factored_equals_dense(rank: int) -> None:
    """Prop. 3: running costs of the control alone keep V_xx = Z Zᵀ."""
    stages, V = random_lq(11, 4, [3, 4, 2, 3, 3], [2, 1, 2, 2], gaps=False)
    plain = [Expansion(s.fx, s.fu, 0 * s.lx, s.lu, luu=s.luu) for s in stages]
    Z = np.random.default_rng(0).normal(size=(3, rank))
    factored = backward_pass(plain, outer_value(V.x, Z), Exact(0.5))
    dense = backward_pass(plain, Value(V.x, Z @ Z.T), Exact(0.5))
    for a, b in zip(factored, dense):
        assert isinstance(a.value.xx, OuterProduct)
        np.testing.assert_allclose(a.value.xx.dense(), b.value.xx, atol=1e-11)
        np.testing.assert_allclose(a.K.dense(), b.K, atol=1e-11)
        np.testing.assert_allclose(a.k, b.k, atol=1e-11)


@pytest.mark.parametrize("cross", [False, True])
def test_a_state_cost_makes_the_factored_value_dense(cross: bool) -> None:
    """Without the premise of Prop. 3 the factors are lost, the numbers are not."""
    stages, V = random_lq(1, 3, [2, 3, 2, 2], [1, 2, 1], gaps=False)
    if not cross:
        stages = [Expansion(s.fx, s.fu, s.lx, s.lu, lxx=s.lxx, luu=s.luu) for s in stages]
    z = np.ones((2, 1))
    factored = backward_pass(stages, outer_value(V.x, z), Exact())
    for a, b in zip(factored, backward_pass(stages, Value(V.x, z @ z.T), Exact())):
        np.testing.assert_allclose(a.value.xx, b.value.xx, atol=1e-11)
        np.testing.assert_allclose(a.value.x, b.value.x, atol=1e-11)


def test_indefinite_stage_is_named() -> None:
    stages, V = random_lq(1, 3, [2, 2, 2, 2], [1, 1, 1], gaps=False)
    stages[1] = Expansion(**{**stages[1].__dict__, "luu": np.array([[-1e3]])})
    with pytest.raises(NotPositiveDefinite, match="stage 1") as caught:
        backward_pass(stages, V, Exact())
    assert caught.value.stage == 1


def test_tikhonov_adds_to_the_value_hessian() -> None:
    stages, V = random_lq(5, 1, [2, 3], [2], gaps=False)
    damped = backward_pass(stages, V, Exact(), tikhonov=0.7)[0]
    shifted = backward_pass(stages, Value(V.x, V.xx + 0.7 * np.eye(3)), Exact())[0]
    np.testing.assert_allclose(damped.K, shifted.K, rtol=1e-13)


def test_gradients_alone_are_back_propagation() -> None:
    stages, V = random_lq(5, 3, [2, 3, 1, 2], [2, 1, 2], gaps=False)
    steps = backward_pass(stages, Value(V.x), Identity(0.1), feedback=False)
    adjoint = V.x
    for stage, step in zip(stages[::-1], steps[::-1]):
        np.testing.assert_allclose(step.k, -0.1 * (stage.lu + stage.fu.T @ adjoint), rtol=1e-13)
        adjoint = stage.lx + stage.fx.T @ adjoint
        np.testing.assert_allclose(step.value.x, adjoint, rtol=1e-13)
