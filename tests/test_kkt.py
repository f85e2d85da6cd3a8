"""The sweep for the KKT system: it solves the dense system, in C as in NumPy, and finds out the inertia."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from problems import BY_NAME
from scipy.linalg import block_diag, null_space
from test_constrained import CASES

from ocpkit import PrimalDual, Problem
from ocpkit.engines.c.kernels import Kernel
from ocpkit.errors import NotPositiveDefinite
from ocpkit.solvers.primal_dual import kkt
from ocpkit.solvers.primal_dual.blocks import Blocks
from ocpkit.solvers.primal_dual.kkt import AnyFactors, CompiledFactors, Factors, Step, Weights
from ocpkit.solvers.primal_dual.layout import Layout

Array = Any
ZERO, WELL = 1e-6, 0.1
"""Curvatures whose sign rounding decides, and above which it loses no more than a few digits."""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The kernel, in a cache of its own: other tests go on in NumPy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCPKIT_CACHE", str(tmp_path_factory.mktemp("kernels")))
        patch.setenv("OCPKIT_BUILD_BESIDE", "1")
        found = Kernel("kkt.c", kkt._declare)
        found.look()
        assert found.wait() is not None
        yield found


@dataclass(frozen=True)
class System:
    """A system, its right-hand side, and the same as dense matrices without x_0."""

    blocks: Blocks
    weights: Weights
    q: Array
    b: Array
    h: Array

    @property
    def layout(self) -> Layout:
        return self.blocks.layout

    def dense(self) -> tuple[Array, Array, Array]:
        """H, the Jacobian of the gaps, and that of the rows, of all of w."""
        layout = self.layout
        H = block_diag(*self.blocks.hessians_of) + np.diag(self.weights.variables)
        J, G = np.zeros((len(self.b), len(H))), np.zeros((len(self.h), len(H)))
        for t in range(layout.horizon + 1):
            G[layout.row[t], layout.z[t]] = self.blocks.rows_of[t]
        for t in range(layout.horizon):
            J[layout.gap[t], layout.z[t]] = self.blocks.dynamics_of[t]
            J[layout.gap[t], layout.x[t + 1]] = -np.eye(layout.states[t + 1])
        return H, J, G

    def curvature(self, first: int = 0) -> float:
        """Least second derivative of stages `first` … T with δx_first = 0 and closed gaps; all else is priced."""
        layout = self.layout
        if first == layout.horizon:
            return np.inf
        H, J, G = self.dense()
        free = np.arange(layout.x[first].stop, len(H))
        H, J, G = H[np.ix_(free, free)], J[layout.gap[first].start :, free], G[layout.row[first].start :, free]
        C, D = self.weights.elastic, self.weights.compliance[layout.row[first].start :]
        H = H + G.T @ (G / D[:, None])
        if C is None:
            Z = null_space(J)
            H = Z.T @ H @ Z
        else:
            H += J.T @ (J / C[layout.gap[first].start :, None])
        return float(np.linalg.eigvalsh(H).min(initial=np.inf))

    def residuals(self, step: Step) -> tuple[Array, Array, Array]:
        """What a solution leaves of the conditions of d (but for δx_0), of the gaps, and of the rows."""
        H, J, G = self.dense()
        along = H @ step.d + self.q + J.T @ step.costates + G.T @ step.multipliers
        soft = 0.0 if self.weights.elastic is None else self.weights.elastic * step.costates
        rows = G @ step.d + self.h - self.weights.compliance * step.multipliers
        return along[self.layout.states[0] :], J @ step.d + self.b - soft, rows


@st.composite
def systems(draw: st.DrawFn, least_shift: float = -1.0) -> System:
    """Sizes that change along the horizon; Hessians with a random part and so much of the identity."""
    T = draw(st.integers(1, 5))
    series = [draw(st.lists(st.integers(low, high), min_size=count, max_size=count)) for low, high, count in
              ((1, 4, T + 1), (0, 3, T), (0, 3, T + 1))]  # fmt: skip
    layout = Layout(*(tuple(each) for each in series))
    shift, elastic = draw(st.floats(least_shift, 5.0)), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, k, widths = layout.states, layout.rows, layout.widths
    dynamics = [rng.normal(size=(after, z)) / np.sqrt(z) for after, z in zip(n[1:], widths)]
    rows = [rng.normal(size=(count, z)) for count, z in zip(k, widths)]
    hessians = [(A + A.T) / 2 + shift * np.eye(len(A)) for A in (rng.normal(size=(z, z)) for z in widths)]
    flat = [np.concatenate([each.ravel() for each in matrices]) for matrices in (dynamics, rows, hessians)]
    blocks = Blocks(layout, np.zeros(sum(widths)), *flat)
    C = 10 ** rng.uniform(-3, 0, sum(n[1:])) if elastic else None
    weights = Weights(rng.uniform(0, 1, sum(widths)), 10 ** rng.uniform(-3, 0, sum(k)), C)
    return System(blocks, weights, rng.normal(size=sum(widths)), rng.normal(size=sum(n[1:])), rng.normal(size=sum(k)))


def factors_of(kernel: Kernel, system: System, where: str) -> AnyFactors:
    if where == "numpy":
        return Factors(system.blocks, system.weights)
    library = kernel.wait()
    assert library is not None
    return CompiledFactors(library, system.blocks, system.weights)


def size_of(*arrays: Array) -> float:
    return max(float(np.abs(each).max(initial=0.0)) for each in arrays)


@pytest.mark.parametrize("where", ["numpy", "c"])
@settings(max_examples=60, deadline=None)
@given(system=systems(least_shift=1.0))
def test_the_sweep_solves_the_dense_system(where: str, kernel: Kernel, system: System) -> None:
    """Stationary along all but δx_0, which is zero; gaps and rows as their compliances leave them."""
    assume(system.curvature() > WELL)
    step = factors_of(kernel, system, where).solve(system.q, system.b, system.h)
    assert (step.d[: system.layout.states[0]] == 0).all()
    assert size_of(*system.residuals(step)) <= 1e-9 * max(1.0, size_of(*step))


@pytest.mark.parametrize("where", ["numpy", "c"])
@settings(max_examples=60, deadline=None)
@given(system=systems(least_shift=1.0), stiff=st.integers(-9, 0), soft=st.integers(-9, 6))
def test_stiff_rows_behind_soft_gaps(where: str, kernel: Kernel, system: System, stiff: int, soft: int) -> None:
    """Near the end of a restoration gaps are a thousand times as soft as what follows them, or rows; digits stay."""
    D, C = system.weights.compliance * 10.0**stiff, system.weights.elastic
    weights = system.weights._replace(compliance=D, elastic=None if C is None else C * 10.0**soft)
    assume(system.curvature() > WELL)
    system = replace(system, weights=weights)
    assume(system.curvature() > WELL)
    step = factors_of(kernel, system, where).solve(system.q, system.b, system.h)
    lost = 1e-15 / D.min(initial=1.0)  # of the digits of h in y = (G z + h) / D
    assert size_of(*system.residuals(step)) <= (1e-7 + lost) * max(1.0, size_of(*step))


@settings(max_examples=100, deadline=None)
@given(system=systems(least_shift=1.0))
def test_c_agrees_with_numpy(kernel: Kernel, system: System) -> None:
    assume(system.curvature() > WELL)
    ours, reference = (factors_of(kernel, system, where) for where in ("c", "numpy"))
    for found, expected in (ours.gains, reference.gains), (ours.values, reference.values):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9 * max(1.0, size_of(b)))
    for _ in range(2):  # a second right-hand side does not see the first
        steps = [each.solve(system.q, system.b, system.h) for each in (ours, reference)]
        for a, b in zip(*steps):
            np.testing.assert_allclose(a, b, atol=1e-9 * max(1.0, size_of(b)))
        system = replace(system, q=-2 * system.q, b=system.b[::-1].copy(), h=system.h + 1)


@pytest.mark.parametrize("where", ["numpy", "c"])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(system=systems())
def test_the_inertia_is_found_out(where: str, kernel: Kernel, system: System) -> None:
    """At the first stage from the end on from which the reduced Hessian is not positive definite."""
    assume(abs(system.curvature()) > ZERO)
    if system.curvature() > 0:
        factors_of(kernel, system, where)
        return
    with pytest.raises(NotPositiveDefinite) as raised:
        factors_of(kernel, system, where)
    stage = raised.value.stage
    assert stage is not None
    assert system.curvature(stage) < ZERO
    assert system.curvature(stage + 1) > -ZERO


@pytest.mark.parametrize("where", ["numpy", "c"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_is_not_positive_definite(where: str, number: float, kernel: Kernel) -> None:
    layout = Layout((2, 2), (2,), (0, 0))
    hessians = np.concatenate([np.eye(4).ravel(), np.eye(2).ravel()])
    hessians[-1] = number
    blocks = Blocks(layout, np.zeros(6), np.ones(8), np.zeros(0), hessians)
    system = System(blocks, Weights(np.zeros(6), np.zeros(0), None), np.zeros(6), np.zeros(2), np.zeros(0))
    with np.errstate(all="ignore"), pytest.raises(NotPositiveDefinite):
        factors_of(kernel, system, where)


@pytest.mark.parametrize("make", [BY_NAME["varying-sizes"].problem, CASES["stages that differ"]], ids=["sizes", "rows"])
def test_a_solve_in_c_is_that_in_numpy(
    make: Callable[[], Problem], kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make()
    reference = PrimalDual().solve(problem)
    monkeypatch.setattr(kkt, "KERNEL", kernel)
    solution = PrimalDual().solve(problem)
    assert solution.success
    assert solution.iterations == reference.iterations
    for line, expected in zip(solution.history, reference.history, strict=True):
        assert line.cost == pytest.approx(expected.cost, rel=1e-8, abs=1e-10)
        assert line.step_size == pytest.approx(expected.step_size, rel=1e-6)


def test_nothing_is_compiled_where_that_is_forbidden(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCPKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("OCPKIT_BUILD_BESIDE", "0")
    found = Kernel("kkt.c", kkt._declare)
    assert found.look() is None
    assert found.wait() is None
    assert not list(tmp_path.glob("*.so"))
