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
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import casadi as ca
import numpy as np

from ocpkit.autodiff.differentiable import Differentiable, differentiable, with_parameters
from ocpkit.autodiff.identities import Identities
from ocpkit.autodiff.symbol import to_casadi
from ocpkit.boundary.arrays import Array
from ocpkit.problem.constraint_rows import REMEMBERED
from ocpkit.problem.functions import FunctionCost, FunctionTerminalCost
from ocpkit.problem.graphs import trace_cost
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Stage, TerminalCost
from ocpkit.solvers.constrained.augmented import extend_dynamics

if TYPE_CHECKING:
    pass


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
        self.problem, self._p_size = problem, problem.parameters.shape[-1]
        self._width = self._p_size + max(size**2 for size in problem.state_sizes[1:])
        self._priced = dataclasses.replace(
            problem,
            stages=tuple(_priced_stage(Identities(stage), self._p_size, self._width) for stage in problem.stages),
            terminal_cost=_longer_end(Identities(problem.terminal_cost), self._p_size, self._width),
            parameters=self._extended(None),
        )

    def at(self, value_hessians: Sequence[Array]) -> Problem:
        """Return the problem with W = V_xx at x_1 … x_T."""
        return self._priced.replace(parameters=self._extended(value_hessians))

    def _extended(self, value_hessians: Sequence[Array] | None) -> Array:
        """Return the rows (p, W) of stages 0 … T; W = 0 at first and at the end."""
        p = np.zeros((self.problem.horizon + 1, self._width))
        p[:, : self._p_size] = self.problem.parameters
        for row, W in zip(p, () if value_hessians is None else value_hessians):
            row[self._p_size : self._p_size + W.size] = np.ravel(W)
        return p


@lru_cache(maxsize=REMEMBERED)
def _priced_stage(parts: Identities, p_size: int, width: int) -> Stage:
    (stage,) = parts.parts
    sizes, rows = (stage.dynamics.state_size, stage.dynamics.control_size), stage.dynamics.next_state_size
    own = trace_cost(stage.cost, (*sizes, p_size), f"stage {stage.name!r}: cost under noise")
    noise = None if stage.noise is None else with_parameters(stage.noise, 3, f"stage {stage.name!r}: noise")

    def cost(x: Any, u: Any, extended: Any) -> ca.SX:
        value = own(*map(to_casadi, (x, u, extended[:p_size])))
        if noise is None:
            return value
        F = to_casadi(noise(x, u, extended[:p_size]))
        W = ca.reshape(to_casadi(extended[p_size : p_size + rows**2]), rows, rows)
        return value + ca.trace(F.T @ W @ F) / 2

    priced = FunctionCost(cost, *sizes, parameter_size=width, name=f"{stage.name}: expected cost")
    dynamics = extend_dynamics(stage.dynamics, p_size, width)
    return dataclasses.replace(stage, dynamics=dynamics, cost=priced, noise=None)


@lru_cache(maxsize=REMEMBERED)
def _longer_end(parts: Identities, p_size: int, width: int) -> TerminalCost:
    (cost,) = parts.parts
    own = trace_cost(cost, (cost.state_size, p_size), "the terminal cost under noise")

    def value(x: Any, extended: Any) -> ca.SX:
        return own(to_casadi(x), to_casadi(extended[:p_size]))

    return FunctionTerminalCost(value, cost.state_size, parameter_size=width)


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
