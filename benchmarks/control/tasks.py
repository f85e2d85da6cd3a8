"""The tasks of the race: classic ones from `ocpkit.models`, linear-quadratic ones by size, and those whose model a
peer brings compiled in C++."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.control import cddp_models
from ocpkit import Problem, euler, models
from ocpkit import math as m

SIZES = ((4, 1), (12, 4), (14, 7), (20, 5), (40, 10))


@dataclass(frozen=True)
class LQR:
    """x' = A x + B u, J = ½ x_Tᵀ F x_T + Σ ½ (xᵀ Q x + uᵀ R u), dense matrices, spectral radius of A below 1."""

    A: np.ndarray
    B: np.ndarray
    Q: np.ndarray
    R: np.ndarray
    F: np.ndarray
    x0: np.ndarray
    horizon: int

    @classmethod
    def random(cls, n: int, m: int, horizon: int) -> LQR:
        """Draw the matrices (seed: n)."""
        rng = np.random.default_rng(n)
        A = np.eye(n) + 0.3 * rng.normal(size=(n, n)) / np.sqrt(n)
        A *= 0.99 / np.abs(np.linalg.eigvals(A)).max()
        Q, R, F = (S @ S.T / k + 0.1 * np.eye(k) for k in (n, m, n) for S in [rng.normal(size=(k, k))])
        return cls(A, rng.normal(size=(n, m)), Q, R, F, rng.normal(size=n), horizon)

    def problem(self) -> Problem:
        A, B, Q, R, F = self.A, self.B, self.Q, self.R, self.F
        return Problem.from_functions(
            dynamics=lambda x, u: A @ x + B @ u,
            cost=lambda x, u: 0.5 * (x @ Q @ x + u @ R @ u),
            terminal_cost=lambda x: 0.5 * x @ F @ x,
            x0=self.x0,
            horizon=self.horizon,
            control_size=B.shape[1],
            name=f"lqr-{len(A)}-{B.shape[1]}",
        )


@dataclass(frozen=True)
class Unicycle:
    """Crocoddyl's unicycle: Euler steps of 0.1 s, J = Σ ½ (10² ‖x‖² + ‖u‖²) + ½ 10² ‖x_T‖²."""

    x0: tuple[float, float, float] = (-1.0, -1.0, 1.0)
    horizon: int = 100

    def problem(self) -> Problem:
        return Problem.from_functions(
            dynamics=euler(lambda x, u: m.stack([u[0] * m.cos(x[2]), u[0] * m.sin(x[2]), u[1]]), 0.1),
            cost=lambda x, u: 0.5 * (100.0 * m.dot(x, x) + m.dot(u, u)),
            terminal_cost=lambda x: 50.0 * m.dot(x, x),
            x0=self.x0,
            horizon=self.horizon,
            control_size=2,
            name="crocoddyl-unicycle",
        )


@dataclass(frozen=True)
class Task:
    """A problem to solve, built when it is needed.

    Attributes
    ----------
    source
        What a peer's adapter needs to state the task in its own terms: `LQR`, `Unicycle`, `cddp_models.Model`, or
        None for a problem that only ocpkit's declaration describes.
    quick
        Whether it belongs to the quick run.
    method
        Name of ocpkit's solver where there are more constraints than control bounds, else empty.
    """

    name: str
    build: Callable[[], Problem]
    source: Any = None
    quick: bool = False
    method: str = ""

    @cached_property
    def problem(self) -> Problem:
        return self.build()

    @property
    def tolerance(self) -> float:
        """Of the nonlinear programming solvers: as loose as equal costs and, under constraints, feasibility allow."""
        return 1e-8 if self.method else 1e-6


def lqr(n: int, m: int, horizon: int = 100, *, quick: bool = False) -> Task:
    """Return a linear-quadratic task of a size."""
    source = LQR.random(n, m, horizon)
    return Task(f"lqr-{n}-{m}", source.problem, source, quick)


def classic(name: str, *, quick: bool = False, **options: Any) -> Task:
    """Return a task of `ocpkit.models`."""
    return Task(name, lambda: models.get(name).build(**options), None, quick)


def constrained(name: str) -> Task:
    """Return a task of `ocpkit.models` with general constraints."""
    method = "ip" if name == "goddard" else "al"  # the first of the two to compare; a singular arc wants the barrier
    return Task(f"{CONSTRAINED} {name}", lambda: models.get(name).build(), None, False, method)


CONSTRAINED = "constrained"
TASKS = (
    classic("pendulum", quick=True),
    classic("cartpole", quick=True),
    classic("quadrotor"),
    classic("car-parking"),
    Task("crocoddyl-unicycle", Unicycle().problem, Unicycle(), quick=True),
    classic("cartpole-bounded"),
    classic("acrobot-bounded"),
    *(Task(model.full_name, model.problem, model, model.name == "cartpole") for model in cddp_models.MODELS),
    *(lqr(n, m, quick=n <= 12) for n, m in SIZES),
    *(constrained(name) for name in models.names() if models.get(name).solver == "auto"),
    *(Task(f"{CONSTRAINED} {model.full_name}", model.problem, model, method="al") for model in cddp_models.AMONG_BALLS),
)
