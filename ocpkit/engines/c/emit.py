"""CasADi expressions as straight-line C, one graph cut into the functions that need it at different times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import compress

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
NUMBERS = "c"
"""The array of a model's numbers, and of what follows from them alone."""
Output = tuple[str, int]
"""Where a value goes, such as ``"F[3] ="`` or ``"return"``, and its number."""
CHEAP = {"floor", "ceil", "fabs", "copysign", "fmin", "fmax"}
EXPENSIVE = {
    operation
    for operation, text in OPERATIONS.items()
    if " / " in text or (text.endswith(")") and text.partition("(")[0] not in CHEAP)
}
"""What costs more to compute than to fetch from memory."""


class Program:
    """Scalars of vectors, common subexpressions shared.

    Parameters
    ----------
    inputs
        Name of a C array, and the column of symbols that it holds.
    outputs
        The scalars.

    Attributes
    ----------
    outputs
        Their values. A value is a number: that of its place in the lists below, which are in the order of computation.
    sources
        The values that each is computed from; none of what is read.
    formulas
        Its C text.
    names
        How others refer to it: constants by their text.
    expensive
        Values that cost more to compute than to fetch from memory.
    settled
        Of each value, whether it follows from the array `NUMBERS` and constants alone; no constant is.
    """

    def __init__(self, inputs: Sequence[tuple[str, ca.SX]], outputs: Sequence[ca.SX]) -> None:
        self.sources, self.formulas, self.names = list[tuple[int, ...]](), list[str](), list[str]()
        self.outputs, self.expensive, self.settled = [0] * len(outputs), set[int](), list[bool]()
        self._met, self._factors = dict[tuple[int | str, ...], int](), dict[int, tuple[int, int]]()
        if outputs:
            function = ca.Function("emitted", [column for _, column in inputs], [ca.densify(ca.vertcat(*outputs))])
            self._read(function, [name for name, _ in inputs])

    def _read(self, function: ca.Function, arrays: Sequence[str]) -> None:
        """Take the instructions."""
        identify, of_output, of_input = function.instruction_id, function.instruction_output, function.instruction_input
        held = dict[int, int]()
        for k in range(function.n_instructions()):
            operation, into = identify(k), of_output(k)
            if operation == ca.OP_OUTPUT:
                self.outputs[into[1]] = held[of_input(k)[0]]
            elif operation == ca.OP_CONST:
                held[into[0]] = self._value(operation, formula=literal(function.instruction_constant(k)))
            elif operation == ca.OP_INPUT:
                array, place = of_input(k)
                held[into[0]] = self._value(operation, formula=f"{arrays[array]}[{place}]")
            elif operation in OPERATIONS:
                held[into[0]] = self._result(operation, *[held[source] for source in of_input(k)])
            else:
                raise UnsupportedProblem(
                    f"the operation number {operation} of CasADi has no counterpart in C's library"
                )

    def _result(self, operation: int, *sources: int) -> int:
        """Return the value of an operation; two factors that are numbers become one, as CasADi folds constants."""
        last = sources[-1]
        if operation == ca.OP_DIV and self.settled[last] and not self._is_number(sources[0]):
            return self._result(ca.OP_MUL, self._value(ca.OP_INV, last), sources[0])
        if operation == ca.OP_MUL:
            for number, other in (sources, sources[::-1]):
                if self._is_number(number) and not self._is_number(other):
                    return self._multiple(number, other)
        if operation in (ca.OP_NEG, ca.OP_TWICE) and last in self._factors:
            factor, rest = self._factors[last]
            if self.settled[factor]:
                return self._multiple(self._value(operation, factor), rest)
        return self._value(operation, *sources)

    def _multiple(self, number: int, value: int) -> int:
        """Return a number times a value that is none."""
        factor, rest = self._factors.get(value, (number, value))
        if rest != value and (self.settled[number] or self.settled[factor]):
            return self._multiple(self._value(ca.OP_MUL, number, factor), rest)
        product = self._value(ca.OP_MUL, number, value)
        self._factors[product] = number, value
        return product

    def _is_number(self, value: int) -> bool:
        return self.settled[value] or self.formulas[value] == self.names[value]

    def _value(self, operation: int, *sources: int, formula: str = "") -> int:
        """Return a value; one that was met before, from the same values, is the value that it was then."""
        value = self._met.setdefault((operation, formula, *sources), len(self.sources))
        if value == len(self.sources):
            numbers = all(map(self._is_number, sources)) and any(self.settled[source] for source in sources)
            self.settled.append(numbers or formula.startswith(f"{NUMBERS}["))
            self.sources.append(sources)
            self.formulas.append(formula or OPERATIONS[operation].format(*[self.names[k] for k in sources]))
            self.names.append(formula if operation == ca.OP_CONST else f"t{value}")
            if operation in EXPENSIVE:
                self.expensive.add(value)
        return value

    def settle(self, first: int) -> tuple[list[str], int]:
        """Put what follows from the numbers alone among them, from place `first` on, and read it there from now on.

        Returns
        -------
        Statements that compute it, and the first place that is free then.
        """
        wanted = {k for k in self.outputs if self.settled[k]}
        for k, sources in enumerate(self.sources):
            wanted.update(source for source in sources if self.settled[source] and not self.settled[k])
        places = {k: f"{NUMBERS}[{first + i}]" for i, k in enumerate(sorted(k for k in wanted if self.sources[k]))}
        lines = self.statements([], kept=places)
        for k, place in places.items():
            self.sources[k], self.formulas[k] = (), place
            self.expensive.discard(k)
        return lines, first + len(places)

    def needed(self, values: Iterable[int], given: Container[int]) -> list[int]:
        """Return the values that some follow from, in the order of computation; none behind given ones."""
        needed = bytearray(len(self.sources))
        for value in values:
            needed[value] = True
        for value in range(len(needed) - 1, -1, -1):
            if needed[value] and value not in given:
                for source in self.sources[value]:
                    needed[source] = True
        return [*compress(range(len(needed)), needed)]

    def shared(self, first: Sequence[Output], then: Sequence[Output]) -> dict[int, str]:
        """Return what the `first` outputs may hand on to the later ones: expensive values, by places in an array."""
        both = sorted({*self.needed(values_of(first), ())} & {*self.needed(values_of(then), ())})
        expensive = [value for value in both if value in self.expensive]
        return {value: f"shared[{place}]" for place, value in enumerate(expensive)}

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
        values, known = [*kept, *values_of(outputs)], {*known}
        order = [k for k in self.needed(values, given) if k not in known and self.computed(k, given)]
        return self._in_order(order, outputs, given, kept, known)

    def _in_order(
        self,
        order: Iterable[int],
        outputs: Sequence[Output],
        given: Mapping[int, str],
        kept: Mapping[int, str],
        known: set[int],
    ) -> list[str]:
        """Return statements that compute these values."""
        targets = defaultdict[int, list[str]](list)
        for target, k in (*((f"{place} =", k) for k, place in kept.items()), *outputs):
            targets[k].append(target)
        sources, formulas, names = self.sources, self.formulas, self.names
        lines, last, computed = list[str](), list[str](), {*order}

        def read(k: int) -> None:
            """Read a value from memory where it is wanted first: so it lives no longer than need be."""
            if k not in known and names[k] != formulas[k]:
                lines.append(f"const double t{k} = {given.get(k, formulas[k])};")
                known.add(k)

        for k in sorted(computed | targets.keys()):
            if k in computed:
                for source in sources[k]:
                    if source not in known:
                        read(source)
                lines.append(f"const double t{k} = {formulas[k]};")
                known.add(k)
            for target in targets.get(k, ()):
                read(k)
                (last if target.startswith("return") else lines).append(f"{target} {names[k]};")
        return [*lines, *last]

    def computed(self, k: int, given: Container[int]) -> bool:
        """Whether a value is computed, not read."""
        return bool(self.sources[k]) and k not in given

    def parts(
        self, groups: Sequence[Sequence[Output]], given: Mapping[int, str], size: int
    ) -> tuple[list[list[list[str]]], int]:
        """Cut the statements of each group of outputs into functions of at most `size` operations.

        A compiler's time for the registers of a function grows with its square, and values that live long leave the
        registers anyway: those that later functions need are handed on in an array ``w``, whose length comes second.
        """
        part_of, parts, seen = dict[int, int](), list[list[int]](), list[Output]()
        ends = list[int]()
        for outputs in groups:
            seen += outputs
            order = [k for k in self.needed(values_of(seen), given) if k not in part_of and self.computed(k, given)]
            for start in range(0, max(1, len(order)), size):
                parts.append(order[start : start + size])
                part_of.update(dict.fromkeys(parts[-1], len(parts) - 1))
            ends.append(len(parts))
        carried = dict[int, str]()
        for k, part in part_of.items():
            for source in self.sources[k]:
                if part_of.get(source, part) < part:
                    carried.setdefault(source, f"w[{len(carried)}]")
        memory, bodies, first = {**given, **carried}, list[list[list[str]]](), 0
        for outputs, end in zip(groups, ends):
            bodies.append([])
            for i in range(first, end):
                own = [(target, k) for target, k in outputs if min(max(part_of.get(k, first), first), end) == i]
                kept = {k: place for k in parts[i] if (place := carried.get(k))}
                bodies[-1].append(self._in_order(parts[i], own, memory, kept, set()))
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
