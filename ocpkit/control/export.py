"""A problem as a C solver and controller of its own: one header, one source, no library but the mathematical one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from ocpkit.engines.c.emit import literal
from ocpkit.engines.c.source import Source, c_source, kernel
from ocpkit.engines.graphs import ProblemGraph, trace_problem
from ocpkit.errors import UnsupportedProblem, refuse_unused
from ocpkit.problem.problem import Problem

if TYPE_CHECKING:
    from ocpkit.solvers.ddp.ddp import DDP

PROGRAMS = ("main", "closed_loop")


def export_c(
    problem: Problem, solver: DDP, folder: Path, name: str, *, feasibility_tolerance: float = 1e-2
) -> list[Path]:
    """Write ``NAME.h``, ``NAME.c``, ``main.c``, ``closed_loop.c`` and ``CMakeLists.txt``.

    The receding horizon, and with it ``closed_loop.c``, needs states and controls of one size at all stages.

    Parameters
    ----------
    problem
        Its x0, parameters and controls become the defaults of the C functions; its control bounds are built in.
    solver
        Its options are built in, but for the engine that Python would take.
    folder
        Where to; made if it does not exist.
    name
        Prefix of all names; what C does not allow in it becomes ``_``.
    feasibility_tolerance
        As of `ocpkit.MPC`, built in.

    Raises
    ------
    UnsupportedProblem
        If the problem or the options need more than the compiled iteration has.
    """
    solver.check_noise(problem)
    _check_rows(problem)
    if solver.curvature is not None or solver.infeasible_start or problem.states is not None:
        raise UnsupportedProblem(
            "an exported solver starts from controls and uses the exact Q_uu: take 'ddp' or 'ilqr'"
        )
    refuse_unused(
        solver, "in an exported solver, which has no clock; the main gives a limit of iterations", "time_limit"
    )
    name, graph = re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII), trace_problem(problem)
    name = f"{name}_" if name in ("", *PROGRAMS) else name  # else one file would replace the other
    head = [f'#include "{name}.h"', "#define NO_CLOCK", f"#define SOLVER(name) {name}_##name"]
    head += ["#define ENTRY static __attribute__((unused))"]
    source = c_source(graph, "\n".join(head))
    words = _words(problem, solver, name) | {"scratch": source.scratch_size}
    words["mpc"] = _filled("mpc.h", words) if problem.uniform else ""
    programs = PROGRAMS if problem.uniform else PROGRAMS[:1]
    texts = {f"{name}.h": _filled("header.h", words)}
    texts[f"{name}.c"] = "\n".join([source.text, *_numbers(problem, solver, graph, source), kernel("export.c")])
    if problem.uniform:
        tolerance = f"static const double FEASIBILITY_TOLERANCE = {literal(feasibility_tolerance)};"
        sizes = f"enum {{ STATE = {problem.state_sizes[0]}, CONTROL = {problem.control_sizes[0]} }};"
        texts[f"{name}.c"] += "\n".join(["", tolerance, sizes, kernel("mpc.c")])
    texts |= {f"{program}.c": _filled(f"{program}.c", words) for program in programs}
    texts["CMakeLists.txt"] = _filled("CMakeLists.txt", words | {"programs": " ".join(programs)})
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in texts]


def _check_rows(problem: Problem) -> None:
    """Refuse constraints by the place where they stand; no other solver would help."""
    held = [f"the constraints of stage {t} ({s.name!r})" for t, s in problem.distinct_stages if s.constraints]
    held += ["the terminal constraints"] if problem.terminal_constraints else []
    if held:
        raise UnsupportedProblem(
            f"exported C keeps control bounds, but not {held[0]}; price them in the costs, or solve in Python by 'al'"
        )


def _filled(template: str, words: dict[str, Any]) -> str:
    text = files("ocpkit.engines.c").joinpath("templates", template).read_text(encoding="utf-8")
    return Template(text).substitute(words)


def _words(problem: Problem, solver: DDP, name: str) -> dict[str, Any]:
    """Values of the templates' placeholders."""
    horizon, p = problem.horizon, problem.parameters
    rows = "shared by all stages" if p.ndim == 1 else f"{horizon + 1} rows: each stage's, the end's"
    controls, words = sum(problem.control_sizes), dict[str, Any]()
    words |= {key.lower(): size for key, size in _sizes(problem).items()} | {"controls": controls}
    words |= {"space": max(1, controls), "points": horizon + 1, "parameters": p.size, "rows": rows}
    words |= {"n": problem.state_sizes[0], "m": problem.control_sizes[0], "max_iterations": solver.max_iterations}
    modulo = f", x[{'], x['.join(map(str, problem.angles))}] modulo 2 pi" if problem.angles else ""
    words |= {"modulo": modulo, "name": name, "title": _comment(problem.name), "guard": f"{name.upper()}_H"}
    return words | {"x0": ", ".join(literal(float(value)) for value in problem.x0)}


def _comment(text: str) -> str:
    """Text that may stand in a comment of C: one line, in letters that neither end the comment nor start a trigraph."""
    return re.sub(r"[^\w .,:()+-]", "_", text)


def _numbers(problem: Problem, solver: DDP, graph: ProblemGraph, source: Source) -> list[str]:
    """The problem's numbers and the solver's options, for the functions of `kernel/export.c`."""
    sizes = ", ".join(f"{key} = {size}" for key, size in _sizes(problem).items())
    return [
        f"enum {{ {sizes}, HANDED_ON = {max(source.handed_on)} }};",
        f"static const long kind_of_stage[HORIZON] = {{{', '.join(map(str, graph.type_of_stage))}}};",
        _array("own_x0", problem.x0),
        _array("own_parameters", problem.parameters.ravel()),
        _array("own_controls", np.concatenate(problem.controls)),
        _array("own_lower", problem.control_bounds[0] if problem.bounded else ()),
        _array("own_upper", problem.control_bounds[1] if problem.bounded else ()),
        f"static const ddp options = {{{_options(solver)}}};",
    ]


def _sizes(problem: Problem) -> dict[str, int]:
    n, m, p = problem.state_sizes, problem.control_sizes, problem.parameters
    sizes = {"HORIZON": problem.horizon, "STRIDE": 0 if p.ndim == 1 else p.shape[1], "STATES": sum(n)}
    sizes |= {"CONTROLS": max(1, sum(m)), "GAINS": max(1, sum(i * j for i, j in zip(m, n)))}  # C has no empty arrays
    sizes |= {"HESSIANS": sum(i * i for i in n), "LIMITS": sum(m) if problem.bounded else 0}
    return sizes


def _options(solver: DDP) -> str:
    return ", ".join(f".{key} = {literal(float(value))}" for key, value in solver.numbers().items())


def _array(name: str, values: Iterable[float]) -> str:
    numbers = ", ".join(literal(float(value)) for value in values) or "0"
    return f"static const double {name}[] = {{{numbers}}};"
