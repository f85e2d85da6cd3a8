"""The C source of a DDP solver for one structure of problem: CasADi's derivatives around the kernel's loops."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import casadi as ca

from ocpkit.engines.emit import literal, statements
from ocpkit.engines.graphs import ProblemGraph, StageGraph, TerminalGraph
from ocpkit.expansion import Expansion

PACK = 4  # doubles in a vector of the kernel; rows are padded to whole vectors
Entries = dict[str, ca.SX]
STAGE_ARGUMENTS = "const double *x, const double *u, const double *p"
FINAL_ARGUMENTS = "const double *x, const double *p"


@cache
def kernel(name: str) -> str:
    """Return one of the hand-written C files."""
    return files("ocpkit.engines").joinpath("kernel", name).read_text(encoding="utf-8")


def c_source(graph: ProblemGraph) -> str:
    """Return the whole source, one translation unit."""
    parts = ["#define _POSIX_C_SOURCE 199309L", "#include <math.h>", "#include <time.h>"]
    parts += [kernel("panel.c"), kernel("sweep.c")]
    for i, stage in enumerate(graph.kinds):
        parts.append(_stage(stage, i))
    table = ", ".join(f"kind_{i}" for i in range(len(graph.kinds)))
    parts += [f"enum {{ KINDS = {len(graph.kinds)} }};", f"static const kind kinds[KINDS] = {{{table}}};"]
    return "\n".join([*parts, _terminal(graph.terminal), kernel("ddp.c")])


def _stage(stage: StageGraph, number: int) -> str:
    """The model of a kind of stage as C functions, and the kernel for its sizes."""
    n, m, following = stage.state_size, stage.control_size, stage.next_state_size
    x, u, p, v = stage.symbols()
    inputs = [("x", x), ("u", u), ("p", p)]
    state, cost = stage.step(x, u, p)
    step = [(f"f[{i}] =", state[i]) for i in range(following)]
    exact, approximate = (
        _entries(stage.expand(x, u, p, v, second_order=second_order), n, m, following) for second_order in (True, False)
    )
    fixed = _fixed(exact, approximate)
    derive = [
        _function(
            f"static void STAGE({name})({STAGE_ARGUMENTS}, const double *v, double *restrict F, double *restrict H)",
            "x u p v F H",
            statements([*inputs, ("v", v)], [(f"{at} =", value) for at, value in entries.items() if at not in fixed]),
        )
        for name, entries in (("derive", exact), ("derive_gauss_newton", approximate))
    ]
    width = -(-(n + m + 1) // PACK) * PACK
    head = [f"#define STAGE(name) name##_{number}"]
    head += [f"#define {name} {size}" for name, size in (("N", n), ("M", m), ("NEXT", following))]
    tail = [f"#undef {name}" for name in ("STAGE", "N", "M", "NEXT")]
    return "\n".join(
        [
            *head,
            _function(
                "static void STAGE(prepare)(double *F)",
                "",
                [
                    f"double *const H = F + {following * width};",
                    f"for (int i = 0; i < {(following + n + m) * width}; i++) F[i] = 0;",
                    *(f"{at} = {literal(value)};" for at, value in fixed.items() if value != 0),
                    "(void)H;",
                ],
            ),
            _function(
                f"static double STAGE(step)({STAGE_ARGUMENTS}, double *restrict f)",
                "x u p",
                statements(inputs, [*step, ("return", cost)]),
            ),
            *derive,
            kernel("stage.c"),
            *tail,
        ]
    )


def _entries(expansion: Expansion, n: int, m: int, following: int) -> Entries:
    """The scalars of F = (f_u f_x) and of the upper triangle of H, by their places in the kernel's arrays."""
    width, z = -(-(n + m + 1) // PACK) * PACK, n + m
    F = ca.horzcat(expansion.fu, expansion.fx)
    H = ca.vertcat(ca.horzcat(expansion.luu, expansion.lux), ca.horzcat(expansion.lux.T, expansion.lxx))
    gradient = ca.vertcat(expansion.lu, expansion.lx)
    entries = {f"F[{i * width + j}]": F[i, j] for i in range(following) for j in range(z)}
    entries |= {f"H[{a * width + b}]": H[a, b] for a in range(z) for b in range(a, z)}
    return entries | {f"H[{a * width + z}]": gradient[a] for a in range(z)}


def _terminal(terminal: TerminalGraph) -> str:
    n = terminal.state_size
    x, p = ca.SX.sym("x", n), ca.SX.sym("p", terminal.parameter_size)
    inputs = [("x", x), ("p", p)]
    orders = []
    for second_order in (True, False):
        cost, gradient, hessian = terminal.expand(x, p, second_order=second_order)
        entries = {f"Vxx[{i * n + j}]": hessian[i, j] for i in range(n) for j in range(n)}
        orders.append(entries | {f"Vx[{i}]": gradient[i] for i in range(n)})
    fixed = _fixed(*orders)
    fixed = {at: value for at, value in fixed.items() if at.startswith("Vxx")}
    derive = [
        _function(
            f"static void {name}({FINAL_ARGUMENTS}, double *restrict Vx, double *restrict Vxx)",
            "x p Vx Vxx",
            statements(inputs, [(f"{at} =", value) for at, value in entries.items() if at not in fixed]),
        )
        for name, entries in zip(("terminal_derive", "terminal_derive_gauss_newton"), orders)
    ]
    return "\n".join(
        [
            f"enum {{ FINAL = {n} }};",
            _function(
                "static void terminal_prepare(double *Vxx)",
                "Vxx",
                [f"{at} = {literal(value)};" for at, value in fixed.items()],
            ),
            _function(f"static double terminal_cost({FINAL_ARGUMENTS})", "x p", statements(inputs, [("return", cost)])),
            *derive,
        ]
    )


def _fixed(*orders: Entries) -> dict[str, float]:
    """The entries that are the same number in the full and in the Gauss-Newton expansion: they are set only once."""
    first, *others = orders
    fixed = {at: float(value) for at, value in first.items() if value.is_constant()}
    return {
        at: number
        for at, number in fixed.items()
        if all(other[at].is_constant() and float(other[at]) == number for other in others)
    }


def _function(head: str, unused: str, body: Iterable[str]) -> str:
    """A C function; arguments that its body may not need are named as unused."""
    voids = [f"(void){name};" for name in unused.split()]
    return "\n  ".join([f"{head} {{", *voids, *body]) + "\n}"
