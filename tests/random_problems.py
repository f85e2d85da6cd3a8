"""Random problems under constraints: control bounds, state and mixed rows, an obstacle, terminal equalities.

Some cannot be solved: the rows contradict each other, or the end is out of reach of bounded controls.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import ocpkit.math as m
from ocpkit import Constraint, Problem

Array = Any


def random_problem(seed: int) -> Problem:
    """Draw a problem; the seed decides everything.

    Dynamics x' = A x + B u + 0.1 sin(C x) with the spectral radius of A up to 1.1; a quadratic cost, sometimes with
    a cosine that makes it non-convex.
    """
    rng = np.random.default_rng(seed)
    n, size, horizon = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(5, 41))
    A, B, C = rng.normal(size=(n, n)), rng.normal(size=(n, size)) / np.sqrt(n), rng.normal(size=(n, n))
    A *= rng.uniform(0.5, 1.1) / np.abs(np.linalg.eigvals(A)).max()
    weights, effort, wave = rng.uniform(0, 1, n), 10 ** rng.uniform(-2, 0), rng.choice([0.0, 0.5])
    final = 10 ** rng.uniform(-1, 1)

    def cost(x: Array, u: Array) -> Array:
        return 0.5 * m.dot(x * weights, x) + 0.5 * effort * m.dot(u, u) + wave * m.cos(2 * x[0])

    return Problem.from_functions(
        dynamics=lambda x, u: A @ x + B @ u + 0.1 * m.sin(C @ x),
        cost=cost,
        terminal_cost=lambda x: 0.5 * final * m.dot(x, x),
        x0=rng.normal(size=n),
        horizon=horizon,
        control_size=size,
        control_bounds=_control_bounds(rng, size),
        constraints=_rows(rng, n, size),
        terminal_constraints=_end(rng, n),
        name=f"random-{seed}",
    )


def _control_bounds(rng: np.random.Generator, size: int) -> tuple[Array, Array] | None:
    kind = rng.integers(3)
    if kind == 0:
        return None
    limit = rng.uniform(0.3, 3.0, size)
    return -limit, limit if kind == 1 else np.full(size, np.inf)


def _rows(rng: np.random.Generator, n: int, size: int) -> tuple[Constraint, ...]:
    """Up to three of: a bound of one state, a mixed row, a ball to keep out of, an equality of controls and states."""
    rows = []
    i, a, b = int(rng.integers(n)), rng.normal(size=n), rng.normal(size=size)
    center, radius = rng.normal(size=n), rng.uniform(0.2, 0.6)
    if rng.random() < 0.4:
        rows.append(Constraint(lambda x, u: x[i], -rng.uniform(0.5, 3.0), np.inf, "state"))
    if rng.random() < 0.4:
        rows.append(Constraint(lambda x, u: m.dot(a, x) + m.dot(b, u), -np.inf, rng.uniform(0.0, 2.0), "mixed"))
    if rng.random() < 0.3:
        rows.append(Constraint(lambda x, u: radius**2 - m.dot(x - center, x - center), name="ball"))
    if rng.random() < 0.2:
        rows.append(Constraint(lambda x, u: m.dot(b, u) - 0.2 * m.dot(a, x), 0.0, 0.0, "equality"))
    if rng.random() < 0.05:
        rows.append(Constraint(lambda x, u: m.dot(b, u), 9.0, 10.0, "contradiction"))
    return tuple(rows)


def _end(rng: np.random.Generator, n: int) -> tuple[Constraint, ...]:
    """Nothing, some states at a target, or a ball around the origin."""
    kind = rng.integers(4)
    fixed = np.sort(rng.permutation(n)[: int(rng.integers(1, n + 1))])
    target = rng.normal(size=len(fixed)) * rng.choice([0.3, 0.3, 3.0])
    if kind <= 1:
        return (Constraint(lambda x: x[fixed], target, target, "target"),)
    return (Constraint(lambda x: m.dot(x, x) - 0.5, name="near"),) if kind == 2 else ()
