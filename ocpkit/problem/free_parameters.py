"""Parameters that are chosen with the controls: a design, a final time (time scaling).

    minimize over u_0 … u_{T-1} and θ   φ(x_T, p) + Σ ℓ_t(x_t, u_t, p),   θ = p[free],   lower ≤ θ ≤ upper

becomes an ordinary problem, whose state carries θ along: the first stage's control is (u_0, θ), and all later states
are (x_t, θ) with θ' = θ. So the sizes are n, then n + k; and m + k, then m. The Bellman recursion then gives
V_θ = dJ/dθ and V_θθ beside the value of the state, and the feedback of θ is a column of every gain.

A free final time is a parameter too: scale time by ``rk4(rates, dt=lambda p: p[0] / horizon)`` and free p[0].
Source: state augmentation as in Betts, *Practical Methods for Optimal Control*, 2010, sec. 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ocpkit import math as m
from ocpkit import moved
from ocpkit.autodiff.differentiable import with_parameters
from ocpkit.boundary.arrays import Array, checked_vector
from ocpkit.boundary.pickling import CarriesFunctions
from ocpkit.errors import ProblemError
from ocpkit.problem.functions import FunctionCost, FunctionDynamics, FunctionTerminalCost, composed
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Constraint, Stage, TerminalCost


def with_free_parameters(
    problem: Problem,
    free: Sequence[int],
    *,
    lower: ArrayLike = -np.inf,
    upper: ArrayLike = np.inf,
) -> Problem:
    """Let some parameters of a problem be chosen by the solver.

    Parameters
    ----------
    problem
        Written with `ocpkit.math`; its parameters (n_p,), or (T + 1, n_p) where the free ones do not change, are the
        guess of θ.
    free
        Indices of the free entries of p, k of them; the others stay parameters, in their order.
    lower, upper
        Bounds of θ, scalars or (k,); they become bounds of the first control.

    Returns
    -------
    Problem
        Of horizon T, with controls (m + k,), (m,), … and states (n,), (n + k,), …; see `chosen_parameters`.

    Raises
    ------
    ProblemError
        If an index is no entry of p or stands twice, a free entry changes along the horizon, or bounds contradict.
    """
    split = _Split.of(problem, free)
    low, high = (
        checked_vector(side, split.count, "a bound of the free parameters", finite=False) for side in (lower, upper)
    )
    Constraint(abs, low, high, "the free parameters")
    theta = np.clip(np.atleast_2d(problem.parameters)[0, split.free], low, high)
    later = {id(stage): stage for stage in problem.stages[1:]}
    later = {key: _later_stage(stage, split) for key, stage in later.items()}
    terminal_cost, terminal_constraints = _end(problem, split)
    states = problem.states
    return Problem(
        stages=(_first_stage(problem.stages[0], split, low, high), *(later[id(s)] for s in problem.stages[1:])),
        terminal_cost=terminal_cost,
        x0=problem.x0,
        parameters=problem.parameters[..., split.given],
        controls=(np.concatenate([problem.controls[0], theta]), *problem.controls[1:]),
        states=None if states is None else (states[0], *(np.concatenate([x, theta]) for x in states[1:])),
        terminal_constraints=terminal_constraints,
        name=problem.name,
        angles=problem.angles,
    )


@dataclass(frozen=True)
class _Split:
    """Partition of p into free and given entries."""

    free: list[int]
    given: list[int]

    @classmethod
    def of(cls, problem: Problem, free: Sequence[int]) -> _Split:
        if not isinstance(free, Iterable):
            raise ProblemError(f"free parameters must be a sequence of indices, got {free!r}")
        size, indices = problem.parameters.shape[-1], list(free)
        wrong = [i for i in indices if not isinstance(i, (int, np.integer)) or i not in range(size)]
        if wrong or not indices or len({*indices}) < len(indices):
            raise ProblemError(f"free parameters must be distinct entries of the {size} in p, got {indices}")
        changing = [i for i in indices if np.ptp(np.atleast_2d(problem.parameters)[:, i]) > 0]
        if changing:
            raise ProblemError(f"parameter {changing[0]} changes along the horizon, so it cannot be one free number")
        return cls(indices, [i for i in range(size) if i not in indices])

    @property
    def count(self) -> int:
        """Number of free entries k."""
        return len(self.free)

    def join(self, given: Any, theta: Any) -> Any:
        """Return p (n_p,) of its given and its free entries."""
        entries = dict(zip(self.given, given)) | dict(zip(self.free, theta))
        return m.stack([entries[i] for i in sorted(entries)])


class _Arguments(ABC):
    """The old problem's (x, u, p), at the end (x, p), of the new one's; and θ among the latter."""

    def __init__(self, split: _Split, size: int) -> None:
        self.split, self.size = split, size

    @abstractmethod
    def __call__(self, *new: Any) -> tuple[Any, ...]: ...

    @abstractmethod
    def theta(self, *new: Any) -> Any: ...


class _First(_Arguments):
    """θ follows the control, which has `size` entries."""

    def __call__(self, *new: Any) -> tuple[Any, ...]:
        x, u, p = new
        return x, u[: self.size], self.split.join(p, self.theta(*new))

    def theta(self, *new: Any) -> Any:
        return new[1][self.size :]


class _Later(_Arguments):
    """θ follows the state, which has `size` entries."""

    def __call__(self, *new: Any) -> tuple[Any, ...]:
        x, *u, p = new
        return x[: self.size], *u, self.split.join(p, self.theta(*new))

    def theta(self, *new: Any) -> Any:
        return new[0][self.size :]


def _first_stage(stage: Stage, split: _Split, lower: Array, upper: Array) -> Stage:
    n, size = stage.dynamics.state_size, stage.dynamics.control_size
    sides = ((stage.control_lower, lower), (stage.control_upper, upper))
    bounds = [np.concatenate([np.asarray(own), more]) for own, more in sides]
    return _stage(stage, (n, size + split.count), bounds, _First(split, size))


def _later_stage(stage: Stage, split: _Split) -> Stage:
    n, size = stage.dynamics.state_size, stage.dynamics.control_size
    bounds = [stage.control_lower, stage.control_upper]
    return _stage(stage, (n + split.count, size), bounds, _Later(split, n))


def _stage(stage: Stage, sizes: tuple[int, int], bounds: Sequence[ArrayLike], arguments: _Arguments) -> Stage:
    """Return the stage of (x, u, p) that calls the old one, and passes θ on."""
    split = arguments.split
    name, p_size = f"{stage.name}, with free parameters", len(split.given)
    dynamics = FunctionDynamics(
        _Passing(stage.dynamics.value_function, arguments),
        *sizes,
        next_state_size=stage.dynamics.next_state_size + split.count,
        parameter_size=p_size,
        name=f"{name}: dynamics",
    )
    dynamics.curved = stage.dynamics.curved
    cost = composed(stage.cost.value_function, lambda function: _Called(function, arguments))
    return replace(
        stage,
        dynamics=dynamics,
        cost=FunctionCost(cost, *sizes, parameter_size=p_size, name=f"{name}: cost"),
        control_lower=bounds[0],
        control_upper=bounds[1],
        constraints=tuple(replace(c, function=_Called(c.function, arguments)) for c in stage.constraints),
        noise=None if stage.noise is None else _Padded(stage.noise, arguments),
    )


def _end(problem: Problem, split: _Split) -> tuple[TerminalCost, tuple[Constraint, ...]]:
    n = problem.terminal_cost.state_size
    arguments = _Later(split, n)
    cost = composed(problem.terminal_cost.value_function, lambda function: _Called(function, arguments, 2))
    name = "the terminal cost, with free parameters"
    constraints = (replace(c, function=_Called(c.function, arguments, 2)) for c in problem.terminal_constraints)
    phi = FunctionTerminalCost(cost, n + split.count, parameter_size=len(split.given), name=name)
    return phi, tuple(constraints)


class _Called(CarriesFunctions):
    """An old function of the new problem's arguments, `count` of them."""

    def __init__(self, function: Callable[..., Any], arguments: _Arguments, count: int = 3) -> None:
        self.old = with_parameters(function, count, "a problem with free parameters")
        self.arguments = arguments

    def __call__(self, *new: Any) -> Any:
        return self.old(*self.arguments(*new))


class _Passing(_Called):
    """Dynamics that pass θ on."""

    def __call__(self, *new: Any) -> Any:
        return m.concatenate([super().__call__(*new), self.arguments.theta(*new)])


class _Padded(_Called):
    """Noise with rows of zeros for θ."""

    def __call__(self, *new: Any) -> Any:
        F = super().__call__(*new)
        return m.stack([*F, *[0.0 * F[0]] * self.arguments.split.count])


__getattr__ = moved.names(__name__)
