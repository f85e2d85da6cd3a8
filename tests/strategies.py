"""Random smooth control problems: n ≤ 6, m ≤ 3, T ≤ 30, sizes that may change from stage to stage.

Hypothesis draws the sizes and a seed; the seed makes the coefficients.

    f(x, u) = A x + B u + c tanh(C x + D u) + d sin(E x)
    ℓ(x, u) = ½ zᵀ H z + hᵀ z + w sin(vᵀ z),   z = (x, u),   H positive definite with cross terms
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import ocpkit.math as m
from ocpkit import FunctionCost, FunctionDynamics, FunctionTerminalCost, Problem, Stage


def _dynamics(rng: np.random.Generator, n: int, k: int, n_next: int) -> FunctionDynamics:
    A, C, E = rng.normal(size=(3, n_next, n)) / np.sqrt(n)
    B, D = rng.normal(size=(2, n_next, k)) / np.sqrt(k)
    c, d = rng.uniform(0, 0.5, 2)

    def step(x: Any, u: Any) -> Any:
        return A @ x + B @ u + c * m.tanh(C @ x + D @ u) + d * m.sin(E @ x)

    return FunctionDynamics(step, n, k, next_state_size=n_next)


def _quadratic(rng: np.random.Generator, size: int) -> Any:
    root = rng.normal(size=(size, size)) / np.sqrt(size)
    H, h, v, w = root @ root.T + 0.2 * np.eye(size), rng.normal(size=size), rng.normal(size=size), rng.uniform(0, 0.1)
    return lambda z: 0.5 * z @ H @ z + h @ z + w * m.sin(v @ z)


def _cost(rng: np.random.Generator, n: int, k: int) -> FunctionCost:
    of_both = _quadratic(rng, n + k)
    return FunctionCost(lambda x, u: of_both(m.concatenate([x, u])), n, k)


@st.composite
def smooth_problems(draw: st.DrawFn, max_horizon: int = 30) -> Problem:
    """Draw a problem whose stages repeat a cycle of one to three kinds."""
    horizon = draw(st.integers(1, max_horizon))
    kinds = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    following = [*(n for n, _ in kinds[1:]), kinds[0][0]]
    cycle = [Stage(_dynamics(rng, n, k, after), _cost(rng, n, k)) for (n, k), after in zip(kinds, following)]
    stages = tuple(cycle[t % len(cycle)] for t in range(horizon))
    last = stages[-1].dynamics.next_state_size
    return Problem(
        stages=stages, terminal_cost=FunctionTerminalCost(_quadratic(rng, last), last), x0=rng.normal(size=kinds[0][0])
    )
