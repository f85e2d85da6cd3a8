"""Unstable chains, whose controls are bounded and whose guess is x_0 at every stage.

    ẋ_i = λ x_i + x_{i+1},   ẋ_n = λ x_n + u,   |u| ≤ 1,   J = Σ Δt (|x|² + 0.01 u²) + 10 |x_T|²

by Runge-Kutta steps, in some kinds with x_T = 0; and ẋ_i = x_i + x_i³ + x_{i−1} + x_{i+1} + u_i. A start of
the first is one that controls inside 0.9 of their bounds lead to zero, so that the end can be reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import ocpkit.math as m
from benchmarks.robustness.family import Family, Instance
from ocpkit import Constraint, Problem, rk4
from ocpkit.boundary.arrays import Array

GROUP, DRAWS = "chains", 5


@dataclass(frozen=True)
class Kind:
    """A chain of n states with growth λ [1/s]; cubic chains have a control at each state."""

    n: int
    growth: float
    horizon: int
    time_step: float = 0.1
    ends_at_zero: bool = False
    cubic: bool = False

    @property
    def name(self) -> str:
        name = "cubic" if self.cubic else f"growth-{self.growth:g}"
        return f"{name}-{self.n}-{self.horizon}{'-to-zero' * self.ends_at_zero}"


KINDS = (
    Kind(2, 0.0, 100),
    Kind(3, 0.0, 150),
    Kind(4, 0.0, 100),
    Kind(2, 1.0, 50),
    Kind(3, 1.0, 100),
    Kind(3, 0.5, 150),
    Kind(4, 0.5, 100),
    Kind(3, 1.0, 100, ends_at_zero=True),
    Kind(4, 0.0, 100, ends_at_zero=True),
    Kind(4, 1.0, 150, time_step=0.05, cubic=True),
)


def families() -> Iterator[Family]:
    """Yield all kinds, each with its starts."""
    for number, kind in enumerate(KINDS):
        instances = tuple(Instance(str(k), partial(_begin, kind, number, k)) for k in range(DRAWS))
        yield Family(GROUP, kind.name, partial(template, kind), instances)


def template(kind: Kind) -> Problem:
    """Return the chain from a start of ones."""
    dt, n = kind.time_step, kind.n
    weight, last = (0.1, 1.0) if kind.cubic else (0.02, 20.0)
    return Problem.from_functions(
        dynamics=rk4(partial(_rates, kind), dt),
        cost=lambda x, u: dt * (m.dot(x, x) + 0.5 * weight * m.dot(u, u)),
        terminal_cost=lambda x: 0.5 * last * m.dot(x, x),
        x0=np.ones(n),
        horizon=kind.horizon,
        control_size=n if kind.cubic else 1,
        control_bounds=(-4.0, 4.0) if kind.cubic else (-1.0, 1.0),
        terminal_constraints=(Constraint(lambda x: x, 0.0, 0.0, "zero"),) if kind.ends_at_zero else (),
        name=kind.name,
    )


def _rates(kind: Kind, x: Any, u: Any) -> Any:
    above = np.eye(kind.n, k=1)
    if kind.cubic:
        return x + x**3 + (above + above.T) @ x + u
    return kind.growth * x + above @ x + np.eye(kind.n)[-1] * u[0]


def _begin(kind: Kind, number: int, k: int, problem: Problem) -> Problem:
    """Return the problem from its k-th start, which is also the guess of every state."""
    x0 = start(kind, number, k, problem)
    return problem.replace(x0=x0, states=np.tile(x0, (kind.horizon + 1, 1)))


def start(kind: Kind, number: int, k: int, problem: Problem) -> Array:
    """Draw x_0; the first one of three states is that of the issue that this group began with."""
    rng = np.random.default_rng([number, k, 7])
    if kind.cubic:
        return np.asarray(rng.uniform(-0.6, 0.6, kind.n))
    if k == 0 and kind.growth == 1.0 and kind.n == 3:
        return np.array([0.3, 0.0, 0.0])
    A, B = problem.stages[0].dynamics.jacobians(np.zeros(kind.n), np.zeros(1), np.zeros(0))
    x, back = np.zeros(kind.n), np.linalg.inv(A)
    for u in 0.9 * rng.uniform(0.3, 1.0) * np.repeat(rng.uniform(-1, 1, kind.horizon // 10), 10):
        x = back @ (x - B[:, 0] * u)
    return np.asarray(x)
