"""Linear-quadratic problems up to a condition number of 1e12, against Riccati's recursion in extended precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.page import markdown
from ocpkit import DDP, ILQR, IPOPT, Problem, Solution

Array = Any
KAPPAS = tuple(10.0**k for k in range(0, 13, 3))
N, M, HORIZON = 4, 2, 15
FORGIVEN = 1e-6  # of J, relative, in an answer that says "converged"


@dataclass(frozen=True)
class Case:
    """One solve.

    Attributes
    ----------
    error
        (J − J*) / J*, with J* in extended precision and J that of the controls in extended precision.
    """

    kappa: float
    solver: str
    status: str
    error: float

    @property
    def honest(self) -> bool:
        """Whether "converged" is only said of a cost that is the optimum's."""
        return self.status != "CONVERGED" or abs(self.error) <= FORGIVEN


@dataclass(frozen=True)
class Quadratic:
    """x' = A x + B u, J = ½ Σ (xᵀ Q x + uᵀ R u) + ½ x_Tᵀ Q x_T with cond Q = cond R = κ."""

    A: Array
    B: Array
    Q: Array
    R: Array
    x0: Array

    @classmethod
    def random(cls, kappa: float, seed: int) -> Quadratic:
        """Draw the matrices."""
        rng = np.random.default_rng(seed)
        A = rng.normal(size=(N, N))
        A /= np.abs(np.linalg.eigvals(A)).max()
        weights = [_with_condition(rng, size, kappa) for size in (N, M)]
        return cls(A, rng.normal(size=(N, M)), *weights, rng.normal(size=N))

    def problem(self) -> Problem:
        """The same for a solver, in float64."""
        A, B, Q, R = self.A, self.B, self.Q, self.R
        return Problem.from_functions(
            dynamics=lambda x, u: A @ x + B @ u,
            cost=lambda x, u: 0.5 * (x @ Q @ x + u @ R @ u),
            terminal_cost=lambda x: 0.5 * x @ Q @ x,
            x0=self.x0,
            horizon=HORIZON,
            control_size=M,
            name="ill-conditioned",
        )

    def optimum(self) -> Array:
        """Return J* by Riccati's recursion in np.longdouble."""
        A, B, Q, R = (matrix.astype(np.longdouble) for matrix in (self.A, self.B, self.Q, self.R))
        P = Q
        for _ in range(HORIZON):
            G, F = R + B.T @ P @ B, B.T @ P @ A
            inverse = np.array([[G[1, 1], -G[0, 1]], [-G[1, 0], G[0, 0]]]) / (G[0, 0] * G[1, 1] - G[0, 1] * G[1, 0])
            K = -inverse @ F
            closed = A + B @ K
            P = Q + K.T @ R @ K + closed.T @ P @ closed  # Joseph's form, in which rounding does not grow
        return self.x0 @ P @ self.x0 / 2

    def cost(self, controls: Array) -> Array:
        """J of controls in np.longdouble."""
        A, B, Q, R = (matrix.astype(np.longdouble) for matrix in (self.A, self.B, self.Q, self.R))
        x, J = self.x0.astype(np.longdouble), np.longdouble(0)
        for u in np.asarray(controls, np.longdouble):
            J += (x @ Q @ x + u @ R @ u) / 2
            x = A @ x + B @ u
        return J + x @ Q @ x / 2


def _with_condition(rng: np.random.Generator, size: int, kappa: float) -> Array:
    turn = np.linalg.qr(rng.normal(size=(size, size)))[0]
    matrix = (turn * np.logspace(0, -np.log10(kappa), size)) @ turn.T
    return (matrix + matrix.T) / 2


SOLVERS = {"ddp, numpy": DDP(engine="numpy"), "ddp, vm": DDP(engine="vm"), "ilqr": ILQR(engine="vm"), "ipopt": IPOPT()}


def cases(seeds: Sequence[int], solvers: Sequence[str] = tuple(SOLVERS)) -> list[Case]:
    """Solve all condition numbers, seeds and solvers."""
    found = []
    for kappa in KAPPAS:
        for seed in seeds:
            quadratic = Quadratic.random(kappa, seed)
            problem, optimum = quadratic.problem(), quadratic.optimum()
            for name in solvers:
                solution: Solution = SOLVERS[name].solve(problem)
                error = float((quadratic.cost(solution.controls) - optimum) / optimum)
                found.append(Case(kappa, name, solution.status.name, error))
    return found


def section(found: Sequence[Case]) -> str:
    """How many converge and how far from the optimum, as Markdown."""
    lines = []
    for kappa in KAPPAS:
        for name in SOLVERS:
            here = [case for case in found if (case.kappa, case.solver) == (kappa, name)]
            claimed = [case.error for case in here if case.status == "CONVERGED"]
            worst, all_of = max(map(abs, claimed), default=float("nan")), max(abs(case.error) for case in here)
            lines.append([f"{kappa:.0e}", name, f"{len(claimed)}/{len(here)}", f"{worst:.1e}", f"{all_of:.1e}"])
    dishonest = sum(not case.honest for case in found)
    header = ["κ of Q and R", "solver", "converged", "largest error of J of these", "of all"]
    said = f'{dishonest} of {len(found)} answers say "converged" at more than {FORGIVEN:.0e} from the optimum.'
    return "\n\n".join(["## Ill-conditioned linear-quadratic problems", said, markdown(header, lines)])
