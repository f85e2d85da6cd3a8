"""A vector function with its derivatives: traced by CasADi, or measured on a black box.

Both classes offer the same three things about ``g(x, u, p)`` with ``k`` entries and ``z = (x, u)``:
`value` (k,), `jacobian` (k, n + m) and `hessian_product` Σ_i w_i ∇²g_i (n + m, n + m).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import casadi as ca
import numpy as np

from ocpkit.autodiff.differences import central_hessian, central_jacobian, complex_jacobian
from ocpkit.autodiff.intermediate import Point, differentiate, recording, resolved
from ocpkit.autodiff.symbol import from_casadi, symbols, to_casadi
from ocpkit.boundary.arrays import Array
from ocpkit.boundary.deadline import check_time
from ocpkit.boundary.pickling import CarriesFunctions
from ocpkit.errors import ProblemError, unknown_name

DERIVATIVES = ("casadi", "central", "complex")


class Differentiable(Protocol):
    """A vector function of (x, [u,] p) and its derivatives in the stacked variable z = (x, u)."""

    size: int

    def value(self, *arguments: Array) -> Array: ...
    def jacobian(self, *arguments: Array) -> Array: ...
    def hessian_product(self, weights: Array, *arguments: Array) -> Array: ...


class BufferedFunction:
    """A CasADi function that reads and writes NumPy memory, about 50 times faster than a plain call.

    The memory belongs to a thread, so that several may solve the same problem. Called with symbols it returns symbols.
    """

    def __init__(self, function: ca.Function) -> None:
        self.function, self._of_thread = function, threading.local()

    def _allocate(self) -> tuple[list[Array], Array, Callable[[], None], Any]:
        inputs = [np.zeros(self.function.nnz_in(i)) for i in range(self.function.n_in())]
        rows, columns = self.function.size_out(0)
        output = np.zeros((columns, rows))  # CasADi stores by column
        buffer, evaluate = self.function.buffer()
        for i, values in enumerate(inputs):
            buffer.set_arg(i, values.data)
        buffer.set_res(0, output.data)
        return inputs, output, evaluate, buffer

    def __call__(self, *arguments: Array) -> Array:
        try:
            memory = self._of_thread.memory
        except AttributeError:
            memory = self._of_thread.memory = self._allocate()
        inputs, output, evaluate, _ = memory
        try:
            for values, argument in zip(inputs, arguments, strict=True):
                values[:] = argument
        except TypeError:  # symbols have no number; asking for their type first would cost every call
            symbolic: Array = from_casadi(self.function(*map(to_casadi, arguments)))
            return symbolic
        evaluate()
        result: Array = output.T.copy()
        return result

    def __getstate__(self) -> ca.Function:
        return self.function

    def __setstate__(self, function: ca.Function) -> None:
        self.function, self._of_thread = function, threading.local()


class Traced:
    """Exact derivatives of a function written with `ocpkit.math`, by tracing it once with CasADi.

    Derivatives are made when they are first asked for: a declaration needs none, and not every engine all of them.
    """

    def __init__(self, function: Callable[..., Any], sizes: Sequence[int], name: str) -> None:
        columns, arrays = zip(*(symbols(label, n) for label, n in zip("xup"[: len(sizes) - 1] + "p", sizes)))
        points = list[Point]()
        try:
            with recording(points), np.errstate(all="ignore"):  # NaN and Inf are values here too
                graph = to_casadi(function(*arrays))
        except Exception as error:  # whatever a user's own code raises when it meets a symbol
            raise ProblemError(f"{name}: the function could not be traced: {error}") from error
        if graph.shape[1] != 1:
            raise ProblemError(f"{name}: returned a matrix of shape {graph.shape}, expected a vector or scalar")
        self.size = graph.shape[0]
        names, formulas = [name for name, _ in points], [formula for _, formula in points]
        *formulas, graph = ca.cse([*formulas, graph])
        self._recorded = ca.Function("recorded", [*columns, *names], [*formulas, graph])
        if points:
            (graph,) = ca.substitute([graph], names, resolved(names, formulas))
        self._value = BufferedFunction(ca.Function("value", columns, [graph]))

    def extended(self, width: int) -> Traced:
        """Return the same function of a longer p' (width,), whose first entries are p; nothing is traced again."""
        return _Extended(self, width)

    def rewritten(self, rewrite: Callable[[ca.Function], ca.Function]) -> Traced:
        """Return what follows when the graphs that all else follows from are others."""
        return _Rewritten(self, rewrite)

    @property
    def graph(self) -> ca.Function:
        """The function g(x, u, p)."""
        return self._value.function

    @property
    def jacobian_graph(self) -> ca.Function:
        """The Jacobian (k, n + m) of (x, u, p)."""
        return self._derivatives[0].function

    @property
    def hessian_graph(self) -> ca.Function:
        """The product Σ w_i ∇²g_i (n + m, n + m) of (x, u, p, w)."""
        return self._derivatives[1].function

    @property
    def sources(self) -> tuple[ca.Function, ...]:
        """Graph that the derivatives follow from: g and the intermediate vectors, each of those before it."""
        return (self._recorded,)

    @cached_property
    def _derivatives(self) -> tuple[BufferedFunction, BufferedFunction]:
        arguments, count = self._recorded.sx_in(), self.graph.n_in()
        columns, names = arguments[:count], arguments[count:]
        *formulas, g = self._recorded.call(arguments)
        variables, weights = ca.vertcat(*columns[:-1]), ca.SX.sym("w", self.size)
        _, *derivatives = differentiate(g, list(zip(names, formulas)), variables, weights)
        jacobian, hessian = map(ca.densify, derivatives)
        check_time()
        return (
            BufferedFunction(ca.Function("jacobian", columns, [jacobian])),
            BufferedFunction(ca.Function("hessian", [*columns, weights], [hessian])),
        )

    def value(self, *arguments: Array) -> Array:
        return self._value(*arguments)[:, 0]

    def jacobian(self, *arguments: Array) -> Array:
        return self._derivatives[0](*arguments)

    def hessian_product(self, weights: Array, *arguments: Array) -> Array:
        return self._derivatives[1](*arguments, weights)


class _Extended(Traced):
    """A traced function and its derivatives, of a longer p' (width,)."""

    def __init__(self, inner: Traced, width: int) -> None:
        self._inner, self._width, self.size = inner, width, inner.size
        self._recorded = self._longer(inner._recorded)
        self._value = BufferedFunction(self._longer(inner.graph))

    @cached_property
    def _derivatives(self) -> tuple[BufferedFunction, BufferedFunction]:
        jacobian, hessian = (BufferedFunction(self._longer(each.function)) for each in self._inner._derivatives)
        return jacobian, hessian

    def _longer(self, function: ca.Function) -> ca.Function:
        """Lengthen p, the last of the function's own arguments."""
        arguments, place = function.sx_in(), self._inner.graph.n_in() - 1
        results, p = function.call(arguments), arguments[place]
        arguments[place] = ca.vertcat(p, ca.SX.sym("q", self._width - p.numel()))
        return ca.Function(function.name(), arguments, results)


class _Rewritten(Traced):
    """A traced function whose graphs were rewritten; its derivatives are made from these."""

    def __init__(self, inner: Traced, rewrite: Callable[[ca.Function], ca.Function]) -> None:
        self.size, self._recorded = inner.size, rewrite(inner._recorded)
        self._value = BufferedFunction(rewrite(inner.graph))


class BlackBox(CarriesFunctions):
    """Derivatives of any Python function by central differences or by the complex step."""

    def __init__(self, function: Callable[..., Any], sizes: Sequence[int], name: str, method: str) -> None:
        self._function, self._sizes, self._name = function, sizes, name
        self.size = 0
        self._first = complex_jacobian if method == "complex" else central_jacobian
        self.size = len(self.value(*(np.zeros(n) for n in sizes)))

    def value(self, *arguments: Array) -> Array:
        check_time()
        try:
            value = np.atleast_1d(np.asarray(self._function(*arguments)))
        except Exception as error:
            out_of_domain = isinstance(error, ArithmeticError) or "math domain error" in str(error)
            if self.size and out_of_domain:  # at a trial point; solvers then back off
                return np.full(self.size, np.nan)
            raise ProblemError(
                f"{self._name}: the function failed on arrays of sizes {self._sizes}: {error}"
            ) from error
        if value.ndim != 1:
            raise ProblemError(f"{self._name}: returned shape {value.shape}, expected a vector or scalar")
        return value

    def _of_stacked(self, arguments: tuple[Array, ...]) -> tuple[Callable[[Array], Array], Array]:
        cuts, p = np.cumsum(self._sizes[:-2]), arguments[-1]
        return lambda z: self.value(*np.split(z, cuts), p), np.concatenate(arguments[:-1])

    def jacobian(self, *arguments: Array) -> Array:
        try:
            return self._first(*self._of_stacked(arguments))
        except TypeError as error:
            raise ProblemError(f"{self._name}: {error}") from error

    def hessian_product(self, weights: Array, *arguments: Array) -> Array:
        function, z = self._of_stacked(arguments)
        return central_hessian(lambda y: float(weights @ function(y)), z)


def differentiable(function: Callable[..., Any], sizes: Sequence[int], name: str, derivatives: str) -> Differentiable:
    """Choose how `function` is differentiated.

    Parameters
    ----------
    function
        Takes one array per entry of `sizes`; the last one (the parameters) may be left out of its signature.
    sizes
        Lengths of the arguments: (n, m, n_p) for a stage, (n, n_p) at the end.
    name
        How messages call the function.
    derivatives
        ``"casadi"`` (traced, exact), ``"central"`` or ``"complex"`` (black box).
    """
    function = with_parameters(function, len(sizes), name)
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 0:
            raise ProblemError(f"{name}: sizes must be whole numbers of at least 0, got {tuple(sizes)}")
    if derivatives == "casadi":
        return Traced(function, sizes, name)
    if derivatives in DERIVATIVES:
        return BlackBox(function, sizes, name, derivatives)
    raise unknown_name("way to differentiate", derivatives, DERIVATIVES)


class _WithoutParameters(CarriesFunctions):
    """A function of (x, u), or of (x), as one of (x, u, p), or of (x, p)."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments[:-1])


def with_parameters(function: Callable[..., Any], count: int, name: str) -> Callable[..., Any]:
    """Accept functions of (x, u) and of (x, u, p) alike; options of their own are what follows, or keyword-only."""
    if not callable(function):
        raise ProblemError(f"{name}: expected a function, got {type(function).__name__}")
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return function
    taken, options = positional[:count], positional[count:]
    if len(taken) < count - 1 or any(option.default is option.empty for option in options):
        wanted = "(x, u) or (x, u, p)" if count == 3 else "(x) or (x, p)"
        raise ProblemError(f"{name}: the function takes {len(positional)} arguments, expected {wanted}")
    if len(taken) < count:
        return _WithoutParameters(function)
    if taken[-1].default is not inspect.Parameter.empty:
        own, start = taken[-1].name, ", ".join(p.name for p in taken[:-1])
        raise ProblemError(
            f"{name}: {own!r} stands where the parameters p are passed but has a default; if it is an option of the "
            f"function's own, make it keyword-only: ({start}, *, {taken[-1]}); if it is p, leave the default out"
        )
    return function
