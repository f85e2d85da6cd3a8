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
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import casadi as ca
import numpy as np

from ocpkit.arrays import whole_number
from ocpkit.augmented import extend_dynamics
from ocpkit.differentiable import Differentiable, differentiable, with_parameters
from ocpkit.functions import FunctionCost, FunctionTerminalCost
from ocpkit.identities import Identities
from ocpkit.problem import Array, Problem, Stage, TerminalCost
from ocpkit.rows import REMEMBERED
from ocpkit.symbol import to_casadi
from ocpkit.trace import trace_cost

if TYPE_CHECKING:
    from ocpkit.estimator import KalmanFilter


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


@dataclass(frozen=True)
class Sample:
    """Runs of a noisy problem.

    Attributes
    ----------
    states
        (N, T + 1, n), or N tuples of vectors where sizes change.
    costs
        J of each run (N,).
    estimates
        What the policy was given, as `states`; None where it was given the states.
    """

    states: Any
    costs: Array
    estimates: Any = None

    def confidence(self, succeeded: Callable[[Any], bool], level: float = 0.95) -> tuple[float, float, float]:
        """Return the rate of success and its confidence band (Wilson 1927).

        Parameters
        ----------
        succeeded
            Says of the states (T + 1, n) of one run whether it was a success.
        level
            Probability with which the band holds the true rate.
        """
        from scipy.stats import binomtest

        wins = sum(bool(succeeded(run)) for run in self.states)
        band = binomtest(wins, len(self.states)).proportion_ci(level, method="wilson")
        return wins / len(self.states), float(band.low), float(band.high)


def sample(
    problem: Problem,
    policy: Callable[[int, Array], Array],
    runs: int,
    *,
    seed: int = 0,
    estimator: KalmanFilter | None = None,
) -> Sample:
    """Simulate a noisy problem many times (Monte Carlo).

    Parameters
    ----------
    problem
        With noise, and with control bounds, inside which every control is put.
    policy
        (t, x_t) → u_t: a solution's ``policy``, or ``lambda t, x: solution.controls[t]`` for open loop.
    runs
        Number of runs N.
    seed
        Run i draws the same ε for every policy.
    estimator
        Where given, the policy gets the estimates of this filter, which is given noisy measurements; the first states
        are drawn as it expects them.

    Raises
    ------
    ProblemError
        If `runs` is below 1.
    """
    runs = whole_number(runs, "runs")
    stacked = len({*problem.state_sizes}) == 1
    every, seen, costs = list[Any](), list[Any](), list[float]()
    for run in range(runs):
        states, estimates, controls = _one_run(problem, policy, [seed, run], estimator)
        every.append(np.stack(states) if stacked else tuple(states))
        seen.append(np.stack(estimates) if stacked else tuple(estimates))
        costs.append(problem.cost(states, controls))
    series, given = (np.stack(each) if stacked else each for each in (every, seen))
    return Sample(series, np.array(costs), None if estimator is None else given)


def _one_run(
    problem: Problem, policy: Callable[[int, Array], Array], seed: list[int], estimator: KalmanFilter | None
) -> tuple[list[Array], list[Array], list[Array]]:
    """Return states, what was known of them, and controls."""
    rng, sensor = np.random.default_rng(seed), np.random.default_rng([*seed, 1])
    states, known, controls = [problem.x0], list[Array](), list[Array]()
    if estimator is not None:
        estimator.reset()
        states = [estimator.start(sensor)]

    def look(t: int) -> Array:
        return states[t] if estimator is None else estimator.update(estimator.measure(states[t], sensor, t), t)

    for t, stage in enumerate(problem.stages):
        known.append(look(t))
        u, p = np.clip(policy(t, known[t]), stage.control_lower, stage.control_upper), problem.parameter(t)
        F = stage.noise_matrix(states[t], u, p)
        states.append(stage.dynamics.step(states[t], u, p) + F @ rng.normal(size=F.shape[1]))
        controls.append(u)
        if estimator is not None:
            estimator.predict(u, t)
    return states, [*known, look(problem.horizon)], controls
