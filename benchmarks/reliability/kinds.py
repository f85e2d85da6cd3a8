"""Random problems of which something is known: saddles, other units, rows that can be kept, cannot, or are degenerate.

All are harmless draws of `problems`, in units of 10^k of J, x, u and rows, each with its own k = −8 … 8.

* saddle: x_0 = 0, u = 0 is stationary because dynamics are odd and J is even, and ∇²J has an eigenvalue below zero;
* units: nothing but the units;
* feasible: rows that hold along a known trajectory whose controls are inside their bounds;
* infeasible: two rows of v that contradict each other, or an end farther away than bounded controls reach;
* degenerate: feasible, but gradients of the rows are dependent or vanish where they hold: |z_T − a|² = 0,
  (z_T − a)³ = 0, the same rows twice, v_1² ≤ 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import ocpkit.math as m
from benchmarks.reliability import condensed
from benchmarks.reliability.problems import HORIZONS, LIMIT, SIZES, Draw, parameters, template
from ocpkit import Constraint, Problem

Array = Any

KINDS = ("saddle", "units", "feasible", "infeasible", "degenerate")
CONSTRAINED = KINDS[2:]
DECADES = 8
INDEFINITE = 1e-2  # eigenvalue of ∇²J below which a stationary guess is a saddle, relative to the largest


def draw(seed: int, kind: str = "") -> Draw:
    """Draw a problem; the seed decides everything."""
    rng = np.random.default_rng([seed, 2])
    kind = kind or KINDS[seed % len(KINDS)]
    if kind == "saddle":
        return _saddle(rng)
    clean, row = _harmless(rng, "smooth" if kind in CONSTRAINED else str(rng.choice(["smooth", "kinks"])))
    if kind == "units":
        return Draw(clean, clean, kind)
    clean = {"feasible": _feasible, "infeasible": _infeasible, "degenerate": _degenerate}[kind](rng, clean, row)
    return Draw(clean, clean, kind, feasible=kind != "infeasible", regular=kind == "feasible", rows=row)


def _harmless(rng: np.random.Generator, family: str, *, odd: bool = False) -> tuple[Problem, float]:
    """Draw a problem without rows, and the unit of rows."""
    n, size = SIZES[rng.integers(len(SIZES))]
    horizon, p = int(rng.choice(HORIZONS)), parameters(np.random.default_rng(_harmless_seed(rng)), n, size)
    *scales, row = 10.0 ** (rng.integers(-DECADES, DECADES + 1, 4) * (rng.random() < 0.8))
    p[-3:] = scales
    guess = (0.0 if odd else rng.choice([0.0, 1.0])) * rng.normal(size=(horizon, size))
    limit = LIMIT * p[-2] if rng.integers(3) == 0 else np.inf
    if odd:
        p[-6:-3] = 10 ** rng.uniform(-2, 0), 10 ** rng.uniform(-1, 1), rng.uniform(0.3, 3)
    one = template(family, n, size)
    stage = replace(one.stages[0], control_lower=-limit, control_upper=limit)
    x0 = np.zeros(n) if odd else p[-3] * rng.normal(size=n)
    return one.replace(stages=(stage,) * horizon, x0=x0, parameters=p, controls=p[-2] * guess), float(row)


def _harmless_seed(rng: np.random.Generator) -> int:
    """Return a seed with which `parameters` stays in its harmless range."""
    while True:
        seed = int(rng.integers(2**31))
        if np.random.default_rng(seed).random() >= 2 / 3:
            return seed


def _saddle(rng: np.random.Generator) -> Draw:
    while True:
        problem, _ = _harmless(rng, str(rng.choice(["smooth", "blow-up"])), odd=True)
        H, _ = condensed.hessian(problem, np.concatenate(problem.controls))
        values = np.linalg.eigvalsh(H)
        if values[0] < -INDEFINITE * np.abs(values).max():
            return Draw(problem, problem, "saddle")


def _known(rng: np.random.Generator, problem: Problem) -> tuple[Array, Array]:
    """Return z (T + 1, n) and v (T, m) of a trajectory strictly inside the bounds, in drawn units."""
    v = rng.uniform(-0.8, 0.8, (problem.horizon, problem.control_sizes[0])) * LIMIT
    p = problem.parameters
    return np.stack(problem.rollout(p[-2] * v)[0]) / p[-3], v


def _with(problem: Problem, along: Sequence[Constraint], end: Sequence[Constraint] = ()) -> Problem:
    stage = replace(problem.stages[0], constraints=tuple(along))
    return problem.replace(stages=(stage,) * problem.horizon, terminal_constraints=tuple(end))


def _feasible(rng: np.random.Generator, problem: Problem, row: float) -> Problem:
    (z, v), p = _known(rng, problem), problem.parameters
    a, b = rng.normal(size=z.shape[1]) * rng.integers(2), rng.normal(size=v.shape[1])
    mixed = z[:-1] @ a + v @ b
    along = [
        Constraint(lambda x, u: row * (m.dot(a, x / p[-3]) + m.dot(b, u / p[-2])), -np.inf, row * mixed.max(), "mixed")
    ]
    end = []
    if rng.integers(2):
        fixed = np.sort(rng.permutation(z.shape[1])[: int(rng.integers(1, v.shape[1] + 1))])
        if problem.horizon * v.shape[1] < 2 * z.shape[1]:
            fixed = fixed[:1]
        target = row * z[-1, fixed]
        room = row * rng.choice([0.0, 1e-3, 0.1])
        end = [Constraint(lambda x: row * x[fixed] / p[-3], target - room, target + room, "end")]
    return _with(problem, along[: int(rng.integers(2)) or (0 if end else 1)], end)


def _infeasible(rng: np.random.Generator, problem: Problem, row: float) -> Problem:
    p, excess = problem.parameters, 10 ** rng.uniform(-2, 1)
    if rng.integers(2):
        b = rng.normal(size=problem.control_sizes[0])
        push = Constraint(lambda x, u: row * m.dot(b, u / p[-2]), -np.inf, 0.0, "at most")
        return _with(problem, [push, replace(push, lower=row * excess, upper=np.inf, name="at least")])
    stage = replace(problem.stages[0], control_lower=-LIMIT * p[-2], control_upper=LIMIT * p[-2])
    n, size = len(problem.x0), problem.control_sizes[0]
    A, B = np.abs(p[: n * n].reshape(n, n)), np.abs(p[n * n : n * n + n * size].reshape(n, size))
    reach = np.abs(problem.x0 / p[-3])
    for _ in range(problem.horizon):
        reach = A @ reach + B @ np.full(size, LIMIT) + 0.1
    far = Constraint(lambda x: row * x[0] / p[-3], row * (1 + excess) * reach[0], np.inf, "out of reach")
    return _with(problem.replace(stages=(stage,) * problem.horizon), [], [far])


def _degenerate(rng: np.random.Generator, problem: Problem, row: float) -> Problem:
    (z, _), p = _known(rng, problem), problem.parameters
    a = z[-1, :1]
    way = rng.integers(4)
    if way == 0:
        return _with(
            problem, [], [Constraint(lambda x: row * m.dot(x[:1] / p[-3] - a, x[:1] / p[-3] - a), 0, 0, "square")]
        )
    if way == 1:
        return _with(problem, [], [Constraint(lambda x: row * (x[:1] / p[-3] - a) ** 3, 0, 0, "cube")])
    if way == 2:
        once = Constraint(lambda x: row * x[:1] / p[-3], row * a, row * a, "once")
        return _with(
            problem, [], [once, Constraint(lambda x: 2 * row * x[:1] / p[-3], 2 * row * a, 2 * row * a, "twice")]
        )
    return _with(problem, [Constraint(lambda x, u: row * (u[0] / p[-2]) ** 2, -np.inf, 0.0, "nothing")])
