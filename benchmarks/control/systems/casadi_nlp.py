"""CasADi's IPOPT (MUMPS), fatrop and sqpmethod on the same Problem, as direct multiple shooting.

The program is that of `ocpkit.solvers.nlp.nlp`, with its options, but built once and called without the callback that
records the history. Settings: `expand` (scalar graphs on CasADi's virtual machine), `compiled` (functions as C,
−O1 −march=native: −O3 compiles three times as long for 5 % of the time) and, for sqpmethod (qrqp, exact Hessians),
`convexified` (eigenvalues clipped; otherwise none are). fatrop gets the stage structure from ocpkit, which is what its
own detection would find. The tolerance is 1e-6, which reaches J to better than 1e-6 of its value. Under general
constraints it is 1e-8, since 1e-6 does not always reach J, IPOPT also runs with its adaptive barrier, and sqpmethod
takes no part.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import Any

import casadi as ca

from benchmarks.control.contestant import Contestant, Outcome, Unavailable
from benchmarks.control.scratch import scratch_folder
from benchmarks.control.tasks import Task
from ocpkit.solvers.nlp.multiple_shooting import Program
from ocpkit.solvers.nlp.nlp import IPOPT, SQP, Fatrop, NLPSolver

SETTINGS: dict[str, dict[str, Any]] = {
    "expand": {"expand": True},
    "adaptive": {"expand": True},
    "convexified": {"expand": True},
    "compiled": {
        "jit": True,
        "jit_cleanup": False,
        "compiler": "shell",
        "jit_options": {"flags": ["-O1", "-march=native"], "cleanup": False},
    },
}
COMPILED_TASKS = ("pendulum", "cartpole", "quadrotor")  # elsewhere compiling takes minutes


@dataclass(frozen=True)
class Nlp:
    """One plugin with one setting."""

    label: str
    solver: NLPSolver
    setting: str
    small_only: bool = False

    @property
    def name(self) -> str:
        return f"{self.label} {self.setting}"

    def accepts(self, task: Task) -> bool:
        problem = task.problem
        small = problem.horizon * (problem.state_sizes[0] + problem.control_sizes[0]) <= 600
        if self.solver.plugin == "sqpmethod" if task.method else self.setting == "adaptive":
            return False
        return (small or not self.small_only) and (self.setting != "compiled" or task.name in COMPILED_TASKS)

    def prepare(self, task: Task) -> Contestant:
        if self.setting == "compiled" and shutil.which("gcc") is None:
            raise Unavailable("no gcc to compile CasADi's functions with")
        if not ca.has_nlpsol(self.solver.plugin):
            raise Unavailable(f"this build of CasADi has no {self.solver.plugin}")
        problem = task.problem
        program = Program(problem)
        solver = replace(self.solver, tolerance=task.tolerance)
        options = solver.options(program, int(solver.max_iterations)) | SETTINGS[self.setting]
        options["show_eval_warnings"] = False
        if self.setting == "adaptive":
            options["ipopt"]["mu_strategy"] = "adaptive"
        with scratch_folder():
            nlp = ca.nlpsol("nlp", self.solver.plugin, program.nlp, options)
        start = program.join(problem.rollout()[0], problem.controls)

        def solve() -> Outcome:
            answer = nlp(x0=start, p=program.p, **program.bounds)
            return Outcome(program.split(answer["x"].full()[:, 0])[1], int(nlp.stats()["iter_count"]))

        return Contestant(solve)


SYSTEMS = (
    Nlp("IPOPT", IPOPT(), "expand"),
    Nlp("IPOPT", IPOPT(), "adaptive"),
    Nlp("IPOPT", IPOPT(), "compiled"),
    Nlp("fatrop", Fatrop(), "expand"),
    Nlp("fatrop", Fatrop(), "compiled"),
    Nlp("sqpmethod", SQP(convexify="none"), "expand", small_only=True),
    Nlp("sqpmethod", SQP(convexify="eigen-clip"), "convexified", small_only=True),
)
