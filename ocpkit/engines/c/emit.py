"""CasADi expressions as straight-line C, one graph cut into the functions that need it at different times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
Output = tuple[str, int]
"""Where a value goes, such as ``"F[3] ="`` or ``"return"``, and its number."""
CHEAP = {"floor", "ceil", "fabs", "copysign", "fmin", "fmax"}


@dataclass(frozen=True)
class Node:
    """One value: an operation on earlier values, or a leaf, whose C text is known."""

    operation: int
    sources: tuple[int, ...] = ()
    leaf: str = ""

    @property
    def expensive(self) -> bool:
        """Whether it costs more to compute than to fetch from memory."""
        text = OPERATIONS.get(self.operation, "")
        return " / " in text or (text.endswith(")") and text.partition("(")[0] not in CHEAP)


class Program:
    """Scalars of vectors, common subexpressions shared.

    Parameters
    ----------
    inputs
        Name of a C array, and the column of symbols that it holds.
    outputs
        The scalars.
    """

    def __init__(self, inputs: Sequence[tuple[str, ca.SX]], outputs: Sequence[ca.SX]) -> None:
        names, columns = [name for name, _ in inputs], [column for _, column in inputs]
        self.nodes, self.outputs = list[Node](), [0] * len(outputs)
        if not outputs:
            return
        (stacked,) = ca.cse([ca.vertcat(*outputs)])
        function = ca.Function("emitted", columns, [ca.densify(stacked)])
        held: dict[int, int] = {}
        for k in range(function.n_instructions()):
            operation = function.instruction_id(k)
            into, sources = function.instruction_output(k), function.instruction_input(k)
            if operation == ca.OP_OUTPUT:
                self.outputs[into[1]] = held[sources[0]]
                continue
            if operation == ca.OP_INPUT:
                node = Node(operation, leaf=f"{names[sources[0]]}[{sources[1]}]")
            elif operation == ca.OP_CONST:
                node = Node(operation, leaf=literal(function.instruction_constant(k)))
            elif operation in OPERATIONS:
                node = Node(operation, tuple(held[source] for source in sources if source in held))
            else:
                raise UnsupportedProblem(
                    f"the operation number {operation} of CasADi has no counterpart in C's library"
                )
            held[into[0]] = len(self.nodes)
            self.nodes.append(node)

    def needed(self, values: Iterable[int], given: Mapping[int, str]) -> list[int]:
        """Return the values that some follow from, in the order of computation; none behind given ones."""
        needed, waiting = set[int](), [*values]
        while waiting:
            node = waiting.pop()
            if node not in needed:
                needed.add(node)
                waiting += () if node in given else self.nodes[node].sources
        return sorted(needed)

    def shared(self, first: Sequence[Output], then: Sequence[Output]) -> dict[int, str]:
        """Return what the `first` outputs may hand on to the later ones: expensive values, by places in an array."""
        both = sorted({*self.needed(values_of(first), {})} & {*self.needed(values_of(then), {})})
        expensive = [node for node in both if self.nodes[node].expensive]
        return {node: f"shared[{place}]" for place, node in enumerate(expensive)}

    def statements(
        self,
        outputs: Sequence[Output],
        *,
        given: Mapping[int, str] = {},
        kept: Mapping[int, str] = {},
        known: Iterable[int] = (),
    ) -> list[str]:
        """Return C statements.

        Parameters
        ----------
        outputs
            Where an output goes, such as ``"F[3] ="`` or ``"return"``, and its value.
        given, kept
            Values that are read from memory instead of computed, and values that are also written there, with places.
        known
            Values that earlier statements of the same function have.
        """
        targets = defaultdict[int, list[str]](list)
        for target, k in (*((f"{place} =", k) for k, place in kept.items()), *outputs):
            targets[k].append(target)
        lines, last, known = list[str](), list[str](), {*known}

        def name(k: int) -> str:
            """Write a value, which is read from memory where it is wanted first: so it lives no longer than need be."""
            node = self.nodes[k]
            if node.operation == ca.OP_CONST:
                return node.leaf
            if k not in known:
                lines.append(f"const double t{k} = {given.get(k, node.leaf)};")
                known.add(k)
            return f"t{k}"

        for k in self.needed(targets, given):
            if k not in known and self.computed(k, given):
                node = self.nodes[k]
                expression = OPERATIONS[node.operation].format(*map(name, node.sources))
                lines.append(f"const double t{k} = {expression};")
                known.add(k)
            for target in targets[k]:
                (last if target.startswith("return") else lines).append(f"{target} {name(k)};")
        return [*lines, *last]

    def computed(self, k: int, given: Mapping[int, str]) -> bool:
        """Whether a value is computed, not read."""
        return k not in given and self.nodes[k].operation not in (ca.OP_INPUT, ca.OP_CONST)

    def parts(
        self, groups: Sequence[Sequence[Output]], given: Mapping[int, str], size: int
    ) -> tuple[list[list[list[str]]], int]:
        """Cut the statements of each group of outputs into functions of at most `size` operations.

        A compiler's time for the registers of a function grows with its square, and values that live long leave the
        registers anyway: those that later functions need are handed on in an array ``w``, whose length comes second.
        """
        part_of, count, seen = dict[int, int](), 0, list[Output]()
        ends = list[int]()
        for outputs in groups:
            seen += outputs
            order = [k for k in self.needed(values_of(seen), given) if k not in part_of and self.computed(k, given)]
            part_of.update((k, count + place // size) for place, k in enumerate(order))
            count += max(1, -(-len(order) // size))
            ends.append(count)
        carried = dict[int, str]()
        for k, part in part_of.items():
            for source in self.nodes[k].sources:
                if part_of.get(source, part) < part:
                    carried.setdefault(source, f"w[{len(carried)}]")
        bodies, first = list[list[list[str]]](), 0
        for outputs, end in zip(groups, ends):
            bodies.append([])
            for i in range(first, end):
                own = [(target, k) for target, k in outputs if min(max(part_of.get(k, first), first), end) == i]
                before = {k: place for k, place in carried.items() if part_of[k] < i}
                kept = {k: place for k, place in carried.items() if part_of[k] == i}
                bodies[-1].append(self.statements(own, given={**given, **before}, kept=kept))
            first = end
        return bodies, len(carried)


def values_of(outputs: Iterable[Output]) -> list[int]:
    """Return the values of outputs."""
    return [value for _, value in outputs]


def literal(value: float) -> str:
    """Write a number so that C reads the same one back."""
    if np.isnan(value):
        return "NAN"
    if np.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    text = repr(float(value))
    text = text if "." in text or "e" in text else f"{text}."
    return f"({text})" if value < 0 else text
