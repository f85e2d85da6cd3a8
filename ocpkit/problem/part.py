"""Base of dynamics and costs: their derivatives are those of their value, also where it is overridden.

A subclass that overrides `step` alone would inherit the Jacobians of another function, and solvers would call its
answer converged. So a derivative that was written for a value further up the inheritance gives way to one of the new
value: exact where the new method can be called with symbols, by central differences where it cannot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import new_class
from typing import Any, ClassVar

import casadi as ca

from ocpkit.autodiff.differentiable import BlackBox, Differentiable, Traced
from ocpkit.boundary.pickling import CarriesFunctions
from ocpkit.errors import ProblemError, UnsupportedProblem
from ocpkit.problem.part_graphs import UNTRACED_VALUE, half_squares, trace


class Part(CarriesFunctions, ABC):
    """A part of a problem with one value and derivatives of it.

    Attributes
    ----------
    value_method
        Name of the method that returns the value.
    replacements
        What takes the place of each derivative that belongs to another value; a part defines all of them.
    least_squares : bool
        Whether `sole_function` returns residuals r of the value ½‖r‖².
    """

    value_method: ClassVar[str]
    replacements: ClassVar[Mapping[str, Callable[..., Any]]]
    least_squares: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        declared = next(kind for kind in reversed(cls.__mro__) if "replacements" in vars(kind))
        value = _place(cls, cls.value_method)
        for name, own in cls.replacements.items():
            if value < _place(cls, name) and getattr(cls, name) is not vars(declared)[name]:
                setattr(cls, name, own)

    def __setattr__(self, name: str, value: Any) -> None:
        """Override a method on one object, as a subclass would.

        Raises
        ------
        ProblemError
            If the object belongs to a problem: what has been traced of it would not follow.
        """
        if name != self.value_method and name not in self.replacements:
            super().__setattr__(name, value)
            return
        kind = type(self)
        if vars(self).get("_in_use"):
            raise ProblemError(
                f"{kind.__name__}.{name} cannot be replaced: the object belongs to a problem, which may have been "
                f"traced; override {name} in a subclass, or replace it before the object is put into a stage"
            )
        body = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, name: staticmethod(value)}
        super().__setattr__("__class__", new_class(kind.__name__, (kind,), exec_body=lambda space: space.update(body)))

    @property
    def sole_function(self) -> Any:
        """The function that is all there is to the part, residuals in `LeastSquares`.

        None where there is no such function, or a method is overridden: then only calling the methods tells.
        """
        return None

    @property
    def traced_function(self) -> Traced | None:
        """Traced function with its derivatives as graphs; None where there is none or it was not traced."""
        return None

    @property
    def value_function(self) -> Any:
        """Function that computes the value: `sole_function`, or else the method."""
        return getattr(self, self.value_method) if self.sole_function is None else self.sole_function

    @property
    def residual_graph(self) -> ca.Function | None:
        """Graph of the residuals r of the value ½‖r‖²; None where it is not known as such."""
        return self.traced_function.graph if self.least_squares and self.traced_function is not None else None

    @abstractmethod
    def argument_sizes(self, p_size: int) -> tuple[int, ...]:
        """Lengths of (x, u, p), at the end of (x, p), where p has `p_size` entries."""

    def value_graph(self, p_size: int, where: str) -> ca.Function:
        """Graph of the value, a function of (x, u, p), at the end of (x, p); `where` is how messages call the part.

        Raises
        ------
        UnsupportedProblem
            If the value cannot be computed with symbols; says what to do.
        """
        traced = self.traced_function
        function = getattr(self, self.value_method) if traced is None else traced.graph
        graph = trace(function, self.argument_sizes(p_size), where, refusal=UNTRACED_VALUE)
        return graph if self.residual_graph is None else half_squares(graph)

    @abstractmethod
    def derivative_graphs(self, p_size: int, where: str) -> Any:
        """Graphs of the value and of the derivatives that solvers use.

        Raises
        ------
        UnsupportedProblem
            If a method cannot be computed with symbols, or the derivatives are measured by differences.
        """

    def traced_exactly(self, where: str) -> Traced | None:
        """`traced_function`; None where the methods are to be called instead.

        Raises
        ------
        UnsupportedProblem
            If neither would do, since the derivatives are measured by differences.
        """
        if self.sole_function is not None and self.traced_function is None:
            raise UnsupportedProblem(f"{where}: the derivatives are measured on a black box, not traced")
        return self.traced_function

    def mark_in_use(self) -> None:
        """Note that the object belongs to a problem."""
        super().__setattr__("_in_use", True)

    def overrides(self, kind: type[Part]) -> bool:
        """Whether a method is another one than in a base class."""
        names = (self.value_method, *self.replacements)
        return any(getattr(type(self), name) is not getattr(kind, name) for name in names)

    def differentiated(self, *sizes: int) -> Differentiable:
        """Return the value with its own derivatives, for arguments of these sizes."""
        known: dict[tuple[int, ...], Differentiable] = vars(self).setdefault("_differentiated", {})
        if sizes not in known:
            value, name = getattr(self, self.value_method), f"{type(self).__name__}.{self.value_method}"
            try:
                known[sizes] = Traced(value, sizes, name)
            except ProblemError:
                known[sizes] = BlackBox(value, sizes, name, "central")
        return known[sizes]


def _place(kind: type, name: str) -> int:
    """Return where in the order of resolution a method is defined."""
    return next(i for i, each in enumerate(kind.__mro__) if name in vars(each))
