"""CasADi expressions as straight-line C."""

from __future__ import annotations

from collections.abc import Sequence

import casadi as ca
import numpy as np

from ocpkit.errors import UnsupportedProblem

OPERATIONS = {
    ca.OP_ASSIGN: "{0}",
    ca.OP_ADD: "{0} + {1}",
    ca.OP_SUB: "{0} - {1}",
    ca.OP_MUL: "{0} * {1}",
    ca.OP_DIV: "{0} / {1}",
    ca.OP_NEG: "-{0}",
    ca.OP_SQ: "{0} * {0}",
    ca.OP_TWICE: "2. * {0}",
    ca.OP_INV: "1. / {0}",
    ca.OP_POW: "pow({0}, {1})",
    ca.OP_CONSTPOW: "pow({0}, {1})",
    ca.OP_LT: "{0} < {1}",
    ca.OP_LE: "{0} <= {1}",
    ca.OP_EQ: "{0} == {1}",
    ca.OP_NE: "{0} != {1}",
    ca.OP_NOT: "{0} == 0.",
    ca.OP_AND: "{0} != 0. && {1} != 0.",
    ca.OP_OR: "{0} != 0. || {1} != 0.",
    ca.OP_IF_ELSE_ZERO: "{0} != 0. ? {1} : 0.",
    ca.OP_SIGN: "{0} < 0. ? -1. : {0} > 0. ? 1. : {0}",
}
ONE = "sqrt exp log sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf floor ceil fabs log1p expm1"
TWO = "atan2 copysign fmod fmin fmax hypot remainder"
OPERATIONS |= {getattr(ca, f"OP_{name.upper()}"): name + "({0})" for name in ONE.split()}
OPERATIONS |= {getattr(ca, f"OP_{name.upper()}"): name + "({0}, {1})" for name in TWO.split()}


def statements(inputs: Sequence[tuple[str, ca.SX]], outputs: Sequence[tuple[str, ca.SX]]) -> list[str]:
    """Return C statements that compute scalars from vectors.

    Parameters
    ----------
    inputs
        Name of a C array, and the column of symbols that it holds.
    outputs
        Where a scalar goes, such as ``"F[3] ="``, and the scalar.

    Raises
    ------
    UnsupportedProblem
        If an operation has no counterpart in C's mathematical library.
    """
    if not outputs:
        return []
    names, columns = [name for name, _ in inputs], [column for _, column in inputs]
    values = ca.cse([ca.vertcat(*(value for _, value in outputs))])
    function = ca.Function("emitted", columns, [ca.densify(values[0])])
    loads, lines, held = dict[str, str](), list[str](), dict[int, str]()  # loads first: a store might alias them
    for k in range(function.n_instructions()):
        operation = function.instruction_id(k)
        into, sources = function.instruction_output(k), function.instruction_input(k)
        if operation == ca.OP_OUTPUT:
            lines.append(f"{outputs[into[1]][0]} {held[sources[0]]};")
        elif operation == ca.OP_INPUT:
            name, entry = names[sources[0]], sources[1]
            loads[f"{name}{entry}"] = f"const double {name}{entry} = {name}[{entry}];"
            held[into[0]] = f"{name}{entry}"
        elif operation == ca.OP_CONST:
            held[into[0]] = literal(function.instruction_constant(k))
        elif operation in OPERATIONS:
            expression = OPERATIONS[operation].format(*(held.get(source) for source in sources))
            lines.append(f"const double t{k} = {expression};")
            held[into[0]] = f"t{k}"
        else:
            raise UnsupportedProblem(f"the operation number {operation} of CasADi has no counterpart in C's library")
    return [*loads.values(), *lines]


def literal(value: float) -> str:
    """Write a number so that C reads the same one back."""
    if np.isnan(value):
        return "NAN"
    if np.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    text = repr(float(value))
    text = text if "." in text or "e" in text else f"{text}."
    return f"({text})" if value < 0 else text
