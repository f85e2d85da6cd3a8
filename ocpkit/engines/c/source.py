"""The C source of a DDP solver for one structure of problem: CasADi's derivatives around the kernel's loops.

Derivatives go straight to their places in the kernel's arrays F and H (see kernel/stage.c). Those that are numbers are
copied there once from a table. Where whole rows of the table describe a dense linear f_i or a quadratic ℓ, these are
evaluated by dot products with the table as well, instead of as thousands of lines of arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain

import casadi as ca
import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.engines.c.emit import NUMBERS, Output, Program, literal, values_of
from ocpkit.engines.graphs import ProblemGraph, StageGraph, TerminalGraph
from ocpkit.problem.part_graphs import CostGraph

PACK = 4  # doubles in a vector of the kernel; rows are padded to whole vectors
DENSE = 8  # entries of a row from which on a dot product is worth its loop
PART = 300  # operations of a function from which a larger one is made
WHOLE = 1200  # operations up to which one function is faster
RARE = 20  # stages of one type for one of another that need not be fast: the first, with the final time; one at a gate
# For each type of stage:
DEFINED = ("STAGE", "N", "M", "NEXT", "SHARED", "Z", "WIDTH", "BOUNDED", "PRICED", "NUMBERS", "TABLE")
Outputs = list[tuple[str, ca.SX]]


@cache
def kernel(name: str) -> str:
    """Return one of the hand-written C files."""
    return files("ocpkit.engines.c").joinpath("kernel", name).read_text(encoding="utf-8")


def seldom(*texts: str) -> str:
    """Return code that runs seldom, which gcc then compiles much sooner."""
    gcc = "#if defined(__OPTIMIZE__) && !defined(__clang__)\n#pragma GCC {}\n#endif"
    less = gcc.format('push_options\n#pragma GCC optimize("O1")')
    return "\n".join([less, *texts, gcc.format("pop_options")])


LIBRARY = "#define _POSIX_C_SOURCE 199309L\n#include <time.h>\n#define ENTRY"


METRIC = 5  # numbers per control of what ddp.c keeps for the damping


@dataclass(frozen=True)
class Source:
    """The source of a solver.

    Attributes
    ----------
    text
        One translation unit.
    handed_on
        How many values a stage of each type hands on to its derivatives.
    scratch_size
        Doubles of memory, beside its arrays, that a solve needs; what ocpkit_scratch_size says of the compiled solver.
    """

    text: str
    handed_on: tuple[int, ...]
    scratch_size: int


class Settled:
    """Values that follow from the numbers of a model alone, and are computed once in a solve.

    Attributes
    ----------
    size
        Length of the table c: the numbers, then what was computed from them.
    statements
        Those that fill it, and then what does not change of the derivatives.
    """

    def __init__(self, numbers: int) -> None:
        self.size, self.statements = numbers, list[str]()

    def take(self, program: Program) -> None:
        """Take it out of a program."""
        lines, self.size = program.settle(self.size)
        self._add(lines)

    def write(self, program: Program, outputs: Sequence[Output]) -> None:
        """Write these outputs, once."""
        self._add(program.statements(outputs))

    def _add(self, lines: list[str]) -> None:
        self.statements += ["{", *lines, "}"] if lines else []

    def function(self, name: str, *arrays: str) -> str:
        """Return the C function that fills c and these arrays."""
        arguments = ", ".join(f"double *restrict {array}" for array in (NUMBERS, *arrays))
        return seldom(_function(f"void {name}({arguments})", self.statements))


def c_source(graph: ProblemGraph, head: str = LIBRARY) -> Source:
    """Return the whole source; `head` comes first and says what an ENTRY is to others."""
    stages, handed_on, tables = zip(*(_stage(stage, i) for i, stage in enumerate(graph.stage_types)))
    end, end_table = _terminal(graph.terminal)
    # One solver serves a structure at all horizons: that of the first says what is rare.
    counts = [graph.type_of_stage.count(i) for i in range(len(stages))]
    kinds = ", ".join(f"&kind_{i}" for i in range(len(graph.stage_types)))  # clang takes no structs as initializers
    table = f"enum {{ KINDS = {len(graph.stage_types)} }};\nstatic const kind *const kinds[KINDS] = {{{kinds}}};"
    parts = [
        head,
        "#include <math.h>",
        "#include <string.h>",
        f"#define ANGLES {len(graph.angles)}",
        f"static const int angles[ANGLES + 1] = {{{', '.join(map(str, (*graph.angles, 0)))}}};" * bool(graph.angles),
        kernel("panel.c"),
        kernel("box.c"),
        kernel("sweep.c"),
        *(seldom(text) if count * RARE <= max(counts) else text for text, count in zip(stages, counts)),
        table,
        end,
        kernel("ddp.c"),
        *([seldom(kernel("units.c"), kernel("augmented.c"))] if graph.augmented else []),
    ]
    return Source("\n".join(parts), handed_on, _scratch_size(graph, handed_on, (*tables, end_table)))


def _scratch_size(graph: ProblemGraph, handed_on: Sequence[int], tables: Sequence[int]) -> int:
    """Sum of what ddp.c says that its scratch memory holds."""
    models, work, metrics = sum(map(_rounded, tables)), 0, 0
    for stage in graph.stage_types:
        n, m, following = stage.state_size, stage.control_size, stage.next_state_size
        width = _rounded(n + m + 1)
        models += (following + n + m) * width
        metrics += METRIC * m
        work = max(work, _rounded(following) + (following + n + 2 * m) * width)
    hessian = max(stage.state_size for stage in graph.stage_types) ** 2
    shared = sum(handed_on[i] for i in graph.type_of_stage)
    return sum(map(_rounded, (models, hessian, hessian, work, shared, shared, metrics)))


def _rounded(count: int) -> int:
    """To whole vectors of the kernel."""
    return -(-count // PACK) * PACK


@dataclass(frozen=True)
class Table:
    """The entries of an array of derivatives that are numbers, in both orders of the expansion.

    Attributes
    ----------
    values
        The numbers, zero elsewhere; rows padded as in C.
    known
        Where they are.
    """

    values: Array
    known: np.ndarray

    @classmethod
    def of(cls, orders: Iterable[ca.SX], width: int) -> Table:
        """Find the entries that are the same number in all orders."""
        first, *others = orders
        values, known = np.zeros((first.shape[0], width)), np.ones((first.shape[0], width), dtype=bool)
        for place, entry in _entries(first):
            known[place] = entry.is_constant()
            values[place] = float(entry) if known[place] else 0.0
        for other in others:
            numbers = np.zeros_like(values)
            for place, entry in _entries(other):
                numbers[place] = float(entry) if entry.is_constant() else np.nan
            known &= values == numbers
        return cls(np.where(known, values, 0.0), known)

    def dense(self, row: int) -> bool:
        """Whether a row has only numbers, many of them not zero."""
        filled = int(np.count_nonzero(self.values[row]))
        return bool(self.known[row].all()) and filled >= DENSE

    def is_form(self, value: ca.SX, slope: ca.SX) -> bool:
        """Whether this is the Hessian of ½ zᵀHz, dense; `value` and `slope` are those at z = 0, and must vanish.

        A form around another center is not expanded: what cancels in (z − c)ᵀH(z − c) would cost digits.
        """
        filled = bool(self.known.all()) and int(np.count_nonzero(self.values)) >= DENSE * len(self.values)
        return filled and bool(value.is_zero()) and bool(slope.is_zero())

    def outputs(self, name: str, array: ca.SX, *, triangle: bool = False) -> Outputs:
        """Return the places in C and the expressions of what is no number (with `triangle`: from the diagonal on)."""
        entries, width = dict(_entries(array)), self.values.shape[1]
        unknown = ((i, j) for i, j in np.argwhere(~self.known).tolist() if i <= j or not triangle)
        return [(f"{name}[{i * width + j}] =", entries.get((i, j), ca.SX(0))) for i, j in unknown]


def _entries(array: ca.SX) -> Iterable[tuple[tuple[int, int], ca.SX]]:
    """Return what is no structural zero, with its place."""
    return zip(zip(*array.sparsity().get_triplet()), array.nonzeros())


def _stage(stage: StageGraph, number: int) -> tuple[str, int, int]:
    """The model of a type of stage as C functions, and the kernel for its sizes.

    Behind it come the number of values that a step hands on, and the size of its table c.
    """
    n, m, following = stage.state_size, stage.control_size, stage.next_state_size
    width, (x, u, p, v) = _rounded(n + m + 1), stage.symbols()
    z, arguments, order = ca.vertcat(x, u), (x, u, p), [*range(n, n + m), *range(n)]
    F = stage.dynamics.jacobian(*arguments)[:, order]
    slope, approximate = stage.cost.expand(z, arguments, False)
    exact = approximate if stage.cost.one_hessian else stage.cost.expand(z, arguments, True)[1]
    exact = exact + stage.dynamics.hessian(z, v, arguments)
    slope, H = slope[order], [hessian[order, order] for hessian in (approximate, exact)]
    table_F, table_H = Table.of([F], width), Table.of(H, width)
    (state, cost), origin = stage.step(x, u, p), stage.step(ca.SX.zeros(n), ca.SX.zeros(m), p)
    quadratic = table_H.is_form(origin[1], ca.substitute(slope, ca.vertcat(x, u), 0))
    dense = [i for i in range(following) if table_F.dense(i)]
    step: Outputs = [
        (f"f[{i}] +=", origin[0][i]) if i in dense else (f"f[{i}] =", state[i])
        for i in range(following)
        if i not in dense or not origin[0][i].is_zero()
    ]
    form = "return quadratic(STAGE(fixed) + NEXT * WIDTH, z, Z, WIDTH) +"
    step.append((form, origin[1]) if quadratic else ("return", cost))
    first = table_F.outputs("F", F)
    if not quadratic:
        first += [(f"H[{a * width + n + m}] =", slope[a]) for a in range(n + m)]
    hessians = [table_H.outputs("H", h, triangle=True) for h in H]
    inputs, settled = [("x", x), ("u", u), *stage.named(p)], Settled(stage.number_count)
    body, derivatives, shared = _cut([*inputs, ("v", v)], step, [first + hessians[0], hessians[1]], settled)
    price = _price("STAGE(price)", "STAGE(slopes)", stage.cost, (x, u, p), inputs, settled)
    gather = ["double z[Z];", "STAGE(gather)(x, u, z);"]
    if quadratic or dense:
        body[:0] = [*gather, *(_products(first, last) for first, last in _ranges(dense))]
    linear = [*gather, "for (int a = 0; a < Z; a++) H[a * WIDTH + Z] = dot(H + a * WIDTH, z, Z);"]
    head = _reads(inputs)
    of_derivatives = f"{head}, const double *v, const double *shared, double *restrict F, double *restrict H"
    text = "\n".join(
        [
            f"#define STAGE(name) name##_{number}",
            *(f"#define {name} {size}" for name, size in (("N", n), ("M", m), ("NEXT", following), ("SHARED", shared))),
            f"#define Z (M + N)\n#define WIDTH {width}\n#define BOUNDED {int(stage.bounded)}",
            f"#define PRICED {_priced(stage.cost)}",
            f"#define NUMBERS {stage.number_count}\n#define TABLE {settled.size}",
            _numbers("STAGE(fixed)", np.concatenate([table_F.values, table_H.values])),
            settled.function("STAGE(settle)", "F", "H"),
            kernel("model.c"),
            _function(f"double STAGE(step)({head}, double *restrict f, double *restrict shared)", body),
            *derivatives.functions("STAGE(derive)", of_derivatives, linear if quadratic else []),
            *price,
            *([seldom(kernel("slopes.c"))] if stage.cost.rows else []),
            kernel("stage.c"),
            *(f"#undef {name}" for name in DEFINED),
        ]
    )
    return text, shared, settled.size


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Join successive numbers to ranges (first, last + 1)."""
    starts = [i for i in numbers if i - 1 not in numbers]
    return list(zip(starts, (i + 1 for i in numbers if i + 1 not in numbers)))


def _products(first: int, last: int) -> str:
    return f"for (int i = {first}; i < {last}; i++) f[i] = dot(STAGE(fixed) + i * WIDTH, z, Z);"


def _cut(
    inputs: list[tuple[str, ca.SX]], step: Outputs, derivatives: Sequence[Outputs], settled: Settled
) -> tuple[list[str], Derivatives, int]:
    """Return the body of a step, its derivatives, and how many values the step hands on to these.

    The derivatives are those without second order, and what takes the place of some of them to second order.
    """
    program = Program(inputs, [value for outputs in (step, *derivatives) for _, value in outputs])
    values = iter(program.outputs)
    of_step, first, second = ([(target, next(values)) for target, _ in outputs] for outputs in (step, *derivatives))
    before = dict(first)
    second = [(target, value) for target, value in second if before.get(target) != value]
    settled.take(program)
    changing, once, first_of_all = {target for target, _ in second}, list[Output](), first
    first = []
    for target, value in first_of_all:
        (once if program.settled[value] and target not in changing else first).append((target, value))
    settled.write(program, once)
    shared = program.shared(of_step, [*first, *second])
    of_first, of_both = (program.needed(values_of(outputs), shared) for outputs in (first, [*first, *second]))
    if len(of_both) > WHOLE:
        (first_parts, second_parts), carried = program.parts([first, second], shared, PART)
        found = Derivatives(first_parts, second_parts if second else [], carried)
    else:
        later = program.statements(second, given=shared, known=of_first)
        found = Derivatives([program.statements(first, given=shared)], [later] if second else [])
    return program.statements(of_step, kept=shared), found, len(shared)


@dataclass(frozen=True)
class Derivatives:
    """Statements of derivatives: those without second order, and those to second order, each cut into parts.

    Parts hand on `carried` numbers; None: there is one part of each, and they are statements of one function.
    """

    first: list[list[str]]
    second: list[list[str]]
    carried: int | None = None

    def functions(self, name: str, arguments: str, more: Sequence[str] = ()) -> list[str]:
        """Return the C functions; `more` are statements that come after those without second order."""
        head = f"({arguments}, int second_order)"
        leave = ["if (!second_order) return;"] if self.second else []
        if self.carried is None:
            return [_function(f"void {name}{head}", [*chain(*self.first), *more, *leave, *chain(*self.second)])]
        names = ", ".join([*_names(arguments), "w"])
        bodies = [*self.first, *self.second]
        own = [name.removesuffix(")") + f"_{i}" + ")" * name.endswith(")") for i in range(len(bodies))]
        calls = [f"{each}({names});" for each in own]
        cut = len(self.first)
        body = [f"double w[{self.carried + 1}];", *calls[:cut], *more, *leave, *calls[cut:]]
        parts = [
            _function(f"NOINLINE void {each}({arguments}, double *restrict w)", statements)
            for each, statements in zip(own, bodies)
        ]
        return [*parts, _function(f"void {name}{head}", body)]


def _value(inputs: list[tuple[str, ca.SX]], outputs: Outputs, settled: Settled) -> list[str]:
    """Return the body of a function that stands alone."""
    return _cut(inputs, outputs, ([], []), settled)[0]


def _terminal(terminal: TerminalGraph) -> tuple[str, int]:
    """The terminal cost as C functions, and the size of its table c."""
    n = terminal.state_size
    x, p = ca.SX.sym("x", n), ca.SX.sym("p", terminal.parameter_size)
    (cost, _, exact), (_, gradient, approximate) = (terminal.expand(x, p, second_order=k) for k in (True, False))
    table = Table.of([approximate, exact], n)
    origin = ca.substitute(cost, x, 0)
    quadratic = table.is_form(origin, ca.substitute(gradient, x, 0))
    hessians = [table.outputs("Vxx", hessian) for hessian in (approximate, exact)]
    slopes: Outputs = [] if quadratic else [(f"Vx[{i}] =", gradient[i]) for i in range(n)]
    inputs, settled = [("x", x), *terminal.named(p)], Settled(terminal.number_count)
    derivatives = _cut(inputs, [], [slopes + hessians[0], hessians[1]], settled)[1]
    result = ("return quadratic(terminal_fixed, x, FINAL, FINAL) +", origin) if quadratic else ("return", cost)
    value = _value(inputs, [result], settled)
    price = _price("terminal_price", "terminal_slopes", terminal.cost, (x, p), inputs, settled)
    linear = ["for (int i = 0; i < FINAL; i++) Vx[i] = dot(Vxx + i * FINAL, x, FINAL);"]
    arguments = _reads(inputs)
    of_derivatives = f"{arguments}, double *restrict Vx, double *restrict Vxx"
    numbers = f"FINAL_NUMBERS = {terminal.number_count}, FINAL_TABLE = {settled.size}"
    text = "\n".join(
        [
            f"enum {{ FINAL = {n}, FINAL_ROWS = {_row_count(terminal.cost)}, {numbers} }};",
            _numbers("terminal_fixed", table.values),
            settled.function("terminal_settle", "Vx", "Vxx"),
            _function(f"double terminal_cost({arguments})", value),
            *derivatives.functions("terminal_derive", of_derivatives, linear if quadratic else []),
            *price,
        ]
    )
    return text, settled.size


def _price(
    name: str,
    slopes_name: str,
    cost: CostGraph,
    symbols: Sequence[ca.SX],
    inputs: list[tuple[str, ca.SX]],
    settled: Settled,
) -> list[str]:
    """Functions of a penalized cost for the augmented Lagrangian.

    Multipliers, distances and the cost itself; the rows g with their gradients.
    """
    if cost.rows is None:
        return []
    y, distance, value, slopes = cost.rows(*symbols)
    outputs: Outputs = [(f"y[{i}] =", y[i]) for i in range(y.numel())]
    outputs += [(f"distance[{i}] =", distance[i]) for i in range(y.numel())]
    arguments, (count, columns) = _reads(inputs), slopes.shape
    head = f"double {name}({arguments}, double *restrict y, double *restrict distance)"
    places = [(i, j) for i in range(count) for j in range(columns) if not slopes[i, j].is_zero()]
    entries: Outputs = [(f"g[{i * columns + j}] =", slopes[i, j]) for i, j in places]
    clear = f"memset(g, 0, {count * columns} * sizeof *g);"
    return [
        _function(head, _value(inputs, [*outputs, ("return", value)], settled)),
        _function(f"void {slopes_name}({arguments}, double *restrict g)", [clear, *_value(inputs, entries, settled)]),
    ]


def _reads(inputs: list[tuple[str, ca.SX]]) -> str:
    """The arguments that a C function reads these from."""
    return ", ".join(f"const double *{name}" for name, _ in inputs)


def _row_count(cost: CostGraph) -> int:
    return cost.rows.numel_out(0) if cost.rows is not None else 0


def _priced(cost: CostGraph) -> str:
    functions = ("price", "slopes", "combine", "move")
    return ", ".join([str(_row_count(cost)), *(f"STAGE({name})" if cost.rows else "0" for name in functions)])


def _function(head: str, body: Iterable[str]) -> str:
    """A static C function; its arguments may go unused."""
    unused = [f"(void){name};" for name in _names(head.rstrip(")"))]
    return "\n  ".join([f"static {head} {{", *unused, *body]) + "\n}"


def _names(arguments: str) -> list[str]:
    """Names of the arguments in the head of a function."""
    return re.findall(r"(\w+)(?:,|$)", arguments)


def _numbers(name: str, values: Array) -> str:
    """A table of constants, one line for each row."""
    rows = ",\n  ".join(", ".join(map(literal, row)) for row in values.tolist())
    return f"static const double {name}[{values.size}] = {{\n  {rows}\n}};"
