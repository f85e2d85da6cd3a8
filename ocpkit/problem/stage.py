"""Stage of a problem: dynamics, costs, constraints, bounds and noise, and the derivatives that solvers ask for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ocpkit.autodiff.differences import central_jacobian
from ocpkit.autodiff.differentiable import with_parameters
from ocpkit.autodiff.symbol import to_casadi
from ocpkit.boundary.arrays import Array, checked_vector, real_array
from ocpkit.boundary.pickling import CarriesFunctions
from ocpkit.errors import ProblemError, refuse_hidden_fields
from ocpkit.problem.part import Part
from ocpkit.problem.part_graphs import (
    UNTRACED_VALUE,
    CostGraph,
    DynamicsGraph,
    WrittenDerivatives,
    below,
    beside,
    square,
    trace,
)


def _jacobians_of_step(f: Dynamics, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
    jacobian = f.differentiated(len(x), len(u), len(p)).jacobian(x, u, p)
    return jacobian[:, : f.state_size], jacobian[:, f.state_size :]


class Dynamics(Part):
    """One step of the system, x_{t+1} = f(x, u, p).

    Attributes
    ----------
    state_size, control_size, next_state_size : int
        Lengths n, m and n' of x, u and the next state.
    curved : bool
        Whether solvers use `hessian_product`. Where it is False, second-order DDP takes v·∇²f = 0, as iLQR does: for
        models whose curvature costs more to compute, or to compile, than it saves in iterations.
    """

    state_size: int
    control_size: int
    next_state_size: int
    curved: bool = True

    value_method = "step"

    @abstractmethod
    def step(self, x: Array, u: Array, p: Array) -> Array:
        """Return the next state ``(n',)``."""

    @abstractmethod
    def jacobians(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        """Return f_x ``(n', n)`` and f_u ``(n', m)``."""

    def hessian_product(self, x: Array, u: Array, p: Array, costate: Array) -> tuple[Array, Array, Array]:
        """Return v·f_xx ``(n, n)``, v·f_ux ``(m, n)`` and v·f_uu ``(m, m)`` for a vector v ``(n',)``.

        By default central differences of `jacobians`; override for exact second-order DDP.
        """
        n = self.state_size

        def gradient(z: Array) -> Array:
            return np.concatenate([costate @ j for j in self.jacobians(z[:n], z[n:], p)])

        hessian = central_jacobian(gradient, np.concatenate([x, u]))
        return cut_hessian((hessian + hessian.T) / 2, n)

    replacements: ClassVar = {"jacobians": _jacobians_of_step, "hessian_product": hessian_product}

    @property
    def brings_curvature(self) -> bool:
        """Whether `hessian_product` is more than differences of `jacobians`."""
        return type(self).hessian_product is not Dynamics.hessian_product

    def argument_sizes(self, p_size: int) -> tuple[int, ...]:
        return self.state_size, self.control_size, p_size

    def derivative_graphs(self, p_size: int, where: str) -> DynamicsGraph:
        traced, sizes = self.traced_exactly(where), self.argument_sizes(p_size)
        if traced is not None:
            return DynamicsGraph(traced.graph, traced, self.curved)
        products = None
        if self.curved and self.brings_curvature:
            products = trace(self.hessian_product, (*sizes, self.next_state_size), where, square)
        f, jacobian = trace(self.step, sizes, where), trace(self.jacobians, sizes, where, beside)
        return DynamicsGraph(f, WrittenDerivatives(jacobian, products), self.curved)

    def extended(self, p_size: int, width: int) -> Dynamics:
        """Return the same dynamics of a longer p' (width,), whose first `p_size` entries are p."""
        return _WithLongerParameters(self, p_size)


class _WithLongerParameters(Dynamics):
    """Dynamics that read only the first entries of p."""

    def __init__(self, inner: Dynamics, p_size: int) -> None:
        self.inner, self.p_size = inner, p_size
        self.state_size, self.control_size = inner.state_size, inner.control_size
        self.next_state_size, self.curved = inner.next_state_size, inner.curved

    @property
    def brings_curvature(self) -> bool:
        return self.inner.brings_curvature

    def step(self, x: Array, u: Array, p: Array) -> Array:
        return self.inner.step(x, u, p[: self.p_size])

    def jacobians(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        return self.inner.jacobians(x, u, p[: self.p_size])

    def hessian_product(self, x: Array, u: Array, p: Array, costate: Array) -> tuple[Array, Array, Array]:
        return self.inner.hessian_product(x, u, p[: self.p_size], costate)


def _gradient_of_value(cost: Cost, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
    gradient = cost.differentiated(len(x), len(u), len(p)).jacobian(x, u, p)[0]
    return gradient[: cost.state_size], gradient[cost.state_size :]


def _hessian_of_value(cost: Cost, x: Array, u: Array, p: Array) -> tuple[Array, Array, Array]:
    hessian = cost.differentiated(len(x), len(u), len(p)).hessian_product(np.ones(1), x, u, p)
    return cut_hessian(hessian, cost.state_size)


class Cost(Part):
    """The running cost ℓ(x, u, p) of one stage."""

    state_size: int
    control_size: int
    rows: Any = None  # see `ocpkit.problem.functions.FunctionCost`

    value_method = "value"

    @abstractmethod
    def value(self, x: Array, u: Array, p: Array) -> float:
        """Return ℓ."""

    @abstractmethod
    def gradient(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        """Return ℓ_x ``(n,)`` and ℓ_u ``(m,)``."""

    @abstractmethod
    def hessian(self, x: Array, u: Array, p: Array) -> tuple[Array, Array, Array]:
        """Return ℓ_xx ``(n, n)``, ℓ_ux ``(m, n)`` and ℓ_uu ``(m, m)``."""

    def gauss_newton_hessian(self, x: Array, u: Array, p: Array) -> tuple[Array, Array, Array]:
        """Return the Hessian without the curvature of residuals; by default `hessian` itself."""
        return self.hessian(x, u, p)

    replacements: ClassVar = {
        "gradient": _gradient_of_value,
        "hessian": _hessian_of_value,
        "gauss_newton_hessian": gauss_newton_hessian,
    }

    def argument_sizes(self, p_size: int) -> tuple[int, ...]:
        return self.state_size, self.control_size, p_size

    def derivative_graphs(self, p_size: int, where: str) -> CostGraph:
        return _cost_graph(self, p_size, where, below, square)


def _final_gradient(cost: TerminalCost, x: Array, p: Array) -> Array:
    return cost.differentiated(len(x), len(p)).jacobian(x, p)[0]


def _final_hessian(cost: TerminalCost, x: Array, p: Array) -> Array:
    return cost.differentiated(len(x), len(p)).hessian_product(np.ones(1), x, p)


class TerminalCost(Part):
    """The cost φ(x, p) of the final state."""

    state_size: int
    rows: Any = None

    value_method = "value"

    @abstractmethod
    def value(self, x: Array, p: Array) -> float:
        """Return φ."""

    @abstractmethod
    def gradient(self, x: Array, p: Array) -> Array:
        """Return φ_x ``(n,)``."""

    @abstractmethod
    def hessian(self, x: Array, p: Array) -> Array:
        """Return φ_xx ``(n, n)``."""

    def gauss_newton_hessian(self, x: Array, p: Array) -> Array:
        """Return the Hessian without the curvature of residuals; by default `hessian` itself."""
        return self.hessian(x, p)

    replacements: ClassVar = {
        "gradient": _final_gradient,
        "hessian": _final_hessian,
        "gauss_newton_hessian": gauss_newton_hessian,
    }

    def argument_sizes(self, p_size: int) -> tuple[int, ...]:
        return self.state_size, p_size

    def derivative_graphs(self, p_size: int, where: str) -> CostGraph:
        return _cost_graph(self, p_size, where, to_casadi, to_casadi)


def _cost_graph(
    cost: Cost | TerminalCost,
    p_size: int,
    where: str,
    vector: Callable[[Any], ca.SX],
    matrix: Callable[[Any], ca.SX],
) -> CostGraph:
    """Graphs of a cost; `vector` and `matrix` assemble what its gradient and its Hessians return."""
    traced, sizes = cost.traced_exactly(where), cost.argument_sizes(p_size)
    if traced is not None:
        return CostGraph(traced.graph, cost.least_squares, cost.rows)
    return CostGraph(
        trace(cost.value, sizes, where),
        gradient=trace(cost.gradient, sizes, where, vector),
        hessian=trace(cost.hessian, sizes, where, matrix),
        gauss_newton=trace(cost.gauss_newton_hessian, sizes, where, matrix),
    )


@dataclass(frozen=True)
class Constraint(CarriesFunctions):
    """lower ≤ g(x, u, p) ≤ upper, entry by entry; an equality where both bounds agree.

    Parameters
    ----------
    function
        g(x, u) or g(x, u, p) at a stage; g(x) or g(x, p) at the end. Written with `ocpkit.math`.
    lower, upper
        Bounds, scalars or one entry per row of g; ±inf where there is none. The default is g ≤ 0.
    name
        How reports call it.
    """

    function: Callable[..., Any]
    lower: ArrayLike = -np.inf
    upper: ArrayLike = 0.0
    name: str = "constraint"

    def __post_init__(self) -> None:
        refuse_hidden_fields(self)
        if not callable(self.function):
            raise ProblemError(f"{self.name}: expected a function, got {type(self.function).__name__}")
        lower, upper = (real_array(side, f"{self.name}: a bound") for side in (self.lower, self.upper))
        if np.isnan(lower).any() or np.isnan(upper).any():
            raise ProblemError(f"{self.name}: a bound is NaN; use ±inf where there is none")
        if (lower == np.inf).any() or (upper == -np.inf).any():
            raise ProblemError(f"{self.name}: no number keeps a lower bound of inf or an upper one of -inf")
        try:
            contradictory = np.argwhere(np.atleast_1d(lower > upper))
            low, high = np.broadcast_arrays(np.atleast_1d(lower), np.atleast_1d(upper))
        except ValueError as error:
            raise ProblemError(f"{self.name}: bounds of shapes {lower.shape} and {upper.shape} do not match") from error
        if len(contradictory):
            at = tuple(contradictory[0].tolist())
            where = at[0] if len(at) == 1 else list(at)
            raise ProblemError(f"{self.name}: lower bound above upper bound at entry {where}: {low[at]} > {high[at]}")

    def graph(self, sizes: Sequence[int], where: str) -> ca.Function:
        """Graph of g for arguments (x, u, p), at the end (x, p), of these lengths; `where` is how messages call it.

        Raises
        ------
        UnsupportedProblem
            If g cannot be computed with symbols; says what to do.
        """
        return trace(with_parameters(self.function, len(sizes), where), sizes, where, refusal=UNTRACED_VALUE)

    def bounds(self, count: int, where: str) -> tuple[Array, Array]:
        """Both bounds (count,) of g with so many rows.

        Raises
        ------
        ProblemError
            If a bound has another number of entries.
        """
        return _spread(self.lower, count, where), _spread(self.upper, count, where)


def _spread(bound: ArrayLike, size: int, name: str) -> Array:
    try:
        return np.broadcast_to(np.asarray(bound, dtype=float), (size,))
    except ValueError as error:
        raise ProblemError(f"{name}: a bound of shape {np.shape(bound)} does not fit {size} entries") from error


@dataclass(frozen=True, eq=False)
class Stage(CarriesFunctions):
    """One time step: dynamics, running cost, what the control must respect, noise on the way; equal only to itself.

    Parameters
    ----------
    noise
        F(x, u) or F(x, u, p) (n', k), written with `ocpkit.math`: the next state is f + F ε with ε ~ N(0, I) of k
        entries, drawn anew at every stage, and what is minimized is the expected cost; None: no noise.

    Raises
    ------
    ProblemError
        If dynamics and cost disagree in sizes, or the bounds contradict each other; names the stage.
    """

    dynamics: Dynamics
    cost: Cost
    control_lower: ArrayLike = -np.inf
    control_upper: ArrayLike = np.inf
    constraints: tuple[Constraint, ...] = ()
    name: str = "stage"
    noise: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        refuse_hidden_fields(self)
        for kind, part in (("dynamics", self.dynamics), ("cost", self.cost)):
            for size in ("state_size", "control_size"):
                if not isinstance(getattr(part, size, None), (int, np.integer)):
                    raise ProblemError(f"stage {self.name!r}: {kind} must define the integer {size}")
        sizes = (self.dynamics.state_size, self.dynamics.control_size)
        if sizes != (self.cost.state_size, self.cost.control_size):
            raise ProblemError(
                f"stage {self.name!r}: dynamics takes (state, control) sizes {sizes}, "
                f"cost takes {(self.cost.state_size, self.cost.control_size)}"
            )
        if min(sizes) < 0 or self.dynamics.next_state_size < 1 or sizes[0] < 1:
            raise ProblemError(f"stage {self.name!r}: sizes must be positive, got (n, m) = {sizes}")
        for side in ("control_lower", "control_upper"):
            bound = checked_vector(getattr(self, side), sizes[1], f"stage {self.name!r}: {side}", finite=False)
            object.__setattr__(self, side, bound)
        Constraint(abs, self.control_lower, self.control_upper, f"stage {self.name!r}: control bounds")
        object.__setattr__(
            self, "constraints", checked_constraints(self.constraints, f"stage {self.name!r}: constraints")
        )
        if self.noise is not None and not callable(self.noise):
            raise ProblemError(f"stage {self.name!r}: noise must be a function, got {type(self.noise).__name__}")
        self.dynamics.mark_in_use()
        self.cost.mark_in_use()

    def clip(self, control: Array) -> Array:
        """Return a control (m,) put inside the bounds."""
        return np.clip(control, self.control_lower, self.control_upper) if self.bounded else control

    @cached_property
    def bounded(self) -> bool:
        """Whether any control has a finite bound."""
        return bool(len(self.bounded_controls))

    @cached_property
    def bounded_controls(self) -> NDArray[np.intp]:
        """Places of the controls that have a finite bound."""
        return np.flatnonzero(np.isfinite(self.control_lower) | np.isfinite(self.control_upper))

    def noise_matrix(self, x: Array, u: Array, p: Array) -> Array:
        """Return F(x, u, p) (n', k); k = 0 where there is no noise.

        Raises
        ------
        ProblemError
            If the function returns another shape; names the stage.
        """
        n = self.dynamics.next_state_size
        if self.noise is None:
            return np.zeros((n, 0))
        where = f"stage {self.name!r}: noise"
        F = real_array(with_parameters(self.noise, 3, where)(x, u, p), where)
        if F.ndim != 2 or len(F) != n:
            raise ProblemError(f"{where} returned shape {F.shape}, expected ({n}, k)")
        return F


def cut_hessian(hessian: Array, n: int) -> tuple[Array, Array, Array]:
    """Cut a Hessian in z = (x, u) into its xx, ux and uu blocks."""
    return hessian[:n, :n], hessian[n:, :n], hessian[n:, n:]


def checked_constraints(value: Any, what: str) -> tuple[Constraint, ...]:
    if not isinstance(value, Sequence) or not all(isinstance(entry, Constraint) for entry in value):
        raise ProblemError(f"{what} must be a sequence of Constraint objects, got {value!r:.80}")
    return tuple(value)
