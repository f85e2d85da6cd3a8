"""A continuous problem as ocpkit takes it: Runge-Kutta steps, controls constant on each of N equal intervals.

ℓ is integrated by the same Runge-Kutta step as x. State bounds are rows of the stages 1 … N − 1 and of the end, path
rows belong to the beginnings of the intervals. p, a free T and a free x(0) are free parameters, as in
`with_free_parameters`; the beginning of an interval, which rates that depend on t ask for, is a given one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.suite.continuous import ContinuousProblem, spread
from ocpkit import Constraint, Problem, Stage, with_free_parameters
from ocpkit import math as m
from ocpkit.boundary.arrays import Array
from ocpkit.problem.functions import FunctionCost, FunctionDynamics
from ocpkit.problem.integrate import rk4_rule


@dataclass(frozen=True)
class Interval:
    """Functions of one interval: of x, u and q = (p, T if free, …, s where the rates depend on t = s T)."""

    problem: ContinuousProblem
    count: int

    def p(self, q: Any) -> Any:
        """Parameters of the rates."""
        return q[: len(self.problem.parameters)]

    def duration(self, q: Any) -> Any:
        """T."""
        return q[len(self.problem.parameters)] if self.problem.free_time else self.problem.duration[0]

    def begins(self, q: Any) -> Any:
        """T s, at which the interval begins."""
        return q[-1] * self.duration(q) if self.problem.time_dependent else 0.0

    def step(self, x: Any, u: Any, q: Any) -> Any:
        """x at the end of the interval."""
        return self._integrate(lambda rates, running: rates, x, u, q)[: len(x)]

    def cost(self, x: Any, u: Any, q: Any) -> Any:
        """The integral of ℓ over the interval."""
        n = len(x)
        if self.problem.rates(x, u, self.p(q), self.begins(q))[1] is None:
            return 0.0 * u[0]
        return self._integrate(lambda rates, running: [*rates, running], m.concatenate([x, 0.0]), u, q)[n]

    def path(self, x: Any, u: Any, q: Any) -> Any:
        """Path rows at its beginning."""
        return m.stack(self.problem.rates(x, u, self.p(q), self.begins(q))[2])

    def _integrate(self, select: Callable[[Any, Any], Any], y: Any, u: Any, q: Any) -> Any:
        """Advance y, whose first entries are x, by one step; time is its last entry where rates depend on it."""
        problem, n, h = self.problem, self.problem.states, self.duration(q) / self.count
        if not problem.time_dependent:
            return rk4_rule(lambda y: m.stack(select(*problem.rates(y[:n], u, self.p(q), 0.0)[:2])), y, h)

        def rates(y: Any) -> Any:
            return m.stack([*select(*problem.rates(y[:n], u, self.p(q), y[-1])[:2]), 1.0])

        return rk4_rule(rates, m.concatenate([y, self.begins(q)]), h)


def discretized(problem: ContinuousProblem, intervals: int | None = None) -> Problem:
    """Return the problem on N intervals, with its own guess of states and controls."""
    N = intervals or problem.intervals
    interval, theta = Interval(problem, N), Theta(problem)
    x = problem.guessed_states(N)
    timed = Problem.from_functions(
        dynamics=interval.step,
        cost=interval.cost,
        terminal_cost=lambda x, q: problem.terminal_cost(x, interval.p(q), interval.duration(q)),
        x0=x[0],
        horizon=N,
        control_size=problem.controls,
        control_bounds=spread(problem.control_bounds, problem.controls),
        constraints=tuple(_constraints(interval)),
        terminal_constraints=tuple(_end(interval, theta)),
        parameters=theta.along(N),
        controls=problem.guessed_controls(N),
        states=x,
        name=problem.name,
    )
    bounded, limits = _with_state_bounds(timed, interval, theta), theta.limits
    if not len(limits):
        return bounded
    return with_free_parameters(bounded, range(len(limits)), lower=limits[:, 0], upper=limits[:, 1])


@dataclass(frozen=True)
class Theta:
    """What is chosen beside x and u: (p, T if free, the free entries of x(0)); parameters q of the stages add s."""

    problem: ContinuousProblem

    @property
    def free_states(self) -> list[int]:
        """Which entries of x(0) are free."""
        return [i for i, x in enumerate(self.problem.initial) if x is None]

    @property
    def limits(self) -> Array:
        """Lower bound, upper bound and guess of each, (k, 3)."""
        problem, guess = self.problem, self.problem.guessed_states(1)[0]
        sides = spread(problem.state_bounds, problem.states)
        time = [problem.duration] * problem.free_time
        begins = [(*(side[i] for side in sides), guess[i]) for i in self.free_states]
        return np.array([*problem.parameters, *time, *begins]).reshape(-1, 3)

    def along(self, intervals: int) -> Array:
        """Guess of q at the stages 0 … N: (k,), or (N + 1, k + 1) where s is among them."""
        guess = self.limits[:, 2]
        if not self.problem.time_dependent:
            return guess
        return np.column_stack([np.tile(guess, (intervals + 1, 1)), np.linspace(0.0, 1.0, intervals + 1)])

    def start(self, q: Any) -> Any:
        """x(0), whose free entries are among q."""
        first = len(self.problem.parameters) + self.problem.free_time
        chosen = iter(q[first : first + len(self.free_states)])
        return m.stack([next(chosen) if x is None else x for x in self.problem.initial])


def _constraints(interval: Interval) -> Iterator[Constraint]:
    """Yield the path rows."""
    lower, upper = interval.problem.path_bounds
    if len(np.atleast_1d(lower)):
        yield Constraint(interval.path, lower, upper, "path")


def _bounds(problem: ContinuousProblem, fixed: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Array, Array]:
    """Return which states have bounds and are not fixed, and the bounds."""
    lower, upper = spread(problem.state_bounds, problem.states)
    places = np.flatnonzero((np.isfinite(lower) | np.isfinite(upper)) & ~fixed)
    return places, lower[places], upper[places]


def _end(interval: Interval, theta: Theta) -> Iterator[Constraint]:
    """Yield what x(T) must be, its bounds, and the boundary rows."""
    problem = interval.problem
    fixed = np.array([x is not None for x in problem.ends])
    if fixed.any():
        goal = [x for x in problem.ends if x is not None]
        yield Constraint(lambda x: x[fixed], goal, goal, "the end")
    places, lower, upper = _bounds(problem, fixed)
    if len(places):
        yield Constraint(lambda x: x[places], lower, upper, "state bounds")
    rows = problem.boundary
    if rows is not None:
        yield Constraint(
            lambda x, q: m.stack(rows.function(theta.start(q), x, interval.p(q), interval.duration(q))),
            rows.lower,
            rows.upper,
            "both ends",
        )


def _with_state_bounds(problem: Problem, interval: Interval, theta: Theta) -> Problem:
    """Bound the states of all stages but the first, which may begin at free entries of x(0)."""
    first = later = problem.stages[0]
    places, lower, upper = _bounds(interval.problem, np.zeros(interval.problem.states, bool))
    if len(places):
        bounds = Constraint(lambda x, u: x[places], lower, upper, "state bounds")
        later = replace(first, constraints=(*first.constraints, bounds))
    if theta.free_states:
        first = _begun(first, theta, problem.parameters.shape[-1])
    return problem.replace(stages=(first, *[later] * (problem.horizon - 1)))


def _begun(stage: Stage, theta: Theta, p_size: int) -> Stage:
    """Return the first stage, whose functions begin at x(0) of the parameters."""

    def at_start(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, u, q: function(theta.start(q), u, q)

    sizes = stage.dynamics.state_size, stage.dynamics.control_size
    return replace(
        stage,
        dynamics=FunctionDynamics(at_start(stage.dynamics.step), *sizes, parameter_size=p_size),
        cost=FunctionCost(at_start(stage.cost.value), *sizes, parameter_size=p_size),
        constraints=tuple(replace(each, function=at_start(each.function)) for each in stage.constraints),
    )
