"""How much of the mathematics do the tests hold fast? Break one piece at a time and see whether they notice.

    python tests/mutation.py                          every mutant of the default files
    python tests/mutation.py --file ocpkit/recursion/bellman.py   of one file
    python tests/mutation.py --sample 40 --jobs 2     a random sample, two at a time

A mutant is the source with one small change inside a function: a sign flipped, a transpose or a term of a sum
dropped, the operands of @ swapped, a condition negated, a constant changed, a statement removed. The tests of its
file run against each one, fast and slow, those first that have just failed, until the first failure and always with
the same examples, in a copy of the repository, which is thrown away; a mutant on which no test fails has survived.
Exit status 1 if a survivor is not on the list of equivalent mutants below.
"""

from __future__ import annotations

import argparse
import ast
import copy
import multiprocessing
import os
import queue
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "ocpkit/recursion/bellman.py": [
        "representations",
        "proposition_2",
        "newton",
        "feedback",
        "bellman_principle",
        "bellman",
        "box",
    ],
    "ocpkit/recursion/value.py": ["representations", "proposition_3", "newton"],
    "ocpkit/recursion/curvature.py": [
        "representations",
        "proposition_2",
        "proposition_3",
        "gradient_descent",
        "options",
    ],
    "ocpkit/recursion/box.py": ["box"],
    "ocpkit/recursion/linalg.py": ["representations", "proposition_3"],
    "ocpkit/solvers/first_order/pmp.py": ["pontryagin", "gradient_descent", "options"],
    "ocpkit/solvers/first_order/adjoint.py": ["stationarity", "gradient_descent", "pontryagin", "options"],
    "ocpkit/solvers/verdicts/stationarity.py": ["stationarity"],
    "ocpkit/solvers/first_order/gradient.py": ["gradient_descent", "stationarity", "options"],
    "ocpkit/solvers/ddp/run.py": ["loops", "details"],
    "ocpkit/solvers/ddp/damping.py": ["schedules", "decisions", "options", "renamed"],
    "ocpkit/solvers/ddp/line_search.py": ["schedules", "ddp", "decisions", "options", "renamed"],
    "ocpkit/solvers/constrained/run.py": [
        "compiled_augmented::test_the_outer_loops_go_the_same_way",
        "compiled_augmented::test_infeasible_problems_are_named_alike",
        "compiled_augmented::test_inner_solves_that_fail_raise_the_penalty",
        "constrained::test_a_model_that_was_finite_is_no_invalid_input_later",
        "history::test_columns_of_outer_iterations_hold_what_they_are_called",
    ],
    "ocpkit/solvers/constrained/penalty.py": ["schedules", "options", "warm_start", "constrained"],
    "ocpkit/solvers/constrained/augmented.py": [
        "augmented",
        "compiled_augmented::test_the_outer_loops_go_the_same_way",
        "compiled_augmented::test_infeasible_problems_are_named_alike",
    ],
    "ocpkit/solution/sensitivity.py": [
        "sensitivity::test_forward_is_the_difference_quotient_and_adjoint_its_transpose",
        "sensitivity::test_of_a_linear_quadratic_problem_it_is_the_closed_loop",
        "sensitivity::test_it_is_linear_down_to_the_smallest_directions",
        "sensitivity::test_only_a_converged_solution_has_a_derivative",
        "sensitivity::test_constraints_need_multipliers",
        "sensitivity::test_noise_and_solutions_without_costates_are_refused",
        "sensitivity::test_a_stationary_point_that_is_no_minimum_has_no_derivative",
        "sensitivity::test_a_direction_in_which_no_control_keeps_a_constraint",
        "sensitivity::test_wrong_directions",
    ],
    "ocpkit_nn/passes/factored.py": [
        "passes::test_implicit_recursion_is_the_dense_one",
        "passes::test_literal_formulas_beyond_one_keep_the_positive_part",
        "passes::test_a_direction_beyond_one_carries_no_curvature_upstream",
    ],
    "ocpkit_nn/passes/rank_one.py": ["passes", "separable", "optim"],
    "ocpkit_nn/passes/separable.py": ["separable", "optim::test_groups_have_options_of_their_own"],
    "ocpkit_nn/passes/dense.py": [
        "passes::test_a_batch_may_be_one_sample",
        "passes::test_recursion_by_outputs_is_that_by_controls",
        "passes::test_literal_recursion_by_outputs_is_that_by_controls",
        "passes::test_epsilon_is_not_lost_in_single_precision",
    ],
    "ocpkit_nn/passes/second_order.py": ["second_order"],
}
"""Which tests answer for which file, the likeliest to fail first: whole files, or single tests of one (file::test)."""
PRELOAD = [
    "torch",
    "casadi",
    "pytest",
    "hypothesis.strategies",
    "hypothesis.core",
    "rich.console",
    "scipy.optimize",
    "scipy.linalg.lapack",
    "numpy",
]

PMP = "ocpkit/solvers/first_order/pmp.py"
AUGMENTED = "ocpkit/solvers/constrained/augmented.py"
SENSITIVITY = "ocpkit/solution/sensitivity.py"
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (PMP, "costate @ stage.dynamics.step(x, u, p)", "stage.dynamics.step(x, u, p) @ costate"): "two vectors commute",
    (PMP, "1e-15", "2e-15"): "a tolerance of L-BFGS at the level of rounding",
    (PMP, "1e-10", "2e-10"): "a tolerance of L-BFGS, ten thousand times below what is asked of the gradient",
    ("ocpkit/solvers/first_order/adjoint.py", "0", "1"): "the driver numbers the iterations",
    ("ocpkit/solvers/first_order/adjoint.py", "0.0", "1"): "there is no V_xx that ε I could be added to",
    (
        "ocpkit/solvers/constrained/run.py",
        "measured or self._measure(states, controls)",
        "self._measure(states, controls)",
    ): "J and the violation do not depend on the multipliers that have changed in between",
    (AUGMENTED, "p_size + width", "p_size - width"): "the same place, counted from the end",
    ("ocpkit_nn/passes/factored.py", "Q.u.base.prepare()", "pass"): "forms now what would be formed when it is needed",
    (
        SENSITIVITY,
        "y + self._penalty * offset",
        "y - self._penalty * offset",
    ): "y makes up for it where there are offsets",
    (SENSITIVITY, "y + self._penalty * offset", "y"): "y makes up for it where there are offsets",
    (SENSITIVITY, "value.xx @ x", "x @ value.xx"): "V_xx is symmetric",
    (SENSITIVITY, "1e-08", "2e-08"): "only a problem without any curvature has less, and no strict minimum",
    (SENSITIVITY, "PRECISION * scale", "PRECISION / scale"): "more rounds at the level of rounding change nothing",
    (
        "ocpkit_nn/passes/rank_one.py",
        "None if trajectory.workspaces is None else trajectory.workspaces[t]",
        "None",
    ): "memory that is used again saves time, and changes no number",
}
"""(file, before, after) → why no test can tell the two apart."""


@dataclass(frozen=True)
class Mutant:
    """One change: where, what, and the whole source that has it."""

    file: str
    line: int
    before: str
    after: str
    source: str

    @property
    def excuse(self) -> str | None:
        """Why this mutant is equivalent, if it is known to be."""
        return EQUIVALENT.get((self.file, self.before, self.after))

    @property
    def verdict(self) -> str:
        """What to say of it when no test fails."""
        return f"equivalent: {self}\n    {self.excuse}" if self.excuse else f"SURVIVED: {self}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before}  →  {self.after}"


# ---- the mutants -----------------------------------------------------------------------------------------------

SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}


def alternatives(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node could wrongly have been."""
    match node:
        case ast.BinOp(left, op, right):
            if type(op) in SWAPPED:
                yield ast.BinOp(left, SWAPPED[type(op)](), right)
            if isinstance(op, (ast.Add, ast.Sub)):
                yield left
                yield right
            if isinstance(op, ast.MatMult):
                yield ast.BinOp(right, op, left)
        case ast.AugAssign(target, op, value) if type(op) in SWAPPED:
            yield ast.AugAssign(target, SWAPPED[type(op)](), value)
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield operand
        case ast.Call(ast.Name("transpose"), [matrix]) | ast.Attribute(matrix, "T"):
            yield matrix
        case ast.Compare():
            yield ast.UnaryOp(ast.Not(), node)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values)
            yield from values
        case ast.IfExp(_, body, orelse):
            yield body
            yield orelse
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant({0: 1, 1: 0}.get(value, 2 * value))
        case ast.Expr(ast.Call()) | ast.Raise() | ast.AugAssign():
            yield ast.Pass()


class Mutate(ast.NodeTransformer):
    """Apply the alternative with a given number; without a number only count them."""

    def __init__(self, target: int = -1) -> None:
        self.target, self.count, self.inside = target, 0, False
        self.change: tuple[int, str, str] | None = None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Mutate the body, not the signature, the decorators or the docstring."""
        outside, self.inside = self.inside, True
        start = 1 if ast.get_docstring(node) else 0
        node.body[start:] = [self.visit(statement) for statement in node.body[start:]]
        self.inside = outside
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for other in alternatives(node) if self.inside and self.change is None else ():
            if self.count == self.target:
                self.change = (node.lineno, first_line(node), first_line(other))  # type: ignore[attr-defined]
                return ast.copy_location(other, node)
            self.count += 1
        return node if self.change is not None else super().generic_visit(node)


def first_line(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0]


def mutants(file: str) -> list[Mutant]:
    """Return every mutant of one file."""
    text = (ROOT / file).read_text(encoding="utf-8")
    counter = Mutate()
    counter.visit(ast.parse(text))
    found = []
    for number in range(counter.count):
        mutate = Mutate(number)
        tree = mutate.visit(ast.parse(text))
        assert mutate.change is not None
        found.append(Mutant(file, *mutate.change, ast.unparse(ast.fix_missing_locations(tree))))
    return [mutant for mutant in found if mutant.before != mutant.after]


# ---- the tests -------------------------------------------------------------------------------------------------


def tests_of(file: str) -> list[str]:
    """Paths of the tests that answer for a file."""
    found = []
    for name in TESTS[file]:
        module, *test = name.split("::")
        paths = [ROOT / "tests" / folder / f"test_{module}.py" for folder in ("properties", ".", "nn")]
        found += ["::".join([str(path.relative_to(ROOT)), *test]) for path in paths if path.exists()]
    return found


def run_tests(directory: str, tests: list[str], log: str, cpu_seconds: int) -> None:
    """In a fresh process: run the tests in a copy of the repository and exit with pytest's status."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(directory)
    sys.path.insert(0, directory)
    import ocpkit

    assert Path(ocpkit.__file__).is_relative_to(directory), "the tests would not see the mutant"
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    examples = {"max_examples": 10, "derandomize": True, "database": None, "phases": [Phase.generate]}
    settings.register_profile("mutation", **examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("mutation")
    options = ["-x", "-q", "--ff", "--tb=line", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    sys.exit(pytest.main([*options, *tests]))


class Laboratory:
    """Copies of the repository, one per worker, in which mutants are tried."""

    def __init__(self, folder: Path, jobs: int, cpu_seconds: int) -> None:
        self.cpu_seconds, self.copies = cpu_seconds, queue.Queue[Path]()
        for job in range(jobs):
            home = folder / str(job)
            home.mkdir()
            shutil.copy(ROOT / "pyproject.toml", home)
            for part in ("ocpkit", "ocpkit_nn", "tests"):
                shutil.copytree(ROOT / part, home / part, ignore=shutil.ignore_patterns("__pycache__"))
            self.copies.put(home)

    def survives(self, mutant: Mutant) -> bool:
        """Whether every test of its file passes on a mutant; running on for ever counts as failing."""
        home = self.copies.get()
        target = home / mutant.file
        original = target.read_text(encoding="utf-8")
        try:
            self.put(target, mutant.source)
            arguments = (str(home), tests_of(mutant.file), str(home / "log"), self.cpu_seconds)
            process = multiprocessing.Process(target=run_tests, args=arguments)
            process.start()
            process.join()
            return process.exitcode == 0
        finally:
            self.put(target, original)
            self.copies.put(home)

    def check(self, files: list[str]) -> None:
        """Before and after all mutants: without one, the tests pass, so that it was the mutants that they noticed."""
        for file in files:
            if not self.survives(unchanged(file)):
                logs = [home / "log" for home in self.copies.queue]
                print(*(log.read_text(encoding="utf-8") for log in logs if log.exists()))
                sys.exit(f"the tests of {file} fail on the unchanged source; nothing to learn from mutants")

    @staticmethod
    def put(target: Path, source: str) -> None:
        """Write a source file and forget its bytecode, which Python would take for current within the same second."""
        target.write_text(source, encoding="utf-8")
        for stale in target.parent.glob(f"__pycache__/{target.stem}.*"):
            stale.unlink()


def unchanged(file: str) -> Mutant:
    """The source as it is."""
    return Mutant(file, 0, "", "", (ROOT / file).read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", action="append", choices=TESTS, help="file to mutate (repeatable)")
    parser.add_argument("--sample", type=int, help="try only this many mutants, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cpu-seconds", type=int, default=300, help="limit per mutant; more counts as killed")
    options = parser.parse_args()

    files = options.file or list(TESTS)
    every = [mutant for file in files for mutant in mutants(file)]
    if options.sample is not None:
        every = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    os.environ |= {"HYPOTHESIS_PROFILE": "mutation", "OMP_NUM_THREADS": "1"}
    multiprocessing.set_start_method("forkserver")
    multiprocessing.set_forkserver_preload(PRELOAD)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(Path(folder), options.jobs, options.cpu_seconds)
        laboratory.check(files)
        print(f"{len(every)} mutants; the tests of {len(files)} files pass on the unchanged source", flush=True)
        survivors = []
        with ThreadPoolExecutor(options.jobs) as workers:
            for number, (mutant, alive) in enumerate(zip(every, workers.map(laboratory.survives, every)), start=1):
                if number % 50 == 0:
                    print(f"[{number}/{len(every)}] {len(survivors)} not killed so far", flush=True)
                if alive:
                    survivors.append(mutant)
                    print(f"[{number}/{len(every)}] {mutant.verdict}", flush=True)
        laboratory.check(files)
    return report(survivors, every, time.perf_counter() - start)


def report(survivors: list[Mutant], every: list[Mutant], seconds: float) -> int:
    """Print per file how many survived, and the share killed of those that are not equivalent."""
    open_cases = [mutant for mutant in survivors if mutant.excuse is None]
    counted = len(every) - (len(survivors) - len(open_cases))
    killed = counted - len(open_cases)
    for file in dict.fromkeys(mutant.file for mutant in every):
        total, alive = (sum(m.file == file for m in group) for group in (every, open_cases))
        print(f"{file:<24} {total:>4} mutants, {alive} survived")
    print(f"killed {killed} of {counted} ({100 * killed / max(counted, 1):.1f} %) in {seconds:.0f} s")
    return 1 if open_cases else 0


if __name__ == "__main__":
    sys.exit(main())
