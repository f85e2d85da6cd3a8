"""Discrete-time optimal control problem (Eq. OCP of Liu et al. 2021)

    minimize   J = φ(x_T, p) + Σ_{t<T} ℓ_t(x_t, u_t, p)
    subject to x_{t+1} = f_t(x_t, u_t, p),   x_0 given,   lower ≤ u_t ≤ upper.

Sizes may differ from stage to stage. Subclass `Dynamics`, `Cost` and `TerminalCost` to control the
derivatives; everybody else hands plain functions to `Problem.from_functions`.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ocpkit.boundary.arrays import Array, checked_series, checked_vector, real_array, whole_number
from ocpkit.boundary.deadline import in_time
from ocpkit.boundary.series import blocks_of, gather
from ocpkit.boundary.tables import Table, as_html, as_text
from ocpkit.errors import ProblemError
from ocpkit.problem.angles import checked_angles, difference
from ocpkit.problem.functions import (
    FunctionCost,
    FunctionDynamics,
    FunctionTerminalCost,
    LeastSquares,
    bounds_pair,
    find_control_size,
)
from ocpkit.problem.stage import Constraint, Cost, Dynamics, Stage, TerminalCost, checked_constraints

__all__ = ["NO_PARAMETERS", "Array", "Constraint", "Cost", "Dynamics", "Problem", "Stage", "TerminalCost"]

NO_PARAMETERS: Array = np.zeros(0)
NUMBERS = frozenset({"x0", "parameters", "controls", "states"})  # fields of a Problem that no model depends on


@dataclass(frozen=True, eq=False)
class Problem:
    """An optimal control problem: a horizon of stages, a terminal cost and an initial state; equal only to itself.

    Parameters
    ----------
    stages
        T ≥ 1 stages; repeat one object for a homogeneous horizon.
    terminal_cost
        φ.
    x0
        Initial state ``(n_0,)``.
    parameters
        p ``(n_p,)``, or one row per stage and one for the end, ``(T + 1, n_p)``.
    controls, states
        Default guess: T controls (zeros if not given); T + 1 states, possibly with gaps (none: rolled out).
    terminal_constraints
        Constraints on x_T.
    name
        How reports call it.
    angles
        Indices of states that are angles [rad], in which the model has the period 2π; see `difference`.

    Raises
    ------
    ProblemError
        For an empty horizon, sizes that do not chain, wrong shapes, or numbers that are not finite.
    """

    stages: tuple[Stage, ...]
    terminal_cost: TerminalCost
    x0: Array
    parameters: Array = field(default_factory=lambda: NO_PARAMETERS)
    controls: tuple[Array, ...] = ()
    states: tuple[Array, ...] | None = None
    terminal_constraints: tuple[Constraint, ...] = ()
    name: str = "problem"
    angles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        def set_(key: str, value: object) -> None:
            object.__setattr__(self, key, value)

        set_("stages", _stages(self.stages))
        if not isinstance(getattr(self.terminal_cost, "state_size", None), (int, np.integer)):
            raise ProblemError("terminal_cost must be a TerminalCost, which defines the integer state_size")
        set_("terminal_constraints", checked_constraints(self.terminal_constraints, "terminal_constraints"))
        self.terminal_cost.mark_in_use()
        self._check_chain()
        set_("angles", checked_angles(self.angles, self.state_sizes))
        self._check_numbers(NUMBERS)
        self._check_models()

    def _check_numbers(self, names: Container[str]) -> None:
        """Check and copy the named ones of x0, parameters and the guesses."""

        def set_(key: str, value: object) -> None:
            object.__setattr__(self, key, value)

        if "x0" in names:
            set_("x0", checked_vector(self.x0, self.state_sizes[0], "x0"))
        if "parameters" in names:
            set_("parameters", _parameters(self.parameters, self.horizon))
        if "controls" in names:
            given = self.controls is not None and len(self.controls)
            controls = self.controls if given else self._zeros()
            set_("controls", checked_series(controls, self.control_sizes, "controls"))
        if "states" in names and self.states is not None:
            set_("states", checked_series(self.states, self.state_sizes, "states"))

    def _zeros(self) -> Any:
        sizes = self.control_sizes
        return np.zeros((len(sizes), sizes[0])) if len({*sizes}) == 1 else [np.zeros(m) for m in sizes]

    def _check_chain(self) -> None:
        sizes = [*(stage.dynamics.state_size for stage in self.stages), self.terminal_cost.state_size]
        for t, stage in enumerate(self.stages):
            if stage.dynamics.next_state_size != sizes[t + 1]:
                follower = f"stage {t + 1}" if t + 1 < self.horizon else "the terminal cost"
                raise ProblemError(
                    f"stage {t} ({stage.name!r}) ends in a state of size {stage.dynamics.next_state_size}, "
                    f"but {follower} takes {sizes[t + 1]}"
                )

    def _check_models(self) -> None:
        """Evaluate each distinct stage once, so that a wrong shape is named here and not inside a solver.

        Derivatives of traced functions have the right shapes by construction, and are not even made yet.
        """
        for t, stage in self.distinct_stages:
            n, m, after = stage.dynamics.state_size, stage.dynamics.control_size, stage.dynamics.next_state_size
            x = self.x0 if t == 0 else np.zeros(n)
            u, p, where = self.controls[t], self.parameter(t), f"stage {t} ({stage.name!r})"
            with np.errstate(all="ignore"):
                _expect_parameters((stage.dynamics, stage.cost), p, where)
                _expect(stage.dynamics.step(x, u, p), (after,), f"{where}: dynamics.step")
                _expect(stage.cost.value(x, u, p), (), f"{where}: cost.value")
                stage.noise_matrix(x, u, p)
                second = {}
                if stage.dynamics.traced_function is None:
                    first = stage.dynamics.jacobians(x, u, p)
                    _expect_each(first, ((after, n), (after, m)), f"{where}: dynamics.jacobians")
                    if stage.dynamics.curved and stage.dynamics.brings_curvature:
                        second["dynamics.hessian_product"] = stage.dynamics.hessian_product(x, u, p, np.zeros(after))
                if stage.cost.traced_function is None:
                    _expect_each(stage.cost.gradient(x, u, p), ((n,), (m,)), f"{where}: cost.gradient")
                    second["cost.hessian"] = stage.cost.hessian(x, u, p)
                    second["cost.gauss_newton_hessian"] = stage.cost.gauss_newton_hessian(x, u, p)
                for kind, blocks in second.items():
                    _expect_each(blocks, ((n, n), (m, n), (m, m)), f"{where}: {kind}")
        n, p, cost = self.terminal_cost.state_size, self.parameter(self.horizon), self.terminal_cost
        _expect_parameters((cost,), p, "the terminal cost")
        with np.errstate(all="ignore"):
            _expect(cost.value(np.zeros(n), p), (), "terminal cost: value")
            if cost.traced_function is None:
                _expect(cost.gradient(np.zeros(n), p), (n,), "terminal cost: gradient")
                _expect(cost.hessian(np.zeros(n), p), (n, n), "terminal cost: hessian")

    @cached_property
    def horizon(self) -> int:
        """Number of stages T."""
        return len(self.stages)

    @cached_property
    def state_sizes(self) -> tuple[int, ...]:
        """Sizes of x_0 … x_T."""
        return (*(stage.dynamics.state_size for stage in self.stages), self.terminal_cost.state_size)

    @cached_property
    def control_sizes(self) -> tuple[int, ...]:
        """Sizes of u_0 … u_{T-1}."""
        return tuple(stage.dynamics.control_size for stage in self.stages)

    @cached_property
    def uniform(self) -> bool:
        """Whether all states have one size, and all controls."""
        return len({*self.state_sizes}) == len({*self.control_sizes}) == 1

    @cached_property
    def bounded(self) -> bool:
        """Whether any control of any stage has a finite bound."""
        return any(stage.bounded for _, stage in self.distinct_stages)

    @cached_property
    def control_bounds(self) -> tuple[Array, Array]:
        """Lower and upper bounds of u_0 … u_{T-1}, one after the other."""
        lower, upper = (np.concatenate([block.ravel() for block in blocks_of(side)]) for side in self.control_limits)
        return lower, upper

    @cached_property
    def control_limits(self) -> tuple[Sequence[Array], Sequence[Array]]:
        """Lower and upper bounds of u_0 … u_{T-1}, stage by stage."""
        lower, upper = (
            [np.asarray(getattr(s, side)) for s in self.stages] for side in ("control_lower", "control_upper")
        )
        return gather(lower), gather(upper)

    def difference(self, x: Array, y: Array) -> Array:
        """Return x − y of two states, angles in [−π, π)."""
        return difference(x, y, self.angles)

    def clip(self, controls: Sequence[Array]) -> list[Array]:
        """Return the nearest controls inside the bounds."""
        blocks = zip(blocks_of(controls), *map(blocks_of, self.control_limits))
        return [u for inside in blocks for u in np.clip(*inside)]

    def step_bounds(self, controls: Sequence[Array]) -> list[tuple[Array, Array]]:
        """Return the bounds lower − u_t and upper − u_t (m,) of a step of the controls, of every stage."""
        blocks = zip(blocks_of(controls), *map(blocks_of, self.control_limits))
        return [pair for u, lower, upper in blocks for pair in zip(lower - u, upper - u)]

    def room(self, controls: Sequence[Array]) -> list[tuple[Array, Array]]:
        """Return `step_bounds`, whose old name this is (deprecated)."""
        warnings.warn("Problem.room is now step_bounds; the old name goes with version 0.3", DeprecationWarning, 2)
        return self.step_bounds(controls)

    @cached_property
    def distinct_stages(self) -> tuple[tuple[int, Stage], ...]:
        """Each stage object once, with the first t at which it stands."""
        first: dict[int, int] = {}
        for t, stage in enumerate(self.stages):
            first.setdefault(id(stage), t)
        return tuple((t, self.stages[t]) for t in first.values())

    def parameter(self, t: int) -> Array:
        """Return p of stage t (t = T: of the terminal cost)."""
        return self.parameters if self.parameters.ndim == 1 else self.parameters[t]

    def replace(self, **changes: Any) -> Problem:
        """Return a copy with other ``x0``, ``parameters``, guesses, …; traced functions are shared.

        Where only numbers change, only these are checked, so that a controller may call this at every tick.
        """
        longer = np.shape(changes.get("parameters", self.parameters))[-1:] != self.parameters.shape[-1:]
        if longer or not changes.keys() <= NUMBERS:
            return dataclasses.replace(self, **changes)
        changed = copy.copy(self)
        for key, value in changes.items():
            object.__setattr__(changed, key, value)
        changed._check_numbers(changes)
        return changed

    def rollout(self, controls: Sequence[ArrayLike] | Array | None = None) -> tuple[list[Array], float]:
        """Simulate from x0; return the T + 1 states and J (NaN or inf if the model blows up)."""
        controls = checked_series(self.controls if controls is None else controls, self.control_sizes, "controls")
        states = self.simulate(controls)
        return states, self.cost(states, controls)

    def simulate(self, controls: Sequence[Array]) -> list[Array]:
        """Return the T + 1 states from x0 under T controls, which are not checked."""
        states = [self.x0]
        with np.errstate(all="ignore"):
            for t, stage in enumerate(in_time(self.stages)):
                states.append(stage.dynamics.step(states[t], controls[t], self.parameter(t)))
        return states

    def cost(self, states: Sequence[Array], controls: Sequence[Array]) -> float:
        """Return J of a trajectory (which need not satisfy the dynamics).

        Raises
        ------
        ProblemError
            If there are not T + 1 states and T controls.
        """
        return float(sum(self.costs(states, controls)))

    def costs(self, states: Sequence[Array], controls: Sequence[Array]) -> list[float]:
        """Return ℓ_0 … ℓ_{T-1} and φ of a trajectory (which need not satisfy the dynamics).

        Raises
        ------
        ProblemError
            If there are not T + 1 states and T controls.
        """
        if (len(states), len(controls)) != (self.horizon + 1, self.horizon):
            raise ProblemError(
                f"the cost of {self.horizon} stages needs {self.horizon + 1} states and {self.horizon} controls, "
                f"got {len(states)} and {len(controls)}"
            )
        with np.errstate(all="ignore"):
            running = [
                stage.cost.value(states[t], controls[t], self.parameter(t))
                for t, stage in enumerate(in_time(self.stages))
            ]
            return [*running, self.terminal_cost.value(states[-1], self.parameter(self.horizon))]

    def _rows(self) -> Table:
        """Summary for a reader."""
        kinds = len(self.distinct_stages)
        rows = {
            f"{row.name} ({row.lower} … {row.upper})" for _, stage in self.distinct_stages for row in stage.constraints
        }
        noisy = any(stage.noise is not None for _, stage in self.distinct_stages)
        return [
            ("problem", self.name),
            ("horizon T", f"{self.horizon}, {kinds} kind{'s' * (kinds != 1)} of stage"),
            ("states n", _range(self.state_sizes) + (f", angles {self.angles}" if self.angles else "")),
            ("controls m", _range(self.control_sizes) + ", with bounds" * self.bounded),
            ("parameters", " × ".join(map(str, self.parameters.shape)) if self.parameters.size else "none"),
            ("constraints", ", ".join(sorted(rows)) or "none"),
            ("at the end", ", ".join(row.name for row in self.terminal_constraints) or "no constraints"),
            *([("noise", "yes")] * noisy),
        ]

    def __str__(self) -> str:
        return as_text(self._rows())

    def __repr__(self) -> str:
        sizes = f"states {_range(self.state_sizes)}, controls {_range(self.control_sizes)}"
        return f"<Problem {self.name!r}: horizon {self.horizon}, {sizes}>"

    def _repr_html_(self) -> str:
        return as_html(self._rows())

    @classmethod
    def from_functions(
        cls,
        *,
        dynamics: Callable[..., Any] | Dynamics,
        cost: Callable[..., Any] | LeastSquares,
        terminal_cost: Callable[..., Any] | LeastSquares,
        x0: ArrayLike,
        horizon: int,
        control_size: int | None = None,
        parameters: ArrayLike = NO_PARAMETERS,
        control_bounds: tuple[ArrayLike, ArrayLike] | None = None,
        constraints: tuple[Constraint, ...] = (),
        terminal_constraints: tuple[Constraint, ...] = (),
        noise: Callable[..., Any] | None = None,
        controls: ArrayLike | None = None,
        states: ArrayLike | None = None,
        derivatives: str = "casadi",
        name: str = "problem",
        angles: Sequence[int] = (),
    ) -> Problem:
        """Build a homogeneous `Problem` from two or three plain functions.

        Parameters
        ----------
        dynamics
            ``f(x, u)`` or ``f(x, u, p)``, returns the next state (use `ocpkit.rk4` for a continuous model); or
            `Dynamics` that bring their own derivatives.
        cost
            ``ℓ(x, u[, p])``, one number, or `LeastSquares` of residuals.
        terminal_cost
            ``φ(x[, p])``, one number, or `LeastSquares` of residuals.
        x0
            Initial state ``(n,)``.
        horizon
            Number of stages T ≥ 1.
        control_size
            m; found by calling the functions when it is not given and `controls` is not either.
        parameters
            p ``(n_p,)`` or one row per stage ``(T + 1, n_p)``.
        control_bounds
            (lower, upper), scalars or ``(m,)`` each.
        noise
            ``F(x, u[, p])`` (n, k) of the noise F ε that is added to the next state; see `Stage`.
        controls, states
            Guesses ``(T, m)`` and ``(T + 1, n)``; one vector ``(m,)`` is repeated over the horizon.
        derivatives
            ``"casadi"`` (default), ``"central"`` or ``"complex"``.
        angles
            Indices of states that are angles [rad]: their differences are taken modulo 2π; see `Problem`.

        Raises
        ------
        ProblemError
            If anything does not fit; the message names the part and the shapes.
        """
        x0 = np.atleast_1d(real_array(x0, "x0"))
        if x0.ndim != 1 or len(x0) == 0:
            raise ProblemError(f"x0 has shape {x0.shape}, expected a vector with at least one entry")
        horizon = whole_number(horizon, "horizon")
        p = real_array(parameters, "parameters")
        if p.ndim not in (1, 2):
            raise ProblemError(f"parameters have shape {p.shape}, expected (n_p,) or ({horizon + 1}, n_p)")
        guess = None if controls is None else np.atleast_1d(real_array(controls, "controls"))
        states = None if states is None else np.atleast_1d(real_array(states, "states"))
        if isinstance(dynamics, Dynamics):
            if control_size not in (None, dynamics.control_size):
                raise ProblemError(
                    f"control_size={control_size}, but the dynamics take {dynamics.control_size} controls"
                )
            control_size = dynamics.control_size
        elif control_size is None:
            control_size = guess.shape[-1] if guess is not None else find_control_size(dynamics, cost, x0, p, name)
        if guess is not None and guess.shape == (control_size,):
            guess = np.tile(guess, (horizon, 1))
        n, sizes = len(x0), {"parameter_size": p.shape[-1], "derivatives": derivatives}
        if not isinstance(dynamics, Dynamics):
            dynamics = FunctionDynamics(dynamics, n, control_size, name=f"{name}: dynamics", **sizes)
        lower, upper = (
            bounds_pair(control_bounds, f"{name}: control_bounds") if control_bounds is not None else (-np.inf, np.inf)
        )
        stage = Stage(
            dynamics=dynamics,
            cost=FunctionCost(cost, n, control_size, name=f"{name}: cost", **sizes),
            control_lower=lower,
            control_upper=upper,
            constraints=constraints,
            name=name,
            noise=noise,
        )
        return cls(
            stages=(stage,) * horizon,
            terminal_cost=FunctionTerminalCost(terminal_cost, n, name=f"{name}: terminal cost", **sizes),
            x0=x0,
            parameters=p,
            controls=() if guess is None else guess,  # type: ignore[arg-type]  # Problem makes tuples of arrays
            states=states,  # type: ignore[arg-type]
            terminal_constraints=terminal_constraints,
            name=name,
            angles=angles,  # type: ignore[arg-type]  # Problem makes them a tuple, also of one index
        )


def _range(sizes: Sequence[int]) -> str:
    """Say one size, or the smallest and the largest."""
    least, most = min(sizes), max(sizes)
    return str(least) if least == most else f"{least} to {most}"


def _expect(value: Any, shape: tuple[int, ...], what: str) -> None:
    if np.shape(value) != shape:
        raise ProblemError(f"{what} returned shape {np.shape(value)}, expected {shape}")


def _expect_each(blocks: Any, shapes: Sequence[tuple[int, ...]], what: str) -> None:
    if not isinstance(blocks, (tuple, list, np.ndarray)) or len(blocks) != len(shapes):
        expected = ", ".join(map(str, shapes))
        raise ProblemError(f"{what} must return {len(shapes)} arrays, of shapes {expected}; got {blocks!r:.80}")
    for block, shape in zip(blocks, shapes):
        _expect(block, shape, what)


def _expect_parameters(parts: Sequence[Any], p: Array, where: str) -> None:
    """Functions are traced for one length of p; hand-written parts may take any."""
    for part in parts:
        size = getattr(part, "parameter_size", len(p))
        if size != len(p):
            raise ProblemError(
                f"{where}: {type(part).__name__} was declared with parameter_size={size}, but the problem has "
                f"{len(p)} parameters"
            )


def _stages(value: Any) -> tuple[Stage, ...]:
    if not isinstance(value, Sequence) or not all(isinstance(stage, Stage) for stage in value):
        raise ProblemError(f"stages must be a sequence of Stage objects, got {value!r:.80}")
    if not value:
        raise ProblemError("the horizon must hold at least 1 stage, got 0")
    return tuple(value)


def _parameters(value: ArrayLike, horizon: int) -> Array:
    p = real_array(value, "parameters")
    if p.ndim not in (1, 2) or (p.ndim == 2 and len(p) != horizon + 1):
        raise ProblemError(f"parameters have shape {p.shape}, expected (n_p,) or ({horizon + 1}, n_p)")
    if not np.isfinite(p).all():
        raise ProblemError(f"parameters are not finite: {p}")
    p.setflags(write=False)
    return p
