"""Noise in the dynamics, x' = f(x, u) + F(x, u) ε with ε ~ N(0, I), and the expected cost (Todorov & Li 2005).

To second order in the noise, the expected value at the next state is

    E[V'(x')] = V'(f) + ½ Σ_i c_iᵀ V_xx' c_i,      c_i the columns of F(x, u),

so a stage pays ½ tr(Fᵀ W F) beside ℓ, with W = V_xx'. Where F depends on the state or the control, its derivatives add
Σ_i C_iᵀ W C_i to Q_uu, Q_ux and Q_xx (C_i the Jacobian of c_i): noise that grows with the control makes strong
controls dear, and V grows by the trace. For linear dynamics, quadratic costs and affine F all of this is exact.

W enters as parameters, p' = (p, W), one row per stage: a new W never traces or compiles anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import casadi as ca
import numpy as np

from ocpkit import moved
from ocpkit.autodiff.differentiable import Differentiable, differentiable, with_parameters
from ocpkit.autodiff.identities import Identities
from ocpkit.autodiff.symbol import to_casadi
from ocpkit.boundary.arrays import Array
from ocpkit.problem.constraint_rows import REMEMBERED
from ocpkit.problem.longer_parameters import LongerParameters, Price, free_of_charge
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Stage, TerminalCost


def without_noise(problem: Problem) -> Problem:
    """Return the same problem with ε = 0, the certainty-equivalent one."""
    quiet = {id(stage): dataclasses.replace(stage, noise=None) for _, stage in problem.distinct_stages}
    return problem.replace(stages=tuple(quiet[id(stage)] for stage in problem.stages))


class ExpectedCost:
    """A problem whose stages pay for their noise at given W, without noise itself.

    Parameters
    ----------
    problem
        Any problem whose costs can be traced.

    Raises
    ------
    UnsupportedProblem
        If a cost is a black box; names the stage.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, p_size = problem, problem.parameters.shape[-1]
        self._longer = LongerParameters(p_size, p_size + max(size**2 for size in problem.state_sizes[1:]))
        self._priced = dataclasses.replace(
            problem,
            stages=tuple(_priced_stage(Identities(stage), self._longer) for stage in problem.stages),
            terminal_cost=_longer_end(Identities(problem.terminal_cost), self._longer),
            parameters=self._extended(None),
        )

    def at(self, value_hessians: Sequence[Array]) -> Problem:
        """Return the problem with W = V_xx at x_1 … x_T."""
        return self._priced.replace(parameters=self._extended(value_hessians))

    def _extended(self, value_hessians: Sequence[Array] | None) -> Array:
        """Return the rows (p, W) of stages 0 … T; W = 0 at first and at the end."""
        own, width = self._longer.p_size, self._longer.width
        p = np.zeros((self.problem.horizon + 1, width))
        p[:, :own] = self.problem.parameters
        for row, W in zip(p, () if value_hessians is None else value_hessians):
            row[own : own + W.size] = np.ravel(W)
        return p


@lru_cache(maxsize=REMEMBERED)
def _priced_stage(parts: Identities, longer: LongerParameters) -> Stage:
    (stage,) = parts.parts
    where, name = f"stage {stage.name!r}: cost under noise", f"{stage.name}: expected cost"
    price = Price(free_of_charge if stage.noise is None else _expected(stage, stage.noise, longer))
    return longer.stage(stage, price, where, name, noise=None)


def _expected(stage: Stage, noise: Callable[..., Any], longer: LongerParameters) -> Callable[..., ca.SX]:
    """½ tr(Fᵀ W F) as a function of (x, u, p')."""
    noise, n = with_parameters(noise, 3, f"stage {stage.name!r}: noise"), stage.dynamics.next_state_size

    def price(x: Any, u: Any, extended: Any) -> ca.SX:
        F = to_casadi(noise(x, u, extended[: longer.p_size]))
        W = ca.reshape(to_casadi(extended[longer.p_size : longer.p_size + n**2]), n, n)
        return ca.trace(F.T @ W @ F) / 2

    return price


@lru_cache(maxsize=REMEMBERED)
def _longer_end(parts: Identities, longer: LongerParameters) -> TerminalCost:
    (cost,) = parts.parts
    return longer.terminal_cost(cost, Price(free_of_charge), "the terminal cost under noise")


def noise_jacobians(stage: Stage, x: Array, u: Array, p: Array) -> Array:
    """Return the Jacobians of the columns of F in (x, u), (k, n', n + m)."""
    jacobian = _columns(Identities(stage), len(p)).jacobian(x, u, p)
    return jacobian.reshape(-1, stage.dynamics.next_state_size, jacobian.shape[1])


@lru_cache(maxsize=REMEMBERED)
def _columns(parts: Identities, p_size: int) -> Differentiable:
    """The columns of F, one after the other, as one function."""
    (stage,) = parts.parts
    where, sizes = f"stage {stage.name!r}: noise", (stage.dynamics.state_size, stage.dynamics.control_size, p_size)
    noise = with_parameters(stage.noise, 3, where)
    return differentiable(lambda x, u, p: ca.vec(to_casadi(noise(x, u, p))), sizes, where, "casadi")


__getattr__ = moved.names(__name__)
