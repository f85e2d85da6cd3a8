"""`ocpkit export`: the C files compile without a warning, run clean under sanitizers, and solve as Python does.

With gcc and with clang, wherever they are installed, as C and included from C++.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import BY_NAME
from typer.testing import CliRunner

from ocpkit import DDP, FDDP, ILQR, Damping, Problem, UnsupportedProblem, models
from ocpkit.cli.commands import app
from ocpkit.control.export import export_c
from ocpkit.engines.c.emit import OPERATIONS
from ocpkit.engines.c.library import load_library
from ocpkit.engines.c.source import c_source
from ocpkit.engines.graphs import trace_problem

STRICT = [
    "-std=gnu11",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wmissing-prototypes",
    "-pedantic",
    "-Werror",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]
COMPILERS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))
    for name in ("gcc", "clang")
]
TWICE = """
#include <stdio.h>
#include "case.h"
int main(void) {
  static case_workspace workspace;
  case_result result = case_solve(&workspace, 0, 0, case_MAX_ITERATIONS);
  const double x0[] = {%s};
  result = case_solve(&workspace, x0, 0, 2);
  printf("status %%ld iterations %%ld cost %%.17g gradient %%.17g\\n", result.status, result.iterations, result.cost,
         result.gradient_norm);
  for (int i = 0; i < case_CONTROLS; i++) printf("%%.17g\\n", result.controls[i]);
  case_guess(&workspace, 0);
  return case_solve(&workspace, 0, 0, case_MAX_ITERATIONS).status == case_CONVERGED ? 0 : 1;
}
"""


def build(folder: Path, name: str, program: str, compiler: str = "cc") -> Path:
    """Compile one of the exported programs strictly."""
    sources = [str(folder / f"{part}.c") for part in (name, program)]
    command = [compiler, *STRICT, "-o", str(folder / program), *sources, "-lm"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / program


def run(program: Path, *arguments: str, given: str = "") -> list[str]:
    """Run a program; return the lines that it printed."""
    ran = subprocess.run([str(program), *arguments], input=given, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout.splitlines()


def build_and_run(folder: Path, name: str = "case", compiler: str = "cc") -> tuple[list[float], np.ndarray]:
    """Build and run the main; return (status, iterations, cost, gradient) and the controls."""
    words, *controls = run(build(folder, name, "main", compiler))
    return [float(word) for word in words.split()[1::2]], np.array(controls, dtype=float)


def assert_same(numbers: list[float], controls: np.ndarray, reference: Any) -> None:
    assert numbers[1] == reference.iterations
    assert numbers[2] == pytest.approx(reference.cost, rel=1e-9)
    np.testing.assert_allclose(controls, np.concatenate(reference.controls), rtol=1e-7, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(
    ("name", "solver"),
    [
        ("pendulum", DDP(damping=Damping(target="state"))),
        ("varying-sizes", DDP()),
        ("reference", ILQR()),
        ("hand-written", DDP(tikhonov=0.01)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_strict_build_and_the_same_answer(name: str, solver: DDP, compiler: str, tmp_path: Path) -> None:
    problem = BY_NAME[name].problem()
    files = export_c(problem, solver, tmp_path, "case")
    assert {path.name for path in files} - {"closed_loop.c"} == {"CMakeLists.txt", "case.c", "case.h", "main.c"}
    assert not {"malloc", "calloc", "time.h"} & {*(tmp_path / "case.c").read_text().replace("<", " ").split()}
    numbers, controls = build_and_run(tmp_path, compiler=compiler)
    assert numbers[0] == 1
    assert_same(numbers, controls, replace(solver, engine="numpy").solve(problem))


@pytest.mark.parametrize("name", ["pendulum", "varying-sizes", "reference", "hand-written", "quadrotor"])
def test_an_exported_workspace_is_as_large_as_the_compiled_solver_asks(name: str) -> None:
    graph = trace_problem(BY_NAME[name].problem())
    kinds = np.array(graph.type_of_stage, dtype=ctypes.c_long)
    assert c_source(graph.structure()).scratch_size == load_library(graph).scratch_size(kinds)


def test_solves_again_from_other_states(tmp_path: Path) -> None:
    """The second solve starts from the first one's controls; `guess` goes back to the problem's."""
    problem, solver = BY_NAME["pendulum"].problem(), DDP(engine="numpy")
    export_c(problem, solver, tmp_path, "case")
    moved = problem.replace(x0=[0.1, -0.2])
    (tmp_path / "main.c").write_text(TWICE % ", ".join(map(repr, moved.x0.tolist())))
    numbers, controls = build_and_run(tmp_path)
    assert_same(numbers, controls, replace(solver, max_iterations=2).solve(moved, solver.solve(problem)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cartpole-bounded", "car-parking-bounded"])
def test_control_bounds_are_built_in(name: str, tmp_path: Path) -> None:
    """Five iterations: later ones amplify rounding. The guess, out of the bounds, is moved inside as in Python."""
    problem = models.get(name).build(horizon=40)
    problem = problem.replace(controls=[20.0 * np.ones(k) for k in problem.control_sizes])
    solver = DDP(max_iterations=5, engine="numpy")
    export_c(problem, solver, tmp_path, "case")
    main = (tmp_path / "main.c").read_text()
    (tmp_path / "main.c").write_text(main.replace("== case_CONVERGED", "== case_RUNNING"))
    numbers, controls = build_and_run(tmp_path)
    reference = solver.solve(problem)
    assert_same(numbers, controls, reference)
    lower, upper = problem.control_bounds
    assert ((lower <= controls) & (controls <= upper)).all()
    assert ((lower == controls) | (controls == upper)).any()


@pytest.mark.parametrize("compiler", COMPILERS)
def test_programs_in_cpp_include_the_header(compiler: str, tmp_path: Path) -> None:
    """The exported programs are C++ too; names that it mangles would not be found in the C library."""
    export_c(BY_NAME["reference"].problem(), DDP(), tmp_path, "case")
    in_cpp = {"gcc": "g++", "clang": "clang++"}[compiler]
    if shutil.which(in_cpp) is None:
        pytest.skip(f"{in_cpp} is not installed")
    warnings = [flag for flag in STRICT if flag.startswith(("-W", "-pedantic")) and flag != "-Wmissing-prototypes"]
    library = str(tmp_path / "case.o")
    subprocess.run([compiler, "-std=gnu11", "-c", str(tmp_path / "case.c"), "-o", library], check=True)
    for program in ("main", "closed_loop"):
        source, executable = tmp_path / f"{program}.cpp", tmp_path / program
        source.write_text((tmp_path / f"{program}.c").read_text())
        command = [in_cpp, "-std=c++11", *warnings, str(source), library, "-lm", "-o", str(executable)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr
        assert run(executable)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_operation_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    bodies = [f"const double t = {text.format('a', 'b')}; return t;" for text in {*OPERATIONS.values()}]
    functions = [f"static double f{i}(double a, double b) {{ (void)b; {body} }}" for i, body in enumerate(bodies)]
    calls = "".join(f" + f{i}(a, b)" for i in range(len(bodies)))
    main = f"int main(void) {{ const double a = 1, b = 2; return 0{calls} > 1e300; }}"
    (tmp_path / "case.c").write_text("\n".join(["#include <math.h>", *functions, main, ""]))
    command = [compiler, *STRICT, "-fsyntax-only", str(tmp_path / "case.c")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-ffinite-math-only"])
def test_flags_that_drop_nan_are_refused(compiler: str, flag: str, tmp_path: Path) -> None:
    """A measurement that is NaN must not look like one."""
    export_c(BY_NAME["reference"].problem(), DDP(), tmp_path, "case")
    check = [compiler, "-std=gnu11", "-fsyntax-only", str(tmp_path / "case.c")]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    assert subprocess.run([*check, flag], capture_output=True, check=False).returncode != 0


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_cmake_builds_it(tmp_path: Path) -> None:
    export_c(BY_NAME["reference"].problem(), DDP(), tmp_path, "my solver")
    for command in (["-S", str(tmp_path), "-B", str(tmp_path / "build")], ["--build", str(tmp_path / "build")]):
        subprocess.run(["cmake", *command], capture_output=True, check=True)
    assert run(tmp_path / "build" / "my_solver_main")
    assert len(run(tmp_path / "build" / "my_solver_closed_loop", "5")) == 5


def test_command_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", "double-integrator", "--c", str(tmp_path), "--horizon", "20"])
    assert done.exit_code == 0
    numbers, controls = build_and_run(tmp_path, "double_integrator")
    assert_same(numbers, controls, DDP(engine="numpy").solve(models.get("double-integrator").build(horizon=20)))
    for wrong in (["--solver", "gd"], ["--solver", "fddp"]):
        assert CliRunner().invoke(app, ["export", "double-integrator", "--c", str(tmp_path), *wrong]).exit_code == 2


def test_refuses_what_the_c_code_does_not_have(tmp_path: Path) -> None:
    problem: Problem = BY_NAME["pendulum"].problem()
    with pytest.raises(UnsupportedProblem, match="starts from controls"):
        export_c(problem, FDDP(), tmp_path, "case")
    wall = models.get("bryson-denham").build()
    with pytest.raises(UnsupportedProblem, match="keeps control bounds, but not the constraints of stage 0"):
        export_c(wall, DDP(), tmp_path, "case")
    free = wall.replace(stages=tuple(replace(stage, constraints=()) for stage in wall.stages))
    with pytest.raises(UnsupportedProblem, match="not the terminal constraints"):
        export_c(free, DDP(), tmp_path, "case")
    with pytest.raises(UnsupportedProblem, match="black box"):
        export_c(BY_NAME["black-box"].problem(), DDP(), tmp_path, "case")
    noisy = replace(problem.stages[0], noise=lambda x, u: np.eye(2))
    with pytest.raises(UnsupportedProblem, match="noise of stage 0"):
        export_c(problem.replace(stages=(noisy,) * problem.horizon), DDP(), tmp_path, "case")
    assert list(tmp_path.iterdir()) == []
