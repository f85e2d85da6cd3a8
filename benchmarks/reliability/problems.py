"""Random problems meant to break solvers: badly scaled, ill-conditioned, unstable, unbounded, torn, undefined.

    z' = A z + B v + ν(C z),   J = ω (½ F zᵀW z at the end + Σ ½ zᵀW z + ½ r vᵀv + c cos 2 z_1),
    with x = σ_x z, u = σ_u v

All numbers are parameters, so that one traced structure for each family ν and size serves every seed, in every engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

import ocpkit.math as m
from ocpkit import Problem

Array = Any

FAMILIES: dict[str, Callable[[Array], Array]] = {
    "smooth": lambda v: 0.1 * m.sin(v),
    "jumps": lambda v: 0.3 * m.where(m.greater(v, 0.2), 1.0, -1.0),
    "kinks": lambda v: 0.3 * m.where(m.greater(v, 0.0), v, 0.1 * v),
    "undefined": lambda v: 0.1 * m.sqrt(3 - v),  # NaN beyond 3
    "poles": lambda v: 0.1 / (v - 0.7),
    "overflow": lambda v: 0.1 * m.exp(v),
    "blow-up": lambda v: 0.1 * v * v * v,
}
SIZES = ((1, 1), (2, 1), (4, 2), (6, 3))
HORIZONS = (1, 2, 7, 20)
DECADES = (0, 0, 0, 3, 8, 60)  # of the scales of states, controls and cost
MEASURABLE = 3  # decades from 1 of states and controls; differences have a step of about 1e-5
LIMIT = 1.5  # of the bounded controls, in v


@dataclass(frozen=True)
class Units:
    """What a problem was multiplied by: J, states, controls and rows of size 1 have these sizes."""

    states: float
    controls: float
    cost: float
    rows: float = 1.0


@dataclass(frozen=True)
class Draw:
    """A problem that is given to a solver, and the one that its answer is held against.

    Attributes
    ----------
    given
        May return NaN or infinities at random.
    clean
        The same without them, traced.
    family
        Where it belongs in the table.
    feasible
        Whether a trajectory that keeps every row and bound is known.
    regular
        Whether the gradients of the rows are independent where the rows hold, so that an optimum has multipliers.
    """

    given: Problem
    clean: Problem
    family: str
    feasible: bool = True
    regular: bool = True
    rows: float = 1.0

    @property
    def units(self) -> Units:
        """Those that were drawn."""
        return Units(*map(float, self.clean.parameters[-3:]), self.rows)


def draw(seed: int, family: str = "") -> Draw:
    """Draw a problem; the seed decides everything. One in eight is a black box that fails at random."""
    rng = np.random.default_rng(seed)
    family = family or str(rng.choice(list(FAMILIES)))
    n, size = SIZES[rng.integers(len(SIZES))]
    horizon, bounded, p = int(rng.choice(HORIZONS)), bool(rng.integers(3) == 0), parameters(rng, n, size)
    sigma_x, sigma_u = p[-3], p[-2]
    guess = sigma_u * rng.choice([0.0, 0.0, 1.0]) * rng.normal(size=(horizon, size))
    x0 = sigma_x * rng.normal(size=n)
    one = template(family, n, size)
    limit = LIMIT * sigma_u if bounded else np.inf
    stage = replace(one.stages[0], control_lower=-limit, control_upper=limit)
    clean = one.replace(stages=(stage,) * horizon, x0=x0, parameters=p, controls=guess)
    if rng.integers(8) == 0 and horizon <= 7 and np.abs(np.log10(p[-3:-1])).max() <= MEASURABLE:
        return Draw(_failing(rng, family, clean), clean, "failing at random")
    return Draw(clean, clean, family)


def parameters(rng: np.random.Generator, n: int, size: int) -> Array:
    """Draw (A, B, C, W, r, F, c, σ_x, σ_u, ω), in a third of the draws from the harmless range only."""
    wild = rng.random() < 2 / 3
    A, B, C = rng.normal(size=(n, n)), rng.normal(size=(n, size)), rng.normal(size=(n, n))
    radius = rng.choice([0.9, 1.1, 2.0, 5.0]) if wild else 0.9
    A *= radius / np.abs(np.linalg.eigvals(A)).max()
    decades = 12 * rng.random() if wild else 0.0
    weights = 10.0 ** -(decades * rng.random(n)) * (rng.choice([1.0, 1.0, 1.0, -1.0], n) if wild else 1.0)
    effort = rng.choice([1.0, 1e-3, 1e-9, 0.0, -0.1]) if wild else 1.0
    scales = 10.0 ** (rng.choice(DECADES, 3) * rng.uniform(-1, 1, 3)) if wild else np.ones(3)
    final, wave = 10 ** rng.uniform(-1, 2), rng.choice([0.0, 0.5])
    return np.concatenate([A.ravel(), B.ravel(), C.ravel(), weights, [effort, final, wave], scales])


@cache
def template(family: str, n: int, size: int) -> Problem:
    """One stage, traced once."""
    step, cost, end = _functions(family, n, size)
    some = parameters(np.random.default_rng(0), n, size)
    return Problem.from_functions(
        dynamics=step,
        cost=cost,
        terminal_cost=end,
        x0=np.zeros(n),
        horizon=1,
        control_size=size,
        parameters=some,
        name=f"{family} ({n}, {size})",
    )


def _functions(family: str, n: int, size: int) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    nonlinear = FAMILIES[family]
    a, b, c = n * n, n * n + n * size, 2 * n * n + n * size

    def step(x: Array, u: Array, p: Array) -> Array:
        z, v = x / p[-3], u / p[-2]
        A, B, C = p[:a].reshape(n, n), p[a:b].reshape(n, size), p[b:c].reshape(n, n)
        return p[-3] * (A @ z + B @ v + nonlinear(C @ z))

    def cost(x: Array, u: Array, p: Array) -> Array:
        z, v = x / p[-3], u / p[-2]
        return p[-1] * (m.dot(p[c : c + n] * z, z) / 2 + p[c + n] * m.dot(v, v) / 2 + p[c + n + 2] * m.cos(2 * z[0]))

    def end(x: Array, p: Array) -> Array:
        z = x / p[-3]
        return p[-1] * p[c + n + 1] * m.dot(p[c : c + n] * z, z) / 2

    return step, cost, end


def _failing(rng: np.random.Generator, family: str, clean: Problem) -> Problem:
    """The same problem from functions that may only be evaluated and return NaN or infinities at random."""
    n, size, p = len(clean.x0), clean.control_sizes[0], clean.parameters
    share = 10 ** rng.uniform(-3.5, -1)

    def at_random(function: Callable[..., Any], *arguments: Array) -> Array:
        value = np.array(function(*arguments, p), dtype=float)
        if rng.random() < share:
            value[(rng.integers(max(1, value.size)),) * value.ndim] = rng.choice([np.nan, np.inf, -np.inf])
        return value

    step, cost, end = _functions(family, n, size)
    stage = clean.stages[0]
    return Problem.from_functions(
        dynamics=lambda x, u: at_random(step, x, u),
        cost=lambda x, u: at_random(cost, x, u),
        terminal_cost=lambda x: at_random(end, x),
        x0=clean.x0,
        horizon=clean.horizon,
        control_size=size,
        controls=np.stack(clean.controls),
        control_bounds=(stage.control_lower, stage.control_upper),
        derivatives="central",
        name="failing at random",
    )
