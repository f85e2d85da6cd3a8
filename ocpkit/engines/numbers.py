"""The numbers of a model (masses, weights, targets) taken out of its graphs: what is compiled then serves others too.

A traced function holds a model's floats as constants. Here they become entries c[k] of a longer p' = (p, c), and what
remains is the structure: two cart-poles of different mass differ in c alone. Zero, and what CasADi simplifies by, stay
where they are, and equal numbers of the dynamics, or of the cost, are one number: models that differ in this are of
different structures, which costs a build and nothing else.
"""

from __future__ import annotations

import casadi as ca
import numpy as np

from ocpkit.boundary.arrays import Array

STRUCTURAL = frozenset((0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0))
MOST = 128  # numbers beyond which a model is data, whose products CasADi had better compute once and for all
UNARY = 1  # operands


class Numbers:
    """The numbers of a few functions of (x, u, p, …) or (x, p, …), in the order in which they are met.

    Parameters
    ----------
    place
        Which argument is p.

    Attributes
    ----------
    scalar
        Whether the functions have only operations on scalars, so that their numbers can be taken out.
    """

    def __init__(self, place: int) -> None:
        self.place, self._index, self.scalar = place, dict[float, int](), True

    @property
    def values(self) -> Array:
        """The numbers."""
        return np.array([*self._index], dtype=float)

    def take(self, function: ca.Function) -> str:
        """Take note of a function's numbers; return all else that it consists of."""
        if not function.is_a("SXFunction"):
            self.scalar = False
            return ""
        operations, inputs, outputs = _instructions(function)
        self.scalar = self.scalar and ca.OP_CALL not in operations
        constants = [self._note(function.instruction_constant(k)) for k, o in enumerate(operations) if o == ca.OP_CONST]
        shapes = [function.sparsity_in(i).compress() for i in range(function.n_in())]
        shapes += [function.sparsity_out(i).compress() for i in range(function.n_out())]
        return repr((shapes, operations, inputs, outputs, constants))

    def _note(self, value: float) -> int | float:
        """Return the place of a number, or a value that belongs to the structure."""
        if value in STRUCTURAL or not np.isfinite(value):
            return value
        return self._index.setdefault(value, len(self._index))

    def lifted(self, function: ca.Function, first: int, count: int) -> ca.Function:
        """Return the function of p' = (p, c) in place of p.

        Parameters
        ----------
        function
            One that was taken note of.
        first, count
            Where its numbers begin in c, and the length of c.
        """
        arguments, c = function.sx_in(), ca.SX.sym("c", count)
        entries = [argument.nonzeros() for argument in arguments]
        results = [[ca.SX()] * function.nnz_out(i) for i in range(function.n_out())]
        held = dict[int, ca.SX]()
        for k, (operation, sources, into) in enumerate(zip(*_instructions(function))):
            if operation == ca.OP_OUTPUT:
                results[into[0]][into[1]] = held[sources[0]]
            elif operation == ca.OP_INPUT:
                held[into[0]] = entries[sources[0]][sources[1]]
            elif operation == ca.OP_CONST:
                value = function.instruction_constant(k)
                held[into[0]] = c[first + self._index[value]] if value in self._index else ca.SX(value)
            elif len(sources) == UNARY:
                held[into[0]] = ca.SX.unary(operation, held[sources[0]])
            else:
                held[into[0]] = ca.SX.binary(operation, *(held[source] for source in sources))
        arguments[self.place] = ca.vertcat(arguments[self.place], c)
        filled = [ca.SX(function.sparsity_out(i), ca.vertcat(*values)) for i, values in enumerate(results)]
        return ca.Function(function.name(), arguments, filled)


def _instructions(function: ca.Function) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Operations of a function, with the places that each reads and writes."""
    count = range(function.n_instructions())
    read = function.instruction_id, function.instruction_input, function.instruction_output
    operations, inputs, outputs = (list(map(each, count)) for each in read)
    return operations, inputs, outputs
