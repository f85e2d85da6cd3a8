"""A problem as a C solver of its own: one header, one source, static memory, no library but the mathematical one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ocpkit.engines.emit import literal
from ocpkit.engines.graphs import ProblemGraph, trace_problem
from ocpkit.engines.library import FIELD_NAMES
from ocpkit.engines.source import c_source, kernel
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem import Problem

if TYPE_CHECKING:
    from ocpkit.solvers.ddp import DDP

HEADER = """/* {title}: a DDP solver. States, controls and gains lie stage after stage, matrices by rows. */
#ifndef {guard}
#define {guard}

enum {{
  {name}_HORIZON = {horizon},
  {name}_STATES = {states}, /* of all {points} states together */
  {name}_CONTROLS = {controls}, /* of all controls together */
  {name}_PARAMETERS = {parameters}, /* {rows} */
  {name}_MAX_ITERATIONS = {max_iterations}
}};

/* {name}_result.status */
enum {{ {name}_RUNNING, {name}_CONVERGED, {name}_STALLED, {name}_INFEASIBLE, {name}_DIVERGED, {name}_INVALID_INPUT }};

typedef struct {{
  long status, iterations;
  double cost, gradient_norm;
  const double *states, *controls;
  const double *feedforward, *feedback_gains; /* u = controls + K (x - states); null where there is no policy */
}} {name}_result;

/* Controls to start from; null: those of the problem. Without this call a solve starts from its predecessor's. */
void {name}_guess(const double *controls);

/* Solve from x0 (null: the problem's) with parameters (null: the problem's). Status 0: the iteration limit was reached.
   What the result points to lives until the next solve. Not re-entrant. */
{name}_result {name}_solve(const double *x0, const double *parameters, long max_iterations);

#endif
"""

MAIN = """/* Solve {title} once and print what was found. */
#include <stdio.h>

#include "{name}.h"

int main(void) {{
  const {name}_result result = {name}_solve(0, 0, {name}_MAX_ITERATIONS);
  printf("status %ld iterations %ld cost %.17g gradient %.17g\\n", result.status, result.iterations, result.cost,
         result.gradient_norm);
  for (int i = 0; i < {name}_CONTROLS; i++) printf("%.17g\\n", result.controls[i]);
  return result.status == {name}_CONVERGED ? 0 : 1;
}}
"""

CMAKE = """cmake_minimum_required(VERSION 3.10)
project({name} C)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_C_STANDARD 11)
add_library({name} {name}.c)
target_link_libraries({name} PUBLIC m)
add_executable({name}_main main.c)
target_link_libraries({name}_main PRIVATE {name})
"""


def export_c(problem: Problem, solver: DDP, folder: Path, name: str) -> list[Path]:
    """Write ``NAME.h``, ``NAME.c``, ``main.c`` and ``CMakeLists.txt``.

    Parameters
    ----------
    problem
        Its x0, parameters and controls become the defaults of the C functions; its control bounds are built in.
    solver
        Its options are built in.
    folder
        Where to; made if it does not exist.
    name
        Prefix of all names; what C does not allow in it becomes ``_``.

    Raises
    ------
    UnsupportedProblem
        If the problem or the options need more than the compiled iteration has.
    """
    solver.check(problem)
    if solver.curvature is not None or solver.infeasible_start or problem.states is not None:
        raise UnsupportedProblem(
            "an exported solver starts from controls and uses the exact Q_uu: take 'ddp' or 'ilqr'"
        )
    name, horizon = re.sub(r"\W|^(?=\d)", "_", name), problem.horizon
    rows = "shared by all stages" if problem.parameters.ndim == 1 else f"{horizon + 1} rows: each stage's, the end's"
    words = {"name": name, "title": problem.name, "guard": f"{name.upper()}_H", "horizon": horizon, "rows": rows}
    words |= {"points": horizon + 1, "states": sum(problem.state_sizes), "controls": sum(problem.control_sizes)}
    words |= {"parameters": problem.parameters.size, "max_iterations": solver.max_iterations}
    texts = {f"{name}.h": HEADER.format(**words), f"{name}.c": _source(problem, solver, name)}
    texts |= {"main.c": MAIN.format(**words), "CMakeLists.txt": CMAKE.format(**words)}
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in texts]


def _source(problem: Problem, solver: DDP, name: str) -> str:
    """The solver that Python compiles, with the names, the memory and the functions of `HEADER` around it."""
    graph = trace_problem(problem)
    head = [f'#include "{name}.h"', "#define NO_CLOCK", f"#define SOLVER(name) {name}_##name"]
    head += [f"#define ocpkit_{function} {name}_{function}" for function in ("advance", "resume", "scratch_size")]
    tail = [
        f"enum {{ {_sizes(problem)} }};\nenum {{ SCRATCH = {_scratch(graph)} }};",
        f"static const long kind_of_stage[HORIZON] = {{{', '.join(map(str, graph.kind_of_stage))}}};",
        _array("own_x0", problem.x0),
        _array("own_parameters", problem.parameters.ravel()),
        _array("own_controls", np.concatenate(problem.controls)),
        _array("own_lower", problem.control_bounds[0] if problem.bounded else ()),
        _array("own_upper", problem.control_bounds[1] if problem.bounded else ()),
        f"static const ddp options = {{{_options(solver)}}};",
    ]
    return "\n".join([c_source(graph, "\n".join(head)), *tail, kernel("export.c")])


def _sizes(problem: Problem) -> str:
    n, m, p = problem.state_sizes, problem.control_sizes, problem.parameters
    sizes = {"HORIZON": problem.horizon, "STRIDE": 0 if p.ndim == 1 else p.shape[1], "STATES": sum(n)}
    sizes |= {"CONTROLS": max(1, sum(m)), "GAINS": max(1, sum(i * j for i, j in zip(m, n)))}  # C has no empty arrays
    sizes |= {"HESSIANS": sum(i * i for i in n), "LIMITS": sum(m) if problem.bounded else 0}
    return ", ".join(f"{key} = {size}" for key, size in sizes.items())


def _scratch(graph: ProblemGraph) -> str:
    """What ocpkit_scratch_size computes, as a constant expression."""
    kinds, work = range(len(graph.kinds)), "0"
    for i in kinds:
        work = f"(work_size_{i} > {work} ? work_size_{i} : {work})"
    models = " + ".join(f"model_size_{i}" for i in kinds)
    shared = " + ".join(f"{graph.kind_of_stage.count(i)} * shared_size_{i}" for i in kinds)
    hessian = max(kind.state_size for kind in graph.kinds) ** 2
    return f"ROUND_UP({models}) + 2 * ROUND_UP({hessian}) + ROUND_UP({work}) + 2 * ROUND_UP({shared})"


def _options(solver: DDP) -> str:
    values = {option.name: getattr(solver, option.name) for option in fields(solver) if option.name in FIELD_NAMES}
    values |= {"on_state": solver.regularize == "state", "step_sizes": len(solver.step_sizes)}
    values |= {"regularization": solver.initial_regularization, "growth": 1.0}
    return ", ".join(f".{key} = {literal(float(value))}" for key, value in values.items())


def _array(name: str, values: Iterable[float]) -> str:
    numbers = ", ".join(literal(float(value)) for value in values) or "0"
    return f"static const double {name}[] = {{{numbers}}};"
