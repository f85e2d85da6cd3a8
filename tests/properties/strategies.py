"""Random smooth optimal control problems, among them small networks.

Hypothesis draws the shape of a problem (horizon, sizes, conditioning) and a seed; the seed makes the
coefficients. All functions are written with `ocpkit.math`, so that the solvers trace them with CasADi while
`properties.oracle` calls the same functions on torch tensors and differentiates them there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import ocpkit.math as m
from ocpkit import FunctionCost, FunctionDynamics, FunctionTerminalCost, LeastSquares, Problem, Stage

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 3)
conditions = st.sampled_from([1.0, 1e2, 1e4])


def times(matrix: np.ndarray, vector: Any) -> Any:
    """``matrix @ vector``, also where the vector is a tensor."""
    return (vector.new_tensor(matrix) if hasattr(vector, "new_tensor") else matrix) @ vector


def positive_definite(rng: np.random.Generator, size: int, condition: float = 10.0) -> np.ndarray:
    """Return a random symmetric matrix with eigenvalues from 1 to `condition`."""
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    return basis * np.geomspace(1.0, condition, size) @ basis.T


def smooth_map(rng: np.random.Generator, n: int, m_: int, n_next: int, bend: float) -> Callable[..., Any]:
    """f = A x + B u + bend · sin(C x + D u): every second derivative is there, f_ux included."""
    A, C = rng.normal(size=(2, n_next, n)) / np.sqrt(n)
    B, D = rng.normal(size=(2, n_next, m_)) / np.sqrt(m_)
    return lambda x, u: times(A, x) + times(B, u) + bend * m.sin(times(C, x) + times(D, u))


def smooth_cost(rng: np.random.Generator, size: int, condition: float, bend: float) -> Callable[[Any], Any]:
    """ℓ(z) = ½ zᵀ W z + wᵀ z + bend · cos(vᵀ z), with cond(W) as given."""
    W, w, v = positive_definite(rng, size, condition), rng.normal(size=size), rng.normal(size=size)
    v *= 0.5 / np.linalg.norm(v)
    return lambda z: 0.5 * m.dot(z, times(W, z)) + times(w, z) + bend * m.cos(times(v, z))


def of_both(cost: Callable[[Any], Any]) -> Callable[..., Any]:
    """Turn a cost of z into a cost of (x, u)."""
    return lambda x, u: cost(m.concatenate([x, u]))


def assemble(rng: np.random.Generator, n: list[int], m_: list[int], parts: Callable[..., Any], last: Any) -> Problem:
    """Chain the stages; ``parts(n, m, n')`` returns the functions f and ℓ of one."""
    stages = []
    for size, controls, following in zip(n, m_, n[1:]):
        f, cost = parts(size, controls, following)
        dynamics = FunctionDynamics(f, size, controls, next_state_size=following)
        stages.append(Stage(dynamics, FunctionCost(cost, size, controls)))
    guess = tuple(rng.normal(size=size) for size in m_)
    return Problem(tuple(stages), FunctionTerminalCost(last, n[-1]), rng.normal(size=n[0]), controls=guess)


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    dynamics_bend: float = 0.4,
    cost_bend: float = 0.5,
    min_horizon: int = 1,
    max_horizon: int = 4,
    control_cost_only: bool = False,
    conditioning: st.SearchStrategy[float] = conditions,
) -> Problem:
    """Problems whose sizes and coefficients change from stage to stage, well or badly conditioned.

    With both bends at zero they are linear-quadratic. `control_cost_only` is ℓ_t(u_t), as Prop. 3 assumes.
    """
    horizon, rng = draw(st.integers(min_horizon, max_horizon)), np.random.default_rng(draw(seeds))
    n = draw(st.lists(sizes, min_size=horizon + 1, max_size=horizon + 1))
    m_ = draw(st.lists(sizes, min_size=horizon, max_size=horizon))
    condition = draw(conditioning)

    def parts(n: int, m_: int, n_next: int) -> tuple[Any, Any]:
        cost = smooth_cost(rng, m_ if control_cost_only else n + m_, condition, cost_bend)
        return smooth_map(rng, n, m_, n_next, dynamics_bend), (lambda x, u: cost(u)) if control_cost_only else of_both(
            cost
        )

    return assemble(rng, n, m_, parts, smooth_cost(rng, n[-1], condition, cost_bend))


@st.composite
def problems_without_coupling(draw: st.DrawFn) -> Problem:
    """Problems whose structure makes Q_ux vanish, for one of two reasons.

    *Linear value*: φ and ℓ are linear in x and f = A x + g(u), so V_xx = 0 at every stage.
    *Separate roads*: x = (y, w); y' = h(y) is out of reach of the controls, w' = g(u) forgets the state,
    and all costs are sums over y, w and u; so f_uᵀ V_xx' f_x = 0 although V_xx ≠ 0.
    """
    horizon, rng = draw(st.integers(1, 4)), np.random.default_rng(draw(seeds))
    m_ = draw(st.lists(sizes, min_size=horizon, max_size=horizon))
    make = draw(st.sampled_from([linear_value, separate_roads]))
    return make(rng, horizon, m_)


def linear_value(rng: np.random.Generator, horizon: int, m_: list[int]) -> Problem:
    n = list(rng.integers(1, 4, size=horizon + 1))

    def parts(n: int, m_: int, n_next: int) -> tuple[Any, Any]:
        A, a = rng.normal(size=(n_next, n)), rng.normal(size=n)
        g, cost = smooth_map(rng, m_, m_, n_next, 0.4), smooth_cost(rng, m_, 10.0, 0.5)
        return (lambda x, u: times(A, x) + g(u, u)), (lambda x, u: times(a, x) + cost(u))

    c = rng.normal(size=n[-1])
    return assemble(rng, [int(size) for size in n], m_, parts, lambda x: times(c, x))


def separate_roads(rng: np.random.Generator, horizon: int, m_: list[int]) -> Problem:
    n_y, n_w = (int(size) for size in rng.integers(1, 3, size=2))

    def separable() -> Callable[[Any], Any]:
        of_y, of_w = smooth_cost(rng, n_y, 10.0, 0.5), smooth_cost(rng, n_w, 10.0, 0.5)
        return lambda x: of_y(x[:n_y]) + of_w(x[n_y:])

    def parts(n: int, m_: int, n_next: int) -> tuple[Any, Any]:
        h, g = smooth_map(rng, n_y, n_y, n_y, 0.4), smooth_map(rng, m_, m_, n_w, 0.4)
        of_x, of_u = separable(), smooth_cost(rng, m_, 10.0, 0.5)
        return (lambda x, u: m.concatenate([h(x[:n_y], x[:n_y]), g(u, u)])), (lambda x, u: of_x(x) + of_u(u))

    return assemble(rng, [n_y + n_w] * (horizon + 1), m_, parts, separable())


@st.composite
def networks(draw: st.DrawFn) -> Problem:
    """Small networks: Linear + tanh layers (the last without tanh), u_t = (vec W_t, b_t), ℓ_t = ½ decay ‖u_t‖².

    The state is the activations of a sample, or of a small batch stacked; φ is ½‖x − y‖² or cross-entropy.
    """
    depth, batch, rng = draw(st.integers(1, 3)), draw(st.integers(1, 2)), np.random.default_rng(draw(seeds))
    widths = draw(st.lists(sizes, min_size=depth + 1, max_size=depth + 1))
    decay, loss = draw(st.sampled_from([1e-3, 0.1])), draw(st.sampled_from([squared_error, cross_entropy]))
    stages, weights = [], []
    for t, (n, n_next) in enumerate(itertools.pairwise(widths)):
        m_ = (n + 1) * n_next
        f = FunctionDynamics(
            linear_layer(batch, n, n_next, t < depth - 1), batch * n, m_, next_state_size=batch * n_next
        )
        stages.append(Stage(f, FunctionCost(lambda x, u: 0.5 * decay * m.dot(u, u), batch * n, m_)))
        weights.append(rng.normal(size=m_) / np.sqrt(n))
    phi = FunctionTerminalCost(loss(rng, batch, widths[-1]), batch * widths[-1])
    return Problem(tuple(stages), phi, rng.normal(size=batch * widths[0]), controls=tuple(weights))


def linear_layer(batch: int, n: int, n_next: int, activate: bool) -> Callable[..., Any]:
    """x ↦ tanh(W x + b) for each of the stacked samples (Eq. 6)."""

    def layer(x: Any, u: Any) -> Any:
        W, b = u[: n * n_next].reshape(n_next, n), u[n * n_next :]
        h = x.reshape(batch, n) @ W.T + b
        return (m.tanh(h) if activate else h).reshape(-1)

    return layer


def squared_error(rng: np.random.Generator, batch: int, classes: int) -> LeastSquares:
    target = rng.normal(size=batch * classes)
    return LeastSquares(lambda x: x - (x.new_tensor(target) if hasattr(x, "new_tensor") else target))


def cross_entropy(rng: np.random.Generator, batch: int, classes: int) -> Callable[[Any], Any]:
    labels = rng.integers(0, classes, size=batch)

    def loss(x: Any) -> Any:
        rows = x.reshape(batch, classes)
        return sum(m.log(m.sum(m.exp(row))) - row[label] for row, label in zip(rows, labels)) / batch

    return loss


any_problem = st.one_of(problems(), networks())
