"""The closed loop of a problem with noise, sampled: costs and final states of many runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocpkit.boundary.arrays import Array, whole_number
from ocpkit.control.estimator import KalmanFilter
from ocpkit.problem.problem import Problem


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
        u, p = stage.clip(policy(t, known[t])), problem.parameter(t)
        F = stage.noise_matrix(states[t], u, p)
        states.append(stage.dynamics.step(states[t], u, p) + F @ rng.normal(size=F.shape[1]))
        controls.append(u)
        if estimator is not None:
            estimator.predict(u, t)
    return states, [*known, look(problem.horizon)], controls
